"""Where does a release chain come from? A folder or a static web server; everything is bounded.

What is fetched is believed by nobody: `verify_chain` judges the whole. Only the names of the next
files are read from it, so that a lying server wastes at most what `BOUNDS` and `MAX_ROOTS` allow.
Source: The Update Framework specification 1.0.31, section 5 (names of files).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from constellation.base.errors import FormatError, Unavailable, UserError
from constellation.base.fetch import HttpStatus, get_bounded
from constellation.trust.release_chain import (
    BOUNDS,
    MAX_ROOTS,
    ReleaseChain,
    Statement,
    offered_versions,
    statement_name,
)

__all__ = ["Site", "fetch_chain"]

_TIMEOUT_S = 20.0
_DIGEST = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A release repository: `place` is a folder, or its address (https, or http to 127.0.0.1)."""

    place: str

    async def get(self, name: str, *, part: str) -> bytes | None:
        """Get a file; None where there is none.

        Raises:
            FormatError: it is longer than `BOUNDS` allows for this part.
            Unavailable: the server does not answer.
            UserError: the address is neither a folder nor https.
        """
        limit = BOUNDS[part]
        if "://" not in self.place:
            return await asyncio.to_thread(_read, Path(self.place) / name, limit)
        url = f"{self.place.rstrip('/')}/{name}"
        try:
            return (await get_bounded(url, max_bytes=limit, timeout_s=_TIMEOUT_S)).body
        except HttpStatus as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise


async def fetch_chain(site: Site, *, pinned_root: bytes, version: str | None) -> ReleaseChain:
    """Fetch everything that leads from the pinned root to a release; nothing is verified by that.

    Args:
        site: where.
        pinned_root: its version says which roots are to be fetched.
        version: which release; None: the newest.

    Raises:
        Unavailable: a file is missing or the server does not answer.
        FormatError: a file is too long or not metadata.
        UserError: there is no such release.
    """
    roots: list[bytes] = []
    number = _parse(Root, pinned_root, "pinned root").version + 1
    while (data := await site.get(f"metadata/{number}.root.json", part="root")) is not None:
        if len(roots) == MAX_ROOTS:
            raise FormatError(f"{site.place}: more than {MAX_ROOTS} roots after the pinned one")
        roots.append(data)
        number += 1
    timestamp = await _need(site, "metadata/timestamp.json", part="timestamp")
    meta = _parse(Timestamp, timestamp, "timestamp").snapshot_meta
    snapshot = await _need(site, f"metadata/{meta.version}.snapshot.json", part="snapshot")
    named = _parse(Snapshot, snapshot, "snapshot").meta.get("targets.json")
    if named is None:
        raise FormatError(f"{site.place}: the snapshot names no targets")
    data = await _need(site, f"metadata/{named.version}.targets.json", part="targets")
    targets = _parse(Targets, data, "targets")
    offered = offered_versions(targets)
    if not offered:
        raise UserError(f"{site.place} has no release yet")
    if version is not None and version not in offered:
        raise UserError(
            f"{site.place} has no release {version[:40]}", hint=f"it has {', '.join(offered[:8])}"
        )
    wanted = dict.fromkeys((version or offered[0], offered[0]))
    statements = [await _statement(site, targets, v) for v in wanted]
    return ReleaseChain(
        roots=tuple(roots),
        timestamp=timestamp,
        snapshot=snapshot,
        targets=data,
        statements=tuple(statements),
    )


async def _statement(site: Site, targets: Targets, version: str) -> Statement:
    parts = []
    for name, part in zip(statement_name(version), ("statement", "signature"), strict=True):
        if name not in targets.targets:
            raise FormatError(f"{site.place}: targets does not name {name}")
        digest = targets.targets[name].hashes.get("sha256", "")
        if not _DIGEST.fullmatch(digest):
            raise FormatError(f"{site.place}: targets gives no SHA-256 of {name}")
        parts.append(await _need(site, f"targets/{digest}.{name}", part=part))
    return Statement(release=parts[0], signature=parts[1])


async def _need(site: Site, name: str, *, part: str) -> bytes:
    data = await site.get(name, part=part)
    if data is None:
        raise Unavailable(
            f"{site.place}: {name} is missing", hint="is it the folder with metadata/ in it?"
        )
    return data


def _read(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise FormatError(f"{path}: more than {limit} bytes")
    return data


def _parse(kind: type[T], data: bytes, name: str) -> T:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(data)
    except (DeserializationError, RecursionError) as error:
        raise FormatError(f"release metadata: {name} cannot be read: {error}") from None
    if not isinstance(metadata.signed, kind):
        raise FormatError(f"release metadata: {name} is {metadata.signed.type} metadata")
    return metadata.signed
