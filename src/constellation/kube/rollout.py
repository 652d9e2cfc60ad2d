"""What may be done next to bring a cluster's nodes to another image or Kubernetes? Pure.

`next_actions` looks at what is, and remembers nothing: killed at any step, the next look goes on.
The order: etcd snapshot, ConfigMaps, control planes' static pods one by one, CoreDNS, RBAC, then
control planes are replaced, the cloud's components renewed, workers replaced. The version invariant
(`violations`): no kubelet newer than an API server that it may reach, API servers at most one minor
version apart. A control plane that is off counts with its old version until it is removed: it may
come back.
Source: design, section 11; Kubernetes, "Version Skew Policy".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from constellation.kube.membership import NodeRole

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CONTROL_PLANE_SIZES",
    "Action",
    "ApplyCloudObjects",
    "ApplyCoreDns",
    "ApplyRbac",
    "Bounds",
    "CreateNode",
    "Desired",
    "Health",
    "NodeGroup",
    "NodeView",
    "Observed",
    "RemoveNode",
    "SetConfigMaps",
    "Snapshot",
    "Stop",
    "UpgradeControlPlane",
    "Wait",
    "control_plane_may_join",
    "next_actions",
    "quorum",
    "ticket_kubernetes",
    "version_order",
    "violations",
]

CONTROL_PLANE_SIZES = (1, 3, 5)


class Health(StrEnum):
    """How a node is: `DEAD` is the operator's verdict after many looks, `FAILED` a new node's."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not ready"
    DRAINING = "draining"
    FAILED = "failed"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as it is: `image` is the SHA-256 of its node image (hexadecimal).

    `kubelet` and `api_server` are Kubernetes versions ("v1.36.2"); workers have no API server ("").
    `reason` says why a node failed.
    """

    name: str
    role: NodeRole
    group: str
    image: str
    kubelet: str
    api_server: str
    health: Health
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Between which sizes an autoscaler may move a group of workers."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"bounds {self.least} to {self.most}, want 1 or more, in order")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """A group as wanted; `surge`: nodes above `size`, `unavailable`: nodes below it, meanwhile.

    `bounds` None: nobody but its owner gives it another size. `leaving`: instances that shall go
    first, whatever the planner would choose. `version`: of the object, as it was read.
    """

    name: str
    role: NodeRole
    size: int
    surge: int = 1
    unavailable: int = 0
    bounds: Bounds | None = None
    leaving: tuple[str, ...] = ()
    version: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.role is NodeRole.CONTROL_PLANE and (self.bounds is not None or self.leaving):
            raise ValueError("control planes are not scaled by an autoscaler")
        if self.role is NodeRole.CONTROL_PLANE and (
            (self.surge, self.unavailable) != (1, 0) or self.size not in CONTROL_PLANE_SIZES
        ):
            raise ValueError("control planes: 1, 3 or 5, one more while replacing, never one less")
        if self.size < 0 or self.surge < 0 or self.unavailable < 0:
            raise ValueError("sizes are not negative")
        if self.surge + self.unavailable == 0:
            raise ValueError("without surge or unavailable nodes nothing can be replaced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Where to: the node image (SHA-256, hexadecimal), Kubernetes, and the groups.

    `cloud_objects`: SHA-256 of the objects of the cloud's own components; empty: none shall run.
    """

    image: str
    kubernetes: str
    groups: tuple[NodeGroup, ...]
    cloud_objects: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is. `config_maps`, `core_dns` and `rbac` are the Kubernetes versions that they are of.

    `snapshot`: an etcd snapshot was taken for this upgrade. `cloud_objects`: as in `Desired`.
    """

    nodes: tuple[NodeView, ...]
    snapshot: bool
    config_maps: str
    core_dns: str
    rbac: str
    cloud_objects: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Take an etcd snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConfigMaps:
    """Set `kubernetesVersion`; kubelet's configuration comes with each node's image."""

    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeControlPlane:
    """Bring a control plane's static pods to another version, through its upgrade agent."""

    node: str
    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyCoreDns:
    """Apply the manifest of CoreDNS that belongs to this version."""

    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRbac:
    """Run kubeadm's bootstrap-token phase, for its RBAC."""

    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyCloudObjects:
    """Bring the cluster to the objects of its cloud's components; empty: take them away."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNode:
    """Add a machine with the new image to a group."""

    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNode:
    """Drain a node, take it out of load balancer and etcd, delete its machine."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing may be done before something that goes on has ended."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The roll-out cannot go on by itself; what is old stays."""

    why: str


Action = (
    Snapshot
    | SetConfigMaps
    | UpgradeControlPlane
    | ApplyCoreDns
    | ApplyRbac
    | ApplyCloudObjects
    | CreateNode
    | RemoveNode
    | Wait
    | Stop
)


def next_actions(observed: Observed, desired: Desired) -> tuple[Action, ...]:
    """Give what may be done now, all of it at once; nothing: the cluster is as desired."""
    planes = _planes(observed)
    if not planes:
        return (Stop(why="no control plane is there"),)
    dead = [n for n in observed.nodes if n.health is Health.DEAD]
    if dead:
        return _remove_dead(dead, planes)
    failed = [n for n in observed.nodes if n.health is Health.FAILED]
    if failed:
        return (Stop(why=f"new node {failed[0].name} is not healthy: {failed[0].reason}"),)
    if waiting := [n for n in planes if n.health is not Health.READY]:
        return (Wait(why=f"control plane {waiting[0].name} is {waiting[0].health}"),)
    return _of_cluster(observed, desired, planes) or _replacements(observed, desired)


def quorum(members: int) -> int:
    """Give how many of so many etcd members must live."""
    return members // 2 + 1


def ticket_kubernetes(observed: Observed) -> str:
    """Give the version that a joining worker gets: the oldest API server's."""
    return min((n.api_server for n in _planes(observed)), key=version_order)


def control_plane_may_join(observed: Observed, desired: Desired) -> bool:
    """Say whether a control plane may join: once all API servers are new."""
    return all(n.api_server == desired.kubernetes for n in _planes(observed))


def violations(observed: Observed) -> tuple[str, ...]:
    """Say how the version invariant does not hold; empty where it does."""
    servers = [n.api_server for n in _planes(observed)]
    if not servers:
        return ()
    oldest, newest = min(servers, key=version_order), max(servers, key=version_order)
    found = [
        f"kubelet of {n.name} is {n.kubelet}, newer than an API server of {oldest}"
        for n in observed.nodes
        if version_order(n.kubelet) > version_order(oldest)
    ]
    (major, low, _), (other, high, _) = version_order(oldest), version_order(newest)
    if major != other or high - low > 1:
        found.append(f"API servers of {oldest} and {newest}: more than one minor version apart")
    return tuple(found)


def version_order(kubernetes: str) -> tuple[int, int, int]:
    """Give what versions ("v1.36.2") are compared by."""
    major, minor, patch = (int(part) for part in kubernetes.removeprefix("v").split("."))
    return major, minor, patch


def _remove_dead(dead: list[NodeView], planes: tuple[NodeView, ...]) -> tuple[Action, ...]:
    """Remove dead workers, and at most one dead control plane, if the others are a quorum."""
    workers = tuple(RemoveNode(node=n.name) for n in dead if n.role is NodeRole.WORKER)
    lost = [n for n in dead if n.role is NodeRole.CONTROL_PLANE]
    if not lost:
        return workers
    live = sum(n.health is Health.READY for n in planes)
    if live < quorum(len(planes)):
        return (Stop(why=f"{live} of {len(planes)} control planes live: no quorum; recover first"),)
    return (*workers, RemoveNode(node=lost[0].name))


def _of_cluster(
    observed: Observed, desired: Desired, planes: tuple[NodeView, ...]
) -> tuple[Action, ...]:
    """Bring what belongs to no single node, and the static pods, to the desired version."""
    wanted = desired.kubernetes
    newer = [n for n in planes if version_order(n.api_server) > version_order(wanted)]
    if newer:
        return (
            Stop(
                why=f"API server of {newer[0].name} has {newer[0].api_server}: Kubernetes does not "
                f"go back to {wanted}"
            ),
        )
    parts = (observed.config_maps, observed.core_dns, observed.rbac)
    if control_plane_may_join(observed, desired) and all(part == wanted for part in parts):
        return ()
    if not observed.snapshot:
        return (Snapshot(),)
    if observed.config_maps != wanted:
        return (SetConfigMaps(kubernetes=wanted),)
    return (_of_version(observed, wanted, planes),)


def _of_version(observed: Observed, wanted: str, planes: tuple[NodeView, ...]) -> Action:
    old = [n for n in planes if n.api_server != wanted]
    if not old:
        dns = observed.core_dns != wanted
        return ApplyCoreDns(kubernetes=wanted) if dns else ApplyRbac(kubernetes=wanted)
    major, minor, _ = version_order(wanted)
    # the oldest first, so that a second upgrade before the first ended closes the gap
    node = min(old, key=lambda n: (version_order(n.api_server), n.name))
    if version_order(node.api_server)[:2] < (major, minor - 1):
        return Stop(why=f"{node.api_server} to {wanted} skips a minor version")
    return UpgradeControlPlane(node=node.name, kubernetes=wanted)


def _replacements(observed: Observed, desired: Desired) -> tuple[Action, ...]:
    for role in (NodeRole.CONTROL_PLANE, NodeRole.WORKER):
        actions = tuple(
            action
            for group in desired.groups
            if group.role is role
            for action in _of_group(observed, desired, group)
        )
        if actions and role is NodeRole.CONTROL_PLANE:
            return actions[:1]  # never two control planes at once, whatever their groups
        if actions:
            going = tuple(a for a in actions if not isinstance(a, Wait))
            return going or actions[:1]
        # by the agent of the new image, and before workers need what the new list brings
        if role is NodeRole.CONTROL_PLANE and observed.cloud_objects != desired.cloud_objects:
            return (ApplyCloudObjects(digest=desired.cloud_objects),)
    return ()


def _of_group(observed: Observed, desired: Desired, group: NodeGroup) -> Iterator[Action]:
    """Create what is missing within the surge, remove an old node once its place is taken."""
    nodes = [n for n in observed.nodes if n.group == group.name]
    staying = [n for n in nodes if n.health is not Health.DRAINING]
    new = [n for n in staying if _is_new(n, desired)]
    # what is old goes first, then what is above the size
    surplus = sorted(new, key=lambda n: (n.health is Health.READY, n.name))
    surplus = surplus[: max(0, len(new) - group.size)]
    old = sorted(
        (n for n in staying if not _is_new(n, desired)),
        key=lambda n: (n.health is Health.READY, n.name),
    )
    old += surplus
    missing = group.size - len(new)
    room = group.size + group.surge - len(staying)
    created = max(0, min(missing, room))
    if group.role is NodeRole.CONTROL_PLANE:
        created = min(created, 1)
    for _ in range(created):
        yield CreateNode(group=group.name)
    ready = sum(n.health is Health.READY for n in staying)
    removed = 0
    for node in old:
        one_less = ready - (node.health is Health.READY)
        enough = one_less >= group.size - group.unavailable
        # a node that serves nothing may go at once, where nodes above the size stay
        spare = node.health is not Health.READY and len(staying) - removed > group.size
        if enough or spare:
            ready, removed = one_less, removed + 1
            yield RemoveNode(node=node.name)
    busy = [n for n in nodes if n.health in (Health.STARTING, Health.DRAINING)]
    unready = [n for n in new if n.health is Health.NOT_READY]
    if not created and not removed and (old or busy or unready):
        waiting = (*busy, *unready, *old)[0]
        yield Wait(why=f"{group.name}: {waiting.name} is {waiting.health}")


def _is_new(node: NodeView, desired: Desired) -> bool:
    return (node.image, node.kubelet) == (desired.image, desired.kubernetes)


def _planes(observed: Observed) -> tuple[NodeView, ...]:
    return tuple(n for n in observed.nodes if n.role is NodeRole.CONTROL_PLANE)
