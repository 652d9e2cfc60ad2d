"""Gives master secret and join key to a control plane that joins: port 9092, aTLS, both attest.

And what control planes ask the provider's API with, where the owner gave it.

The peer's evidence was accepted for `grant-client`: a node of this cluster's policy whose PCR 15 is
this cluster's. What its grant is worth `grants` decides. A grant is used before the answer leaves,
and none outlives the KeyService that saw it be given: it is good once, also over a restart.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from constellation.atls.channel import EVIDENCE_S
from constellation.atls.server import peer_of
from constellation.base import clock
from constellation.base.errors import Unavailable
from constellation.crypto.signing import dump_private_key, load_private_key
from constellation.kube.join_log import SignedRecord, verify_record
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs.key_grpc import GrantServiceBase
from constellation.rpc.stubs.key_pb2 import RedeemReply, RedeemRequest
from constellation.services.keyservice.grants import judge_grant, look
from constellation.trust.appraisal import node_verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpclib.server import Stream

    from constellation.atls.channel import Appraise
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.base.secret import Secret
    from constellation.crypto.derive import MasterSecret
    from constellation.kube.membership import Membership
    from constellation.services.kept_policy import KeptPolicy
    from constellation.services.keyservice.grants import Grants

__all__ = [
    "GRANT_CLIENT",
    "GRANT_PORT",
    "GRANT_SERVER",
    "GrantHandlers",
    "KnownGrants",
    "joined_node",
]

GRANT_PORT = 9092
GRANT_CLIENT, GRANT_SERVER = "grant-client", "grant-server"
_log = logging.getLogger(__name__)


def joined_node(kept: KeptPolicy) -> Appraise:
    """Make the judge of nodes that were given to this cluster: its policy of this moment."""

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        now = clock.now_for_windows()
        verifier = node_verifier(kept.verified(), kept.document, joined=True, now=now)
        return verifier.appraise(evidence, binding=binding, now=now)

    return appraise


class KnownGrants:
    """The grants that one run of KeyService knows of: nothing of them outlives it."""

    def __init__(self) -> None:
        self._grants: Grants | None = None

    def look(self, membership: Membership) -> Grants:
        """Note which reservations stand in the log now."""
        self._grants = look(self._grants, membership, now_s=clock.boot_s())
        return self._grants

    def use(self, sequence: int) -> None:
        """Let nobody redeem this one again. It was judged by what `look` gave."""
        if self._grants is None:
            raise ValueError("a grant was used before any was looked at")
        self._grants = replace(self._grants, used=self._grants.used | {sequence})


class GrantHandlers(GrantServiceBase):
    """The GrantService of one control plane."""

    def __init__(
        self,
        master: MasterSecret,
        *,
        own_name: str,
        kept: KeptPolicy,
        join_key: Callable[[], Secret],
        access: Callable[[], Secret | None],
        membership: Callable[[], Membership],
        known: KnownGrants,
    ) -> None:
        self._master, self._own_name, self._kept = master, own_name, kept
        self._join_key, self._access = join_key, access
        self._membership, self._known = membership, known

    async def Redeem(  # noqa: N802 - the name in key.proto
        self, stream: Stream[RedeemRequest, RedeemReply]
    ) -> None:
        """Judge the grant, note that it is used, then give the secrets."""
        with raise_status():
            request = await stream.recv_message()
            peer = peer_of(stream)
            if request is None:
                raise Unavailable("the caller ended the call before its request")
            result = peer.attested(purpose=GRANT_CLIENT, within_s=EVIDENCE_S, now_s=clock.boot_s())
            record = verify_record(
                SignedRecord(data=request.record, signature=request.signature),
                join_public_key=self._kept.verified().join_public_key,
                cluster_id=self._kept.document.cluster_id,
            )
            membership = self._membership()
            member = judge_grant(
                record,
                attester_id=result.attester_id,
                own_name=self._own_name,
                membership=membership,
                grants=self._known.look(membership),
                now_s=clock.boot_s(),
            )
            join_key = dump_private_key(load_private_key(self._join_key()))
            access = self._access()
            self._known.use(record.sequence)
            _log.info("a control plane got its secrets", extra={"node": member.name})
            await stream.send_message(
                RedeemReply(
                    master_key=self._master.key.reveal(),
                    master_salt=self._master.salt.reveal(),
                    join_private_key=join_key.reveal(),
                    provider_access=access.reveal() if access is not None else b"",
                )
            )
