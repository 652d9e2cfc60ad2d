"""A cloud's components in a real cluster: applied, renewed, taken away by what init and agents run.

The real function, of the control plane's own measured image, as root there, against its own API
server. In the end the cluster's own operator and upgrade agent, whose policy wants none, do it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from constellation.kube.cloud_ownership import DIGEST_ANNOTATION, LABEL, resources
from tests.cluster.conftest import eventually
from tests.cluster.machines import inside, machine
from tests.fakes.cloud_objects import IMAGE, dump

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SYSTEM = ("-n", "kube-system")
RBAC = "rbac.authorization.k8s.io/v1"

APPLY = """
import asyncio, base64, json, sys
sys.path[:0] = ["/usr/lib/constellation/python"]
from pathlib import Path
from constellation.base.errors import ConstellationError
from constellation.services.artifact_shelf import GivenShelf
from constellation.services.cloud_components import apply_components
from constellation.trust.artifact_list import Artifact, ArtifactKind

async def main(asked):
    shelf = GivenShelf(Path("/run/cloud-test"))
    artifact = None
    if asked["list"] is not None:
        data = base64.b64decode(asked["list"])
        path = shelf.store / "sha256" / asked["sha256"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        artifact = Artifact(name="cloud/aws", kind=ArtifactKind.OBJECTS, sha256=asked["sha256"],
                            size_bytes=len(data))
    try:
        await apply_components(artifact, provider=asked["provider"], shelf=shelf,
                               kubeconfig=Path("/etc/kubernetes/admin.conf"))
        print("done")
    except ConstellationError as error:
        print(type(error).__name__, error)

asyncio.run(main(json.loads(sys.stdin.read())))
"""


def apply(
    mini: Workspace,
    items: list[dict[str, Any]] | None,
    *,
    provider: str = "aws",
    digest: str = "",
) -> str:
    """Have the control plane bring these objects; gives "done", or the refusal."""
    data = None if items is None else dump(items)
    asked = {
        "provider": provider,
        "list": None if data is None else base64.b64encode(data).decode(),
        "sha256": digest or hashlib.sha256(data or b"").hexdigest(),
    }
    pid = machine(mini, "control-plane").pid
    return inside(pid, "/usr/bin/python3", "-I", "-c", APPLY, stdin=json.dumps(asked)).strip()


def of_system(kind: str, name: str, *, api: str = "v1", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "kube-system"}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def of_cluster(kind: str, name: str, *, api: str = RBAC, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **fields}


def role(name: str, *verbs: str) -> dict[str, Any]:
    rule = {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": list(verbs)}
    return of_cluster("ClusterRole", name, rules=[rule])


def binding(to: str) -> dict[str, Any]:
    subject = {"kind": "ServiceAccount", "name": "ct-csi", "namespace": "kube-system"}
    reference = {"apiGroup": RBAC.partition("/")[0], "kind": "ClusterRole", "name": to}
    return of_cluster("ClusterRoleBinding", "ct-csi", roleRef=reference, subjects=[subject])


def storage_class(speed: str) -> dict[str, Any]:
    return of_cluster(
        "StorageClass", "ct-disk", api="storage.k8s.io/v1", provisioner="ct.example.com",
        parameters={"speed": speed},
    )  # fmt: skip


def daemons(argument: str) -> dict[str, Any]:
    labels = {"app": "ct-csi"}
    pod = {
        "serviceAccountName": "ct-csi",
        "nodeSelector": {"constellation.test/nowhere": "true"},
        "containers": [{"name": "driver", "image": IMAGE, "args": [argument]}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return of_system("DaemonSet", "ct-csi", api="apps/v1", spec=spec)


def first() -> list[dict[str, Any]]:
    return [
        of_system("ServiceAccount", "ct-csi"),
        role("ct-csi", "get"),
        binding("ct-csi"),
        storage_class("slow"),
        of_cluster("CSIDriver", "ct.example.com", api="storage.k8s.io/v1", spec={}),
        of_system("ConfigMap", "ct-settings", data={"a": "1", "b": "2"}),
        daemons("--old"),
    ]


def second() -> list[dict[str, Any]]:
    """Give the next release's: no settings, no CSIDriver, another role, another kind of disk."""
    return [
        of_system("ServiceAccount", "ct-csi"),
        role("ct-other", "get", "list"),
        binding("ct-other"),
        storage_class("fast"),
        daemons("--new"),
    ]


def ours(mini: Workspace, provider: str = "aws") -> dict[str, dict[str, Any]]:
    """Give the objects with the label, by KIND/NAME."""
    found = mini.objects(resources(), "-A", "-l", f"{LABEL}={provider}")
    return {f"{o['kind']}/{o['metadata']['name']}": o for o in found}  # type: ignore[index]


def named(items: list[dict[str, Any]]) -> set[str]:
    return {f"{o['kind']}/{o['metadata']['name']}" for o in items}


def versions(mini: Workspace) -> dict[str, str]:
    """Give every object of these kinds, but for what the operator writes, as it is now."""
    found: list[Any] = mini.objects(resources(), "-A")
    return {
        f"{o['kind']} {o['metadata'].get('namespace', '')}/{o['metadata']['name']}": (
            o["metadata"]["resourceVersion"]
        )
        for o in found
        if o["metadata"]["name"] not in ("kubeadm-config", "coredns")
    }


def test_a_release_s_components_are_applied_renewed_and_taken_away(mini: Workspace) -> None:
    foreign = of_system("ConfigMap", "ct-foreign", data={"mine": "yes"})
    assert mini.kubectl("apply", "-f", "-", stdin=json.dumps(foreign)).returncode == 0
    try:
        before = versions(mini)
        assert apply(mini, first()) == "done"
        there = ours(mini)
        assert set(there) == named(first())
        # once more: not a field changes
        whole = versions(mini)
        assert apply(mini, first()) == "done"
        assert versions(mini) == whole

        assert apply(mini, second()) == "done"
        renewed = ours(mini)
        assert set(renewed) == named(second())
        same, anew = "DaemonSet/ct-csi", "StorageClass/ct-disk"
        assert renewed[same]["metadata"]["uid"] == there[same]["metadata"]["uid"]
        (pod,) = renewed[same]["spec"]["template"]["spec"]["containers"]
        assert pod["args"] == ["--new"]
        assert renewed[anew]["metadata"]["uid"] != there[anew]["metadata"]["uid"]
        assert renewed[anew]["parameters"] == {"speed": "fast"}
        assert renewed["ClusterRoleBinding/ct-csi"]["roleRef"]["name"] == "ct-other"

        _attacks(mini)

        assert apply(mini, None) == "done"
        assert ours(mini) == {}
        assert versions(mini) == before, "what is somebody else's is as it was"
    finally:
        mini.kubectl(*SYSTEM, "delete", "configmap", "ct-foreign")


def _attacks(mini: Workspace) -> None:
    """Try lists that may not be: each is refused, and nothing is changed."""
    strange = copy.deepcopy(second())
    strange[-1]["spec"]["template"]["metadata"]["labels"] = {"app": "another"}
    secret = of_system("Secret", "ct-secret")
    aggregated = role("ct-more", "get")
    aggregated["metadata"]["labels"] = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    mine = "Rejected ClusterRole {}: is in the cluster, and none of the components"
    attacks: list[tuple[list[dict[str, Any]], str, str]] = [
        ([role("cluster-admin", "get")], "", mine.format("cluster-admin")),
        ([role("constellation:operator", "get")], "", mine.format("constellation:operator")),
        ([of_system("ConfigMap", "kubeadm-config")], "", "Rejected ConfigMap kubeadm-config"),
        ([of_system("ConfigMap", "ct-foreign")], "", "Rejected ConfigMap ct-foreign"),
        ([of_system("ConfigMap", "coredns")], "", "Rejected ConfigMap coredns"),
        ([secret], "", "Rejected Secret ct-secret"),
        ([aggregated], "", "Rejected ClusterRole ct-more: label"),
        (first(), "ab" * 32, "Rejected artifact cloud/aws: found SHA-256"),
        ([strange[0], role("ct-new", "get"), strange[-1]], "", "Failed kubectl ended with 1"),
    ]
    whole = versions(mini)
    for items, digest, refusal in attacks:
        for item in items:  # its own word for it counts for nothing
            item["metadata"].setdefault("labels", {})[LABEL] = "aws"
        said = apply(mini, items, digest=digest)
        assert said.startswith(refusal), said
        assert versions(mini) == whole, said


def test_the_operator_takes_away_what_the_owners_policy_does_not_want(mini: Workspace) -> None:
    assert apply(mini, first(), provider="local") == "done"
    # nobody asks for it: the policy of this cluster lets no cloud's components run
    assert eventually(lambda: ours(mini, "local") == {}, seconds=120)

    def noted() -> str:
        path = "jsonpath={.metadata.annotations}"
        return mini.kubectl(*SYSTEM, "get", "configmap", "kubeadm-config", "-o", path).stdout

    assert eventually(lambda: DIGEST_ANNOTATION not in noted(), seconds=60), noted()
