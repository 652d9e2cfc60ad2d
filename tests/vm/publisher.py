"""Whoever publishes releases, for a VM's image: a repository, and a web server with the artifacts.

The statement is signed, and what it names lies in a folder that `constellation artifacts mirror`
fills, as in docs/how-to/publish-a-release.md and serve-artifacts.md. Python's own web server serves
it: nodes trust nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.cli.world import LocalSupplies
from constellation.config.schema import Config
from constellation.crypto.signing import generate_key, spki
from constellation.image.statement import state_image
from constellation.releases.repository import LIFETIMES, ROLES, Repository, RoleKeys
from constellation.trust.release import Release, dump_release, sign_release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.image.machine import MachineFlavour
    from constellation.image.store import NodeImage
    from tests.vm.wire import Wire

__all__ = ["PORT", "publish", "web_server"]

VERSION = "0.1.0"
PORT = 8080
_LISTENS_S = 0.1


async def publish(
    folder: Path, image: NodeImage, flavour: MachineFlavour, *, cache: Path, report: Report
) -> Path:
    """Make a repository in `folder`/site with a release of this image; gives its statement."""
    usual = Config.model_validate({"provider": {"local": {}}})
    listed = await LocalSupplies(cache=cache).artifacts(usual, report=report)
    key = generate_key()
    release = Release(
        format=1,
        version=VERSION,
        created=int(clock.now().timestamp()),
        images=(state_image(image, provider=flavour.provider, variant=flavour.variant),),
        services_bundle=listed.get("services").sha256,
        kubernetes={listed.kubernetes_version: listed},
        minimum_version=VERSION,
        withdrawn=(),
    )
    repository = Repository(
        folder=folder / "site", keys=(key,), now=clock.now(), lifetimes=dict(LIFETIMES)
    )
    public_key = spki(key.public_key())
    repository.create({r: RoleKeys(public_keys=(public_key,), threshold=1) for r in ROLES})
    statement = folder / f"{VERSION}.json"
    await asyncio.to_thread(statement.write_bytes, dump_release(release))
    data = await asyncio.to_thread(statement.read_bytes)
    repository.publish(data, sign_release(data, key))
    return statement


@contextlib.asynccontextmanager
async def web_server(wire: Wire, folder: Path, *, log: Path) -> AsyncIterator[None]:
    """Serve a folder at the namespace's 127.0.0.1, `PORT`; ends with the block."""
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL"),
            *wire.enter(sys.executable, "-I", "-m", "http.server", "--bind", "127.0.0.1"),
            *("--directory", str(folder), str(PORT)),
            stdin=asyncio.subprocess.DEVNULL, stdout=written, stderr=written,
        )  # fmt: skip
    try:
        await asyncio.sleep(_LISTENS_S)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
