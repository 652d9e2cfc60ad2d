"""A list of cloud components is applied, renewed, taken away; what is not ours is not touched."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.kube import units
from constellation.kube.cloud_ownership import DIGEST_ANNOTATION, LABEL
from constellation.services import cloud_components
from constellation.services.artifact_shelf import GivenShelf
from constellation.services.cloud_components import apply_components
from constellation.trust.artifact_list import Artifact, ArtifactKind
from tests.fakes.cloud_objects import dump, objects
from tests.fakes.kubectl_program import KubectlProgram

if TYPE_CHECKING:
    from pathlib import Path

MINE = {"ServiceAccount/csi", "ClusterRole/csi", "ClusterRoleBinding/csi", "DaemonSet/csi"}
DRIVER = "CSIDriver/csi.example.com"


class Cluster:
    """A control plane's host: artifacts by digest, and a cluster to apply them to."""

    def __init__(self, folder: Path) -> None:
        self.kubectl = KubectlProgram(home=folder / "cluster")
        self.kubectl.install(folder / "bin")
        self.shelf = GivenShelf(folder / "host")
        (self.shelf.store / "sha256").mkdir(parents=True)
        self.before = self.kubectl.objects()

    def artifact(self, items: list[dict[str, Any]]) -> Artifact:
        data = dump(items)
        digest = hashlib.sha256(data).hexdigest()
        (self.shelf.store / "sha256" / digest).write_bytes(data)
        return Artifact(
            name="cloud/aws", kind=ArtifactKind.OBJECTS, sha256=digest, size_bytes=len(data)
        )

    async def apply(self, artifact: Artifact | None) -> None:
        kubeconfig = self.kubectl.home / "admin.conf"
        await apply_components(artifact, provider="aws", shelf=self.shelf, kubeconfig=kubeconfig)

    async def has(self, items: list[dict[str, Any]]) -> Artifact:
        """Let the cluster have these, as `init` does."""
        artifact = self.artifact(items)
        await self.apply(artifact)
        return artifact

    def components(self) -> set[str]:
        known = {f"{o['kind']}/{o['metadata']['name']}" for o in self.before}
        return self.kubectl.names() - known


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(units, "BIN_DIR", tmp_path / "bin")
    monkeypatch.setattr(cloud_components, "_ANSWERS_S", 0.2)
    monkeypatch.setattr(cloud_components, "_REFUSES_S", 0.2)
    return Cluster(tmp_path)


def storage_class(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "cloud-disk"},
        "provisioner": "csi.example.com",
        **fields,
    }


async def test_what_a_list_names_is_there_and_its_digest_is_noted(cluster: Cluster) -> None:
    artifact = await cluster.has(objects())
    assert cluster.components() == {*MINE, DRIVER}
    made = [o for o in cluster.kubectl.objects() if o["metadata"]["name"].startswith("csi")]
    assert {o["metadata"].get("labels", {}).get(LABEL) for o in made} == {"aws"}
    assert cluster.kubectl.annotation(DIGEST_ANNOTATION) == artifact.sha256


async def test_another_list_renews_what_stays_and_takes_away_what_is_gone(cluster: Cluster) -> None:
    await cluster.has(objects())
    account, role, binding, _driver, daemons = objects()
    daemons["metadata"]["name"] = "csi-node"
    artifact = await cluster.has([account, role, binding, daemons])
    assert cluster.components() == {*MINE, "DaemonSet/csi-node"} - {"DaemonSet/csi"}
    assert cluster.kubectl.annotation(DIGEST_ANNOTATION) == artifact.sha256


async def test_no_list_takes_all_of_it_away_and_leaves_the_rest(cluster: Cluster) -> None:
    await cluster.has(objects())
    await cluster.apply(None)
    assert cluster.components() == set()
    assert cluster.kubectl.names() == {
        f"{o['kind']}/{o['metadata']['name']}" for o in cluster.before
    }
    assert cluster.kubectl.annotation(DIGEST_ANNOTATION) == ""


async def test_the_same_list_once_more_changes_nothing(cluster: Cluster) -> None:
    artifact = await cluster.has(objects())
    before = cluster.kubectl.objects()
    await cluster.apply(artifact)
    assert sorted(cluster.kubectl.objects(), key=str) == sorted(before, key=str)
    assert "delete" not in cluster.kubectl.verbs()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 8))
async def test_cut_off_at_any_call_the_next_run_finishes_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, call: int, moment: str
) -> None:
    first = [*objects(), storage_class(parameters={"type": "slow"})]
    await cluster.has(first)
    after = [*objects()[:3], storage_class(parameters={"type": "fast"})]
    # nobody tries again meanwhile: the machine is off
    for name in ("_ANSWERS_S", "_REFUSES_S"):
        monkeypatch.setattr(cloud_components, name, -1.0)
    monkeypatch.setattr("constellation.services.node_tools._OBJECTS_S", -1.0)
    cluster.kubectl.dies_at(call, moment)
    artifact = cluster.artifact(after)
    count = len(cluster.kubectl.verbs())
    with pytest.raises(Unavailable, match="ended with -9"):
        await cluster.apply(artifact)
    assert len(cluster.kubectl.verbs()) == count + call
    if (call, moment) != (7, "after"):
        assert cluster.kubectl.annotation(DIGEST_ANNOTATION) != artifact.sha256, "noted too early"
    await cluster.apply(artifact)
    assert cluster.components() == {*MINE, "StorageClass/cloud-disk"} - {"DaemonSet/csi"}
    assert cluster.kubectl.annotation(DIGEST_ANNOTATION) == artifact.sha256


async def test_a_field_that_nobody_may_change_is_changed_by_making_it_anew(
    cluster: Cluster,
) -> None:
    await cluster.has([*objects(), storage_class(parameters={"type": "slow"})])
    await cluster.has([*objects(), storage_class(parameters={"type": "fast"})])
    (made,) = [o for o in cluster.kubectl.objects() if o["kind"] == "StorageClass"]
    assert made["parameters"] == {"type": "fast"}
    assert cluster.kubectl.verbs().count("delete") == 1


def _named(name: str, *, kind: str = "ClusterRole", api: str = "") -> dict[str, Any]:
    if kind == "ClusterRole":
        api = "rbac.authorization.k8s.io/v1"
        return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "rules": []}
    metadata = {"name": name, "namespace": "kube-system"}
    if kind == "Deployment":
        spec = objects()[-1]["spec"]
        return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "data": {}}


@pytest.mark.parametrize(
    "item",
    [
        _named("cluster-admin"),
        _named("constellation:operator"),
        _named("coredns", kind="ConfigMap", api="v1"),
        _named("kubeadm-config", kind="ConfigMap", api="v1"),
        _named("coredns", kind="Deployment", api="apps/v1"),
    ],
    ids=lambda item: f"{item['kind']} {item['metadata']['name']}",
)
async def test_a_list_that_would_take_over_what_is_somebody_elses_changes_nothing(
    cluster: Cluster, item: dict[str, Any]
) -> None:
    await cluster.has(objects())
    before = cluster.kubectl.objects()
    item["metadata"]["labels"] = {LABEL: "aws"}  # its own word for it counts for nothing
    with pytest.raises(Rejected, match=f"{item['kind']} {item['metadata']['name']}: is in the"):
        await cluster.apply(cluster.artifact([*objects()[:1], item]))
    assert cluster.kubectl.objects() == before


async def test_what_another_provider_s_components_have_is_somebody_elses(cluster: Cluster) -> None:
    await cluster.has(objects())
    shelf, home = cluster.shelf, cluster.kubectl.home
    with pytest.raises(Rejected, match="DaemonSet csi"):
        await apply_components(
            cluster.artifact(objects()), provider="gcp", shelf=shelf, kubeconfig=home / "admin.conf"
        )
    await apply_components(None, provider="gcp", shelf=shelf, kubeconfig=home / "admin.conf")
    assert cluster.components() == {*MINE, DRIVER}


async def test_a_kind_that_is_not_allowed_changes_nothing(cluster: Cluster) -> None:
    await cluster.has(objects())
    before = cluster.kubectl.objects()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "x", "namespace": "kube-system"},
    }
    with pytest.raises(Rejected, match="Secret x"):
        await cluster.apply(cluster.artifact([*objects()[:1], secret]))
    assert cluster.kubectl.objects() == before


async def test_another_file_than_the_digest_changes_nothing(cluster: Cluster) -> None:
    await cluster.has(objects())
    before = cluster.kubectl.objects()
    artifact = cluster.artifact(objects()[:1])
    path = cluster.shelf.store / "sha256" / artifact.sha256
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(Rejected, match="artifact cloud/aws: found SHA-256"):
        await cluster.apply(artifact)
    assert cluster.kubectl.objects() == before


async def test_what_the_api_server_would_refuse_changes_nothing(cluster: Cluster) -> None:
    await cluster.has(objects())
    before = cluster.kubectl.objects()
    account, *others = objects()
    account["metadata"]["annotations"] = {"refused": "yes"}
    with pytest.raises(Unavailable, match="denied the request"):
        await cluster.apply(cluster.artifact([*others[:2], account]))
    assert cluster.kubectl.objects() == before


async def test_a_label_lets_no_other_kind_be_deleted(cluster: Cluster) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "kube-system", "labels": {LABEL: "aws"}},
    }
    elsewhere = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", "labels": {LABEL: "aws"}},
    }
    cluster.kubectl.write([*cluster.before, secret, elsewhere])
    await cluster.has(objects())
    await cluster.apply(None)
    assert {"Secret/s", "ConfigMap/c"} <= cluster.kubectl.names()


@pytest.mark.parametrize("printed", ["[]", "{", '{"kind": "List", "items": [{"kind": "x"}]}'])
async def test_an_answer_that_is_none_deletes_nothing(
    cluster: Cluster, tmp_path: Path, printed: str
) -> None:
    await cluster.has(objects())
    before = cluster.kubectl.objects()
    program = tmp_path / "bin" / "kubectl"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{printed}'\n")
    with pytest.raises(FormatError, match="kubectl get"):
        await cluster.apply(None)
    assert cluster.kubectl.objects() == before
