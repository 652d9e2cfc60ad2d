"""This control plane's own copy of the join log: what it decides from when the API is away.

JoinService writes it; KeyService reads it, to know who is a member without asking anybody.
A folder: `base.json` (the membership that the copy starts from, after the first checkpoint),
`NNNNNNNNNN.json` (the records after it), `journal.json` (entries that wait for the API). Reading
it verifies every record again; the disk is confidential but not always authentic (design, 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable
from constellation.base.files import write_atomic
from constellation.kube import join_log
from constellation.kube.join_log import Entry, Kind, SignedRecord
from constellation.kube.membership import Membership, load_membership

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LogCopy"]

_RECORDS = "[0-9]" * 10 + ".json"
_MAX_RECORD_FILE_BYTES = 2 * 1024 * 1024
_MAX_JOURNAL_BYTES = 16 * 1024 * 1024
_MAX_JOURNAL_ENTRIES = 1000
_OF_ANYBODY = (Kind.REFUSED, Kind.REFUSED_MORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Journal:
    entries: tuple[Entry, ...]


class LogCopy:
    """The copy in `folder`; `seed` is what the bootstrapper left for the very first start."""

    def __init__(self, folder: Path, *, seed: Path) -> None:
        self._folder = folder
        self._seed = seed

    def load(self, *, join_public_key: bytes, known: Membership | None = None) -> Membership:
        """Fold the copy, checking every signature and link; go on from `known`, an earlier fold.

        Raises:
            Untrusted: a record was changed, exchanged or is missing.
            FormatError: a file is not what it must be.
            Unavailable: there is neither a copy nor a seed yet.
        """
        paths = sorted(self._folder.glob(_RECORDS))
        membership = known
        if membership is None or _next(paths, membership) not in (None, membership.sequence + 1):
            membership = self._start()
        for path in paths:
            if int(path.stem) <= membership.sequence:
                continue
            membership = join_log.advance(
                membership, self._read(path), join_public_key=join_public_key
            )
        return membership

    def _start(self) -> Membership:
        base = self._folder / "base.json"
        start = base if base.exists() else self._seed
        try:
            data = start.read_bytes()
        except OSError as error:
            raise Unavailable(f"{start}: {error.strerror}") from error
        return load_membership(data, what=str(start))

    def record(self, sequence: int) -> SignedRecord | None:
        """Give one record of the copy, None where the copy starts later."""
        path = self._path(sequence)
        return self._read(path) if path.exists() else None

    def add(self, sequence: int, record: SignedRecord) -> None:
        """Keep the record that follows."""
        write_atomic(self._path(sequence), decode.dump(record), mode=0o600)

    def restart_from(self, membership: Membership) -> None:
        """Let the copy begin after `membership` (a checkpoint) and drop what lies before it.

        The records from the checkpoint before it on stay, so that the API can have them back.
        """
        write_atomic(self._folder / "base.json", decode.dump(membership), mode=0o600)
        for path in self._folder.glob(_RECORDS):
            if int(path.stem) < membership.sequence - join_log.CHECKPOINT_EVERY:
                path.unlink()

    def load_journal(self) -> tuple[Entry, ...]:
        """Give what waits for the API, oldest first.

        Raises:
            FormatError: the journal is not what `save_journal` wrote.
        """
        path = self._folder / "journal.json"
        if not path.exists():
            return ()
        return decode.load(
            _Journal, path.read_bytes(), what=str(path), max_bytes=_MAX_JOURNAL_BYTES
        ).entries

    def save_journal(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Keep 1000 entries, rather those that tell of secrets given; give those that were kept.

        Anybody can have refusals written: they must not push out who got the key of a disk.
        """
        surplus = len(entries) - _MAX_JOURNAL_ENTRIES
        refused = [e for e in entries if e.kind in _OF_ANYBODY][: max(surplus, 0)]
        dropped = {id(e) for e in refused}
        kept = tuple(e for e in entries if id(e) not in dropped)[-_MAX_JOURNAL_ENTRIES:]
        write_atomic(self._folder / "journal.json", decode.dump(_Journal(entries=kept)), mode=0o600)
        return kept

    def _path(self, sequence: int) -> Path:
        return self._folder / f"{sequence:010}.json"

    def _read(self, path: Path) -> SignedRecord:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FormatError(f"{path}: {error}") from error
        return decode.load(SignedRecord, data, what=str(path), max_bytes=_MAX_RECORD_FILE_BYTES)


def _next(paths: list[Path], membership: Membership) -> int | None:
    """Give the first record after a membership that is there."""
    return next((n for n in (int(p.stem) for p in paths) if n > membership.sequence), None)
