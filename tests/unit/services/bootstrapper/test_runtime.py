"""A step that is repeated in the same boot leaves alone what runs: containerd is not restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.kube import containerd, units
from constellation.services.bootstrapper.runtime import start_containerd
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONTENT = Artifact(name="content", kind=ArtifactKind.CONTENT, sha256="ab" * 32, size_bytes=8)
LIST = ArtifactList(kubernetes_version="v1.36.2", artifacts=(CONTENT,))


class Mounted:
    """A shelf whose content lies in a folder."""

    def __init__(self, store: Path) -> None:
        self.store = store

    async def have(self, wanted: Iterable[Artifact]) -> None:
        """Have all of it."""

    async def mounted(self, artifact: Artifact) -> Path:
        """Give the folder."""
        assert artifact == CONTENT
        return self.store


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of a machine whose service manager writes down what it is told; gives its log."""
    for name in ("ROOT", "CONFIG", "HOSTS"):
        monkeypatch.setattr(containerd, name, tmp_path / name.lower())
    monkeypatch.setattr(units, "BIN_DIR", tmp_path / "bin")
    (tmp_path / "bin").mkdir()
    log = tmp_path / "told"
    for name, does in (("systemctl", f'echo "$@" >> {log}'), ("ctr", "exit 0")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return log


async def test_a_repeated_step_does_not_restart_containerd(told: Path) -> None:
    content = told.parent / "content"
    for folder in (containerd.SNAPSHOTS, containerd.BLOBS):
        (content / folder).mkdir(parents=True)
    for database in containerd.content_plan((), ()).copy:
        (content / database).parent.mkdir(parents=True, exist_ok=True)
        (content / database).write_bytes(b"database")
    for _ in range(2):
        await start_containerd(LIST, shelf=Mounted(content))
    assert told.read_text().splitlines() == ["start containerd.service"] * 2
    assert containerd.CONFIG.exists()
