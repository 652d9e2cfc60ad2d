"""Have what the tests need before they start: a few programs, artifacts, node image, tools."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys

from constellation.cli.output import Steps
from constellation.cli.world import LocalSupplies, ensure_artifacts
from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.config.workspace import cache_folder

PROGRAMS = {  # what only tests use: program -> Debian package
    "busybox": "busybox-static",  # a user's image
    "ip": "iproute2",  # namespaces of the network tests
    "nft": "nftables",
    "tcpdump": "tcpdump",  # what crosses the wire
    "wireguard-go": "wireguard-go",
    "sudo": "sudo",  # an ordinary user's `mini up`
}


def install() -> None:
    """Install the programs that are missing; nothing is asked where all are there."""
    missing = sorted({p for name, p in PROGRAMS.items() if shutil.which(name) is None})
    if not missing:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (("update", "-q"), ("install", "-q", "-y", "--no-install-recommends", *missing)):
        subprocess.run(["apt-get", *words], check=True, env=environment, stdin=subprocess.DEVNULL)


async def main() -> None:
    """Build or fetch everything that a local cluster is made of."""
    cache = cache_folder()
    with Steps() as steps:
        await ensure_artifacts(DEFAULT_KUBERNETES_VERSION, cache=cache, report=steps.report)
        await LocalSupplies(cache=cache).node_image(report=steps.report)


if __name__ == "__main__":
    install()
    sys.exit(asyncio.run(main()))
