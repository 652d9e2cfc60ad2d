"""A cluster that an operator can roll: Kubernetes, etcd, provider, JoinService, upgrade agents.

Small and working: machines boot and join by the rules of admission (slots, one control plane at a
time, only images that the policy accepts), pods move when they are evicted, etcd has a quorum or
answers nobody, an API server that is deleted without having ended fails its requests. `rules` are
checked after every change; what breaks one is in `broken`. `die_at` lets the operator's process end
at one of its calls.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from constellation.base.errors import Conflict, Rejected, Unavailable
from constellation.kube import membership as members
from constellation.kube.cluster_release import Order, OrderKind, Report, parse_status
from constellation.kube.etcd import EtcdMember
from constellation.kube.membership import GroupSlots, Member, Membership, NodeRole
from constellation.kube.placement import Addresses, allocate, place_first
from constellation.kube.rollout import NodeGroup, quorum, version_order
from constellation.providers.protocols import Instance, Role
from constellation.services.operator.facts import Components, Facts, KubeNode
from constellation.services.operator.fleet import Fleet
from constellation.services.operator.ports import Pod
from constellation.trust.node_image import wanted_image
from tests.fakes.members import KEYS, digest, settings
from tests.fakes.upgrade_policy import policy_of

if TYPE_CHECKING:
    from constellation.kube.cluster_release import ReleaseStatus
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["CONTROL", "NEW_IMAGE", "OLD_IMAGE", "WORKERS", "Killed", "RolloutWorld", "policy"]

OLD_IMAGE, NEW_IMAGE = b"o" * 32, b"n" * 32
CONTROL, WORKERS = "control-plane-default", "worker-default"
_BOOTS_IN = 2
"""Turns until a machine that can join is ready."""


class Killed(Exception):
    """The operator's process ended here."""


def policy(
    *, serial: int, images: tuple[bytes, ...], kubernetes: str, also: str = ""
) -> ClusterPolicy:
    """Give a policy; `images` the wanted one first, `also` another accepted Kubernetes."""
    made = policy_of(b"{}", kubernetes=kubernetes, serial=serial, images=images)
    first, *rest = made.releases
    lists = made.artifact_lists | ({also: bytes(32)} if also else {})
    ending = tuple(dataclasses.replace(r, not_after=10**12) for r in rest)
    return dataclasses.replace(made, releases=(first, *ending), artifact_lists=lists)


@dataclass(slots=True, kw_only=True)
class _Machine:
    instance: Instance
    image: bytes
    name: str = ""
    turns: int = 0
    kubelet: str = ""
    api_server: str = ""
    broken: bool = False
    off: bool = False


@dataclass(slots=True, kw_only=True)
class _App:
    """Pods of one Service with a disruption budget of one."""

    on: dict[str, str]  # pod → node
    ending: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class RolloutWorld:
    """The whole cluster; `turn` lets time pass, the methods of `ports.World` are the operator's."""

    policy: ClusterPolicy
    me: str = ""
    provider_image: bytes = OLD_IMAGE
    next_broken: bool = False
    budget_blocks: bool = False
    list_is_empty: bool = False
    die_at: int | None = None
    calls: int = 0
    broken: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    status: ReleaseStatus | None = None
    groups: dict[str, NodeGroup] = field(default_factory=dict)
    slots_above: int = 1
    wanted_objects: str | None = ""
    refused_objects: str = ""

    def __post_init__(self) -> None:
        self._machines: dict[str, _Machine] = {}
        self._number = self._voted = 0
        self._nodes: dict[str, KubeNode] = {}
        self._voters: list[EtcdMember] = []
        self._leader = 0
        self._orders: dict[str, Order] = {}
        self._reports: dict[str, Report] = {}
        self._snapshots: set[int] = set()
        self._apps = _App(on={})
        self._pointing: dict[str, int] = {}  # node → endpoints that still lead to it
        self.refusals: dict[str, str] = {}
        self._components = Components(config_maps="", core_dns="", rbac="")
        self.membership: Membership | None = None

    # ---- making the cluster -----------------------------------------------------------------

    @classmethod
    def running(
        cls, *, control_planes: int, workers: int, kubernetes: str = "v1.36.2", **fields: Any
    ) -> Self:
        """Give a cluster in which everything is as its first policy says."""
        first_policy = policy(serial=1, images=(OLD_IMAGE,), kubernetes=kubernetes)
        world = cls(policy=first_policy, **fields)
        plan = settings(control_planes=control_planes, workers=workers)
        world._components = Components(config_maps=kubernetes, core_dns=kubernetes, rbac=kubernetes)
        first = world._machine(CONTROL, Role.CONTROL_PLANE)
        free = place_first(plan, plan.groups[0])
        world.membership = members.found(plan, world._member(first, free, image=OLD_IMAGE))
        world._joined(first, free.name, kubernetes)
        for group, role, count in (
            (CONTROL, Role.CONTROL_PLANE, control_planes - 1),
            (WORKERS, Role.WORKER, workers),
        ):
            for _ in range(count):
                world._machine(group, role)
        for _ in range(4 * (control_planes + workers)):
            world.turn()
        world.me = free.name
        nodes = sorted(n for n in world._nodes if n.startswith("worker"))
        world._apps = _App(on={f"web-{i}": n for i, n in enumerate((*nodes, *nodes)[:3])})
        return world

    def upgrade(self, to: ClusterPolicy) -> None:
        """Hand over a policy, and give the provider its image."""
        self.policy, self.provider_image = to, wanted_image(to)

    # ---- time passes ------------------------------------------------------------------------

    def turn(self) -> None:
        """Let machines boot and join, pods come up elsewhere, control planes obey orders."""
        self._obey()
        for machine in list(self._machines.values()):
            self._boot(machine)
        self._housekeep()
        self._pointing.clear()
        for pod in list(self._apps.ending):
            if self._apps.on[pod]:
                continue  # on a machine that is off: nobody there ends it
            ready = sorted(
                n.name for n in self._nodes.values() if n.ready and not n.leaving
                and n.name.startswith("worker")
            )  # fmt: skip
            if ready:
                self._apps.ending.discard(pod)
                counts = {n: list(self._apps.on.values()).count(n) for n in ready}
                self._apps.on[pod] = min(ready, key=lambda n: counts[n])
        self._check()

    def power_off(self, name: str) -> None:
        """A machine loses its power, and stays off."""
        machine = self._by_name(name)
        machine.off = True
        self._nodes[name] = dataclasses.replace(self._nodes[name], ready=False)

    def vanish(self, name: str) -> None:
        """A machine is deleted behind the operator's back."""
        machine = self._by_name(name)
        del self._machines[machine.instance.instance_id]
        self._nodes[name] = dataclasses.replace(self._nodes[name], ready=False)

    def names(self) -> list[str]:
        return sorted(self._nodes)

    def instance_ids(self) -> set[str]:
        return set(self._machines)

    def may_lead(self, name: str) -> bool:
        """Say whether this node's operator may lead: a control plane that lives and stays."""
        node = self._nodes.get(name)
        machine = next((m for m in self._machines.values() if m.name == name), None)
        return (
            node is not None
            and machine is not None
            and not node.leaving
            and not machine.off
            and bool(machine.api_server)
        )

    @property
    def orders(self) -> dict[str, Order]:
        return self._orders

    def images(self) -> set[bytes]:
        return {m.image for m in self._machines.values()}

    def kubelets(self) -> set[str]:
        return {n.kubelet for n in self._nodes.values()}

    def api_servers(self) -> set[str]:
        return {m.api_server for m in self._machines.values() if m.api_server}

    @property
    def components(self) -> Components:
        return self._components

    # ---- the operator's world ---------------------------------------------------------------

    async def look(self) -> Facts:
        self._call("look")
        self._answering()
        assert self.membership is not None
        listed = () if self.list_is_empty else tuple(m.instance for m in self._machines.values())
        return Facts(
            me=self.me,
            membership=self.membership,
            policy=self.policy,
            instances=listed,
            nodes=tuple(self._nodes.values()),
            etcd=tuple(self._voters),
            api_servers={
                m.instance.address: m.api_server
                for m in self._machines.values()
                if m.api_server and not m.off
            },
            refusals=dict(self.refusals),
            components=self._components,
            snapshot=self.policy.serial in self._snapshots,
            groups=tuple(self.groups.values()),
            orders=dict(self._orders),
            reports=dict(self._reports),
            wanted_objects=self.wanted_objects,
        )

    async def mark_leaving(self, node: str) -> None:
        self._call(f"mark {node}")
        if node in self._nodes:
            self._nodes[node] = dataclasses.replace(self._nodes[node], leaving=True)

    async def pods_to_leave(self, node: str) -> tuple[Pod, ...]:
        self._call("pods")
        return tuple(
            Pod(namespace="default", name=p, ending=p in self._apps.ending)
            for p, on in self._apps.on.items()
            if on == node
        )

    async def evict(self, pod: Pod) -> bool:
        self._call(f"evict {pod.name}")
        if self.budget_blocks or self._apps.ending:
            return False
        self._apps.ending.add(pod.name)
        node = self._apps.on[pod.name]
        if any(m.name == node and m.off for m in self._machines.values()):
            return True  # and it ends never: its kubelet does not live
        self._pointing[node] = self._pointing.get(node, 0) + 1
        self._apps.on[pod.name] = ""
        return True

    async def endpoints_on(self, node: str) -> int:
        self._call("endpoints")
        return self._pointing.get(node, 0)

    async def delete_node(self, node: str) -> None:
        self._call(f"delete node {node}")
        machine = next((m for m in self._machines.values() if m.name == node), None)
        if machine is not None and not machine.off:
            self.broken.append(f"{node} was deleted while its kubelet runs")
        self._nodes.pop(node, None)
        for pod, on in self._apps.on.items():
            if (
                on == node
            ):  # Kubernetes collects pods of nodes that are gone; others take their place
                self._apps.ending.add(pod)
                self._apps.on[pod] = ""

    async def create_machine(self, group: str) -> str:
        self._call(f"create {group}")
        wanted = {g.name: g.role for g in self.groups.values()}
        if group not in wanted:
            raise Conflict(f"there is no group {group}")
        machine = self._machine(group, Role(str(wanted[group])))
        machine.broken, self.next_broken = self.next_broken, False
        return machine.instance.instance_id

    async def delete_machine(self, instance_id: str) -> None:
        self._call(f"delete machine {instance_id}")
        machine = self._machines.pop(instance_id, None)
        if machine is None or machine.off:
            return
        node = self._nodes.get(machine.name)
        if any(on == machine.name for on in self._apps.on.values() if on):
            self.broken.append(f"pods on {machine.name} were cut off")
        if self._pointing.get(machine.name):
            self.broken.append(f"a Service still led to pods on {machine.name}")
        if machine.api_server and node is not None and node.ready:
            self.broken.append(f"the API server of {machine.name} was cut off")
        if any(m.address == machine.instance.address for m in self._voters):
            self.broken.append(f"{machine.name} was a member of etcd")
        if node is not None:
            self._nodes[machine.name] = dataclasses.replace(node, ready=False)

    async def etcd_members(self) -> tuple[EtcdMember, ...]:
        self._call("members")
        self._answering()
        return tuple(self._voters)

    async def etcd_leader(self) -> int:
        self._call("leader")
        return self._leader

    async def move_etcd_leader(self, leader: EtcdMember, to: EtcdMember) -> None:
        self._call(f"lead to {to.address}")
        if leader.member_id != self._leader:
            raise Unavailable("etcd: it does not lead")
        self._leader = to.member_id

    async def remove_etcd_member(self, member: EtcdMember) -> None:
        self._call(f"etcd without {member.address}")
        self._answering()
        live = member.address in self._live()
        if live and member.member_id == self._leader:
            self.broken.append("etcd's leader was removed")
        self._voters = [m for m in self._voters if m.member_id != member.member_id]
        if self._leader == member.member_id:
            self._leader = self._voters[0].member_id

    async def api_server_answers(self, address: str) -> bool:
        self._call("answers")
        return any(
            m.instance.address == address and m.api_server and not m.off
            for m in self._machines.values()
        )

    async def set_config_maps(self, kubernetes: str) -> None:
        self._call("config maps")
        self._components = dataclasses.replace(self._components, config_maps=kubernetes)

    async def snapshot(self, serial: int, kubernetes: str) -> None:
        self._call("snapshot")
        assert kubernetes == self.policy.kubernetes_version
        self._snapshots.add(serial)

    async def core_dns(self, serial: int, kubernetes: str) -> None:
        self._call("core dns")
        assert serial == self.policy.serial
        self._components = dataclasses.replace(self._components, core_dns=kubernetes)

    async def rbac(self, serial: int, kubernetes: str) -> None:
        self._call("rbac")
        assert serial == self.policy.serial
        self._components = dataclasses.replace(self._components, rbac=kubernetes)

    async def cloud_objects(self, serial: int, kubernetes: str) -> None:
        self._call("cloud objects")
        assert (serial, kubernetes) == (self.policy.serial, self.policy.kubernetes_version)
        if self.refused_objects:
            raise Rejected((self.refused_objects,))
        assert self.wanted_objects is not None
        self._components = dataclasses.replace(self._components, cloud_objects=self.wanted_objects)

    async def order(self, node: str, order: Order | None) -> None:
        self._call(f"order {node} {order.kind if order else 'nothing'}")
        if order is None:
            self._orders.pop(node, None)
            self._reports.pop(node, None)
        else:
            self._orders[node] = order

    async def create_group(self, group: NodeGroup) -> None:
        self._call(f"group {group.name}")
        self.groups.setdefault(group.name, dataclasses.replace(group, version="1"))

    async def change_group(self, group: NodeGroup) -> None:
        self._call(f"change group {group.name}")
        kept = self.groups[group.name].version
        if group.version != kept:
            raise Conflict(f"{group.name}: version {group.version}, now {kept}")
        self.groups[group.name] = dataclasses.replace(group, version=str(int(kept) + 1))

    async def set_provider_id(self, node: str, provider_id: str) -> None:
        self._call(f"provider id {node}")
        assert not self._nodes[node].provider_id, "Kubernetes lets it be said once"
        self._nodes[node] = dataclasses.replace(self._nodes[node], provider_id=provider_id)

    async def fleet(self) -> Fleet:
        assert self.membership is not None
        return Fleet(
            policy=self.policy,
            membership=self.membership,
            groups=tuple(self.groups.values()),
            instances=tuple(m.instance for m in self._machines.values()),
            nodes=tuple(self._nodes.values()),
        )

    async def write_status(self, status: dict[str, Any]) -> None:
        self._call("status")
        self.status = parse_status(status)

    # ---- inside -----------------------------------------------------------------------------

    def _call(self, what: str) -> None:
        self.calls += 1
        if self.die_at is not None and self.calls >= self.die_at:
            raise Killed(what)
        if what not in ("look", "pods", "endpoints", "members", "leader", "answers", "status"):
            self.log.append(what)

    def _live(self) -> set[str]:
        return {m.instance.address for m in self._machines.values() if not m.off}

    def _answering(self) -> None:
        live = sum(m.address in self._live() for m in self._voters)
        if live < quorum(len(self._voters)):
            raise Unavailable("etcd: no quorum")

    def _by_name(self, name: str) -> _Machine:
        return next(m for m in self._machines.values() if m.name == name)

    def _machine(self, group: str, role: Role) -> _Machine:
        number, self._number = self._number, self._number + 1
        control = role is Role.CONTROL_PLANE
        instance = Instance(
            instance_id=f"i-{number}",
            group=group,
            role=role,
            address=f"10.42.{1 if control else 2}.{10 + number}",
            state="running",
        )
        machine = _Machine(instance=instance, image=self.provider_image)
        self._machines[instance.instance_id] = machine
        return machine

    def _boot(self, machine: _Machine) -> None:
        if machine.name or machine.broken or machine.off:
            return
        machine.turns += 1
        if machine.turns < _BOOTS_IN:
            return
        if machine.image not in {r.image_digest for r in self.policy.releases}:
            self.refusals[machine.instance.instance_id] = "pcr4: found another"
            return
        assert self.membership is not None
        group = next(g for g in self.membership.settings.groups if g.name == machine.instance.group)
        wanted = self.groups.get(group.name)
        slots = (wanted.size if wanted else group.size) + self.slots_above
        if members.occupied(self.membership, group.name) >= slots:
            self.refusals[machine.instance.instance_id] = "expected a free slot"
            return
        servers = self.api_servers()
        if group.role is NodeRole.CONTROL_PLANE and servers != {self.policy.kubernetes_version}:
            return
        self._join(machine, group, version=min(servers, key=version_order))

    def _join(self, machine: _Machine, group: GroupSlots, *, version: str) -> None:
        assert self.membership is not None
        free = allocate(self.membership, group=group)
        member = self._member(machine, free, image=machine.image)
        self.membership = members.reserve(self.membership, member, expires_at=300)
        self.membership = members.settle(self.membership, member.name)
        self._joined(machine, member.name, version)

    def _joined(self, machine: _Machine, name: str, version: str) -> None:
        machine.name, machine.kubelet = name, version
        self._nodes[name] = KubeNode(
            name=name, address=machine.instance.address, ready=True, kubelet=version, leaving=False
        )
        if machine.instance.role is Role.CONTROL_PLANE:
            machine.api_server = version
            self._voted += 1
            number = self._voted
            member = EtcdMember(member_id=number, address=machine.instance.address, learner=False)
            self._voters.append(member)
            self._leader = self._leader or number

    def _member(self, machine: _Machine, free: Addresses, *, image: bytes) -> Member:
        who = machine.instance.instance_id
        return Member(
            name=free.name,
            instance_id=who,
            role=NodeRole(str(machine.instance.role)),
            group=machine.instance.group,
            attester_id=digest(f"ak {who}"),
            address=machine.instance.address,
            mesh_address=free.mesh_address,
            pod_cidr=free.pod_cidr,
            disk_uuid=digest(f"disk {who}")[:16],
            kubelet_client_public_key=KEYS[0],
            kubelet_serving_public_key=KEYS[1],
            service_public_key=hashlib.sha256(who.encode()).digest(),
            mesh_public_key=digest(f"mesh {who}"),
            joined=0,
            image=image,
        )

    def _obey(self) -> None:
        for name, order in self._orders.items():
            machine = next((m for m in self._machines.values() if m.name == name), None)
            if machine is None or machine.off or not machine.api_server:
                continue
            if order.policySerial != self.policy.serial:
                self._reports[name] = Report(order=order, done=False, reason="another policy")
            elif order.kind is OrderKind.UPGRADE:
                machine.api_server = order.kubernetes
                self._reports[name] = Report(order=order, done=True)
            else:
                machine.api_server = ""
                self._nodes[name] = dataclasses.replace(self._nodes[name], ready=False)

    def _housekeep(self) -> None:
        """JoinService: whom nobody knows is removed and forgotten."""
        assert self.membership is not None
        for member in (*self.membership.nodes, *self.membership.retired):
            known = member.name in self._nodes or member.instance_id in self._machines
            if known:
                continue
            if member in self.membership.nodes:
                self.membership = members.remove(self.membership, member.name)
            self.membership = members.forget(self.membership, member.name)

    def _check(self) -> None:
        servers = sorted((m.api_server for m in self._machines.values() if m.api_server),
                         key=version_order)  # fmt: skip
        if not servers:
            self.broken.append("no API server is left")
            return
        if version_order(servers[-1])[1] - version_order(servers[0])[1] > 1:
            self.broken.append(f"API servers of {servers[0]} and {servers[-1]}")
        for node in self._nodes.values():
            if node.ready and version_order(node.kubelet) > version_order(servers[0]):
                self.broken.append(f"kubelet of {node.name} is newer than {servers[0]}")
        live = sum(m.address in self._live() for m in self._voters)
        if live < quorum(len(self._voters)):
            self.broken.append("etcd lost its quorum")
        if len(self._apps.ending) > 1:
            self.broken.append("two pods of one budget ended at once")
