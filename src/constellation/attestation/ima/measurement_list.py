"""A Linux IMA measurement list: what the kernel measured into PCR 10, file by file.

Each line: PCR, template hash (SHA-1), template name, then the template's fields as text. The
register was extended, bank by bank, with the hash of the template's *binary* data; for `ima` (the
oldest template) data are two fixed fields. A line whose hash is all zero is a violation: the kernel
extended all ones instead, since a file was opened for writing while it was measured.

1. `parse`: every line follows its template, and its template hash is that of its data, unless it
   is a violation.
2. `replay`: extends PCR 10 by every entry.
3. `verify`: the list, or a beginning of it, gives the quoted register; later entries came after the
   quote and are not proven.

Source: Linux 6.12, Documentation/security/IMA-templates.rst and security/integrity/ima. After
`verify` the entries are trusted as far as the quote and the kernel that measured are.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import Authentic
from constellation.attestation.tpm import pcr
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.attestation.tpm.structures import Alg

__all__ = ["IMA_PCR", "Entry", "parse", "replay", "verify"]

IMA_PCR = 10

_MAX_BYTES = 64 * 1024 * 1024
_MAX_LINE_BYTES = 64 * 1024
_TEMPLATE_HASH_BYTES = 20
_DIGEST_BYTES = {"md5": 16, "sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "sm3-256": 32}
_OLD_NAME_BYTES = 256
_HEX = frozenset(string.hexdigits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One measurement.

    `digest` of the file or buffer by `algorithm`; `extra` is the signature of `ima-sig`, or the
    measured buffer of `ima-buf`; `template_data` what was hashed, empty for a violation.
    """

    pcr: int
    template: str
    template_hash: bytes
    algorithm: str
    digest: bytes
    path: str
    extra: bytes
    template_data: bytes

    @property
    def is_violation(self) -> bool:
        """Whether the kernel says that the measured file could have changed."""
        return not any(self.template_hash)

    def extends(self, bank: Alg) -> bytes:
        """What the kernel extended into a bank: the hash of the data, ones for a violation."""
        if self.is_violation:
            return b"\xff" * pcr.digest_size(bank)
        return pcr.digest_of(bank, self.template_data)


def parse(data: bytes) -> tuple[Entry, ...]:
    """Read an `ascii_runtime_measurements` file.

    Raises:
        FormatError: a line is not one of the templates ima, ima-ng, ima-ngv2, ima-sig, ima-buf.
        Untrusted: a line's template hash is not that of its data.
    """
    if len(data) > _MAX_BYTES:
        raise FormatError(f"IMA list: {len(data)} bytes, at most {_MAX_BYTES} are read")
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    return tuple(_entry(line, number) for number, line in enumerate(lines, 1))


def replay(entries: Iterable[Entry], *, bank: Alg) -> bytes:
    """Give PCR 10 after all entries."""
    return pcr.replay(bank, (entry.extends(bank) for entry in entries), pcr=IMA_PCR)


def verify(entries: tuple[Entry, ...], *, bank: Alg, quoted: bytes) -> Authentic[tuple[Entry, ...]]:
    """Give the entries that a quoted PCR 10 proves: all, or the first ones of a list read later.

    Raises:
        Untrusted: no beginning of the list gives the quoted register.
    """
    value = pcr.initial(bank, IMA_PCR)
    if value == quoted:
        return Authentic(())
    for count, entry in enumerate(entries, 1):
        value = pcr.extend(bank, value, entry.extends(bank))
        if value == quoted:
            return Authentic(entries[:count])
    raise Untrusted(f"IMA list: PCR {IMA_PCR} replays to {value.hex()}, the TPM has {quoted.hex()}")


def _entry(line: bytes, number: int) -> Entry:
    where = f"IMA list: line {number}"
    if len(line) > _MAX_LINE_BYTES:
        raise FormatError(f"{where}: {len(line)} bytes, at most {_MAX_LINE_BYTES}")
    try:
        text = line.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise FormatError(f"{where}: not UTF-8") from None
    parts = text.split(" ", 3)
    if len(parts) != 4 or parts[0] != str(IMA_PCR):  # noqa: PLR2004 - the columns of the file
        raise FormatError(f"{where}: want PCR {IMA_PCR}, template hash, template name, data")
    template_hash = _hex(parts[1], where, "template hash")
    if len(template_hash) != _TEMPLATE_HASH_BYTES:
        raise FormatError(f"{where}: template hash of {len(template_hash)} bytes, want 20")
    entry = _data(parts[2], parts[3], template_hash, where)
    if not entry.is_violation:
        found = hashlib.sha1(entry.template_data).digest()  # noqa: S324 - the file's own column
        if found != template_hash:
            raise Untrusted(
                f"{where}: template hash {template_hash.hex()}, its data has {found.hex()}"
            )
    return entry


def _data(template: str, text: str, template_hash: bytes, where: str) -> Entry:
    first, _, rest = text.partition(" ")
    extra = b""
    match template:
        case "ima":
            algorithm, digest = "sha1", _hex(first, where, "digest")
            path, field = rest, b""
        case "ima-ng" | "ima-ngv2":
            algorithm, digest, field = _digest(first, where)
            path = rest
        case "ima-sig" | "ima-buf":
            algorithm, digest, field = _digest(first, where)
            path, _, last = rest.rpartition(" ") if " " in rest else (rest, "", "")
            extra = _hex(last, where, "signature or buffer")
        case _:
            raise FormatError(f"{where}: template {template[:20]!r} is not known")
    if len(digest) != _DIGEST_BYTES.get(algorithm):
        raise FormatError(f"{where}: {algorithm[:20]!r} digest of {len(digest)} bytes")
    name = path.encode()
    if template == "ima":
        # no lengths: digest, then the name padded to 256 bytes
        packed = digest + name[: _OLD_NAME_BYTES - 1].ljust(_OLD_NAME_BYTES, b"\0")
    else:
        packed = _field(field) + _field(name + b"\0")
        packed += _field(extra) if template in ("ima-sig", "ima-buf") else b""
    return Entry(
        pcr=IMA_PCR,
        template=template,
        template_hash=template_hash,
        algorithm=algorithm,
        digest=digest,
        path=path,
        extra=extra,
        template_data=packed if any(template_hash) else b"",
    )


def _digest(text: str, where: str) -> tuple[str, bytes, bytes]:
    # d-ng "sha256:hex"; d-ngv2 "ima:sha256:hex"; hashed as the words, ":" NUL, then the digest
    words, colon, digits = text.rpartition(":")
    if not colon:
        raise FormatError(f"{where}: digest {text[:20]!r} names no algorithm")
    digest = _hex(digits, where, "digest")
    return words.rpartition(":")[2], digest, words.encode() + b":\0" + digest


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _hex(text: str, where: str, field: str) -> bytes:
    if len(text) % 2 or not _HEX.issuperset(text):
        raise FormatError(f"{where}: {field} is not hexadecimal")
    return bytes.fromhex(text)
