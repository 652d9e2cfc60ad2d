"""What is there after an action has ended well? A model, to see a roll-out's end. Pure.

`steps_to_the_end` plays the planner against it: what `upgrade apply --plan` prints, and what the
planner's property tests disturb. A real cluster starts, drains and fails in between.
"""

from __future__ import annotations

import dataclasses

from constellation.kube.membership import NodeRole
from constellation.kube.node_names import node_name
from constellation.kube.rollout import (
    Action,
    ApplyCloudObjects,
    ApplyCoreDns,
    ApplyRbac,
    CreateNode,
    Desired,
    Health,
    NodeView,
    Observed,
    RemoveNode,
    SetConfigMaps,
    Snapshot,
    Stop,
    UpgradeControlPlane,
    Wait,
    next_actions,
    ticket_kubernetes,
)

__all__ = ["after", "describe", "joined", "steps_to_the_end"]

_MOST_STEPS = 1000


def steps_to_the_end(observed: Observed, desired: Desired) -> tuple[Action, ...]:
    """List every action until the cluster is as desired, or something stops it (the last one)."""
    steps: list[Action] = []
    while actions := next_actions(observed, desired):
        for action in actions:
            steps.append(action)
            if isinstance(action, Wait | Stop):
                return tuple(steps)
            observed = after(observed, action, desired)
        if len(steps) > _MOST_STEPS:
            raise ValueError("the planner does not come to an end")
    return tuple(steps)


def after(observed: Observed, action: Action, desired: Desired) -> Observed:
    """Give what is there once the action is done; waiting changes nothing."""
    match action:
        case Snapshot():
            return dataclasses.replace(observed, snapshot=True)
        case SetConfigMaps(kubernetes=version):
            return dataclasses.replace(observed, config_maps=version)
        case ApplyCoreDns(kubernetes=version):
            return dataclasses.replace(observed, core_dns=version)
        case ApplyRbac(kubernetes=version):
            return dataclasses.replace(observed, rbac=version)
        case ApplyCloudObjects(digest=digest):
            return dataclasses.replace(observed, cloud_objects=digest)
        case UpgradeControlPlane(node=name, kubernetes=version):
            nodes = tuple(
                dataclasses.replace(n, api_server=version) if n.name == name else n
                for n in observed.nodes
            )
        case CreateNode(group=group):
            nodes = (*observed.nodes, joined(observed, desired, group))
        case RemoveNode(node=name):
            nodes = tuple(n for n in observed.nodes if n.name != name)
        case Wait() | Stop():
            nodes = observed.nodes
    return dataclasses.replace(observed, nodes=nodes)


def joined(
    observed: Observed, desired: Desired, group: str, *, health: Health = Health.READY
) -> NodeView:
    """Give a node that joins now: with the new image, and the oldest API server's Kubernetes."""
    role = next(g.role for g in desired.groups if g.name == group)
    names = {n.name for n in observed.nodes}
    version = ticket_kubernetes(observed)
    return NodeView(
        name=next(
            n for i in range(len(names) + 1) if (n := node_name(role, group, i)) not in names
        ),
        role=role,
        group=group,
        image=desired.image,
        kubelet=version,
        api_server=version if role is NodeRole.CONTROL_PLANE else "",
        health=health,
    )


def describe(action: Action) -> tuple[str, str]:  # noqa: C901, PLR0911 - one an action
    """Put an action into words: the step's name, and what it does."""
    match action:
        case Snapshot():
            return "snapshot", "of etcd, on a control plane's disk"
        case SetConfigMaps(kubernetes=version):
            return "config maps", f"kubeadm-config to {version}"
        case UpgradeControlPlane(node=name, kubernetes=version):
            return "control plane", f"static pods of {name} to {version}"
        case ApplyCoreDns(kubernetes=version):
            return "CoreDNS", f"the manifest of {version}"
        case ApplyRbac(kubernetes=version):
            return "RBAC", f"kubeadm's, of {version}"
        case ApplyCloudObjects(digest=digest):
            what = f"objects {digest[:12]} are applied" if digest else "its objects are removed"
            return "cloud integration", what
        case CreateNode(group=group):
            return "create", f"a node of {group} with the new image"
        case RemoveNode(node=name):
            return "remove", f"{name}: drain, load balancer, etcd, machine"
        case Wait(why=why):
            return "wait", why
        case Stop(why=why):
            return "stop", why
