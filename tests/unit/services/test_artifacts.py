"""No byte of an artifact is used that is not in the list."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Rejected, Unavailable
from constellation.services import artifacts
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"kubelet": b"kubelet's bytes", "ptp": b"a plugin's bytes"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "sha256").mkdir()
    for data in FILES.values():
        (tmp_path / "sha256" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    return tmp_path


def listed() -> ArtifactList:
    return ArtifactList(kubernetes_version="v1.36.2", artifacts=()).with_artifacts(
        *(
            Artifact(
                name=name,
                kind=ArtifactKind.BINARY,
                sha256=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
            )
            for name, data in FILES.items()
        )
    )


async def test_programs_and_plugins_are_linked_after_they_were_checked(
    store: Path, tmp_path: Path
) -> None:
    await artifacts.check_all(artifacts.used_by_nodes(listed()), store=store)
    programs, plugins = tmp_path / "bin", tmp_path / "cni"
    for _ in range(2):
        artifacts.link_programs(listed(), store=store, programs=programs, plugins=plugins)
    assert (programs / "kubelet").read_bytes() == FILES["kubelet"]
    assert (plugins / "ptp").read_bytes() == FILES["ptp"]
    assert not (programs / "ptp").exists()


@pytest.mark.parametrize("damaged", [b"Kubelet's bytes", b"kubelet's bytes and more", b""])
async def test_a_changed_artifact_is_refused_by_name(store: Path, damaged: bytes) -> None:
    wanted = hashlib.sha256(FILES["kubelet"]).hexdigest()
    (store / "sha256" / wanted).write_bytes(damaged)
    with pytest.raises(Rejected, match=f"artifact kubelet: found SHA-256 .*expected {wanted}"):
        await artifacts.check_all(artifacts.used_by_nodes(listed()), store=store)


async def test_a_missing_artifact_is_named(store: Path) -> None:
    (store / "sha256" / hashlib.sha256(FILES["ptp"]).hexdigest()).unlink()
    with pytest.raises(Unavailable, match="artifact ptp"):
        await artifacts.check_all(artifacts.used_by_nodes(listed()), store=store)


@pytest.mark.parametrize("damaged", [b"Kubelet's bytes", b"kubelet's bytes and more", b""])
def test_a_small_file_is_read_once_and_judged_by_what_was_read(store: Path, damaged: bytes) -> None:
    artifact = listed().get("kubelet")
    read = artifacts.read_checked(artifact, store=store, max_bytes=100)
    assert read == FILES["kubelet"]
    with pytest.raises(Rejected, match="artifact kubelet"):
        artifacts.read_checked(artifact, store=store, max_bytes=3)
    (store / "sha256" / artifact.sha256).write_bytes(damaged)
    with pytest.raises(Rejected, match="artifact kubelet: found SHA-256"):
        artifacts.read_checked(artifact, store=store, max_bytes=100)


def test_a_bundle_that_the_machine_did_not_mount_is_not_read_from_somewhere_else(
    tmp_path: Path,
) -> None:
    bundle = Artifact(
        name="services", kind=ArtifactKind.ARCHIVE, sha256=hashlib.sha256(b"x").hexdigest(),
        size_bytes=1,
    )  # fmt: skip
    (tmp_path / "mounted" / bundle.sha256).mkdir(parents=True)
    with pytest.raises(Unavailable, match="not mounted"):
        artifacts.mounted(bundle, host=tmp_path)
