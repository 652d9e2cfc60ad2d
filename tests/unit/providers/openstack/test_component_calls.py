"""What OpenStack's own components may do: what they were seen doing, and what is marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from constellation.providers.openstack.calls import access_rules
from constellation.providers.openstack.component_calls import CALLS, Known, component_rules
from constellation.releases import lock as locks
from constellation.releases.clouds import CLOUDS

_ROOT = Path(__file__).resolve().parents[4]
_KEPT = _ROOT / "bench/results/drill-openstack-programs.json"
_IN_A_CLUSTER = _ROOT / "bench/results/drill-cloud-openstack.json"
_RULES = _ROOT / "infra/iam/openstack/component-rules.json"
_OBJECTS = _ROOT / "artifacts/cloud-openstack/objects.json"
_CREDENTIAL = "/run/constellation/cloud"
_PLANE = {"node-role.kubernetes.io/control-plane": ""}


def _pods() -> dict[str, dict[str, Any]]:
    items = json.loads(_OBJECTS.read_text())["items"]
    return {
        i["metadata"]["name"]: i["spec"]["template"]["spec"]
        for i in items
        if i["kind"] in ("DaemonSet", "Deployment")
    }


def _paths(pod: dict[str, Any]) -> set[str]:
    return {v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}


def test_each_call_of_the_kept_run_is_allowed_and_nothing_is_called_seen_that_was_not() -> None:
    kept = json.loads(_KEPT.read_text())
    seen = {f"{c.method} {c.service} {c.path}" for c in CALLS if c.known is Known.SEEN}
    assert set(kept["calls"]) == seen


def test_the_kept_run_was_one_of_the_locked_programs() -> None:
    kept = json.loads(_KEPT.read_text())["programs"]
    locked = locks.load().clouds["openstack"].source
    assert sorted(kept) == [
        "cinder-csi-plugin",
        "cloud-follow",
        "openstack-cloud-controller-manager",
    ]
    assert kept == {name: locked[name].sha256 for name in kept}


def test_in_a_cluster_they_called_the_same() -> None:
    kept, alone = json.loads(_IN_A_CLUSTER.read_text()), json.loads(_KEPT.read_text())
    assert set(kept["calls"]) <= set(alone["calls"])
    locked = locks.load().clouds["openstack"].source
    assert kept["programs"] == {n: a.sha256 for n, a in locked.items() if "/" not in n}
    names = {i.partition("@")[0].rpartition("/")[2] for i in kept["images"]}
    assert names == {i.reference.rpartition("/")[2] for i in CLOUDS["openstack"].images}


def test_the_rules_that_users_give_the_credential_are_the_table() -> None:
    assert json.loads(_RULES.read_text()) == list(component_rules())
    assert len({(c.service, c.method, c.path) for c in CALLS}) == len(CALLS)


def test_the_components_make_no_machine_and_change_no_port_or_group() -> None:
    changes = {(c.service, c.path) for c in CALLS if c.method != "GET"}
    assert not {p for s, p in changes if s == "network" and not p.startswith("/v2.0/floatingips")}
    assert {p for s, p in changes if s == "compute"} == {
        "/v2.1/servers/*/os-volume_attachments",
        "/v2.1/servers/*/os-volume_attachments/*",
    }
    # and the operator's credential is not one that could be given to them by mistake
    assert not {r["path"] for r in access_rules()} >= {r["path"] for r in component_rules()}


def test_who_has_the_credential_runs_on_control_planes_without_root_or_the_hosts_network() -> None:
    with_it = {name: pod for name, pod in _pods().items() if _CREDENTIAL in _paths(pod)}
    assert sorted(with_it) == ["cinder-csi-controller", "openstack-cloud-controller-manager"]
    for pod in with_it.values():
        assert pod["nodeSelector"] == _PLANE
        assert "hostNetwork" not in pod
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert _paths(pod) == {_CREDENTIAL, "/etc/ssl/certs/ca-certificates.crt"}
        (first, *_) = pod["containers"]
        assert first["command"][0].endswith("cloud-follow")
        assert "--cloud-config=/etc/openstack/cloud.conf" in first["args"]
        assert {"--cluster-name=@cluster", "--cluster=@cluster"} & set(first["args"])


def test_a_worker_runs_without_a_credential_or_token() -> None:
    pod = _pods()["cinder-csi-node"]
    assert "nodeSelector" not in pod
    assert pod["automountServiceAccountToken"] is False
    assert not any("cloud-config" in a for c in pod["containers"] for a in c["args"])
    (plugin, registrar) = pod["containers"]
    assert "--provide-controller-service=false" in plugin["args"]
    assert not registrar["securityContext"].get("privileged")
