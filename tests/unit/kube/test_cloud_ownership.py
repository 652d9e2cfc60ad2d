"""Which objects of a cluster are a cloud's components, and what brings it to another list."""

from __future__ import annotations

from typing import Any

import pytest

from constellation.base.errors import FormatError, Rejected
from constellation.kube.cloud_objects import check_objects
from constellation.kube.cloud_ownership import LABEL, change, labelled, parse_found
from tests.fakes.cloud_objects import dump, objects


def found(kind: str, api_version: str, *, label: str = "aws", **fields: Any) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "kube-system", "labels": {LABEL: label}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


@pytest.mark.parametrize(
    ("item", "goes"),
    [
        (found("DaemonSet", "apps/v1"), True),
        (found("DaemonSet", "apps/v1", label="gcp"), False),
        (found("DaemonSet", "example.com/v1"), False),
        (found("Secret", "v1"), False),
        (found("Namespace", "v1"), False),
        (found("CustomResourceDefinition", "apiextensions.k8s.io/v1"), False),
    ],
)
def test_only_ours_of_allowed_kinds_goes(item: dict[str, Any], goes: bool) -> None:
    todo = change((), provider="aws", same_names=(), ours=(item,))
    assert bool(todo.gone) is goes
    assert (todo.apply, todo.kept, todo.remade) == (b"", b"", ())


def test_what_runs_goes_before_its_rights() -> None:
    ours = tuple(
        found(kind, api)
        for kind, api in (
            ("ServiceAccount", "v1"),
            ("ClusterRole", "rbac.authorization.k8s.io/v1"),
            ("DaemonSet", "apps/v1"),
        )
    )
    first, *_ = change((), provider="aws", same_names=(), ours=ours).gone
    assert (first.kind, first.resource) == ("DaemonSet", "DaemonSet.v1.apps")


def test_the_releases_own_label_is_ours_alone() -> None:
    items = objects()
    items[0]["metadata"]["labels"] = {LABEL: "gcp", "app": "csi"}
    account, *_ = labelled(dump(items), provider="aws")
    assert account["metadata"]["labels"] == {LABEL: "aws", "app": "csi"}


def test_every_name_that_is_somebody_elses_is_told_at_once() -> None:
    wanted = labelled(dump(objects()), provider="aws")
    there = tuple(objects()[:2])
    with pytest.raises(Rejected) as told:
        change(wanted, provider="aws", same_names=there, ours=())
    assert [f.partition(":")[0] for f in told.value.findings] == [
        "ServiceAccount csi",
        "ClusterRole csi",
    ]


def _driver(**spec: Any) -> dict[str, Any]:
    return found("CSIDriver", "storage.k8s.io/v1", spec=spec)


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        (_driver(attachRequired=True), _driver(), False),
        (_driver(attachRequired=False), _driver(), True),
        (_driver(volumeLifecycleModes=["Persistent"], storageCapacity=True), _driver(), False),
        (_driver(volumeLifecycleModes=["Ephemeral"]), _driver(), True),
        (
            found("ConfigMap", "v1", immutable=True, data={"a": "1"}),
            found("ConfigMap", "v1", data={"a": "1"}),
            True,
        ),
        (
            found("ConfigMap", "v1", data={"a": "1"}),
            found("ConfigMap", "v1", data={"a": "2"}),
            False,
        ),
    ],
)
def test_only_what_the_api_lets_nobody_change_is_made_anew(
    before: dict[str, Any],
    after: dict[str, Any],
    anew: bool,
) -> None:
    todo = change((after,), provider="aws", same_names=(before,), ours=(before,))
    assert bool(todo.remade) is anew
    assert bool(todo.kept) is not anew
    assert not todo.gone


@pytest.mark.parametrize(
    "printed",
    [b"[]", b"x", b'{"kind": "List"}', b'{"kind": "List", "items": [1]}', b'{"kind": "x"}'],
)
def test_what_kubectl_does_not_print_is_refused(printed: bytes) -> None:
    with pytest.raises(FormatError, match="kubectl get"):
        parse_found(printed)
    assert parse_found(b" \n") == ()


def test_labels_that_are_none_are_refused() -> None:
    items = objects()
    items[0]["metadata"]["labels"] = ["x"]
    with pytest.raises(FormatError, match="labels of csi are no object"):
        check_objects(dump(items))
