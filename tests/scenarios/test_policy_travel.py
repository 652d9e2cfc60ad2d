"""A new cluster policy goes to one of three JoinServices and is obeyed by all: real aTLS and TLS.

The owner is the engine's own function.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from constellation.atls import client
from constellation.atls import server as atls_server
from constellation.atls.limits import USUAL
from constellation.base import clock
from constellation.base.errors import Conflict, FormatError, Rejected, Unavailable, Untrusted
from constellation.config.state import read_state
from constellation.crypto.signing import generate_key, spki
from constellation.kube.join_log import Entry, Kind
from constellation.kube.membership import NodeRole
from constellation.kube.node_certificates import certify_service
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs import join_pb2, policy_pb2
from constellation.rpc.stubs.join_grpc import PeerServiceStub
from constellation.rpc.stubs.policy_grpc import PolicyServiceBase, PolicyServiceStub
from constellation.services.joinservice import server as server_module
from constellation.services.offered_policy import write_offer
from constellation.trust.channel_proof import (
    JOIN_CHANNEL_LABEL,
    OWNER_CHANNEL_LABEL,
    prove_join_channel,
    prove_owner_channel,
)
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.policy_acceptance import OfferedPolicy
from tests.fakes.cluster_machines import Cluster, Node, machine, release_of
from tests.fakes.policy_world import NEXT, Owned, Plane, anybody, endpoint, owned_cluster
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.crypto.signing import ec
    from constellation.trust.channel_proof import OwnerPurpose
    from constellation.trust.cluster_policy import SignedPolicy


@pytest.fixture
async def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owned]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    async with owned_cluster(tmp_path) as one:
        yield one


async def test_a_policy_that_is_given_to_one_is_obeyed_by_all_at_once(
    owned: Owned, tmp_path: Path
) -> None:
    names = [p.name for p in owned.planes]
    assert await owned.reports() == dict.fromkeys(names, 1)
    both = await owned.to_next()
    async with (
        machine(tmp_path / "old", cluster=owned.cluster, given=False) as old,
        machine(tmp_path / "new", cluster=owned.cluster, given=False, image=NEXT) as new,
    ):
        assert [await p.accepts(new) for p in owned.planes] == [False] * 3
        await owned.hand_over(both)
        assert [p.serial for p in owned.planes] == [2, 2, 2]
        assert [await p.accepts(new) for p in owned.planes] == [True] * 3
        assert [await p.accepts(old) for p in owned.planes] == [True] * 3
    assert await owned.reports() == dict.fromkeys(names, 2)
    kept = read_state(owned.workspace.state)
    assert kept is not None
    assert (kept.policy_serial, kept.policy) == (2, both.signed)
    await owned.hand_over(both)  # again: nothing is left to do


async def hand_in(plane: Plane, offered: OfferedPolicy, proof: Callable[[bytes], bytes]) -> int:
    """Hand a policy to one control plane, whatever the owner's program would say of it."""
    opened = await client.connect(
        plane.address,
        plane.ports.policy,
        purpose="policy-client",
        server_purpose="policy-server",
        attester=None,
        appraise=anybody,
        deadline_s=10,
    )
    request = policy_pb2.HandOverRequest(
        owner_signature=proof(opened.exporter(OWNER_CHANNEL_LABEL)),
        policy=offered.signed.policy,
        policy_signature=offered.signed.signature,
        release_chain=offered.chain,
    )
    try:
        with raise_ours("node"):
            reply = await PolicyServiceStub(opened.grpc).HandOver(request, timeout=10)
    finally:
        opened.close()
    return len(reply.control_planes)


def sign(
    owned: Owned, key: ec.EllipticCurvePrivateKey, exporter: bytes, purpose: OwnerPurpose
) -> bytes:
    cluster_id = owned.cluster.document.cluster_id
    return prove_owner_channel(key, exporter=exporter, cluster_id=cluster_id, purpose=purpose)


async def test_lower_and_different_policies_are_refused_by_owner_and_node(owned: Owned) -> None:
    first = owned.planes[0].files.kept_policy().signed()
    two = await owned.to_next()
    await owned.hand_over(two)
    with pytest.raises(Untrusted, match="serial 1"):
        await owned.hand_over(OfferedPolicy(signed=first))
    with pytest.raises(Conflict, match="another one with serial 2"):
        await owned.hand_over(owned.narrower(first, serial=2))
    # a workstation that has forgotten what it handed over is told so, and signs nothing
    for again in (OfferedPolicy(signed=first), owned.narrower(first, serial=2)):
        owned.state = dataclasses.replace(owned.state, policy=first, policy_serial=1)
        with pytest.raises(Conflict, match="another workstation has gone on"):
            await owned.hand_over(again)
    owned.state = dataclasses.replace(owned.state, policy=two.signed, policy_serial=2)
    # and the nodes refuse by themselves
    plane, owner = owned.planes[0], owned.cluster.owner
    for old, error, why in (
        (OfferedPolicy(signed=first), Untrusted, "serial 1"),
        (owned.narrower(first, serial=2), Conflict, "another one with serial 2"),
    ):
        with pytest.raises(error, match=why):
            await hand_in(plane, old, lambda e: sign(owned, owner, e, "policy"))
    assert [p.serial for p in owned.planes] == [2, 2, 2]
    await owned.hand_over(owned.narrower(two.signed, serial=3))
    assert [p.serial for p in owned.planes] == [3, 3, 3]


async def test_a_join_service_that_was_off_catches_up_at_its_next_exchange(owned: Owned) -> None:
    away, owned.wait_s = owned.planes[2], 0.0
    await away.stop()
    two = await owned.to_next()
    with pytest.raises(Unavailable, match="not obeyed yet by control-plane-default-2"):
        await owned.hand_over(two)
    assert await owned.reports() == {
        "control-plane-default-0": 2,
        "control-plane-default-1": 2,
        "control-plane-default-2": 0,
    }
    assert away.serial == 1
    await away.start()
    for _ in range(100):
        if away.serial == 2:
            break
        await asyncio.sleep(0.05)
    assert away.serial == 2
    await owned.hand_over(two)


async def test_a_policy_reaches_control_planes_that_no_command_saw_come(owned: Owned) -> None:
    """The operator replaced those that the state file names."""
    owned.made = owned.state.infrastructure
    owned.reach("127.0.0.1:1")
    await owned.hand_over(await owned.to_next())
    assert set((await owned.reports()).values()) == {2}
    assert owned.made is not None
    assert owned.state.infrastructure is not None
    assert owned.state.infrastructure.instances == owned.made.instances


async def test_only_what_the_owner_signed_travels(owned: Owned) -> None:
    true = await owned.to_next()
    forged = dataclasses.replace(
        true, signed=sign_policy(parse_policy(true.signed.policy), generate_key())
    )
    with pytest.raises(Untrusted):
        await owned.hand_over(forged)
    sender, receiver = owned.planes[0], owned.planes[2]
    with pytest.raises(Untrusted):
        await exchange(sender.files.service_tls(), receiver, forged)
    for changes, words in (
        ({"join_public_key": spki(generate_key().public_key())}, "another join key"),
        ({"trust_roots": (b"of a cloud that somebody made up",)}, "other trust roots"),
    ):
        with pytest.raises(Rejected, match=words):
            await exchange(sender.files.service_tls(), receiver, await owned.to_next(**changes))
    assert receiver.serial == 1
    assert (await exchange(sender.files.service_tls(), receiver, true)).serial == 2


async def test_a_worker_exchanges_no_policies(owned: Owned, tmp_path: Path) -> None:
    sender, receiver = owned.planes[0], owned.planes[2]
    member = dataclasses.replace(
        sender.ledger.membership.nodes[0],
        name="worker-default-0",
        role=NodeRole.WORKER,
        group="worker-default",
        address="127.0.0.9",
        mesh_address="10.43.0.99",
        pod_cidr="10.244.99.0/24",
        disk_uuid=b"w" * 16,
        mesh_public_key=b"w" * 32,
        joined=sender.ledger.membership.sequence + 1,
    )
    reserved = Entry(kind=Kind.RESERVED, time=1, member=member, expires_at=2_000_000_000)
    await sender.ledger.write(lambda _: reserved, now=1)
    await receiver.ledger.follow(now=1)
    certificate = certify_service(
        member,
        services_ca=sender.files.services_ca(),
        cluster_id=owned.cluster.document.cluster_id,
        now=datetime.now(UTC),
    )
    (tmp_path / "worker.crt").write_bytes(certificate)
    theirs = dataclasses.replace(sender.files.service_tls(), certificate=tmp_path / "worker.crt")
    two = await owned.to_next()
    with pytest.raises(Rejected, match="expected a control plane"):
        await exchange(theirs, receiver, two)
    assert (await exchange(sender.files.service_tls(), receiver, two)).serial == 2


async def exchange(
    tls: ServiceTls, receiver: Plane, offered: OfferedPolicy
) -> join_pb2.PolicyStand:
    stand = join_pb2.PolicyStand(serial=parse_policy(offered.signed.policy).serial)
    write_offer(stand, offered)
    peer = channel(receiver.address, receiver.peer_port, tls=tls)
    try:
        with raise_ours("PeerService"):
            return await PeerServiceStub(peer).ExchangePolicy(stand, timeout=5)
    finally:
        peer.close()


async def test_whoever_is_not_the_owner_hands_in_nothing(owned: Owned) -> None:
    plane, two = owned.planes[0], await owned.to_next()

    owner = owned.cluster.owner
    for false_proof in (
        lambda _: b"",
        lambda exporter: sign(owned, generate_key(), exporter, "policy"),
        lambda exporter: sign(owned, owner, exporter, "recover"),
        lambda _: sign(owned, owner, bytes(32), "policy"),
    ):
        with pytest.raises((Untrusted, FormatError)):
            await hand_in(plane, two, false_proof)
        assert plane.serial == 1
    assert await hand_in(plane, two, lambda e: sign(owned, owner, e, "policy")) == 3


class FalseReporter(PolicyServiceBase):
    """A genuine node of the cluster that says what the owner wants to hear."""

    def __init__(self, cluster: Cluster, signed: SignedPolicy) -> None:
        self._cluster, self._signed = cluster, signed

    async def HandOver(  # noqa: N802 - the name in policy.proto
        self, stream: Stream[policy_pb2.HandOverRequest, policy_pb2.PolicyReport]
    ) -> None:
        await stream.recv_message()
        proof = prove_join_channel(
            generate_key(),
            exporter=atls_server.peer_of(stream).exporter(JOIN_CHANNEL_LABEL),
            cluster_id=self._cluster.document.cluster_id,
        )
        digest = hashlib.sha256(self._signed.policy).digest()
        obeyed = policy_pb2.Obeyed(node_name="control-plane-default-0", serial=2, digest=digest)
        await stream.send_message(
            policy_pb2.PolicyReport(channel_signature=proof, control_planes=[obeyed])
        )

    async def Report(self, stream: Stream[object, object]) -> None:  # noqa: N802 - the name in policy.proto
        raise NotImplementedError


async def test_a_report_without_the_join_key_is_not_believed(owned: Owned, tmp_path: Path) -> None:
    two = await owned.to_next()

    async def hand_over_to(node: Node) -> None:
        listening = await atls_server.serve(
            [FalseReporter(owned.cluster, two.signed)],
            host="127.0.0.1",
            port=0,
            purpose="policy-server",
            attester=node,
            appraisers={"": anybody},
            limits=USUAL,
        )
        owned.reach(f"127.0.0.1:{listening.port}")
        try:
            await owned.hand_over(two)
        finally:
            listening.close()
            await listening.wait_closed()

    async with machine(tmp_path / "worker", cluster=owned.cluster) as worker:
        with pytest.raises(Untrusted, match="signature"):
            await hand_over_to(worker)
    async with machine(tmp_path / "fresh", cluster=owned.cluster, given=False) as fresh:
        with pytest.raises(Rejected, match="pcr15"):
            await hand_over_to(fresh)
    assert [p.serial for p in owned.planes] == [1, 1, 1]
    owned.reach("127.0.0.1:1", *map(endpoint, owned.planes))
    await owned.hand_over(two)
    assert [p.serial for p in owned.planes] == [2, 2, 2]


async def test_a_policy_that_refuses_the_control_planes_is_not_handed_over(owned: Owned) -> None:
    with pytest.raises(Rejected, match="pcr4"):
        await owned.hand_over(await owned.to_next(releases=(release_of(NEXT),)))
    assert [p.serial for p in owned.planes] == [1, 1, 1]
