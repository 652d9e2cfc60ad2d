"""Who joined when, with what evidence, and who was refused why: a signed, hash-chained log.

Records are named by sequence number, signed with the join key and chained by SHA-256; the fold of
all records is the `Membership`. Whoever holds one trusted head can check every successor, so a log
that was cut, reordered or forked is found. Checkpoints carry the whole membership: what lies
before one may be deleted (design, section 10, "Join log"). Nothing here does I/O.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.kube import membership as members
from constellation.kube.membership import Member, Membership  # noqa: TC001 - decode reads them

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = [
    "CHECKPOINT_EVERY",
    "Entry",
    "EvidenceSummary",
    "Kind",
    "Record",
    "SignedRecord",
    "advance",
    "append",
    "load_record",
    "replay",
    "verify_record",
]

CHECKPOINT_EVERY = 500
"""Records between two checkpoints: about a megabyte in etcd."""

_LABEL = "constellation-join-log-v1"
_PURPOSE = "record"
_VERSION = 1
_MAX_RECORD_BYTES = 1024 * 1024


class Kind(StrEnum):
    """What a record tells."""

    FOUNDED = "founded"
    RESERVED = "reserved"
    SETTLED = "settled"
    REJOINED = "rejoined"
    RENEWED = "renewed"
    LAPSED = "lapsed"
    REMOVED = "removed"
    FORGOTTEN = "forgotten"
    REFUSED = "refused"
    REFUSED_MORE = "refused-more"
    CHECKPOINT = "checkpoint"


_CHANGES_PEERS = frozenset({Kind.FOUNDED, Kind.RESERVED, Kind.LAPSED, Kind.REMOVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSummary:
    """What the evidence of a node said: claims in hexadecimal (or decimal, for numbers)."""

    variant: str
    attester_id: bytes
    claims: dict[str, str]
    policy_serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What happened, before it has a place in the chain.

    Times are seconds since 1970, UTC: `time` by the JoinService's clock, `node_time` as the node
    said (0: it said none). `name`, `address`, `instance_id`, `role` tell about whom; `member` and
    `expires_at` belong to RESERVED, `state` to FOUNDED and CHECKPOINT, `count` to REFUSED_MORE,
    `image` (SHA-256 of the node image that the evidence shows) to REJOINED.
    """

    kind: Kind
    time: int
    node_time: int = 0
    name: str = ""
    address: str = ""
    instance_id: str = ""
    role: str = ""
    reasons: tuple[str, ...] = ()
    count: int = 0
    evidence: EvidenceSummary | None = None
    member: Member | None = None
    expires_at: int = 0
    state: Membership | None = None
    image: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An entry at its place: `previous` is the digest of the record before it (32 bytes)."""

    version: int
    sequence: int
    previous: bytes
    writer: str
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRecord:
    """Canonical JSON of a `Record` and the join key's signature over exactly these bytes."""

    data: bytes
    signature: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the data, 32 bytes: what the next record names as `previous`."""
        return hashlib.sha256(self.data).digest()


def append(
    membership: Membership,
    entry: Entry,
    *,
    writer: str,
    join_private_key: EllipticCurvePrivateKey,
) -> tuple[SignedRecord, Membership]:
    """Write `entry` as the record after `membership`; give it and the membership it leads to.

    Raises:
        FormatError: the entry does not fit this membership (a slot is taken by now).
    """
    record = Record(
        version=_VERSION,
        sequence=membership.sequence + 1,
        previous=membership.head,
        writer=writer,
        entry=entry,
    )
    data = decode.dump(record)
    signature = signing.sign(
        join_private_key,
        data,
        label=_LABEL,
        cluster_id=membership.settings.cluster_id,
        purpose=_PURPOSE,
    )
    signed = SignedRecord(data=data, signature=signature)
    return signed, _apply(membership, record, digest=signed.digest)


def advance(membership: Membership, signed: SignedRecord, *, join_public_key: bytes) -> Membership:
    """Verify the next record (`join_public_key`: DER, from the policy) and apply it.

    Raises:
        Untrusted: not signed by the join key, or not the successor of `membership`.
        FormatError: it is signed and does not make sense.
    """
    record = verify_record(
        signed, join_public_key=join_public_key, cluster_id=membership.settings.cluster_id
    )
    if record.sequence != membership.sequence + 1:
        raise Untrusted(
            f"join log: record {record.sequence}, expected {membership.sequence + 1}",
            hint="records are missing or were reordered",
        )
    if record.previous != membership.head:
        raise Untrusted(
            f"join log: record {record.sequence} follows {record.previous.hex()}, "
            f"expected {membership.head.hex()}",
            hint="somebody replaced the log or cut it",
        )
    return _apply(membership, record, digest=signed.digest)


def verify_record(signed: SignedRecord, *, join_public_key: bytes, cluster_id: bytes) -> Record:
    """Check the signature of one record and read it; says nothing about its place.

    Raises:
        Untrusted: the join key of this cluster did not sign it.
        FormatError: it is signed and is not a record.
    """
    signing.verify(
        join_public_key,
        signed.signature,
        signed.data,
        label=_LABEL,
        cluster_id=cluster_id,
        purpose=_PURPOSE,
    )
    return load_record(signed)


def load_record(signed: SignedRecord) -> Record:
    """Read a record without believing it.

    Raises:
        FormatError: not a record of this version, or not in canonical form.
    """
    record = decode.load(Record, signed.data, what="join record", max_bytes=_MAX_RECORD_BYTES)
    if record.version != _VERSION:
        raise FormatError(f"join record: version {record.version}, expected {_VERSION}")
    if decode.dump(record) != signed.data:
        raise FormatError("join record: not in canonical form")
    return record


def replay(
    records: Iterable[SignedRecord], *, join_public_key: bytes, cluster_id: bytes
) -> Membership:
    """Fold a log from its beginning: the FOUNDED record, or a CHECKPOINT where older ones are gone.

    Raises:
        Untrusted: a signature or the chain does not hold, or the log is empty.
        FormatError: a record is signed and does not make sense.
    """
    state: Membership | None = None
    for signed in records:
        if state is not None:
            state = advance(state, signed, join_public_key=join_public_key)
            continue
        record = verify_record(signed, join_public_key=join_public_key, cluster_id=cluster_id)
        if record.entry.kind not in (Kind.FOUNDED, Kind.CHECKPOINT) or record.entry.state is None:
            raise Untrusted(
                f"join log: begins with {record.entry.kind} record {record.sequence}, expected "
                "founded or checkpoint",
                hint="the beginning of the log is missing",
            )
        before = dataclasses.replace(
            record.entry.state, sequence=record.sequence - 1, head=record.previous
        )
        state = advance(before, signed, join_public_key=join_public_key)
    if state is None:
        raise Untrusted("join log: no records", hint="the log was deleted")
    return state


def _apply(membership: Membership, record: Record, *, digest: bytes) -> Membership:
    changed = _changed(membership, record.entry, sequence=record.sequence)
    serial = record.sequence if record.entry.kind in _CHANGES_PEERS else membership.peers_serial
    return dataclasses.replace(changed, sequence=record.sequence, head=digest, peers_serial=serial)


def _changed(membership: Membership, entry: Entry, *, sequence: int) -> Membership:  # noqa: PLR0911 - one a kind
    match entry.kind:
        case Kind.FOUNDED | Kind.CHECKPOINT:
            return _restated(membership, entry)
        case Kind.RESERVED:
            if entry.member is None or entry.member.joined != sequence:
                raise FormatError(f"join record {sequence}: reserves no member of this record")
            return members.reserve(membership, entry.member, expires_at=entry.expires_at)
        case Kind.SETTLED:
            return members.settle(membership, entry.name)
        case Kind.LAPSED:
            return members.lapse(membership, entry.name)
        case Kind.REMOVED:
            return members.remove(membership, entry.name)
        case Kind.FORGOTTEN:
            return members.forget(membership, entry.name)
        case Kind.REJOINED:
            return _returned(membership, entry)
        case Kind.RENEWED | Kind.REFUSED | Kind.REFUSED_MORE:
            return membership


def _returned(membership: Membership, entry: Entry) -> Membership:
    """Note with which image a node came back; one that is no live node any more: nothing."""
    nodes = (
        dataclasses.replace(m, image=entry.image) if m.name == entry.name and entry.image else m
        for m in membership.nodes
    )
    return dataclasses.replace(membership, nodes=tuple(nodes))


def _restated(membership: Membership, entry: Entry) -> Membership:
    """Check that a checkpoint says what the records before it lead to."""
    if entry.state is None:
        raise FormatError(f"join record: {entry.kind} without a state")
    if entry.kind is Kind.FOUNDED and membership.sequence != 0:
        raise Untrusted("join log: founded a second time", hint="somebody replaced the log")
    said = dataclasses.replace(entry.state, sequence=membership.sequence, head=membership.head)
    if said != membership:
        raise Untrusted(
            "join log: a checkpoint says another membership than the records before it",
            hint="one JoinService does not follow the rules; compare the control planes' copies",
        )
    return membership
