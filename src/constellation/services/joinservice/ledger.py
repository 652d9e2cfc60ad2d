"""The one place where a JoinService changes the membership: decide, then take the next record.

Several JoinServices share one log in the Kubernetes API. Creating the record named by the next
sequence number is the atomic step: who fails to create it reads what is there, verifies it, and
decides again from the new membership (design, section 10, "Join log").
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

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
        brings the quorum.

        Raises:
            ConstellationError: what `decide` raised.
        """
        try:
            async with asyncio.timeout(_SOON_S):
                await self.write(decide, now=now)
        except (Unavailable, TimeoutError):
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
                else:
                    await self._catch_up(now=now)
            await self._checkpoint_if_due(now=now)
        await self._announce()

    async def _catch_up(self, *, now: int) -> None:
        if self._membership.sequence == 0 and await self._records.get(1) is None:
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
        await self._republish()
        while (record := await self._records.get(self._membership.sequence + 1)) is not None:
            after = join_log.advance(self._membership, record, join_public_key=self._public)
            self._copy.add(after.sequence, record)
            self._membership = after

    async def _republish(self) -> None:
        """Give back to the API what it lost (a restored etcd); refuse what it exchanged."""
        sequence, missing = self._membership.sequence, []
        while sequence > 0:
            kept = self._copy.record(sequence)
            if kept is None:
                break
            shared = await self._records.get(sequence)
            if shared == kept:
                break
            if shared is not None:
                raise Untrusted(
                    f"join log: record {sequence} in the Kubernetes API is not the verified one",
                    hint="compare the copies in /var/lib/constellation/join-log",
                )
            missing.append((sequence, kept))
            sequence -= 1
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
        self._copy.add(after.sequence, record)
        self._membership = after
        return True

    async def _checkpoint_if_due(self, *, now: int) -> None:
        sequence = self._membership.sequence
        if sequence == 0 or (sequence + 1) % CHECKPOINT_EVERY:
            return
        entry = Entry(kind=Kind.CHECKPOINT, time=now, state=self._membership)
        if await self._take_next(entry):
            self._copy.restart_from(self._membership)
            for old in range(max(1, sequence - 2 * CHECKPOINT_EVERY), sequence - CHECKPOINT_EVERY):
                await self._records.delete(old)

    async def _announce(self) -> None:
        async with self.changed:
            self.changed.notify_all()
