"""Have what the tests need before they start: artifacts, node image, tools; each step is timed."""

from __future__ import annotations

import asyncio
import sys

from constellation.cli.output import Steps
from constellation.cli.world import LocalSupplies, ensure_artifacts
from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.config.workspace import cache_folder


async def main() -> None:
    """Build or fetch everything that a local cluster is made of."""
    cache = cache_folder()
    with Steps() as steps:
        await ensure_artifacts(DEFAULT_KUBERNETES_VERSION, cache=cache, report=steps.report)
        await LocalSupplies(cache=cache).node_image(report=steps.report)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
