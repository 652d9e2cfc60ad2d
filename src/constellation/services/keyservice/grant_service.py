"""Gives master secret and join key to a control plane that joins: port 9092, aTLS, both attest.

And what control planes ask the provider's API with, where the owner gave it.

The peer's evidence was accepted for `grant-client`: a node of this cluster's policy whose PCR 15 is
this cluster's. What its grant is worth `grants` decides. A used grant is on the disk before the
answer leaves: it is good once, also over a restart.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls.server import peer_of
from constellation.base import clock, decode
from constellation.base.errors import Rejected
from constellation.base.files import write_atomic
from constellation.crypto.signing import dump_private_key, load_private_key
from constellation.kube.join_log import SignedRecord, verify_record
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs.key_grpc import GrantServiceBase
from constellation.rpc.stubs.key_pb2 import RedeemReply, RedeemRequest
from constellation.services.keyservice.grants import judge_grant
from constellation.trust.appraisal import node_verifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.atls.channel import Appraise
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.base.secret import Secret
    from constellation.crypto.derive import MasterSecret
    from constellation.kube.membership import Membership
    from constellation.services.kept_policy import KeptPolicy

__all__ = [
    "GRANT_CLIENT",
    "GRANT_PORT",
    "GRANT_SERVER",
    "GrantHandlers",
    "UsedGrants",
    "joined_node",
]

GRANT_PORT = 9092
GRANT_CLIENT, GRANT_SERVER = "grant-client", "grant-server"
_MAX_BYTES = 64 * 1024
_log = logging.getLogger(__name__)


def joined_node(kept: KeptPolicy) -> Appraise:
    """Make the judge of nodes that were given to this cluster: its policy of this moment."""

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        now = clock.now_for_windows()
        verifier = node_verifier(kept.verified(), kept.document, joined=True, now=now)
        return verifier.appraise(evidence, binding=binding, now=now)

    return appraise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    grants: dict[int, int]


class UsedGrants:
    """Grants that were redeemed here, by sequence number, until their time is over anyway."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def numbers(self) -> frozenset[int]:
        """Give them. Raises FormatError: the file is something else."""
        return frozenset(self._read())

    def add(self, sequence: int, *, expires_at: int, now: int) -> None:
        """Keep one more (times in seconds since 1970), and drop those that have expired."""
        left = {s: end for s, end in self._read().items() if end > now}
        used = _Used(grants={**left, sequence: expires_at})
        write_atomic(self._path, decode.dump(used), mode=0o600)

    def _read(self) -> dict[int, int]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        return decode.load(_Used, data, what=str(self._path), max_bytes=_MAX_BYTES).grants


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
        used: UsedGrants,
    ) -> None:
        self._master, self._own_name, self._kept = master, own_name, kept
        self._join_key, self._access = join_key, access
        self._membership, self._used = membership, used

    async def Redeem(  # noqa: N802 - the name in key.proto
        self, stream: Stream[RedeemRequest, RedeemReply]
    ) -> None:
        """Judge the grant, note that it is used, then give the secrets."""
        with raise_status():
            request = await stream.recv_message()
            peer = peer_of(stream)
            if request is None or peer.result is None:
                raise Rejected(("grant: the peer showed no evidence",))
            record = verify_record(
                SignedRecord(data=request.record, signature=request.signature),
                join_public_key=self._kept.verified().join_public_key,
                cluster_id=self._kept.document.cluster_id,
            )
            now = int(clock.now().timestamp())
            member = judge_grant(
                record,
                attester_id=peer.result.attester_id,
                own_name=self._own_name,
                membership=self._membership(),
                used=self._used.numbers(),
                now=now,
            )
            join_key = dump_private_key(load_private_key(self._join_key()))
            access = self._access()
            self._used.add(record.sequence, expires_at=record.entry.expires_at, now=now)
            _log.info("a control plane got its secrets", extra={"node": member.name})
            await stream.send_message(
                RedeemReply(
                    master_key=self._master.key.reveal(),
                    master_salt=self._master.salt.reveal(),
                    join_private_key=join_key.reveal(),
                    provider_access=access.reveal() if access is not None else b"",
                )
            )
