from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import Unavailable
from constellation.base.proc import Failed
from constellation.base.progress import Progress, silent
from constellation.releases import source
from constellation.releases.recipes import NODE_PROGRAMS, image_recipes, recipes
from constellation.releases.store import Store
from tests.fakes.toolchain import WHEEL, install_toolchain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.lock import LockedArtifact

VERSION = "v1.36.2"


class Workshop:
    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.home = install_toolchain(self.cache)
        self.modules = folder / "modules"
        for recipe in recipes(VERSION):
            (self.modules / recipe.folder).mkdir(parents=True)

    async def build(
        self, expected: Mapping[str, LockedArtifact] | None, report: Report = silent
    ) -> dict[str, LockedArtifact]:
        return await source.build(
            VERSION,
            modules=self.modules,
            wheel=WHEEL,
            expected=expected,
            store=Store(self.cache),
            report=report,
        )

    def calls(self) -> list[str]:
        file = self.home / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


async def test_every_program_and_image_is_made_and_named(workshop: Workshop) -> None:
    made = await workshop.build(None)
    assert set(NODE_PROGRAMS) <= made.keys()
    assert {image.reference for image in image_recipes(VERSION)} <= made.keys()
    assert all(Store(workshop.cache).has(a.sha256, size_bytes=a.size_bytes) for a in made.values())


async def test_what_is_finished_is_not_built_again(workshop: Workshop) -> None:
    locked = await workshop.build(None)
    before = len(workshop.calls())
    assert await workshop.build(locked) == locked
    assert len(workshop.calls()) == before


async def test_only_the_damaged_program_is_built_again(workshop: Workshop) -> None:
    locked = await workshop.build(None)
    before = len(workshop.calls())
    damaged = Store(workshop.cache).path(locked["kubelet"].sha256)
    damaged.chmod(0o755)
    damaged.write_bytes(b"something else")
    assert await workshop.build(locked) == locked
    new = workshop.calls()[before:]
    assert [call.split()[-1] for call in new] == ["k8s.io/kubernetes/cmd/kubelet"] * 2


async def test_another_digest_than_the_locks_is_refused_by_name_and_not_kept(
    workshop: Workshop,
) -> None:
    locked = await workshop.build(None)
    honest = Store(workshop.cache).path(locked["coredns"].sha256)
    honest.unlink()
    (workshop.home / "extra").write_text("backdoor")
    stored = sorted(path.name for path in honest.parent.iterdir())
    with pytest.raises(WrongDigest, match="coredns: SHA-256 expected") as caught:
        await workshop.build(locked)
    assert caught.value.expected == locked["coredns"].sha256 != caught.value.found
    assert sorted(path.name for path in honest.parent.iterdir()) == stored
    assert not list(workshop.cache.glob(".staging-*"))


async def test_a_program_without_an_entry_in_the_lock_is_not_built(workshop: Workshop) -> None:
    with pytest.raises(Unavailable, match="kube-apiserver: the lock has no digest"):
        await workshop.build({})
    assert workshop.calls() == []


async def test_a_failed_build_says_what_the_compiler_said(workshop: Workshop) -> None:
    (workshop.home / "fail").touch()
    with pytest.raises(Failed, match="out of memory"):
        await workshop.build(None)


async def test_progress_counts_packages(workshop: Workshop) -> None:
    told: list[Progress] = []
    await workshop.build(None, told.append)
    counted = [p for p in told if p.step == f"Build kubernetes-{VERSION}" and p.unit == "packages"]
    assert (counted[-1].done, counted[-1].total, counted[-1].finished) == (7, 7, True)
