"""What people are shown of a roll-out: from views, actions and work to `ClusterRelease`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.kube.cluster_release import NodeStatus, Phase, ReleaseStatus
from constellation.kube.rollout import Stop, Wait
from constellation.kube.rollout_model import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.kube.rollout import Action, NodeView
    from constellation.services.operator.facts import Facts

__all__ = ["Doing", "release_status"]

_MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What the executor does: steps by node (or group), and why what failed last did."""

    steps: Mapping[str, str]
    failures: Mapping[str, str]


def release_status(
    facts: Facts,
    nodes: tuple[NodeView, ...],
    actions: tuple[Action, ...],
    doing: Doing,
    *,
    before: ReleaseStatus | None,
    now: str,
) -> ReleaseStatus:
    """Give the status; `now` (RFC 3339) is the `since` of every node that changed."""
    old = {n.name: n for n in before.nodes} if before is not None else {}
    return ReleaseStatus(
        phase=_phase(actions, doing),
        policySerial=facts.policy.serial,
        message=_message(actions, doing)[:_MAX_MESSAGE],
        nodes=tuple(_node(n, facts, doing, old.get(n.name), now=now) for n in nodes),
    )


def _phase(actions: tuple[Action, ...], doing: Doing) -> Phase:
    if any(isinstance(a, Stop) for a in actions):
        return Phase.STOPPED
    return Phase.ROLLING if actions or doing.steps else Phase.IDLE


def _message(actions: tuple[Action, ...], doing: Doing) -> str:
    stop = next((a for a in actions if isinstance(a, Stop)), None)
    if stop is not None:
        return stop.why
    parts = [f"{key}: {reason}" for key, reason in sorted(doing.failures.items())]
    parts += [a.why if isinstance(a, Wait) else ": ".join(describe(a)) for a in actions]
    return "; ".join(parts) or "all nodes are as the cluster policy says"


def _node(
    view: NodeView, facts: Facts, doing: Doing, old: NodeStatus | None, *, now: str
) -> NodeStatus:
    order, report = facts.orders.get(view.name), facts.reports.get(view.name)
    step = doing.steps.get(view.name, "")
    reason = view.reason
    if order is not None:
        step = step or str(order.kind)
        if report is not None and report.order == order and report.reason:
            reason = report.reason
    same = old is not None and (old.health, old.step) == (str(view.health), step)
    return NodeStatus(
        name=view.name,
        image=view.image,
        kubelet=view.kubelet,
        apiServer=view.api_server,
        health=str(view.health),
        step=step,
        since=old.since if same and old is not None else now,
        reason=reason,
    )
