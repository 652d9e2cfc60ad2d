"""The upgrade drill's eye for versions finds what it looks for."""

from __future__ import annotations

from typing import Any

from constellation.kube.rollout import Observed, violations
from tests.drills.versions import seen

OLD, NEW = "v1.35.3", "v1.36.2"


def node(name: str, kubelet: str) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"nodeInfo": {"kubeletVersion": kubelet}},
    }


def api_servers(**versions: str) -> dict[str, Any]:
    said = [{"name": name, "apiServer": version} for name, version in versions.items()]
    return {"kind": "ClusterRelease", "status": {"nodes": said}}


def found(*items: dict[str, Any], before: dict[str, str] | None = None) -> tuple[str, ...]:
    nodes = seen(list(items), before=before or {})
    return violations(Observed(nodes=nodes, snapshot=True, config_maps="", core_dns="", rbac=""))


def test_a_kubelet_newer_than_an_api_server_is_found_and_one_as_old_is_not() -> None:
    planes = (node("p0", OLD), node("p1", OLD), api_servers(p0=OLD, p1=NEW, w0=""))
    assert found(*planes, node("w0", OLD)) == ()
    assert found(*planes, node("w0", NEW)) == (
        f"kubelet of w0 is {NEW}, newer than an API server of {OLD}",
    )


def test_an_api_server_that_does_not_answer_counts_with_what_it_was() -> None:
    starting = (node("p0", NEW), api_servers(p0=""))
    assert found(*starting, before={"p0": OLD}) == (
        f"kubelet of p0 is {NEW}, newer than an API server of {OLD}",
    )
    assert found(*starting, before={"p0": NEW, "gone": OLD}) == ()
