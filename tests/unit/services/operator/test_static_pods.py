"""The static pods of the services bundle keep the rules of design, section 10."""

import json
from pathlib import Path

import pytest

MANIFESTS = sorted((Path(__file__).parents[4] / "os/services/manifests").glob("*/*.json"))
TMP = "/tmp"  # noqa: S108 - in memory
WRITABLE = {
    "joinservice": {"/var/lib/constellation/join-log", "/var/lib/constellation/policy", TMP},
    "operator": {"/run/constellation/autoscaler", TMP},
}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_a_static_pod_has_no_account_no_image_of_its_own_and_writes_only_its_folder(
    path: Path,
) -> None:
    pod = json.loads(path.read_text())
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert pod["metadata"]["namespace"] == "kube-system"
    assert spec["hostNetwork"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["priorityClassName"] == "system-node-critical"
    assert container["image"] == "registry.k8s.io/pause:3.10.2"
    assert container["imagePullPolicy"] == "Never"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    mounted = {m["name"]: m for m in container["volumeMounts"]}
    assert mounted.keys() == {v["name"] for v in spec["volumes"]}
    for volume in spec["volumes"]:
        assert "hostPath" in volume or volume["emptyDir"]["medium"] == "Memory"
    writable = {m["mountPath"] for m in mounted.values() if not m["readOnly"]}
    assert writable == WRITABLE.get(container["name"], set())


def test_there_is_one_for_each_service() -> None:
    assert [p.stem for p in MANIFESTS] == [
        "constellation-verificationservice",
        "constellation-joinservice",
        "constellation-operator",
    ]


DOORS = {"joinservice": "joinservice", "verificationservice": "verification"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_a_static_pod_is_given_its_own_door_of_the_agent_and_no_other(path: Path) -> None:
    (container,) = json.loads(path.read_text())["spec"]["containers"]
    agent = "/run/constellation/agent"
    mounted = {
        m["mountPath"] for m in container["volumeMounts"] if m["mountPath"].startswith(agent)
    }
    door = DOORS.get(container["name"])
    assert mounted == ({f"{agent}/{door}"} if door else set())
