"""Is this the newest release, and who says so? TUF metadata from the pinned root to the statement.

A `ReleaseChain` holds every byte that the answer depends on, so that the CLI and each JoinService
come to it by themselves: `verify_chain` is a function of these bytes, the root that the verifier
pins, the versions that it has seen, and the time. Nothing is fetched here.

1. roots: each next one signed by enough keys of the one before and of its own     TUF 5.3
2. timestamp: signed, not older than seen, not expired                             TUF 5.4
3. snapshot: the very bytes that the timestamp names, signed, not older, fresh     TUF 5.5
4. targets: the very bytes that the snapshot names, signed, not older, fresh       TUF 5.6
5. statements: the very bytes that targets names, signed by a key of targets       TUF 5.7

Source: The Update Framework specification 1.0.31, section 5. python-tuf reads metadata and counts
signatures; its client does the same steps, but with the clock and a folder in its hands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.signing import load_public_key_pem, spki
from constellation.trust.release import (
    MAX_RELEASE_BYTES,
    MAX_SIGNATURE_BYTES,
    Release,
    verify_release,
    version_order,
)

if TYPE_CHECKING:
    from datetime import datetime

    from tuf.api.metadata import MetaFile, TargetFile

__all__ = [
    "BOUNDS",
    "MAX_CHAIN_BYTES",
    "MAX_ROOTS",
    "NOTHING_SEEN",
    "ReleaseChain",
    "SeenVersions",
    "Statement",
    "VerifiedRelease",
    "dump_chain",
    "offered_versions",
    "parse_chain",
    "role_keys",
    "statement_name",
    "verify_chain",
]

MAX_ROOTS = 64
BOUNDS = {
    "root": 64 * 1024,
    "timestamp": 16 * 1024,
    "snapshot": 64 * 1024,
    "targets": 256 * 1024,
    "statement": MAX_RELEASE_BYTES,
    "signature": MAX_SIGNATURE_BYTES,
}
"""Bytes that are read of each part, at most."""

MAX_CHAIN_BYTES = 4 * 1024 * 1024

_SUFFIX = ".sigstore.json"
_NAME = re.compile(r"release-([0-9a-z.-]+)\.json")
_KEY = ("ecdsa", "ecdsa-sha2-nistp256")

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A release as it was published: the statement's bytes and its signature (Sigstore bundle)."""

    release: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseChain:
    """All metadata from the second root on, and one or two statements: wanted, then newest.

    `roots` are in order, one a version; those that a verifier has already are skipped.
    """

    roots: tuple[bytes, ...]
    timestamp: bytes
    snapshot: bytes
    targets: bytes
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVersions:
    """The newest metadata that somebody has accepted, by version; 0: none."""

    root: int
    timestamp: int
    snapshot: int
    targets: int


NOTHING_SEEN = SeenVersions(root=0, timestamp=0, snapshot=0, targets=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRelease:
    """A release that a chain led to, what was seen on the way, and what must not be taken.

    `offered` are the versions that the repository has now, the newest first; `withdrawn` are those
    that the newest one takes back.
    """

    release: Release
    seen: SeenVersions
    offered: tuple[str, ...]
    withdrawn: tuple[str, ...]


def dump_chain(chain: ReleaseChain) -> bytes:
    """Write a chain for a call or a file."""
    return decode.dump(chain)


def parse_chain(data: bytes) -> ReleaseChain:
    """Read what `dump_chain` wrote, 4 MiB at most; nothing is verified by that.

    Raises:
        FormatError: something else, or a part longer than its bound.
    """
    chain = decode.load(ReleaseChain, data, what="release chain", max_bytes=MAX_CHAIN_BYTES)
    _check_bounds(chain)
    return chain


def statement_name(version: str) -> tuple[str, str]:
    """Give the names of statement and signature in a repository."""
    return f"release-{version}.json", f"release-{version}.json{_SUFFIX}"


def verify_chain(
    chain: ReleaseChain, *, pinned_root: bytes, seen: SeenVersions, now: datetime
) -> VerifiedRelease:
    """Follow the chain from the pinned root; see the module for the steps.

    Args:
        chain: as somebody gave it.
        pinned_root: root metadata that came with the verifier's own image or package.
        seen: the newest versions that the verifier has accepted; older ones are replays.
        now: what expiry is measured against.

    Raises:
        Untrusted: a signature is missing or wrong, something expired or is older than seen, or
            parts of different states are mixed; the message says which.
        FormatError: a part is not what the specification says, or too long.
    """
    _check_bounds(chain)
    root, known = _follow_roots(chain.roots, pinned_root=pinned_root, seen=seen)
    _demand_fresh(root, "root", now)
    if _online_keys(root) != _online_keys(known):
        # TUF 5.3.11: new keys take back what a thief of the old ones had counted up
        seen = SeenVersions(root=seen.root, timestamp=0, snapshot=0, targets=seen.targets)
    timestamp = _read(Timestamp, chain.timestamp, "timestamp")
    _demand_signed(root, timestamp, "timestamp")
    _demand_not_older("timestamp", timestamp.signed.version, seen.timestamp)
    named = timestamp.signed.snapshot_meta
    _demand_not_older("snapshot", named.version, seen.snapshot)
    _demand_fresh(timestamp.signed, "timestamp", now)

    snapshot = _read(Snapshot, chain.snapshot, "snapshot")
    _demand_named(named, chain.snapshot, snapshot.signed, "snapshot")
    _demand_signed(root, snapshot, "snapshot")
    if "targets.json" not in snapshot.signed.meta:
        raise Untrusted("release metadata: the snapshot names no targets")
    named = snapshot.signed.meta["targets.json"]
    _demand_not_older("targets", named.version, seen.targets)
    _demand_fresh(snapshot.signed, "snapshot", now)

    targets = _read(Targets, chain.targets, "targets")
    _demand_named(named, chain.targets, targets.signed, "targets")
    _demand_signed(root, targets, "targets")
    _demand_fresh(targets.signed, "targets", now)

    release, newest = _statements(chain.statements, targets.signed, root)
    return VerifiedRelease(
        release=release,
        seen=SeenVersions(
            root=root.version,
            timestamp=timestamp.signed.version,
            snapshot=snapshot.signed.version,
            targets=targets.signed.version,
        ),
        offered=offered_versions(targets.signed),
        withdrawn=tuple(sorted({*release.withdrawn, *newest.withdrawn})),
    )


def offered_versions(targets: Targets) -> tuple[str, ...]:
    """List the releases that targets names, the newest first.

    Raises:
        FormatError: a name is not that of a release or its signature.
    """
    versions = set()
    for path in targets.targets:
        match = _NAME.fullmatch(path.removesuffix(_SUFFIX))
        if match is None:
            raise FormatError(f"release metadata: targets names {path[:80]!r}: no release")
        version_order(match[1])
        versions.add(match[1])
    return tuple(sorted(versions, key=version_order, reverse=True))


def role_keys(root: Root, role: str) -> tuple[bytes, ...]:
    """Give the keys of a role as DER SubjectPublicKeyInfo. Raises FormatError."""
    keys = (root.get_key(key_id) for key_id in root.get_delegated_role(role).keyids)
    return tuple(spki(load_public_key_pem(key.keyval["public"].encode())) for key in keys)


def _statements(
    statements: tuple[Statement, ...], targets: Targets, root: Root
) -> tuple[Release, Release]:
    """Verify every statement; give the wanted and the newest one."""
    keys = role_keys(root, "targets")
    releases = []
    for statement in statements:
        release = verify_release(statement.release, statement.signature, public_keys=keys)
        parts = (statement.release, statement.signature)
        for name, data in zip(statement_name(release.version), parts, strict=True):
            _demand_target(targets.targets.get(name), data, name)
        releases.append(release)
    newest = next(iter(offered_versions(targets)), "")
    if not releases or newest != releases[-1].version:
        raise Untrusted(
            f"release metadata: the statement of the newest release, {newest or 'none'}, is missing"
        )
    return releases[0], releases[-1]


def _demand_target(named: TargetFile | None, data: bytes, name: str) -> None:
    if named is None:
        raise Untrusted(f"release metadata: targets does not name {name}")
    try:
        named.verify_length_and_hashes(data)
    except (RepositoryError, DownloadError) as error:
        raise Untrusted(f"{name} is not the file that targets names: {error}") from None


def _follow_roots(
    roots: tuple[bytes, ...], *, pinned_root: bytes, seen: SeenVersions
) -> tuple[Root, Root]:
    """Go from the pinned root to the last; give it, and the one that was last accepted before."""
    pinned = _read(Root, pinned_root, "pinned root")
    _demand_root(None, pinned)
    trusted = known = pinned.signed
    for data in roots:
        following = _read(Root, data, "root")
        if following.signed.version <= pinned.signed.version:
            continue  # the verifier's own pin says as much
        _demand_root(trusted, following)
        trusted = following.signed
        if trusted.version <= seen.root:
            known = trusted
    _demand_not_older("root", trusted.version, seen.root)
    return trusted, known


def _demand_root(before: Root | None, root: Metadata[Root]) -> None:
    _demand_plain_keys(root.signed)
    try:
        result = root.signed.get_root_verification_result(
            before, root.signed_bytes, root.signatures
        )
    except ValueError as error:
        raise Untrusted(f"release metadata: roots do not follow each other: {error}") from None
    if not result.verified:
        raise Untrusted(
            f"release metadata: root version {root.signed.version} has too few valid signatures: "
            f"{len(result.first.signed)} of the {result.first.threshold} that the one before it "
            f"demands, {len(result.second.signed)} of its own {result.second.threshold}"
        )


def _demand_plain_keys(root: Root) -> None:
    """Refuse every kind of key but ours before one is used: others would start programs (GPG)."""
    for key in root.keys.values():
        if (key.keytype, key.scheme) != _KEY:
            raise FormatError(
                f"release metadata: key {key.keyid[:16]} is {key.keytype}/{key.scheme}, "
                "want ECDSA P-256"
            )


def _read(kind: type[T], data: bytes, name: str) -> Metadata[T]:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(data)
    except (DeserializationError, RecursionError) as error:
        raise FormatError(f"release metadata: {name} cannot be read: {error}") from None
    if not isinstance(metadata.signed, kind):
        raise FormatError(f"release metadata: {name} is {metadata.signed.type} metadata")
    return metadata


def _demand_signed(root: Root, metadata: Metadata[T], name: str) -> None:
    try:
        root.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except RepositoryError:
        raise Untrusted(
            f"release metadata: {name} has a wrong signature: expected enough by the keys that "
            f"root version {root.version} names"
        ) from None


def _demand_named(named: MetaFile, data: bytes, signed: Signed, name: str) -> None:
    """Refuse metadata of another state of the repository (mix and match)."""
    if named.hashes is None or named.length is None:
        raise Untrusted(f"release metadata: {name} is named without digest and length")
    try:
        named.verify_length_and_hashes(data)
    except (RepositoryError, DownloadError):
        raise Untrusted(
            f"release metadata: this {name} is not of the same state as what names it"
        ) from None
    if signed.version != named.version:
        raise Untrusted(
            f"release metadata: found {name} version {signed.version}, expected {named.version}"
        )


def _demand_not_older(name: str, found: int, seen: int) -> None:
    if found < seen:
        raise Untrusted(
            f"release metadata: {name} was replayed: found version {found}, "
            f"version {seen} was seen before"
        )


def _demand_fresh(signed: Signed, name: str, now: datetime) -> None:
    if signed.is_expired(now):
        raise Untrusted(
            f"release metadata: {name} version {signed.version} expired on "
            f"{signed.expires:%Y-%m-%d %H:%M} UTC",
            hint="its publisher renews it with `constellation release renew`",
        )


def _online_keys(root: Root) -> tuple[frozenset[str], frozenset[str]]:
    timestamp, snapshot = (root.get_delegated_role(name) for name in ("timestamp", "snapshot"))
    return frozenset(timestamp.keyids), frozenset(snapshot.keyids)


def _check_bounds(chain: ReleaseChain) -> None:
    parts = [
        *(("root", data) for data in chain.roots),
        ("timestamp", chain.timestamp),
        ("snapshot", chain.snapshot),
        ("targets", chain.targets),
        *(("statement", s.release) for s in chain.statements),
        *(("signature", s.signature) for s in chain.statements),
    ]
    for name, data in parts:
        if len(data) > BOUNDS[name]:
            raise FormatError(
                f"release metadata: {name} of {len(data)} bytes, at most {BOUNDS[name]} are read"
            )
    if len(chain.roots) > MAX_ROOTS or len(chain.statements) > 2:  # noqa: PLR2004 - wanted, newest
        raise FormatError(f"release metadata: more than {MAX_ROOTS} roots or two statements")
