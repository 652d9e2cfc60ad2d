from __future__ import annotations

import dataclasses
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import FormatError
from constellation.base.fetch import HttpStatus
from constellation.base.progress import Progress, silent
from constellation.releases import official
from constellation.releases.recipes import NODE_PROGRAMS
from constellation.releases.store import Store
from tests.fakes.origin_server import origin_server
from tests.fakes.release_site import ReleaseSite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.lock import LockedArtifact

PAUSE = "registry.k8s.io/pause:3.10.2"


@pytest.fixture
async def site() -> AsyncIterator[ReleaseSite]:
    async with origin_server() as server, origin_server() as storage:
        yield ReleaseSite(server, storage, "v1.36.2")


async def _fetch(
    site: ReleaseSite, cache: Path, report: Report = silent
) -> dict[str, LockedArtifact]:
    return await official.fetch(
        site.wanted, origins=site.origins, store=Store(cache), report=report
    )


async def test_programs_come_out_of_files_archives_and_images(
    site: ReleaseSite, tmp_path: Path
) -> None:
    made = await _fetch(site, tmp_path)
    store = Store(tmp_path)
    assert set(NODE_PROGRAMS) <= made.keys()
    assert store.path(made["kubelet"].sha256).read_bytes() == b"program kubelet"
    assert store.path(made["ctr"].sha256).read_bytes() == b"#!ctr"
    # the upper layer's
    assert store.path(made["kube-proxy"].sha256).read_bytes() == b"new"
    assert not (tmp_path / "downloads").exists()


async def test_an_image_becomes_a_layout_with_the_published_manifest(
    site: ReleaseSite, tmp_path: Path
) -> None:
    made = await _fetch(site, tmp_path)
    with tarfile.open(Store(tmp_path).path(made[PAUSE].sha256)) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
        names = tar.getnames()
    assert entry["annotations"]["io.containerd.image.name"] == PAUSE
    digest = entry["digest"]
    assert f"blobs/{digest.replace(':', '/')}" in names
    assert f"/registry/v2/pause/manifests/{digest}" in site.server.files


async def test_two_caches_hold_the_same_bytes(site: ReleaseSite, tmp_path: Path) -> None:
    assert await _fetch(site, tmp_path / "a") == await _fetch(site, tmp_path / "b")


async def test_the_token_goes_to_the_registry_only(site: ReleaseSite, tmp_path: Path) -> None:
    await _fetch(site, tmp_path)
    with_token = {p for p, headers in site.server.requests if "authorization" in headers}
    assert with_token
    assert all(path.startswith("/registry/v2/") for path in with_token)
    assert site.storage.requests
    assert not [path for path, headers in site.storage.requests if "authorization" in headers]
    assert any(path.startswith("/token?service=fake&scope=pull") for path in site.server.paths())


async def test_a_warm_cache_asks_nobody(site: ReleaseSite, tmp_path: Path) -> None:
    made = await _fetch(site, tmp_path)
    assert official.recorded(site.wanted, store=Store(tmp_path)) == made


async def test_a_damaged_file_makes_the_cache_cold(site: ReleaseSite, tmp_path: Path) -> None:
    made = await _fetch(site, tmp_path)
    path = Store(tmp_path).path(made["kubelet"].sha256)
    path.chmod(0o755)
    path.write_bytes(b"damaged")
    assert official.recorded(site.wanted, store=Store(tmp_path)) is None
    assert await _fetch(site, tmp_path) == made


async def test_one_flipped_byte_of_a_file_is_refused_by_name(
    site: ReleaseSite, tmp_path: Path
) -> None:
    site.server.files["/dl/kubelet"] = b"program kubelex"
    with pytest.raises(WrongDigest, match="/dl/kubelet: SHA-256 expected"):
        await _fetch(site, tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"kubelex" in p.read_bytes()]


@pytest.mark.parametrize("part", ["index", "manifest", "config", "layer"])
async def test_one_flipped_byte_anywhere_in_an_image_is_refused(
    site: ReleaseSite, tmp_path: Path, part: str
) -> None:
    paths = {
        "index": lambda p, b: p.startswith("/registry/v2/pause/manifests/") and b"manifests" in b,
        "manifest": lambda p, b: p.startswith("/registry/v2/pause/manifests/") and b"layers" in b,
        "config": lambda p, b: p.startswith("/storage/") and b"/pause:" in b,
        "layer": lambda p, b: p.startswith("/storage/") and b[:2] == b"\x1f\x8b",
    }
    for server in (site.server, site.storage):
        for path, body in tuple(server.files.items()):
            if paths[part](path, body):
                server.files[path] = body[:-1] + bytes([body[-1] ^ 1])
    with pytest.raises(WrongDigest):
        await _fetch(site, tmp_path)


async def test_an_interrupted_download_goes_on(
    site: ReleaseSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "_FIRST_PAUSE_S", 0.01)
    site.server.breaks["/dl/kubelet"] = 3
    await _fetch(site, tmp_path)
    asked = [h.get("range") for p, h in site.server.requests if p == "/dl/kubelet"]
    assert asked == [None, "bytes=3-"]


async def test_what_is_not_there_is_not_asked_for_again(site: ReleaseSite, tmp_path: Path) -> None:
    del site.server.files["/dl/kubelet"]
    with pytest.raises(HttpStatus, match="status 404"):
        await _fetch(site, tmp_path)
    assert site.server.paths().count("/dl/kubelet") == 1


async def test_an_archive_without_a_program_is_refused(site: ReleaseSite, tmp_path: Path) -> None:
    *others, archive = site.wanted.files
    more = dataclasses.replace(archive, programs={**archive.programs, "bin/runc": "runc"})
    site.wanted = dataclasses.replace(site.wanted, files=(*others, more))
    with pytest.raises(FormatError, match="no bin/runc in it"):
        await _fetch(site, tmp_path)


async def test_bytes_are_reported(site: ReleaseSite, tmp_path: Path) -> None:
    told: list[Progress] = []
    await _fetch(site, tmp_path, told.append)
    size = len(b"program kubelet")
    assert Progress(step="Download kubelet", done=size, total=size, unit="bytes") in told


async def test_origins_that_answer_are_told_from_those_that_do_not(site: ReleaseSite) -> None:
    assert await official.answers(site.wanted, origins=site.origins)
    nobody = official.Origins(moved=dict.fromkeys(site.origins.moved, "http://127.0.0.1:1"))
    assert not await official.answers(site.wanted, origins=nobody)
    site.server.statuses["/registry/v2/"] = 503
    assert not await official.answers(site.wanted, origins=site.origins)
