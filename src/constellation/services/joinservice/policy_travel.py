"""How a new cluster policy gets from one JoinService to all: each judges and keeps it for itself.

Two control planes that meet tell each other what they obey; whoever has the older policy takes the
newer one, if its own judgement of policy and release allows it (`trust.policy_judgement`). They
meet when a policy was handed over here, and every 10 s: a JoinService that was off catches up at
its next exchange. Source: design, sections 3 and 6.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from typing import TYPE_CHECKING, Protocol

from constellation.base import clock
from constellation.base.errors import Conflict, ConstellationError
from constellation.kube.membership import NodeRole
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs import join_pb2, policy_pb2
from constellation.rpc.stubs.join_grpc import PeerServiceStub
from constellation.services.offered_policy import read_offer, write_offer
from constellation.trust.cluster_policy import parse_policy
from constellation.trust.policy_acceptance import sign_acceptance
from constellation.trust.policy_judgement import Judge, judge_successor

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from constellation.kube.membership import Member, Membership
    from constellation.services.kept_policy import KeptPolicy
    from constellation.trust.policy_acceptance import OfferedPolicy

__all__ = ["AskPeer", "PeerCalls", "PolicyTravel"]

_CALL_S = 5.0
_log = logging.getLogger(__name__)


class AskPeer(Protocol):
    """The PeerService of another control plane."""

    async def __call__(self, address: str, mine: join_pb2.PolicyStand) -> join_pb2.PolicyStand:
        """Tell it what is obeyed here; gives what is obeyed there. Raises Unavailable."""
        ...


class PeerCalls:
    """`AskPeer` over mutual TLS."""

    def __init__(self, tls: ServiceTls, *, port: int) -> None:
        self._tls, self._port = tls, port

    async def __call__(self, address: str, mine: join_pb2.PolicyStand) -> join_pb2.PolicyStand:
        """See `AskPeer`."""
        peer = channel(address, self._port, tls=self._tls)
        try:
            with raise_ours(f"PeerService {address}"):
                return await PeerServiceStub(peer).ExchangePolicy(mine, timeout=_CALL_S)
        finally:
            peer.close()


class PolicyTravel:
    """What one JoinService does with policies; `own_name` is its node's.

    `pinned_root`: root metadata of this node's own image; `join_key` gives the key with which this
    JoinService says that it has judged a policy; `access` gives the digest of the sealed provider
    access that this node has taken.
    """

    def __init__(
        self,
        kept: KeptPolicy,
        *,
        own_name: str,
        pinned_root: bytes,
        join_key: Callable[[], ec.EllipticCurvePrivateKey],
        membership: Callable[[], Membership],
        ask: AskPeer,
        access: Callable[[], bytes],
    ) -> None:
        self._kept, self._own_name, self._access = kept, own_name, access
        self._pinned_root, self._join_key = pinned_root, join_key
        self._membership, self._ask = membership, ask

    def take(self, offered: OfferedPolicy) -> None:
        """Obey a policy from now on if it is newer and a release stands behind all of it.

        Raises:
            ConstellationError: see `trust.policy_judgement.judge_successor`.
        """
        document = self._kept.document
        judge = Judge(document=document, pinned_root=self._pinned_root, now=clock.now_for_windows())
        judged = judge_successor(self._kept.verified(), self._kept.offered(), offered, judge=judge)
        if judged is None:
            return
        keeping = judged.offered
        if judged.own is not None:
            own = sign_acceptance(judged.own, self._join_key(), cluster_id=document.cluster_id)
            keeping = dataclasses.replace(keeping, accepted=own)
        self._kept.keep(keeping)
        extra = {
            "serial": judged.policy.serial,
            "release": judged.policy.release.version if judged.policy.release else "",
            "kubernetes": judged.policy.kubernetes_version,
        }
        _log.info("a new cluster policy is obeyed", extra=extra)

    def answer(self, theirs: join_pb2.PolicyStand) -> join_pb2.PolicyStand:
        """Take what a control plane brought, and say what is obeyed here now.

        Raises:
            ConstellationError: what it brought is not to be taken.
        """
        if theirs.policy:
            self.take(read_offer(theirs))
        return self._stand(whole=self._kept.verified().serial > theirs.serial)

    async def exchange(self) -> tuple[policy_pb2.Obeyed, ...]:
        """Meet every other live control plane; gives what each obeys, this one included."""
        others = [
            m
            for m in self._membership().nodes
            if m.role is NodeRole.CONTROL_PLANE and m.name != self._own_name
        ]
        met = await asyncio.gather(*(self._meet(m) for m in others))
        mine = self._stand(whole=False)
        own = _obeyed(self._own_name, mine)
        return tuple(sorted((own, *met), key=lambda o: o.node_name))

    async def once(self) -> None:
        """Meet the others, and say in the journal what did not go well."""
        for obeyed in await self.exchange():
            if obeyed.problem:
                extra = {"node": obeyed.node_name, "reason": obeyed.problem}
                _log.info("no policy exchanged", extra=extra)

    async def _meet(self, member: Member) -> policy_pb2.Obeyed:
        try:
            theirs = await self._level(member.address)
        except ConstellationError as error:
            return policy_pb2.Obeyed(node_name=member.name, problem=str(error)[:500])
        return _obeyed(member.name, theirs)

    async def _level(self, address: str) -> join_pb2.PolicyStand:
        mine = self._stand(whole=False)
        theirs = await self._ask(address, mine)
        if theirs.serial > mine.serial:
            self.take(read_offer(theirs))
        elif theirs.serial < mine.serial:
            theirs = await self._ask(address, self._stand(whole=True))
        elif theirs.digest != mine.digest:
            raise Conflict(f"{address} obeys another policy with the same serial {mine.serial}")
        return theirs

    def _stand(self, *, whole: bool) -> join_pb2.PolicyStand:
        signed = self._kept.signed()
        stand = join_pb2.PolicyStand(
            serial=parse_policy(signed.policy).serial,
            digest=hashlib.sha256(signed.policy).digest(),
            access_digest=self._access(),
        )
        if whole:
            write_offer(stand, self._kept.offered())
        return stand


def _obeyed(name: str, stand: join_pb2.PolicyStand) -> policy_pb2.Obeyed:
    return policy_pb2.Obeyed(
        node_name=name,
        serial=stand.serial,
        digest=stand.digest,
        access_digest=stand.access_digest,
    )
