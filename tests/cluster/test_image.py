"""The node image and the services bundle, really built: byte-equal, and no part twice."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from constellation.base import proc
from constellation.base.progress import Progress, silent
from constellation.base.tools_root import command
from constellation.config.workspace import cache_folder
from constellation.image.build import (
    ensure_node_image,
    ensure_services_bundle,
    ensure_tools_root,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another cache with the same downloads, key and release root; another umask and time zone."""
    own = cache_folder()
    other = tmp_path / "another place"
    for name in ("image/apt-node", "image/apt-tools", "image/wheels", "keys", "releases"):
        shutil.copytree(own / name, other / name)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    yield other
    os.umask(before)


async def test_a_second_build_elsewhere_is_byte_equal(elsewhere: Path) -> None:
    for ensure in (ensure_node_image, ensure_services_bundle):
        for _attempt in range(3):
            first = await ensure(cache_folder(), silent)
            second = await ensure(elsewhere, silent)
            # versions name all inputs: they differ only if a source was edited in between
            if first.manifest.version == second.manifest.version:
                break
        assert second.path != first.path
        assert second.manifest == first.manifest
        assert second.path.read_bytes() == first.path.read_bytes()


async def test_with_its_base_in_the_cache_only_an_image_s_file_system_is_written_again() -> None:
    image = await ensure_node_image(cache_folder(), silent)
    shutil.rmtree(image.path.parent)
    said: list[Progress] = []
    again = await ensure_node_image(cache_folder(), said.append)
    assert [p.detail for p in said] == ["writing the file system", image.manifest.version]
    assert again.manifest.sha256 == image.manifest.sha256


@pytest.mark.parametrize(
    ("program", "argument"),
    [
        ("swtpm", "--version"),
        ("haproxy", "-v"),
        ("nft", "--version"),
        ("sqfstar", "-version"),
        ("mkfs.ext4", "-V"),
        ("systemd-nspawn", "--version"),
        ("tpm2", "--version"),
        ("ip", "-V"),
    ],
)
async def test_programs_of_the_tools_root_run_on_this_host(program: str, argument: str) -> None:
    root = await ensure_tools_root(cache_folder(), silent)
    found = await proc.run(*command(root, program), argument, timeout_s=20)
    assert found.stdout or found.stderr
