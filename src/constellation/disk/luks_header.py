"""Is this the LUKS2 header that we wrote, to the last parameter? Pure; asked before a key is used.

A LUKS2 header is not authenticated: whoever owns the disk writes what it likes into it. So nothing
in it chooses anything. It has to be exactly the header that `luks.format_and_open` makes: one key
slot, one segment, one cipher with integrity, no token, no requirement. Free are only what differs
from disk to disk: UUID, salts, and the digest of the volume key. Whoever changes those gets no key
accepted, since only the disk's key opens the key slot, and only its content fits the digest.

Source: LUKS2 On-Disk Format Specification 1.1.3, sections 2.1 (binary header) and 3 (JSON).
Trusted after it ran: what cryptsetup will do with these very bytes; nothing about the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid as uuids
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from constellation.base import decode
from constellation.base.binary import Layout, Order, at
from constellation.base.errors import FormatError
from constellation.disk.superblock import LABEL, DiskState, State, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AREA_BYTES",
    "CIPHER",
    "DATA_OFFSET_BYTES",
    "HEADER_BYTES",
    "INTEGRITY",
    "KDF_ITERATIONS",
    "KEYSLOTS_BYTES",
    "KEY_BITS",
    "MARKER",
    "SECTOR_BYTES",
    "VOLUME_KEY_BYTES",
    "BinaryHeader",
    "finishing_writes",
    "judge_luks",
]

CIPHER: Final = "aes-xts-random"
"""AES-256-XTS with a random IV for each write, kept beside the tag: equal content does not show."""
INTEGRITY: Final = "hmac(sha256)"
KEY_BITS: Final = 512
SECTOR_BYTES: Final = 4096
KDF_ITERATIONS: Final = 1000
"""The least that LUKS2 takes: the disk's key is 64 bytes of HKDF, which nobody guesses."""

DATA_OFFSET_BYTES: Final = 1024 * 1024
_COPY_BYTES = 16384  # binary header and JSON; there are two copies
_JSON_BYTES = _COPY_BYTES - 4096
KEYSLOTS_BYTES: Final = DATA_OFFSET_BYTES - 2 * _COPY_BYTES
VOLUME_KEY_BYTES: Final = 64 + 32  # AES-256-XTS, HMAC-SHA-256
_STRIPES = 4000
AREA_BYTES: Final = 385024
"""The key slot: 96 bytes in 4000 stripes, in whole blocks of 4096."""
HEADER_BYTES: Final = 2 * _COPY_BYTES + AREA_BYTES
"""What is read of a header; what follows up to the data is not."""

MARKER: Final = b"constellation: a state disk whose formatting was interrupted\n".ljust(4096, b"\0")
"""The first 4096 bytes until a disk is finished; then the binary header takes their place."""

_MAGICS = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
_DIGEST_BYTES = 32  # SHA-256, and the size of cryptsetup's salts
_MOST_FINDINGS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryHeader(Layout):
    """The first 4096 bytes of each copy (specification, section 2.1)."""

    SIZE: ClassVar[int] = 4096
    ORDER: ClassVar[Order] = "big"

    magic: bytes = at(0, 6)
    version: int = at(6, 2, integer=True)
    hdr_size: int = at(8, 8, integer=True)
    seqid: int = at(16, 8, integer=True)
    label: bytes = at(24, 48)
    csum_alg: bytes = at(72, 32)
    salt: bytes = at(104, 64)
    uuid: bytes = at(168, 40)
    subsystem: bytes = at(208, 48)
    hdr_offset: int = at(256, 8, integer=True)
    csum: bytes = at(448, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Af:
    type: str
    stripes: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Area:
    type: str
    offset: str
    size: str
    encryption: str
    key_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kdf:
    type: str
    hash: str
    iterations: int
    salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keyslot:
    type: str
    key_size: int
    af: _Af
    area: _Area
    kdf: _Kdf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Integrity:
    type: str
    journal_encryption: str
    journal_integrity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    type: str
    offset: str
    size: str
    iv_tweak: str
    encryption: str
    sector_size: int
    integrity: _Integrity


@dataclass(frozen=True, slots=True, kw_only=True)
class _Digest:
    type: str
    keyslots: tuple[str, ...]
    segments: tuple[str, ...]
    hash: str
    iterations: int
    salt: bytes
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    json_size: str
    keyslots_size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    """The JSON: every object and every key that may be there (section 3); all others are errors."""

    keyslots: dict[str, _Keyslot]
    tokens: dict[str, str]
    segments: dict[str, _Segment]
    digests: dict[str, _Digest]
    config: _Config


def judge_luks(header: bytes, *, blank: bool) -> DiskState:
    """Decide from the first `HEADER_BYTES` of a device and whether all that was read is zero.

    Raises:
        FormatError: a LUKS2 header that does not follow the specification.
        Rejected: neither blank nor ours; it is never formatted. With everything that differs.
    """
    if len(header) != HEADER_BYTES:
        raise FormatError(f"state disk: {len(header)} bytes read, want {HEADER_BYTES}")
    if blank or header[: len(MARKER)] == MARKER:
        return DiskState(state=State.NEW, uuid=b"")
    if header[:6] != _MAGICS[0]:
        raise refused("neither blank nor LUKS2")
    first, second = (header[start : start + _COPY_BYTES] for start in (0, _COPY_BYTES))
    own, other = _binary(first, "first"), _binary(second, "second")
    findings = [
        *_findings_on_binary(own, magic=_MAGICS[0], offset=0, copy=first),
        *_findings_on_binary(other, magic=_MAGICS[1], offset=_COPY_BYTES, copy=second),
    ]
    same = (own.uuid, own.seqid) == (other.uuid, other.seqid)
    if not same or first[BinaryHeader.SIZE :] != second[BinaryHeader.SIZE :]:
        findings.append("the two LUKS2 headers differ")
    findings += _findings_on_json(first[BinaryHeader.SIZE :])
    uuid = _uuid(own.uuid)
    if uuid is None:
        findings.append(f"LUKS2: UUID is {own.uuid!r}, want one in lower case")
    if uuid is None or findings:
        raise refused(*findings[:_MOST_FINDINGS])
    return DiskState(state=State.KNOWN, uuid=uuid)


def finishing_writes(header: bytes) -> tuple[tuple[int, bytes], ...]:
    """Give (offset, bytes), in their order, that make a known disk of one that bears the marker.

    The first block comes last and takes the marker's place: after a power cut in between the disk
    is a new one still.
    """
    start = len(MARKER)
    return ((start, header[start:]), (0, header[:start]))


def _binary(copy: bytes, which: str) -> BinaryHeader:
    try:
        return BinaryHeader.parse(copy[: BinaryHeader.SIZE])
    except FormatError as error:
        raise FormatError(f"state disk: {which} LUKS2 header: {error}") from None


def _findings_on_binary(
    found: BinaryHeader, *, magic: bytes, offset: int, copy: bytes
) -> Iterator[str]:
    # salt makes equal headers differ; seqid counts how often a header was written: neither decides
    wanted: dict[str, int | bytes] = {
        "magic": magic,
        "version": 2,
        "hdr_size": _COPY_BYTES,
        "label": LABEL.encode().ljust(48, b"\0"),
        "csum_alg": b"sha256".ljust(32, b"\0"),
        "subsystem": bytes(48),
        "hdr_offset": offset,
        "csum": _checksum(found, copy).ljust(64, b"\0"),
    }
    for name, value in wanted.items():
        if (has := getattr(found, name)) != value:
            yield f"LUKS2 header at {offset}: {name} is {_shown(has)}, want {_shown(value)}"


def _checksum(found: BinaryHeader, copy: bytes) -> bytes:
    """Hash one copy with its checksum's field zero (section 2.1); anybody can: it is no proof."""
    zeroed = dataclasses.replace(found, csum=bytes(64)).pack()
    return hashlib.sha256(zeroed + copy[BinaryHeader.SIZE :]).digest()


def _findings_on_json(area: bytes) -> Iterator[str]:
    text, _, rest = area.partition(b"\0")
    if any(rest):
        raise FormatError("state disk: LUKS2 metadata: bytes after the JSON's end")
    found = decode.load(_Metadata, text, what="LUKS2 metadata", max_bytes=_JSON_BYTES)
    has, want = dict(_flat("", found)), dict(_flat("", _wanted(found)))
    for path in sorted(has.keys() | want.keys()):
        if has.get(path) != want.get(path):
            yield f"LUKS2 metadata: {path} is {has.get(path)}, want {want.get(path)}"


def _wanted(found: _Metadata) -> _Metadata:
    """Give the metadata that we write, with the free values of `found` if they have their size."""
    keyslot, digest = found.keyslots.get("0"), found.digests.get("0")
    return _Metadata(
        keyslots={"0": _wanted_keyslot(keyslot.kdf.salt if keyslot else b"")},
        tokens={},
        segments={
            "0": _Segment(
                type="crypt",
                offset=str(DATA_OFFSET_BYTES),
                size="dynamic",
                iv_tweak="0",
                encryption=CIPHER,
                sector_size=SECTOR_BYTES,
                integrity=_Integrity(
                    type=INTEGRITY, journal_encryption="none", journal_integrity="none"
                ),
            )
        },
        digests={
            "0": _Digest(
                type="pbkdf2",
                keyslots=("0",),
                segments=("0",),
                hash="sha256",
                iterations=KDF_ITERATIONS,
                salt=_free(digest.salt if digest else b""),
                digest=_free(digest.digest if digest else b""),
            )
        },
        config=_Config(json_size=str(_JSON_BYTES), keyslots_size=str(KEYSLOTS_BYTES)),
    )


def _wanted_keyslot(salt: bytes) -> _Keyslot:
    return _Keyslot(
        type="luks2",
        key_size=VOLUME_KEY_BYTES,
        af=_Af(type="luks1", stripes=_STRIPES, hash="sha256"),
        area=_Area(
            type="raw",
            offset=str(2 * _COPY_BYTES),
            size=str(AREA_BYTES),
            encryption="aes-xts-plain64",
            key_size=KEY_BITS // 8,
        ),
        kdf=_Kdf(type="pbkdf2", hash="sha256", iterations=KDF_ITERATIONS, salt=_free(salt)),
    )


def _free(value: bytes) -> bytes:
    """Take a value that differs from disk to disk; another size never fits."""
    return value if len(value) == _DIGEST_BYTES else bytes(_DIGEST_BYTES)


def _flat(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Give every value with its path, so that differences can be named one by one."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _flat(f"{path}.{field.name}".lstrip("."), getattr(value, field.name))
    elif isinstance(value, dict):
        yield path, "object"
        for key, item in value.items():
            yield from _flat(f"{path}.{key[:40]}", item)
    elif isinstance(value, bytes):
        yield path, value[:64].hex() + f" ({len(value)} bytes)"
    else:
        yield path, repr(value)[:80]


def _uuid(raw: bytes) -> bytes | None:
    try:
        value = uuids.UUID(raw.rstrip(b"\0").decode("ascii"))
    except ValueError:
        return None
    return value.bytes if str(value).encode().ljust(40, b"\0") == raw and value.int else None


def _shown(value: int | bytes) -> str:
    return str(value) if isinstance(value, int) else repr(value.rstrip(b"\0"))
