"""The one place where a JoinService changes the membership: decide, then take the next record.

Several JoinServices share one log in the Kubernetes API. Creating the record named by the next
sequence number is the atomic step: who fails to create it reads what is there, verifies it, and
decides again from the new membership (design, section 10, "Join log").

Every record whose number divides by 500 is a checkpoint, whoever writes it: nothing else can take
that number, so that the log is bounded however fast others write. The log begins with the
checkpoint before the newest one. Who was away while it was cut goes on from a checkpoint: writing
after a head that the others have left behind would be a second log (ADR 110). What stands under a
record's name and was not signed as that record is taken away: it must not keep nodes out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from constellation.base import clock
from constellation.base.errors import Conflict, FormatError, Unavailable, Untrusted
from constellation.crypto.signing import spki
from constellation.kube import join_log
from constellation.kube.join_log import CHECKPOINT_EVERY, Entry, Kind, SignedRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.kube.log_copy import LogCopy
    from constellation.kube.membership import Membership

__all__ = ["Ledger", "Records"]

_log = logging.getLogger(__name__)

_TRIES = 20
"""Lost races in a row until the caller is told to come again."""

_SOON_S = 2.0
"""Seconds that a decision which needs no API may wait for it."""

_DELETED_AT_ONCE = 100
"""Superfluous records that are removed in one turn: the log is followed every second."""


class Records(Protocol):
    """The shared log: records by sequence number, each written once."""

    async def get(self, sequence: int) -> SignedRecord | None:
        """Give a record, None if there is none yet; Unavailable if the log does not answer."""
        ...

    async def create(self, sequence: int, record: SignedRecord) -> bool:
        """Write a record; False if this number is taken. Raises Unavailable."""
        ...

    async def delete(self, sequence: int) -> None:
        """Remove a record that a checkpoint made superfluous; absent is fine."""
        ...

    async def after(self, sequence: int) -> int | None:
        """Give the lowest number above `sequence` that is there; None if none is. Unavailable."""
        ...


class Ledger:
    """Membership, shared log and this node's copy, kept in step. Make with `open_`."""

    def __init__(
        self,
        membership: Membership,
        *,
        copy: LogCopy,
        records: Records,
        writer: str,
        join_private_key: EllipticCurvePrivateKey,
        journal: tuple[Entry, ...],
    ) -> None:
        self._membership = membership
        self._copy = copy
        self._records = records
        self._writer = writer
        self._key = join_private_key
        self._public = spki(join_private_key.public_key())
        self._journal = journal
        self._cut = 0  # below this number this run has removed what was there
        self._read_at_s = float("-inf")  # when a record of another JoinService was read last
        self._lock = asyncio.Lock()
        self.changed = asyncio.Condition()

    @classmethod
    def open_(
        cls,
        copy: LogCopy,
        *,
        records: Records,
        writer: str,
        join_private_key: EllipticCurvePrivateKey,
    ) -> Ledger:
        """Read the copy on disk, verifying it; needs no API.

        Raises:
            Untrusted: the copy does not hold.
            FormatError: a file of it cannot be read.
        """
        public = spki(join_private_key.public_key())
        return cls(
            copy.load(join_public_key=public),
            copy=copy,
            records=records,
            writer=writer,
            join_private_key=join_private_key,
            journal=copy.load_journal(),
        )

    @property
    def membership(self) -> Membership:
        """The newest membership that this JoinService has verified."""
        return self._membership

    def record(self, sequence: int) -> SignedRecord:
        """Give a record of this JoinService's copy.

        Raises:
            Unavailable: the copy does not reach back so far.
        """
        record = self._copy.record(sequence)
        if record is None:
            raise Unavailable(f"join log: record {sequence} is not in the copy")
        return record

    async def write(self, decide: Callable[[Membership], Entry | None], *, now: int) -> Membership:
        """Decide from the newest membership and record the decision as its very next record.

        `decide` may be called several times; None means that nothing is to be written. `now`
        (seconds since 1970) dates what the ledger itself writes.

        Raises:
            Unavailable: the log does not answer, or other JoinServices were always faster.
            ConstellationError: what `decide` raised.
        """
        async with self._lock:
            for _ in range(_TRIES):
                await self._catch_up(now=now)
                entry = decide(self._membership)
                if entry is None or await self._take_next(entry):
                    break
            else:
                raise Unavailable(f"join log: {_TRIES} records in a row were taken by others")
        await self._announce()
        return self._membership

    async def write_later(self, decide: Callable[[Membership], Entry], *, now: int) -> None:
        """Record what may be decided without the API: at once, or from the journal later.

        `decide` gets the newest membership, after 2 s without an answer of the API that of the
        verified copy: without a quorum of etcd calls hang, and whoever comes back would be what
        brings the quorum. While newer records come, the copy is known to be old, and decides
        nothing: it may not have read yet who was removed.

        Raises:
            Unavailable: this JoinService still reads what was written while it was away.
            ConstellationError: what `decide` raised.
        """
        try:
            async with asyncio.timeout(_SOON_S):
                await self.write(decide, now=now)
        except (Unavailable, TimeoutError):
            if clock.monotonic_s() - self._read_at_s < _SOON_S:
                raise Unavailable(
                    "this JoinService still reads what was written while it was away",
                    hint="ask again, or another one",
                ) from None
            entry = decide(self._membership)
            # without the lock: who holds it may be waiting for the API
            self._journal = self._copy.save_journal((*self._journal, entry))
            _log.warning("join log is away, entry journaled", extra={"kind": str(entry.kind)})

    async def follow(self, *, now: int) -> None:
        """Take over what other JoinServices wrote, and write what is journaled.

        Raises:
            Unavailable: the log does not answer.
            Untrusted: the log and the copy contradict each other.
        """
        async with self._lock:
            await self._catch_up(now=now)
            while self._journal:
                oldest = self._journal[0]
                if await self._take_next(oldest):
                    rest = tuple(e for e in self._journal if e is not oldest)
                    self._journal = self._copy.save_journal(rest)
                await self._catch_up(now=now)
        await self._announce()
        await self._remove_superfluous()

    async def _catch_up(self, *, now: int) -> None:
        """Take over what is there; afterwards the next record is none that must be a checkpoint."""
        if self._membership.sequence == 0 and await self._shared(1) is None:
            (first,) = self._membership.nodes
            founding = Entry(
                kind=Kind.FOUNDED,
                time=now,
                name=first.name,
                address=first.address,
                instance_id=first.instance_id,
                role=str(first.role),
                state=self._membership,
            )
            await self._take_next(founding)
        await self._meet()
        for _ in range(_TRIES):
            while (record := await self._shared(self._membership.sequence + 1)) is not None:
                self._keep(
                    record,
                    join_log.advance(self._membership, record, join_public_key=self._public),
                )
                self._read_at_s = clock.monotonic_s()
            if (self._membership.sequence + 1) % CHECKPOINT_EVERY:
                return
            checkpoint = Entry(kind=Kind.CHECKPOINT, time=now, state=self._membership)
            await self._take_next(checkpoint)
        raise Unavailable(f"join log: {_TRIES} checkpoints in a row were written by others")

    async def _meet(self) -> None:
        """Find this copy's end in the shared log, give back what is lost there, or go on later.

        Raises:
            Untrusted: the shared log has something else there, or begins after this copy's end
                and has no checkpoint to go on from.
        """
        sequence = self._membership.sequence
        if sequence == 0:
            return
        if (shared := await self._shared(sequence)) is not None:
            await self._republish(shared)
            return
        for _ in range(_TRIES):
            following = await self._records.after(sequence)
            if following is None:  # nobody is further: the log lost what this copy has
                await self._republish(await self._shared(sequence))
                return
            if await self._shared(following) is not None:
                if following > sequence + 1:
                    await self._go_on_from_checkpoint(following)
                return  # else it was cut off right behind this copy's end
        raise Unavailable(f"join log: {_TRIES} objects in a row were nobody's records")

    async def _go_on_from_checkpoint(self, following: int) -> None:
        """Take the first checkpoint of a log that was cut while this JoinService was away."""
        ends = self._membership.sequence
        first = -(-following // CHECKPOINT_EVERY) * CHECKPOINT_EVERY
        for number in (first, first + CHECKPOINT_EVERY):
            record = await self._shared(number)
            if record is None or not _is_checkpoint(record):
                continue
            after = join_log.replay(
                (record,),
                join_public_key=self._public,
                cluster_id=self._membership.settings.cluster_id,
            )
            _log.warning(
                "this copy ends before the log begins, it goes on from a checkpoint",
                extra={"ended": ends, "checkpoint": number},
            )
            self._keep(record, after)
            return
        raise Untrusted(
            f"join log: this copy ends with record {ends}, the one in the Kubernetes API begins "
            f"with {following}, and no checkpoint leads from one to the other",
            hint="compare the copies in /var/lib/constellation/join-log",
        )

    async def _shared(self, sequence: int) -> SignedRecord | None:
        """Give what the shared log has under this number, if a holder of the join key wrote it.

        Raises:
            FormatError: signed, and not to be read: by a JoinService of a later release.
        """
        try:
            record = await self._records.get(sequence)
        except FormatError as error:
            await self._take_away(sequence, why=str(error))
            return None
        if record is None:
            return None
        try:
            found = join_log.verify_record(
                record,
                join_public_key=self._public,
                cluster_id=self._membership.settings.cluster_id,
            )
        except Untrusted as error:
            await self._take_away(sequence, why=str(error))
            return None
        if found.sequence != sequence:
            await self._take_away(sequence, why=f"it is record {found.sequence}")
            return None
        return record

    async def _take_away(self, sequence: int, *, why: str) -> None:
        _log.error(
            "somebody else's object stood in the join log, it is removed",
            extra={"sequence": sequence, "reason": why},
        )
        await self._records.delete(sequence)

    async def _republish(self, shared: SignedRecord | None) -> None:
        """Give back to the API what it lost (a restored etcd); refuse what it exchanged.

        `shared`: what it has under the last number of this copy.
        """
        sequence, missing = self._membership.sequence, []
        while (kept := self._copy.record(sequence)) is not None and shared != kept:
            if shared is not None:
                raise Untrusted(
                    f"join log: record {sequence} in the Kubernetes API is not the verified one",
                    hint="compare the copies in /var/lib/constellation/join-log",
                )
            missing.append((sequence, kept))
            sequence -= 1
            shared = await self._shared(sequence) if sequence else None
        for number, record in reversed(missing):
            _log.warning("join log lost a record, writing it again", extra={"sequence": number})
            await self._records.create(number, record)

    async def _take_next(self, entry: Entry) -> bool:
        try:
            record, after = join_log.append(
                self._membership, entry, writer=self._writer, join_private_key=self._key
            )
        except FormatError as error:
            raise Conflict(f"join log: {entry.kind} does not fit any more: {error}") from error
        if not await self._records.create(after.sequence, record):
            return False
        self._keep(record, after)
        return True

    def _keep(self, record: SignedRecord, after: Membership) -> None:
        """Go on from a verified record: on the disk first."""
        if _is_checkpoint(record):
            self._copy.restart_from(after)
        self._copy.add(after.sequence, record)
        self._membership = after

    async def _remove_superfluous(self) -> None:
        """Let the shared log begin with the checkpoint before the newest one.

        From below, so that what is left always reaches up to it, also if this is cut off; needs
        no lock, since nobody reads or writes there any more.
        """
        begin = (self._membership.sequence // CHECKPOINT_EVERY - 1) * CHECKPOINT_EVERY
        if begin <= self._cut:
            return
        kept = self._copy.record(begin)
        if kept is None or not _is_checkpoint(kept):
            return  # of a JoinService that did not know this rule
        if await self._records.get(begin - 1) is None:  # another JoinService was faster
            self._cut = begin
            return
        if self._cut == 0:
            self._cut = begin
            while self._cut > 1 and await self._records.get(self._cut - 1) is not None:
                self._cut = max(1, self._cut - CHECKPOINT_EVERY)
        for number in range(self._cut, min(begin, self._cut + _DELETED_AT_ONCE)):
            await self._records.delete(number)
            self._cut = number + 1

    async def _announce(self) -> None:
        async with self.changed:
            self.changed.notify_all()


def _is_checkpoint(record: SignedRecord) -> bool:
    return join_log.load_record(record).entry.kind is Kind.CHECKPOINT
