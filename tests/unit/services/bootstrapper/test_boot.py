"""A later boot begins with the artifacts: one changed bit of any, and nothing is started."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import ConstellationError, Rejected
from constellation.kube import cni, units
from constellation.services import artifacts
from constellation.services.artifact_shelf import GivenShelf
from constellation.services.bootstrapper.boot import boot_steps
from constellation.services.bootstrapper.paths import Paths
from constellation.services.steps import StepBook, run_steps
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from tests.unit.services.upgradeagent.test_agent import RECORD

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "kubelet": (ArtifactKind.BINARY, b"kubelet's bytes"),
    "content": (ArtifactKind.CONTENT, b"a squashfs of images"),
    "services": (ArtifactKind.ARCHIVE, b"a squashfs of our services"),
}
LIST = ArtifactList(kubernetes_version="v1.36.2", artifacts=()).with_artifacts(
    *(
        Artifact(
            name=name,
            kind=kind,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
        )
        for name, (kind, data) in FILES.items()
    )
)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Give a machine in a folder; what would be linked and written lies below it too."""
    for place in (units, cni):
        monkeypatch.setattr(place, "BIN_DIR", tmp_path / "bin")
    monkeypatch.setattr(units, "UNIT_DIR", tmp_path / "units")
    store = tmp_path / "host/artifacts/sha256"
    store.mkdir(parents=True)
    for _, data in FILES.values():
        (store / hashlib.sha256(data).hexdigest()).write_bytes(data)
    return Paths(
        state=tmp_path / "state",
        kubernetes=tmp_path / "kubernetes",
        kubelet=tmp_path / "kubelet",
        run=tmp_path / "run",
        host=tmp_path / "host",
    )


@pytest.mark.parametrize("name", FILES)
async def test_a_changed_bit_is_named_and_nothing_is_started(
    name: str, paths: Paths, tmp_path: Path
) -> None:
    await GivenShelf(paths.host).have(artifacts.used_by_nodes(LIST))  # the control case
    kept = paths.host / "artifacts/sha256" / hashlib.sha256(FILES[name][1]).hexdigest()
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    begun: list[str] = []

    async def notify(step: str, done: bool) -> None:
        del done
        begun.append(step)

    record = dataclasses.replace(RECORD, artifact_list=artifact_list.dump(LIST))
    steps = boot_steps(record, shelf=GivenShelf(paths.host), paths=paths)
    with pytest.raises(ConstellationError) as refused:
        await run_steps(steps, book=StepBook(tmp_path / "steps.json", kind="join"), notify=notify)
    assert isinstance(refused.value, Rejected), refused.value
    (finding,) = refused.value.findings
    assert finding.startswith(f"artifact {name}: found SHA-256"), finding
    assert kept.name in finding
    assert begun == ["artifacts"]
    assert not (tmp_path / "bin").exists()
    assert not (tmp_path / "units").exists()
