"""Three control planes with real TPMs and real JoinServices, and the owner's side of a policy.

Each has its disk and its copy of one log, at 127.0.0.1 to 127.0.0.3; all pin the root of one maker,
who has published release 0.2.0 with the image `NEXT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from constellation.atls import client
from constellation.attestation.model import AttestationResult
from constellation.base.errors import ConstellationError, Rejected
from constellation.cluster import policy_hand_over
from constellation.cluster.context import Context
from constellation.cluster.secrets import make_secrets
from constellation.config.schema import Config, NodeGroup
from constellation.config.state import State, read_state
from constellation.config.workspace import Workspace
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.services.joinservice.judge import fresh_node, given_node
from constellation.services.joinservice.server import JoinServer, Ports
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.node_document import dump_node_document
from constellation.trust.policy_acceptance import OfferedPolicy
from tests.fakes.cluster_machines import CA, Cluster, Node, machine
from tests.fakes.join_world import (
    Keys,
    Provider,
    SharedLog,
    World,
    ledger_of,
    no_api_server,
    write_another,
    write_control_plane,
)
from tests.fakes.tpm import NOW
from tests.fakes.upgrade_world import Upgrades

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.attestation.model import Binding, Evidence
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.trust.cluster_policy import SignedPolicy

_HANDSHAKES_END_S = 0.2
NEXT = hashlib.sha256(b"the next node image").digest()


@dataclass(kw_only=True)
class Plane:
    """One control plane: its disk, its TPM, and its JoinService while it runs."""

    name: str
    address: str
    files: NodeFiles
    ledger: Ledger
    on: Node
    peer_port: int
    pinned_root: bytes = b""
    ports: Ports = field(default_factory=lambda: Ports(join=0, peers=0, policy=0))
    task: asyncio.Task[None] | None = None

    @property
    def serial(self) -> int:
        return self.files.kept_policy().verified().serial

    async def start(self) -> None:
        started: asyncio.Queue[Ports] = asyncio.Queue()
        kept = self.files.kept_policy()
        server = JoinServer(
            files=self.files,
            kept=kept,
            ledger=self.ledger,
            attester=self.on,
            appraise=fresh_node(kept),
            appraise_given=given_node(kept),
            provider=Provider(instances=()),
            keys=Keys(),
            world=World(),
            versions=no_api_server,
            pinned_root=self.pinned_root,
            own_name=self.name,
            host=self.address,
            join_port=0,
            peer_port=self.peer_port,
            policy_port=self.ports.policy,
        )
        self.task = asyncio.create_task(server.run(started=started.put_nowait))
        async with asyncio.timeout(5):
            self.ports = await started.get()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def accepts(self, node: Node) -> bool:
        """Say whether the JoinService lets a fresh machine in."""
        try:
            opened = await client.connect(
                self.address,
                self.ports.join,
                purpose="join-client",
                server_purpose="join-server",
                attester=node,
                appraise=anybody,
                deadline_s=10,
            )
        except Rejected:
            return False
        opened.close()
        return True


def anybody(evidence: Evidence, _binding: Binding) -> AttestationResult:
    return AttestationResult(
        variant=evidence.variant, attester_id=bytes(32), claims={}, unchecked=(), warnings=()
    )


@dataclass(kw_only=True)
class Owned:
    """The cluster as its owner has it; `wait_s` bounds a hand-over."""

    cluster: Cluster
    planes: tuple[Plane, ...]
    workspace: Workspace
    state: State
    upgrades: Upgrades
    wait_s: float = 5.0
    later_s: int = 0
    """Puts the workstation's clock forward."""
    made: InfrastructureState | None = None
    """What the provider lists; None: what the state file says."""

    async def observe(self) -> InfrastructureState | None:
        return self.made or self.state.infrastructure

    @property
    def context(self) -> Context:
        groups = {"control_plane_default": NodeGroup(role=Role.CONTROL_PLANE, size=3)}
        return Context(
            workspace=self.workspace,
            config=Config(name="test", node_groups=groups),
            supplies=None,  # type: ignore[arg-type] # nothing is made here
            infrastructure=lambda _: self,  # type: ignore[arg-type,return-value] # it is looked at
            owned=tuple,
            list_nodes=None,  # type: ignore[arg-type] # Kubernetes is not asked
            now=lambda: NOW + timedelta(seconds=self.later_s),
            report=lambda _: None,
            wait_s=self.wait_s,
        )

    async def to_next(self, *, kubernetes: str = "", **changes: object) -> OfferedPolicy:
        """Sign the roll-out to release 0.2.0 with image `NEXT`."""
        assert self.state.policy is not None
        return await self.upgrades.to("0.2.0", self.state.policy, kubernetes=kubernetes, **changes)

    def narrower(self, current: SignedPolicy, *, serial: int) -> OfferedPolicy:
        """Sign a policy that says the same as another, with another serial."""
        policy = dataclasses.replace(parse_policy(current.policy), serial=serial)
        return OfferedPolicy(signed=sign_policy(policy, self.cluster.owner))

    async def hand_over(self, offered: OfferedPolicy) -> None:
        """Hand over as the engine does; the state file says how it ended."""
        try:
            self.state = await policy_hand_over.hand_over(
                self.context, self.state, offered.signed, chain=offered.chain
            )
        except ConstellationError:
            self.state = read_state(self.workspace.state) or self.state
            raise

    async def reports(self) -> dict[str, int]:
        obeyed = await policy_hand_over.obeyed_policies(self.context, self.state)
        return {o.node_name: o.serial for o in obeyed}

    def reach(self, *endpoints: str) -> None:
        """Let the workstation know control planes by these endpoints only."""
        instances = tuple(
            Instance(
                instance_id=f"cp-{i}",
                group="control_plane_default",
                role=Role.CONTROL_PLANE,
                address=endpoint.partition(":")[0],
                state="running",
                policy_endpoint=endpoint,
            )
            for i, endpoint in enumerate(endpoints)
        )
        machines = InfrastructureState(
            uid="test",
            endpoint="10.42.0.1:6443",
            user_endpoint="127.0.0.1:6443",
            api_sans=(),
            instances=instances,
            trust_roots=(CA.root,),
        )
        self.state = dataclasses.replace(self.state, infrastructure=machines)


def endpoint(plane: Plane) -> str:
    return f"{plane.address}:{plane.ports.policy}"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


async def write_planes(
    folder: Path, cluster: Cluster, nodes: list[Node], log: SharedLog
) -> tuple[Plane, ...]:
    first = write_control_plane(
        folder / "cp0", cluster=cluster, attester_id=await nodes[0].attester_id()
    )
    names = [f"control-plane-default-{i}" for i in range(len(nodes))]
    ledger = ledger_of(first, log, writer=names[0])
    others = [
        await write_another(folder / f"cp{i}", first, ledger, index=i) for i in range(1, len(nodes))
    ]
    disks = (first, *others)
    port = free_port()
    planes = [
        Plane(
            name=name,
            address=f"127.0.0.{i + 1}",
            files=files,
            ledger=ledger if i == 0 else ledger_of(files, log, writer=name),
            on=nodes[i],
            peer_port=port,
        )
        for i, (name, files) in enumerate(zip(names, disks, strict=True))
    ]
    return tuple(planes)


async def _stop(planes: tuple[Plane, ...]) -> None:
    """End all at once, and let handshakes end that one had begun with another."""
    await asyncio.gather(*(plane.stop() for plane in planes))
    await asyncio.sleep(_HANDSHAKES_END_S)


@contextlib.asynccontextmanager
async def owned_cluster(tmp_path: Path, *, count: int = 3) -> AsyncIterator[Owned]:
    """Start the control planes; the clock is the caller's to set."""
    workspace = Workspace(folder=tmp_path / "workspace")
    workspace.folder.mkdir()
    secrets = make_secrets(workspace)
    cluster = Cluster(name="owned", owner=secrets.owner_key, owners=secrets.master)
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(machine(tmp_path / f"tpm{i}", cluster=cluster))
            for i in range(count)
        ]
        upgrades = Upgrades(cluster=cluster, folder=tmp_path / "releases")
        upgrades.publish("0.2.0", NEXT)
        planes = await write_planes(tmp_path, cluster, nodes, SharedLog())
        for plane in planes:
            plane.pinned_root = upgrades.maker.pinned_root
            await plane.start()
        stack.push_async_callback(_stop, planes)
        state = State(
            version=1,
            name="test",
            uid="test",
            cluster_id=cluster.document.cluster_id,
            node_document=dump_node_document(cluster.document),
            kubernetes_version="v1.36.2",
            policy=planes[0].files.kept_policy().signed(),
            policy_serial=1,
        )
        one = Owned(
            cluster=cluster, planes=planes, workspace=workspace, state=state, upgrades=upgrades
        )
        one.reach(endpoint(planes[min(1, count - 1)]))
        yield one
