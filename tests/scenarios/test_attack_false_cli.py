"""Attacks by a false CLI on a waiting node: init and recovery act for the owner alone.

The node's own servers over aTLS; `begun` and `opened` tell whether it did anything at all. Evidence
is the node's to show here, so the machine's quotes are made up.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from constellation.atls import client, server
from constellation.atls.limits import USUAL
from constellation.attestation.model import Variant
from constellation.attestation.policy import Exactly
from constellation.base.errors import ConstellationError, Rejected, Untrusted
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, cluster_id
from constellation.crypto.signing import generate_key, spki
from constellation.providers.protocols import Instance, Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import init_pb2, recover_pb2
from constellation.rpc.stubs.init_grpc import InitServiceStub
from constellation.rpc.stubs.recover_grpc import RecoveryServiceStub
from constellation.services.bootstrapper.init_server import InitServer
from constellation.services.bootstrapper.node_lock import NodeLock
from constellation.services.diskmapper.recovery import RecoveryService
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, prove_owner_channel
from constellation.trust.disk_key import disk_key
from constellation.trust.node_document import NodeDocument
from tests.fakes.machines import Maker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.services.diskmapper.unlock import Unlock

GOOD = bytes([1]) * 32
OWNER, STRANGER = generate_key(), generate_key()
MASTER = MasterSecret(key=Secret(bytes([7]) * 32), salt=Secret(bytes([8]) * 32))
OTHER_MASTER = MasterSecret(key=Secret(bytes([9]) * 32), salt=Secret(bytes([8]) * 32))
CLUSTER_ID = cluster_id(MASTER)
UUID = hashlib.sha256(b"disk").digest()[:16]
DOCUMENT = NodeDocument(
    version=1,
    cluster_id=CLUSTER_ID,
    owner_public_key=spki(OWNER.public_key()),
    release_root=b"root",
    minimum_release="0.1.0",
    variant=Variant.LOCAL_VTPM,
)
OWN = Instance(
    instance_id="cp-0",
    group="control_plane_default",
    role=Role.CONTROL_PLANE,
    address="10.42.1.10",
    state="running",
)


class Node:
    """One waiting node with both servers; what it did is counted."""

    def __init__(self) -> None:
        maker = Maker()
        self.machine = maker.machine(pcr4=GOOD)
        self.appraise = maker.appraiser({"pcr4": Exactly(GOOD)})
        self.begun: list[MasterSecret | None] = []
        self.opened: list[bytes] = []
        self.lock = NodeLock()
        self.ports: dict[str, int] = {}

    def init_server(self) -> InitServer:
        class Prepared:
            def steps(self) -> tuple[()]:
                return ()

            def result(self) -> tuple[bytes, bytes]:
                return b"kubeconfig", b"ca"

        def prepare(_plan: object, *, master: MasterSecret | None, **_: object) -> Prepared:
            self.begun.append(master)
            return Prepared()

        async def run(*_: object) -> None:
            return

        async def journal() -> bytes:
            return b""

        return InitServer(
            document=DOCUMENT, own=OWN, lock=self.lock, prepare=prepare, run=run, journal=journal
        )

    def recovery(self) -> RecoveryService:
        async def opened(unlock: Unlock) -> str:
            self.opened.append(unlock.key.reveal())
            return "control-plane-default-0"

        return RecoveryService(DOCUMENT, disk_uuid=UUID, opened=opened)

    async def connect(self, service: str) -> client.AtlsChannel:
        return await client.connect(
            "127.0.0.1",
            self.ports[service],
            purpose=f"{service}-client",
            server_purpose=f"{service}-server",
            attester=None,
            appraise=self.appraise,
            deadline_s=5,
        )


def nobody_attests(*_: object) -> Any:
    raise ValueError("the owner does not attest")


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    async with contextlib.AsyncExitStack() as stack:
        for name, handler in (("init", made.init_server()), ("recover", made.recovery())):
            listening = await server.serve(
                [handler],
                host="127.0.0.1",
                port=0,
                purpose=f"{name}-server",
                attester=made.machine,
                appraisers={"": nobody_attests},
                limits=USUAL,
            )
            stack.callback(listening.close)
            made.ports[name] = listening.port
        yield made


def signed(channel: client.AtlsChannel, **changes: Any) -> bytes:
    """Sign as the owner does, but for what a false CLI has to do otherwise."""
    proof: dict[str, Any] = {
        "exporter": channel.exporter(OWNER_CHANNEL_LABEL),
        "cluster_id": CLUSTER_ID,
        **changes,
    }
    key = proof.pop("key", OWNER)
    return prove_owner_channel(key, **proof)


async def init(node: Node, master: MasterSecret = MASTER, **changes: Any) -> bytes:
    async with await node.connect("init") as channel:
        signature = changes.pop("signature", None)
        if signature is None:
            signature = signed(channel, **{"purpose": "init", **changes})
        group = init_pb2.NodeGroup(name=OWN.group, role="control-plane", size=1)
        start = init_pb2.Start(
            owner_signature=signature,
            plan=init_pb2.ClusterPlan(instance_id=OWN.instance_id, node_groups=[group]),
            master_key=master.key.reveal(),
            master_salt=master.salt.reveal(),
        )
        with raise_ours("node"):
            async with InitServiceStub(channel.grpc).Init.open() as stream:
                await stream.send_message(init_pb2.InitRequest(start=start))
                event = await stream.recv_message()
                assert event is not None
                await stream.end()
                return event.finished.kubeconfig


async def recover(node: Node, master: MasterSecret = MASTER, **changes: Any) -> str:
    async with await node.connect("recover") as channel:
        signature = changes.pop("signature", None)
        if signature is None:
            signature = signed(channel, **{"purpose": "recover", **changes})
        request = recover_pb2.RecoverRequest(
            owner_signature=signature,
            master_key=master.key.reveal(),
            master_salt=master.salt.reveal(),
        )
        with raise_ours("node"):
            reply = await RecoveryServiceStub(channel.grpc).Recover(request, timeout=5)
        return reply.node_name


FALSE_PROOFS: dict[str, dict[str, Any]] = {
    "none": {"signature": b""},
    "a stranger's": {"key": STRANGER},
    "the owner's, of another channel": {"exporter": bytes(32)},
    "the owner's, for another cluster": {"cluster_id": bytes(32)},
}


async def test_the_owner_is_served(node: Node) -> None:
    assert await init(node) == b"kubeconfig"
    assert node.begun == [MASTER]
    assert node.lock.held_by == "init"
    assert await recover(node) == "control-plane-default-0"
    assert node.opened == [disk_key(MASTER, UUID).reveal()]


@pytest.mark.parametrize("proof", FALSE_PROOFS)
async def test_without_the_owners_proof_nothing_begins(node: Node, proof: str) -> None:
    with pytest.raises(Untrusted):
        await init(node, **FALSE_PROOFS[proof])
    with pytest.raises(Untrusted):
        await recover(node, **FALSE_PROOFS[proof])
    assert (node.begun, node.opened, node.lock.held_by) == ([], [], "")


async def test_a_proof_for_one_purpose_does_not_serve_the_other(node: Node) -> None:
    with pytest.raises(Untrusted):
        await init(node, purpose="recover")
    with pytest.raises(Untrusted):
        await recover(node, purpose="init")
    assert (node.begun, node.opened, node.lock.held_by) == ([], [], "")


async def test_a_proof_that_was_seen_before_is_worth_nothing(node: Node) -> None:
    async with await node.connect("init") as channel:
        seen = signed(channel, purpose="init")
    with pytest.raises(Untrusted):
        await init(node, signature=seen)
    assert node.begun == []


async def test_the_master_secret_of_another_cluster_is_refused(node: Node) -> None:
    with pytest.raises(Rejected, match="clusterID"):
        await init(node, OTHER_MASTER)
    with pytest.raises(Rejected, match="clusterID"):
        await recover(node, OTHER_MASTER)
    assert (node.begun, node.opened, node.lock.held_by) == ([], [], "")


async def test_one_service_is_not_taken_for_the_other(node: Node) -> None:
    node.ports["init"], node.ports["recover"] = node.ports["recover"], node.ports["init"]
    with pytest.raises(ConstellationError, match="purpose"):
        await init(node)
    assert node.begun == []
