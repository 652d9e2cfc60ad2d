"""A node outside the local cloud mounts a squashfs that it fetched: real server, real mount."""

from __future__ import annotations

from pathlib import Path

import pytest

from constellation.base.errors import Unavailable
from constellation.base.proc import run
from constellation.base.progress import silent
from constellation.base.tools_root import command
from constellation.config.workspace import cache_folder
from constellation.image.tools import ensure_tools_root
from constellation.services.artifact_shelf import FetchedShelf
from constellation.trust.artifact_list import ArtifactKind
from constellation.trust.artifact_sources import parse_sources
from tests.fakes.file_servers import artifact_of, door_to, file_server

pytestmark = pytest.mark.cluster


async def test_what_was_fetched_is_mounted_read_only(tmp_path: Path) -> None:
    root = await ensure_tools_root(cache_folder(), silent)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "unit").write_text("a unit")
    image = tmp_path / "image"
    pack = command(root, "mksquashfs")
    await run(*pack, tree, image, "-quiet", "-no-progress", timeout_s=60)
    data = image.read_bytes()
    bundle = artifact_of(data, "services", ArtifactKind.ARCHIVE)
    junk = artifact_of(b"no file system", "junk", ArtifactKind.ARCHIVE)
    async with file_server() as server:
        server.add(data, b"no file system")
        shelf = FetchedShelf(
            tmp_path / "disk", mounts=tmp_path / "mounts", sources=parse_sources((server.url,)),
            door=door_to(),
        )  # fmt: skip
        await shelf.have((bundle, junk))
        place = await shelf.mounted(bundle)
        try:
            assert (place / "unit").read_text() == "a unit"
            assert await shelf.mounted(bundle) == place, "again: it is mounted already"
            with pytest.raises(OSError, match="Read-only"):
                (place / "unit").write_text("another")
            (line,) = (m for m in _mounts() if str(place) in m)
            assert " ro,nodev" in line
        finally:
            await run("umount", place, timeout_s=10)
        with pytest.raises(Unavailable, match="mount ended with"):
            await shelf.mounted(junk)


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()
