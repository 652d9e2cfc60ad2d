from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import Conflict, UserError
from constellation.base.files import lock
from constellation.base.progress import Progress, silent
from constellation.releases import content, mirror, official, source
from constellation.releases import lock as locks
from constellation.releases.lock import Lock, VersionLock
from constellation.releases.recipes import NODE_PROGRAMS, image_recipes
from constellation.releases.store import Store
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactKind, ArtifactList
from tests.fakes.origin_server import origin_server
from tests.fakes.release_site import ReleaseSite
from tests.fakes.toolchain import WHEEL, install_toolchain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

VERSION = "v1.36.2"
NOWHERE = official.Origins(
    moved=dict.fromkeys(("dl.k8s.io", "registry.k8s.io"), "http://127.0.0.1:1")
)


class World:
    """A release site, a fake toolchain in a cache, and the lock that fits both."""

    def __init__(self, folder: Path, site: ReleaseSite) -> None:
        self.cache = folder / "cache"
        self.site = site
        self.home = install_toolchain(self.cache)
        self.told: list[Progress] = []
        self.lock: Lock

    async def measure(self, scratch: Path) -> None:
        install_toolchain(scratch)
        made = await source.build(
            VERSION,
            modules=locks.artifacts_folder(),
            wheel=WHEEL,
            expected=None,
            store=Store(scratch),
            report=silent,
        )
        part = dataclasses.replace(self.site.wanted, source=made)
        empty = VersionLock(source={}, files=(), images=())
        self.lock = Lock(schema=1, toolchain=WHEEL, shared=empty, versions={VERSION: part})

    async def ensure(self, origin: str, **changes: Any) -> ArtifactList:
        wanted: dict[str, Any] = {"content": False, "origins": self.site.origins}
        return await mirror.ensure(
            VERSION, origin=origin, cache=self.cache, report=self.told.append,
            packaged=self.lock, **(wanted | changes),
        )  # fmt: skip

    def built(self) -> bool:
        return (self.home / "calls").exists()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with origin_server() as server, origin_server() as storage:
        made = World(tmp_path, ReleaseSite(server, storage, VERSION))
        await made.measure(tmp_path / "scratch")
        yield made


@pytest.mark.parametrize("origin", ["source", "official"])
async def test_either_origin_gives_every_artifact_by_its_digest(world: World, origin: str) -> None:
    made = await world.ensure(origin)
    assert [a.name for a in made.of_kind(ArtifactKind.BINARY)] == sorted(NODE_PROGRAMS)
    assert {a.name for a in made.of_kind(ArtifactKind.IMAGE)} == {
        image.reference for image in image_recipes(VERSION)
    }
    store = Store(world.cache)
    assert all(store.has(a.sha256, size_bytes=a.size_bytes) for a in made.artifacts)
    assert store.verify() == ()
    assert artifact_list.parse(artifact_list.dump(made)) == made
    assert world.built() == (origin == "source")


async def test_a_published_program_names_its_url(world: World) -> None:
    made = await world.ensure("official")
    assert made.get("kubelet").urls == ("https://dl.k8s.io/kubelet",)
    assert made.get("ctr").urls == ()


@pytest.mark.parametrize("origin", ["source", "official", "auto"])
async def test_a_warm_cache_needs_nobody(world: World, origin: str) -> None:
    first = await world.ensure(origin)
    asked, told = len(world.site.server.requests), len(world.told)
    assert await world.ensure(origin, origins=NOWHERE) == first
    assert len(world.site.server.requests) == asked
    assert len(world.told) == told


async def test_auto_takes_the_official_origin_where_it_answers(world: World) -> None:
    await world.ensure("auto")
    assert not world.built()


async def test_auto_builds_where_nobody_answers(world: World) -> None:
    await world.ensure("auto", origins=NOWHERE)
    assert world.built()


async def test_auto_builds_what_an_origin_stops_giving_and_says_so(world: World) -> None:
    del world.site.server.files["/dl/kubectl"]
    await world.ensure("auto")
    assert world.built()
    assert [p for p in world.told if "status 404; building instead" in p.detail]


async def test_auto_does_not_go_around_a_wrong_digest(world: World) -> None:
    world.site.server.files["/dl/kubectl"] = b"program kubectx"
    with pytest.raises(WrongDigest, match="kubectl"):
        await world.ensure("auto")
    assert not world.built()


async def test_the_official_origin_alone_is_not_replaced(world: World) -> None:
    del world.site.server.files["/dl/kubectl"]
    with pytest.raises(official.HttpStatus):
        await world.ensure("official")
    assert not world.built()


async def test_a_damaged_cache_is_healed(world: World) -> None:
    made = await world.ensure("source")
    path = Store(world.cache).path(made.get("kubelet").sha256)
    path.chmod(0o755)
    path.write_bytes(b"damaged")
    assert await mirror.verify_cache(world.cache) == (made.get("kubelet").sha256,)
    assert await world.ensure("source") == made
    assert await mirror.verify_cache(world.cache) == ()


async def test_two_at_once_are_kept_apart(world: World) -> None:
    with (
        lock(world.cache / "mirror.lock", what="it"),
        pytest.raises(Conflict, match="the artifact cache is in use"),
    ):
        await world.ensure("source")


async def test_what_a_killed_run_left_is_removed(world: World) -> None:
    left = world.cache / ".staging-abc"
    left.mkdir()
    await world.ensure("source")
    assert not left.exists()


async def test_unknown_words_are_refused_with_what_is_known(world: World) -> None:
    with pytest.raises(UserError, match="origin 'elsewhere' is unknown"):
        await world.ensure("elsewhere")
    with pytest.raises(UserError, match=r"v1\.2\.3 is not supported"):
        await mirror.ensure("v1.2.3", cache=world.cache, report=silent, packaged=world.lock)


async def test_making_content_needs_root(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="needs root"):
        await world.ensure("source", content=True)


async def test_root_runs_nothing_that_was_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.ensure("source")
    path = Store(world.cache).path(made.get("containerd").sha256)
    before = path.stat()
    path.chmod(0o755)
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(content.os, "geteuid", lambda: 0)
    monkeypatch.setattr(content.os, "chown", lambda *_: None)
    with pytest.raises(WrongDigest, match="containerd: SHA-256"):
        await world.ensure("source", content=True)


async def test_content_that_was_made_before_is_in_the_list(world: World) -> None:
    made = await world.ensure("source")
    store = Store(world.cache)
    with store.staging() as folder:
        (folder / "squashfs").write_bytes(b"hsqs")
        sha256, size = store.put(folder / "squashfs", name=content.NAME, expected=None)
    content._record(made, store=store, sha256=sha256, size_bytes=size)
    found = await world.ensure("source", content=True)
    assert found.get(content.NAME).sha256 == sha256
    store.path(sha256).unlink()
    assert content.recorded_content(made, store=store) is None


def test_supported_versions_begin_with_the_newest() -> None:
    versions = mirror.supported_versions()
    assert versions[0] == VERSION
