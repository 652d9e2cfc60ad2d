from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import FormatError
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList, dump, parse


def _artifact(name: str, **changes: Any) -> Artifact:
    whole = Artifact(name=name, kind=ArtifactKind.BINARY, sha256="ab" * 32, size_bytes=1)
    return dataclasses.replace(whole, **changes)


IMAGE = _artifact("registry.k8s.io/coredns/coredns:v1.14.2", kind=ArtifactKind.IMAGE)
LIST = ArtifactList(kubernetes_version="v1.36.2", artifacts=()).with_artifacts(
    IMAGE, _artifact("kubelet"), _artifact("ctr")
)


def test_a_list_comes_back_as_it_was_written() -> None:
    assert parse(dump(LIST)) == LIST
    assert [a.name for a in LIST.artifacts] == ["ctr", "kubelet", IMAGE.name]


def test_artifacts_are_found_by_name_and_kind() -> None:
    assert LIST.get("kubelet").name == "kubelet"
    assert LIST.of_kind(ArtifactKind.IMAGE) == (IMAGE,)
    with pytest.raises(FormatError, match="no kubeadm"):
        LIST.get("kubeadm")


def test_a_new_artifact_takes_the_place_of_its_namesake() -> None:
    changed = LIST.with_artifacts(_artifact("kubelet", size_bytes=7))
    assert changed.get("kubelet").size_bytes == 7
    assert len(changed.artifacts) == 3


@pytest.mark.parametrize(
    ("artifacts", "why"),
    [
        ((_artifact("b"), _artifact("a")), "not sorted"),
        ((_artifact("a"), _artifact("a", kind=ArtifactKind.IMAGE)), "twice"),
        ((_artifact("../a"),), "is not a name"),
        ((_artifact("a/../b"),), "is not a name"),
        ((_artifact("/a"),), "is not a name"),
        ((_artifact("a", sha256="AB" * 32),), "sha256"),
        ((_artifact("a", sha256="ab" * 31),), "sha256"),
        ((_artifact("a", size_bytes=0),), "size 0"),
        (tuple(_artifact(f"a{i:03}") for i in range(257)), "more than 256"),
    ],
)
def test_a_list_that_is_not_in_form_is_refused(artifacts: tuple[Artifact, ...], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse(dump(ArtifactList(kubernetes_version="v1.36.2", artifacts=artifacts)))


@pytest.mark.parametrize("version", ["1.36.2", "v1.36", "v01.36.2", "v1.36.2-rc.0", ""])
def test_a_version_that_is_not_in_form_is_refused(version: str) -> None:
    with pytest.raises(FormatError, match="version"):
        parse(decode.dump(ArtifactList(kubernetes_version=version, artifacts=())))


@given(st.binary(max_size=200))
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        parse(junk)
