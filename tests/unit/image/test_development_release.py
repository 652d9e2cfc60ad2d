"""The release of what this machine built: numbered, signed by its own key, fresh, pinned."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.image.development_release import (
    ensure_development_release,
    ensure_development_repository,
)
from constellation.image.manifest import Manifest
from constellation.image.store import NodeImage
from constellation.releases.site import Site, fetch_chain
from constellation.trust.release_chain import NOTHING_SEEN, VerifiedRelease, verify_chain
from tests.fakes.release_world import NOW, artifacts, digest

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


def built(text: str, registers: dict[int, tuple[str, ...]]) -> NodeImage:
    manifest = Manifest(
        name="constellation-node-local",
        version="0.1.0+x",
        sha256=digest(text),
        size_bytes=7,
        build_time=1000,
        debs=(),
        wheels=(),
        reference_values=registers,
    )
    return NodeImage(
        path=None,  # type: ignore[arg-type] # not read
        manifest_path=None,  # type: ignore[arg-type] # not read
        manifest=manifest,
        release_public_key=b"",
    )


def have(cache: Path, image: str, *, now: datetime = NOW) -> str:
    return ensure_development_release(
        ensure_development_repository(cache, now=now),
        image=built(image, {4: (digest(image),)}),
        services=built("services", {}),
        kubernetes={"v1.36.2": artifacts("v1.36.2", services="services")},
    )


async def seen_from(cache: Path, pinned_root: bytes, *, now: datetime = NOW) -> VerifiedRelease:
    place = str(cache / "releases" / "development")
    chain = await fetch_chain(Site(place=place), pinned_root=pinned_root, version=None)
    return verify_chain(chain, pinned_root=pinned_root, seen=NOTHING_SEEN, now=now)


async def test_what_was_built_is_a_release_that_the_pinned_root_leads_to(tmp_path: Path) -> None:
    root = ensure_development_repository(tmp_path, now=NOW).pinned_root
    assert have(tmp_path, "a") == "0.1.0-dev.1"
    found = (await seen_from(tmp_path, root)).release
    assert found.images[0].reference[0].registers == {4: (digest("a"),)}


async def test_the_same_again_is_the_same_release_and_a_change_the_next(tmp_path: Path) -> None:
    root = ensure_development_repository(tmp_path, now=NOW).pinned_root
    assert [have(tmp_path, "a"), have(tmp_path, "a"), have(tmp_path, "b")] == [
        "0.1.0-dev.1",
        "0.1.0-dev.1",
        "0.1.0-dev.2",
    ]
    assert ensure_development_repository(tmp_path, now=NOW).pinned_root == root
    assert (await seen_from(tmp_path, root)).offered == ("0.1.0-dev.2", "0.1.0-dev.1")


async def test_metadata_is_renewed_before_it_expires(tmp_path: Path) -> None:
    root = ensure_development_repository(tmp_path, now=NOW).pinned_root
    have(tmp_path, "a")
    for days in range(0, 40, 10):
        now = NOW + timedelta(days=days)
        have(tmp_path, "a", now=now)
        await seen_from(tmp_path, root, now=now)


def test_a_repository_of_a_key_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    before = ensure_development_repository(tmp_path, now=NOW).pinned_root
    (tmp_path / "keys" / "release-development.pem").unlink()
    after = ensure_development_repository(tmp_path, now=NOW)
    assert before != after.pinned_root
    assert have(tmp_path, "a") == "0.1.0-dev.1"
