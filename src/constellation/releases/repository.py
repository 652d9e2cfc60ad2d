"""How are releases published? As a TUF repository in a folder that any static web server can serve.

`metadata/` has N.root.json, N.targets.json, N.snapshot.json and timestamp.json, `targets/` the
statements and their signatures, each named by its digest. Root keys name the keys of all roles; the
release keys sign targets and the statements; the online key signs snapshot and timestamp. Every
call takes whichever private keys are at hand and says which role lacks signatures.
Source: The Update Framework specification 1.0.31, sections 4 and 6 (consistent snapshots).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from constellation.base.errors import Conflict, FormatError, UserError
from constellation.base.files import write_atomic
from constellation.crypto.signing import load_public_key
from constellation.trust.release import parse_release, verify_release, version_order
from constellation.trust.release_chain import offered_versions, role_keys, statement_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.trust.release import Release

__all__ = ["LIFETIMES", "ROLES", "Repository", "RoleKeys"]

ROLES = ("root", "targets", "snapshot", "timestamp")
LIFETIMES = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=90),
    "timestamp": timedelta(days=14),
}
"""How long metadata is fresh unless said otherwise; `renew` prolongs it."""

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKeys:
    """Who signs for a role: public keys (DER, SPKI, P-256), and how many of them must."""

    public_keys: tuple[bytes, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository in `folder`, written by somebody who has (some of) the private keys `keys`.

    `now` is what lifetimes count from; `lifetimes` has one for each of `ROLES`.
    """

    folder: Path
    keys: tuple[EllipticCurvePrivateKey, ...]
    now: datetime
    lifetimes: Mapping[str, timedelta]

    @property
    def exists(self) -> bool:
        """Say whether there is a repository in the folder."""
        return bool(self._root_files())

    @property
    def pinned_root(self) -> bytes:
        """Give the first root: what packages and images pin."""
        return _bytes(self.folder / "metadata" / "1.root.json")

    def public_keys(self, role: str) -> tuple[bytes, ...]:
        """Give the keys of a role as DER SubjectPublicKeyInfo."""
        return role_keys(self._root(), role)

    def newest(self) -> Release | None:
        """Give the newest release, None where there is none."""
        targets = self._latest(Targets, "targets")
        for version in offered_versions(targets):
            name, _ = statement_name(version)
            path = targets.targets[name].get_prefixed_paths()[0]
            return parse_release(_bytes(self.folder / "targets" / path))
        return None

    def signed_at(self) -> datetime:
        """Say when the metadata was signed last, if it had the lifetimes of now."""
        timestamp = _load(Timestamp, self.folder / "metadata" / "timestamp.json")
        return timestamp.expires - self.lifetimes["timestamp"]

    def create(self, roles: Mapping[str, RoleKeys]) -> bytes:
        """Make an empty repository; gives the first root, which packages and images then pin.

        Raises:
            Conflict: there is one already.
            UserError: a role has fewer keys than it demands, or too few private keys are given.
        """
        if self.exists:
            raise Conflict(f"{self.folder} is a release repository already")
        root = Root(expires=self._until("root"), consistent_snapshot=True)
        for role in ROLES:
            _set_role(root, role, roles[role])
        first = self._signed(root, root, "root")
        targets = self._signed(Targets(expires=self._until("targets")), root, "targets")
        self._write("1.root.json", first)
        self._write_below(root, targets, version=1)
        return first

    def publish(self, statement: bytes, signature: bytes) -> str:
        """Add a signed statement; gives its version.

        Raises:
            Untrusted: no release key of this repository signed it.
            Conflict: another statement has this version already, or it would bring back what was
                withdrawn, or withdraw nothing: the newest release alone says what is.
        """
        root, targets = self._root(), self._latest(Targets, "targets")
        release = verify_release(statement, signature, public_keys=role_keys(root, "targets"))
        _demand_withdrawn_stays(release, self.newest())
        files = dict(zip(statement_name(release.version), (statement, signature), strict=True))
        for name, data in files.items():
            named = TargetFile.from_data(name, data, ["sha256"])
            if targets.targets.get(name, named).hashes != named.hashes:
                raise Conflict(
                    f"{name} is published already and is not replaced",
                    hint="give the release another version",
                )
            targets.targets[name] = named
            path = self.folder / "targets" / named.get_prefixed_paths()[0]
            write_atomic(path, data)
        self._advance(targets, root)
        return release.version

    def renew(self) -> None:
        """Sign all metadata anew, so that it stays fresh: root too, if root keys are at hand."""
        root = self._root()
        own = root.roles["root"]
        if len(self._signers(own.keyids)) >= own.threshold:
            root = self._next_root(root, root)
        self._advance(self._latest(Targets, "targets"), root)

    def rotate(self, role: str, keys: RoleKeys) -> None:
        """Give a role other keys: a new root, signed by enough of the old and the new root keys.

        Raises:
            UserError: too few private keys are given for the old root, the new one, or what must
                be signed anew below it.
        """
        before, after = self._root(), self._root()
        _set_role(after, role, keys)
        after = self._next_root(before, after)
        self._advance(self._latest(Targets, "targets"), after)

    def _next_root(self, before: Root, after: Root) -> Root:
        after.version = before.version + 1
        after.expires = self._until("root")
        metadata = Metadata(after)
        self._sign(metadata, before, "root")
        self._sign(metadata, after, "root")
        self._write(f"{after.version}.root.json", metadata.to_bytes())
        return after

    def _advance(self, targets: Targets, root: Root) -> None:
        targets.version += 1
        targets.expires = self._until("targets")
        snapshot = self._latest(Snapshot, "snapshot")
        signed = self._signed(targets, root, "targets")
        self._write_below(root, signed, version=snapshot.version + 1, targets=targets.version)

    def _write_below(
        self, root: Root, targets_data: bytes, *, version: int, targets: int = 1
    ) -> None:
        """Write targets, a snapshot that names it, last of all the timestamp that names that."""
        snapshot = Snapshot(
            version=version,
            expires=self._until("snapshot"),
            meta={"targets.json": MetaFile.from_data(targets, targets_data, ["sha256"])},
        )
        snapshot_data = self._signed(snapshot, root, "snapshot")
        timestamp = Timestamp(
            version=version,
            expires=self._until("timestamp"),
            snapshot_meta=MetaFile.from_data(version, snapshot_data, ["sha256"]),
        )
        timestamp_data = self._signed(timestamp, root, "timestamp")
        self._write(f"{targets}.targets.json", targets_data)
        self._write(f"{version}.snapshot.json", snapshot_data)
        self._write("timestamp.json", timestamp_data)

    def _signed(self, signed: T, root: Root, role: str) -> bytes:
        metadata: Metadata[T] = Metadata(signed)
        self._sign(metadata, root, role)
        data: bytes = metadata.to_bytes()
        return data

    def _sign(self, metadata: Metadata[T], root: Root, role: str) -> None:
        wanted = root.roles[role]
        signers = self._signers(wanted.keyids)
        if len(signers) < wanted.threshold:
            raise UserError(
                f"role {role!r} needs {wanted.threshold} of its {len(wanted.keyids)} keys, "
                f"{len(signers)} were given",
                where="--key",
            )
        for signer in signers:
            metadata.sign(signer, append=True)

    def _signers(self, key_ids: Iterable[str]) -> list[CryptoSigner]:
        signers = {}
        for key in self.keys:
            signer = CryptoSigner(key)
            signers[signer.public_key.keyid] = signer
        return [signers[key_id] for key_id in key_ids if key_id in signers]

    def _until(self, role: str) -> datetime:
        return self.now + self.lifetimes[role]

    def _root(self) -> Root:
        files = self._root_files()
        if not files:
            raise UserError(
                f"{self.folder} is no release repository: no metadata/1.root.json",
                hint="make one with `constellation release publish --new`",
            )
        return _load(Root, files[max(files)])

    def _latest(self, kind: type[T], role: str) -> T:
        timestamp = _load(Timestamp, self.folder / "metadata" / "timestamp.json")
        snapshot_name = f"{timestamp.snapshot_meta.version}.snapshot.json"
        snapshot = _load(Snapshot, self.folder / "metadata" / snapshot_name)
        version = timestamp.snapshot_meta.version
        if role == "targets":
            version = snapshot.meta["targets.json"].version
        return _load(kind, self.folder / "metadata" / f"{version}.{role}.json")

    def _root_files(self) -> dict[int, Path]:
        found = (self.folder / "metadata").glob("*.root.json")
        numbers = ((path.name.partition(".")[0], path) for path in found)
        return {int(number): path for number, path in numbers if number.isdecimal()}

    def _write(self, name: str, data: bytes) -> None:
        write_atomic(self.folder / "metadata" / name, data)


def _demand_withdrawn_stays(release: Release, newest: Release | None) -> None:
    if newest is None or release.version == newest.version:
        return
    older = version_order(release.version) < version_order(newest.version)
    first, then = (release, newest) if older else (newest, release)
    if not (lost := sorted(set(first.withdrawn) - set(then.withdrawn))):
        return
    if older:
        raise Conflict(
            f"release {release.version} withdraws {', '.join(lost)}, but {newest.version} is newer "
            "and does not: nobody would hear of it",
            hint=f"withdraw them by a release that is newer than {newest.version}",
        )
    raise Conflict(
        f"release {release.version} would bring back {', '.join(lost)}, which {newest.version} "
        "withdraws: the newest release alone says what is withdrawn",
        hint=" ".join(f"--withdraw {version}" for version in lost) + " for `release create`",
    )


def _set_role(root: Root, role: str, keys: RoleKeys) -> None:
    public_keys = tuple(dict.fromkeys(keys.public_keys))
    if not 1 <= keys.threshold <= len(public_keys):
        raise UserError(
            f"role {role!r} shall need {keys.threshold} of {len(public_keys)} keys: "
            "expected at least 1 and at most as many as there are"
        )
    for key_id in tuple(root.roles[role].keyids):
        root.revoke_key(key_id, role)
    for public_key in public_keys:
        root.add_key(SSlibKey.from_crypto(load_public_key(public_key)), role)
    root.roles[role].threshold = keys.threshold


def _load(kind: type[T], path: Path) -> T:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(_bytes(path))
    except DeserializationError as error:
        raise FormatError(f"{path}: {error}") from None
    if not isinstance(metadata.signed, kind):
        raise FormatError(f"{path}: {metadata.signed.type} metadata")
    return metadata.signed


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
