"""What a JoinService answers on an attested channel: introduction, tickets, new certificates.

Every handler gets a peer whose evidence was accepted for the purpose of its channel. The order in
`Join` matters: decide and record first, then make the ticket, so that no secret is ever given that
the log does not tell of (design, section 10).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from constellation.atls.channel import EVIDENCE_S
from constellation.atls.server import peer_of
from constellation.base import clock
from constellation.base.errors import ConstellationError, Rejected, Unavailable
from constellation.kube import membership as members
from constellation.kube.join_log import Entry, Kind
from constellation.kube.membership import NodeRole
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import JoinServiceBase
from constellation.services.joinservice import admit, entries
from constellation.services.joinservice.kubernetes_version import kubernetes_for
from constellation.services.joinservice.renew import Renewals, RenewFacts, renew
from constellation.trust.channel_proof import JOIN_CHANNEL_LABEL, prove_join_channel
from constellation.trust.node_document import dump_node_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpclib.server import Stream

    from constellation.atls.server import ServerPeer
    from constellation.attestation.model import AttestationResult
    from constellation.base.secret import Secret
    from constellation.kube.membership import Member, Membership
    from constellation.providers.protocols import Instance
    from constellation.services.joinservice.kubernetes_version import ApiVersions
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.refused import Refusals
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.services.joinservice.tickets import Tickets
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["JOIN", "REJOIN", "RENEW", "DiskKeys", "JoinHandlers", "PeersLearned", "Provider"]

JOIN, REJOIN, RENEW = "join-client", "rejoin-client", "renew-client"
"""Purposes of the three kinds of channels."""

_PEERS_LEARN_WITHIN_S = 2.0
_LEASE_WAIT_S = 45.0
"""Seconds for which a control plane waits here for the one before it."""
_log = logging.getLogger(__name__)


class DiskKeys(Protocol):
    """KeyService, as far as tickets need it."""

    async def state_disk(self, uuid: bytes) -> Secret:
        """Give the key (64 bytes) of a state disk by its uuid (16 bytes). Raises Unavailable."""
        ...


class Provider(Protocol):
    """The provider's list of machines; `providers.protocols.Metadata` has it."""

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable."""
        ...


class PeersLearned(Protocol):
    """Who in the mesh has which peer list."""

    async def wait(self, serial: int, *, deadline_s: float) -> None:
        """Wait until all peers that listen here have `serial`, `deadline_s` at most."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinHandlers(JoinServiceBase):
    """The JoinService protocol on one control plane."""

    files: NodeFiles
    kept: KeptPolicy
    ledger: Ledger
    provider: Provider
    keys: DiskKeys
    tickets: Tickets
    learned: PeersLearned
    refusals: Refusals
    publish: Callable[[Membership], Awaitable[None]]
    versions: ApiVersions
    renewals: Renewals = field(default_factory=Renewals)

    async def Introduce(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.IntroduceRequest, join_pb2.Introduction]
    ) -> None:
        """Show the policy and prove that this channel ends at a holder of the join key."""
        with raise_status():
            await stream.recv_message()
            signed = self.kept.signed()
            proof = prove_join_channel(
                self.files.join_key(),
                exporter=peer_of(stream).exporter(JOIN_CHANNEL_LABEL),
                cluster_id=self.kept.document.cluster_id,
            )
            await stream.send_message(
                join_pb2.Introduction(
                    policy=signed.policy,
                    policy_signature=signed.signature,
                    channel_signature=proof,
                )
            )

    async def Join(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.JoinRequest, join_pb2.JoinTicket]
    ) -> None:
        """Give a new node its place and everything it needs to take it."""
        with raise_status():
            request = await _message(stream)
            peer = peer_of(stream)
            try:
                result = _attested(peer, purpose=JOIN)
                kubernetes = await self._kubernetes(request.role)
                member = await self._reserve(request, result)
            except ConstellationError as error:
                self._refused(error, peer, request.instance_id, request.role)
                raise
            # its kubelet will make its Node object, which only a live member's may
            await self.publish(self.ledger.membership)
            serial = self.ledger.membership.peers_serial
            await self.learned.wait(serial, deadline_s=_PEERS_LEARN_WITHIN_S)
            key = await self.keys.state_disk(member.disk_uuid)
            ticket = self.tickets.join(
                member,
                self.ledger.membership,
                kubernetes=kubernetes,
                disk_key=key,
                grant=self.ledger.record(member.joined),
                now=clock.now(),
                time=clock.seconds_for_windows(),
            )
            _log.info("a node got a ticket", extra={"node": member.name, "address": member.address})
            await stream.send_message(ticket)

    async def Rejoin(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.RejoinRequest, join_pb2.RejoinTicket]
    ) -> None:
        """Give a rebooted node the key of its own disk; needs no API server."""
        with raise_status():
            request = await _message(stream)
            peer = peer_of(stream)
            try:
                result = _attested(peer, purpose=REJOIN)
                member = await self._returning(request, result)
            except ConstellationError as error:
                self._refused(error, peer, request.instance_id, "")
                raise
            key = await self.keys.state_disk(member.disk_uuid)
            ticket = self.tickets.rejoin(
                self.ledger.membership,
                disk_key=key,
                time=clock.seconds_for_windows(),
            )
            _log.info("a node came back", extra={"node": member.name, "address": member.address})
            await stream.send_message(ticket)

    async def Renew(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.RenewRequest, join_pb2.RenewTicket]
    ) -> None:
        """Give a running node new certificates; needs no API server."""
        with raise_status():
            request = await _message(stream)
            peer = peer_of(stream)
            try:
                result = _attested(peer, purpose=RENEW)
                member = await self._renewing(request, result)
            except ConstellationError as error:
                self._refused(error, peer, request.instance_id, request.role)
                raise
            ticket = self.tickets.renew(
                member,
                cluster_id=self.kept.document.cluster_id,
                kubelet_client=request.kubelet_client,
                now=clock.now(),
                time=clock.seconds_for_windows(),
            )
            _log.info("a node renewed its certificates", extra={"node": member.name})
            await stream.send_message(ticket)

    async def Settled(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.SettledRequest, join_pb2.SettledReply]
    ) -> None:
        """End a node's reservation: it works. Asked on the channel that the ticket came over."""
        with raise_status():
            request = await _message(stream)
            # it gives nothing: a node says it minutes after its ticket
            result = peer_of(stream).attested(purpose=JOIN, within_s=math.inf, now_s=clock.boot_s())
            now = clock.seconds_for_windows()

            def decide(membership: Membership) -> Entry | None:
                member = members.member_by_name(membership, request.node_name)
                if member is None or member.attester_id != result.attester_id:
                    raise Rejected((f"{request.node_name[:80]!r} is not this node's name",))
                if member in membership.nodes:
                    return None
                return Entry(kind=Kind.SETTLED, time=now, name=member.name)

            await self.ledger.write(decide, now=now)
            await stream.send_message(join_pb2.SettledReply())

    async def _kubernetes(self, asked_role: str) -> str:
        """Give the version for a node of this role; before any place is reserved for it."""
        role = NodeRole.WORKER if asked_role == NodeRole.WORKER else NodeRole.CONTROL_PLANE
        return await kubernetes_for(
            role, self.ledger.membership, self.kept.verified(), ask=self.versions
        )

    async def _reserve(self, request: join_pb2.JoinRequest, result: AttestationResult) -> Member:
        facts = admit.JoinFacts(
            instance_id=request.instance_id,
            role=request.role,
            address=request.address,
            disk_uuid=request.disk_uuid,
            kubelet_client_public_key=request.kubelet_client_public_key,
            kubelet_serving_public_key=request.kubelet_serving_public_key,
            service_public_key=request.service_public_key,
            mesh_public_key=request.mesh_public_key,
        )
        instances = await self.provider.peers()
        policy, document = self.kept.verified(), dump_node_document(self.kept.document)

        def decide(membership: Membership) -> Entry:
            now = clock.seconds_for_windows()
            admission = admit.admit(
                admit.with_slots(membership, policy.slots),
                facts,
                result=result,
                document=document,
                instances=instances,
                now=now,
            )
            return entries.reserved(
                admission, result, policy=policy, now=now, node_time=request.time
            )

        membership = await self._write_when_free(decide)
        member = next(
            (
                r.member
                for r in membership.reservations
                if r.member.attester_id == result.attester_id
            ),
            None,
        )
        if member is None:
            raise Unavailable("the reservation was taken back before its ticket was made")
        return member

    async def _write_when_free(self, decide: Callable[[Membership], Entry]) -> Membership:
        def free() -> bool:
            return members.lease(self.ledger.membership) is None

        try:
            return await self.ledger.write(decide, now=clock.seconds_for_windows())
        except admit.LeaseTaken:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEASE_WAIT_S), self.ledger.changed:
                    await self.ledger.changed.wait_for(free)
        return await self.ledger.write(decide, now=clock.seconds_for_windows())

    async def _returning(
        self, request: join_pb2.RejoinRequest, result: AttestationResult
    ) -> Member:
        facts = admit.RejoinFacts(
            instance_id=request.instance_id,
            disk_uuid=request.disk_uuid,
            address=request.address,
        )
        try:
            instances = await self.provider.peers()
        except Unavailable:
            instances = None
        policy, now = self.kept.verified(), clock.seconds_for_windows()
        document = dump_node_document(self.kept.document)
        admitted: list[Member] = []

        def decide(membership: Membership) -> Entry:
            again = admit.admit_again(
                membership, facts, result=result, document=document, instances=instances
            )
            admitted[:] = [again.member]
            return entries.rejoined(
                again.member, result, policy=policy, now=now, node_time=request.time
            )

        await self.ledger.write_later(decide, now=now)
        return admitted[0]

    async def _renewing(self, request: join_pb2.RenewRequest, result: AttestationResult) -> Member:
        facts = RenewFacts(
            node_name=request.node_name,
            role=request.role,
            instance_id=request.instance_id,
            address=request.address,
        )
        policy, now, now_s = self.kept.verified(), clock.seconds_for_windows(), clock.monotonic_s()
        membership = self.ledger.membership
        document = dump_node_document(self.kept.document)
        member = renew(membership, facts, result=result, document=document)
        self.renewals.take(member, membership=membership, now_s=now_s)
        if not self.renewals.is_news(result, policy_serial=policy.serial, now_s=now_s):
            return member
        renewing: list[Member] = []

        def decide(membership: Membership) -> Entry:
            renewing[:] = [renew(membership, facts, result=result, document=document)]
            return entries.renewed(
                renewing[0], result, policy=policy, now=now, node_time=request.time
            )

        await self.ledger.write_later(decide, now=now)
        self.renewals.tell(result, policy_serial=policy.serial, now_s=now_s)
        return renewing[0]

    def _refused(
        self, error: ConstellationError, peer: ServerPeer, instance_id: str, role: str
    ) -> None:
        if isinstance(error, Unavailable):  # nobody judged the node: it comes again
            _log.warning("a node has to come again", extra={"reason": str(error)})
            return
        self.refusals.record(error, address=peer.remote_address, instance_id=instance_id, role=role)


def _attested(peer: ServerPeer, *, purpose: str) -> AttestationResult:
    return peer.attested(purpose=purpose, within_s=EVIDENCE_S, now_s=clock.boot_s())


async def _message(stream: Stream[Any, Any]) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise Unavailable("the caller ended the call before its request")
    return request
