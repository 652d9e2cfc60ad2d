"""Whether a cluster is whole: its nodes, etcd, its pods, and its log, as a user can see them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.cluster.test_three_control_planes import all_instances, healthy_etcds, nodes, voters
from tests.drills.loaded import say

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = ["back_again", "join_log", "show", "unwell"]


def unwell(workspace: Workspace, *, machines: frozenset[str]) -> str:
    """Say what is not as it should be first; empty: all is well."""
    if frozenset(i for i, _, pid in all_instances(workspace) if pid) != machines:
        return "machines"
    found = nodes(workspace)
    ready = [n for n in found if _condition(n) == "True"]
    if len(ready) != len(machines) or len(found) != len(machines):
        return f"{len(ready)} of {len(found)} nodes Ready"
    pods = workspace.kubectl("--request-timeout=5s", "get", "pods", "-A", "-o", "json")
    if pods.returncode != 0:
        return "pods are not listed"
    if bad := [p["metadata"]["name"] for p in json.loads(pods.stdout)["items"] if not _well(p)]:
        return f"pods {', '.join(bad[:4])}"
    if not healthy_etcds(workspace) == len(voters(workspace)) == 3:
        return "etcd's members"
    return ""


def back_again(workspace: Workspace, *, machines: frozenset[str], seconds: float) -> float | None:
    """Wait until all is well; gives when it was (steady clock), None: not within the time."""
    end, said = time.monotonic() + seconds, ""
    while why := unwell(workspace, machines=machines):
        if why != said:
            say("not yet:", why)
        said = why
        if time.monotonic() > end:
            return None
        time.sleep(2)
    return time.monotonic()


def join_log(workspace: Workspace) -> list[dict[str, Any]]:
    """Give the log's records; the CLI has verified the chain, and that it grew from what it saw."""
    end = time.monotonic() + 60
    while True:
        log = workspace.constellation("log", "-o", "json")
        if log.returncode == 0:
            records: list[dict[str, Any]] = json.loads(log.stdout)["records"]
            return records
        if time.monotonic() > end:
            raise ValueError(f"constellation log: exit code {log.returncode}: {log.stderr}")
        time.sleep(2)


def show(workspace: Workspace) -> None:
    """Write what helps to understand a drill that failed to standard error."""
    for arguments in (
        ("get", "nodes", "-o", "wide"),
        ("get", "pods", "-A", "-o", "wide"),
        ("get", "clusterrelease", "cluster", "-o", "yaml"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    ):
        say(workspace.kubectl("--request-timeout=10s", *arguments).stdout[-6000:])


def _condition(node: dict[str, Any]) -> str:
    return next((c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"), "")


def _well(pod: dict[str, Any]) -> bool:
    if pod["status"].get("phase") in ("Succeeded", "Failed"):  # what an eviction leaves
        return True
    statuses = pod["status"].get("containerStatuses", [])
    return bool(statuses) and all(s["ready"] for s in statuses)
