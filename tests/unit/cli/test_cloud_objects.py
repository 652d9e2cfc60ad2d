"""`release create --cloud-objects`: what a publisher adds is checked before it is stated."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Rejected, UserError
from constellation.cli.releases import Parts, with_cloud_objects
from constellation.trust.artifact_list import ArtifactKind, ArtifactList, dump, parse
from tests.fakes import cloud_objects

if TYPE_CHECKING:
    from pathlib import Path

LISTS = {v: ArtifactList(kubernetes_version=v, artifacts=()) for v in ("v1.36.1", "v1.36.2")}
PARTS = Parts(image=None, services=None, kubernetes=LISTS)  # type: ignore[arg-type] # not looked at


def test_every_version_of_kubernetes_gets_the_objects_by_digest(tmp_path: Path) -> None:
    data = cloud_objects.dump(cloud_objects.objects())
    (tmp_path / "aws.json").write_bytes(data)
    made = with_cloud_objects(PARTS, [f"aws={tmp_path / 'aws.json'}"], cache=tmp_path / "cache")
    digest = hashlib.sha256(data).hexdigest()
    for listed in made.kubernetes.values():
        (artifact,) = parse(dump(listed)).of_kind(ArtifactKind.OBJECTS)
        assert (artifact.name, artifact.sha256) == ("cloud/aws", digest)
    assert (tmp_path / "cache/sha256" / digest).read_bytes() == data
    assert with_cloud_objects(PARTS, (), cache=tmp_path) == PARTS


def test_what_may_not_run_is_in_no_release(tmp_path: Path) -> None:
    items = cloud_objects.objects()
    items[-1]["spec"]["template"]["spec"]["hostPID"] = True
    (tmp_path / "aws.json").write_bytes(cloud_objects.dump(items))
    with pytest.raises(Rejected):
        with_cloud_objects(PARTS, [f"aws={tmp_path / 'aws.json'}"], cache=tmp_path / "cache")
    (tmp_path / "aws.json").write_bytes(b"kind: List")
    with pytest.raises(FormatError):
        with_cloud_objects(PARTS, [f"aws={tmp_path / 'aws.json'}"], cache=tmp_path / "cache")
    assert not (tmp_path / "cache/sha256").exists()


@pytest.mark.parametrize("word", ["aws", "=x", "mars=x", "aws="])
def test_words_that_are_none_are_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected PROVIDER=FILE"):
        with_cloud_objects(PARTS, [word], cache=tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        with_cloud_objects(PARTS, [f"gcp={tmp_path / 'none'}"], cache=tmp_path)
