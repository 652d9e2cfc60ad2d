"""The owner recovers control planes in whatever state the cluster is: real aTLS, real quotes.

The nodes' servers are those of the disk mapper; what they open is told, the machines are listed by
a provider that a test changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from constellation.atls import server
from constellation.atls.limits import USUAL
from constellation.base.errors import Rejected, Unavailable
from constellation.cluster.context import Context, KubernetesNode
from constellation.cluster.recover import Recovered, recover
from constellation.cluster.secrets import make_secrets
from constellation.cluster.steps import ready
from constellation.config.schema import Config, NodeGroup
from constellation.config.state import STATE_VERSION, ChosenNode, Image, State
from constellation.config.workspace import Workspace
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.services.diskmapper.recovery import RecoveryService
from constellation.trust.node_document import dump_node_document
from tests.fakes.cluster_machines import CA, IMAGE, Cluster, machine, release_of
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.attestation.model import AttestationResult
    from constellation.base.progress import Progress
    from constellation.services.diskmapper.unlock import Unlock
    from tests.fakes.cluster_machines import Node

NEW_IMAGE, FORGED = (hashlib.sha256(word).digest() for word in (b"new image", b"forged"))
"""In a roll-out the state file names the new image, the policy accepts the old one, too."""


def nobody_attests(*_: object) -> AttestationResult:
    raise ValueError("the owner does not attest")


@dataclass(kw_only=True)
class World:
    """A workspace of the owner's, and machines that wait for their disk keys."""

    workspace: Workspace
    cluster: Cluster
    listed: dict[str, Instance] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    said: list[Progress] = field(default_factory=list)
    away: bool = False

    async def observe(self) -> InfrastructureState:
        """What the provider says now."""
        if self.away:
            raise Unavailable("the provider is away")
        return self._infrastructure()

    def _infrastructure(self) -> InfrastructureState:
        return InfrastructureState(
            uid="test",
            endpoint="10.42.0.1:6443",
            user_endpoint="127.0.0.1:6443",
            api_sans=(),
            instances=tuple(self.listed.values()),
            trust_roots=(CA.root,),
        )

    def state(self) -> State:
        """The state file in the midst of a roll-out from IMAGE to NEW_IMAGE."""
        return State(
            version=STATE_VERSION,
            name="test",
            uid="test",
            cluster_id=self.cluster.document.cluster_id,
            node_document=dump_node_document(self.cluster.document),
            kubernetes_version="v1.36.2",
            image=Image(path="/image", release=release_of(NEW_IMAGE)),
            infrastructure=self._infrastructure(),
            policy=self.cluster.policy(serial=2, images=(NEW_IMAGE, IMAGE)),
            policy_serial=2,
        )

    def context(self) -> Context:
        return Context(
            workspace=self.workspace,
            config=Config(
                name="test",
                node_groups={"control_plane_default": NodeGroup(role=Role.CONTROL_PLANE, size=1)},
            ),
            supplies=None,  # type: ignore[arg-type] # nothing is made
            infrastructure=lambda _: self,  # type: ignore[arg-type,return-value] # it is looked at
            owned=tuple,
            list_nodes=self._list_nodes,
            now=lambda: NOW,
            report=self.said.append,
            wait_s=12.0,
        )

    async def _list_nodes(self, _: Path) -> tuple[KubernetesNode, ...]:
        """Kubernetes is away until a control plane's disk is open."""
        if not self.opened:
            raise Unavailable("the Kubernetes API does not answer")
        first = KubernetesNode(
            name="p0",
            role="control-plane",
            ready=True,
            version="v1.36.2",
            address="10.42.1.10",
            reason="",
        )
        return (first,)

    async def recover(self, state: State) -> tuple[Recovered, ...]:
        return await recover(self.context(), state, deadline_s=10)

    @contextlib.asynccontextmanager
    async def waiting(self, name: str, node: Node) -> AsyncIterator[None]:
        """A control plane that asks for its disk key."""

        async def opened(_: Unlock) -> str:
            self.opened.append(name)
            return name

        service = RecoveryService(self.cluster.document, disk_uuid=bytes(16), opened=opened)
        listening = await server.serve(
            [service],
            host="127.0.0.1",
            port=0,
            purpose="recover-server",
            attester=node,
            appraisers={"": nobody_attests},
            limits=USUAL,
        )
        self.listed[name] = Instance(
            instance_id=name,
            group="control_plane_default",
            role=Role.CONTROL_PLANE,
            address="127.0.0.1",
            state="running",
            recovery_endpoint=f"127.0.0.1:{listening.port}",
        )
        try:
            yield
        finally:
            listening.close()
            await listening.wait_closed()


@pytest.fixture
def world(tmp_path: Path) -> World:
    workspace = Workspace(folder=tmp_path)
    owner = make_secrets(workspace)
    cluster = Cluster(name="owned", owner=owner.owner_key, owners=owner.master)
    return World(workspace=workspace, cluster=cluster)


async def test_in_a_roll_out_a_control_plane_of_the_old_image_is_recovered(
    world: World, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for name, image in (("old", IMAGE), ("new", NEW_IMAGE)):
            node = await stack.enter_async_context(
                machine(tmp_path / name, cluster=world.cluster, given=False, image=image)
            )
            await stack.enter_async_context(world.waiting(name, node))
        done = await world.recover(world.state())
        assert [r.node_name for r in done] == world.opened == ["old", "new"]
        # the roll-out has ended: what the policy takes no more gets no secret
        after = dataclasses.replace(
            world.state(),
            policy=world.cluster.policy(serial=3, images=(NEW_IMAGE,)),
            policy_serial=3,
        )
        with pytest.raises(Rejected, match="pcr4"):
            await world.recover(after)
        assert world.opened == ["old", "new", "new"]


async def test_one_that_is_refused_keeps_no_other_from_being_recovered(
    world: World, tmp_path: Path
) -> None:
    async with (
        machine(tmp_path / "f", cluster=world.cluster, given=False, image=FORGED) as forged,
        machine(tmp_path / "g", cluster=world.cluster, given=False) as genuine,
        world.waiting("a-forged", forged),
        world.waiting("b-genuine", genuine),
    ):
        with pytest.raises(Rejected, match="pcr4"):
            await world.recover(world.state())
        assert world.opened == ["b-genuine"]


async def test_the_machines_of_now_are_recovered_and_not_those_of_the_state_file(
    world: World, tmp_path: Path
) -> None:
    """The operator replaces a dead control plane by itself: no command was there to see it."""
    async with machine(tmp_path / "n", cluster=world.cluster, given=False) as node:
        gone = Instance(
            instance_id="gone",
            group="control_plane_default",
            role=Role.CONTROL_PLANE,
            address="127.0.0.1",
            state="running",
            recovery_endpoint="127.0.0.1:1",
        )
        world.listed["gone"] = gone
        state = world.state()
        del world.listed["gone"]
        async with world.waiting("came", node):
            assert [r.node_name for r in await world.recover(state)] == ["came"]
            world.away = True
            assert await world.recover(world.state()), "the state file's, where nobody says more"


def _chosen(state: State, instance_id: str) -> State:
    return dataclasses.replace(
        state, init=ChosenNode(instance_id=instance_id, attester_id=bytes(32))
    )


async def test_init_opens_the_first_node_that_lost_its_power_when_it_was_finished(
    world: World, tmp_path: Path
) -> None:
    """No other control plane has joined: nobody but the owner can give it its disk's key."""
    async with (
        machine(tmp_path / "f", cluster=world.cluster, given=False) as first,
        machine(tmp_path / "o", cluster=world.cluster, given=False) as other,
        world.waiting("first", first),
        world.waiting("other", other),
    ):
        nodes = await ready.run(world.context(), _chosen(world.state(), "first"))
        assert [n.name for n in nodes] == ["p0"]
        assert world.opened == ["first"]


async def test_init_gives_a_forged_first_node_nothing_nor_any_without_the_secret(
    world: World, tmp_path: Path
) -> None:
    async with (
        machine(tmp_path / "f", cluster=world.cluster, given=False, image=FORGED) as forged,
        machine(tmp_path / "g", cluster=world.cluster, given=False) as genuine,
        world.waiting("forged", forged),
        world.waiting("genuine", genuine),
    ):
        with pytest.raises(Rejected, match="pcr4"):
            await ready.run(world.context(), _chosen(world.state(), "forged"))
        world.workspace.master_secret.rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="does not answer"):
            await ready.run(world.context(), _chosen(world.state(), "genuine"))
        assert world.opened == []
