"""What a TCG event log says, as values: parse, pack, and the events that we write ourselves.

Two forms: crypto-agile (one digest a bank; begins with a "Spec ID Event03" header) and the older
SHA-1 one. Sources: TCG PC Client Platform Firmware Profile 1.06, section 10 (structures 10.2.1,
10.2.2, header 10.4.5.1, event types table 27); CCEL logs (UEFI 2.10, section 38.4) have the
same layout. Little-endian throughout. A parsed log is untrusted: see `replay.verify`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Self

from constellation.attestation.tpm.structures import Alg
from constellation.base.binary import Reader, Writer
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_LOG_BYTES",
    "STARTUP_LOCALITY",
    "Event",
    "EventLog",
    "EventType",
    "SpecId",
    "TaggedEvent",
    "describe",
    "pack_event",
    "type_name",
]

MAX_LOG_BYTES = 4 * 1024 * 1024
"""Longer logs are refused before they are parsed; real ones have 10 to 100 KiB."""

STARTUP_LOCALITY = b"StartupLocality\0"
"""Signature of the EV_NO_ACTION event that gives PCR 0 its first value (section 10.4.5.3)."""

_SPEC_ID_03 = b"Spec ID Event03\0"
_SHA1_BYTES = 20
_MAX_BANKS = 8
_HEADER_PCRS = (0, 1)
_MAX_SHOWN = 96


class EventType(IntEnum):
    """Event types (PFP 1.06, table 27)."""

    EV_PREBOOT_CERT = 0x00000000
    EV_POST_CODE = 0x00000001
    EV_NO_ACTION = 0x00000003
    EV_SEPARATOR = 0x00000004
    EV_ACTION = 0x00000005
    EV_EVENT_TAG = 0x00000006
    EV_S_CRTM_CONTENTS = 0x00000007
    EV_S_CRTM_VERSION = 0x00000008
    EV_CPU_MICROCODE = 0x00000009
    EV_PLATFORM_CONFIG_FLAGS = 0x0000000A
    EV_TABLE_OF_DEVICES = 0x0000000B
    EV_COMPACT_HASH = 0x0000000C
    EV_IPL = 0x0000000D
    EV_IPL_PARTITION_DATA = 0x0000000E
    EV_NONHOST_CODE = 0x0000000F
    EV_NONHOST_CONFIG = 0x00000010
    EV_NONHOST_INFO = 0x00000011
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x00000012
    EV_POST_CODE2 = 0x00000013
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EV_EFI_VARIABLE_BOOT = 0x80000002
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EV_EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EV_EFI_GPT_EVENT = 0x80000006
    EV_EFI_ACTION = 0x80000007
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EV_EFI_HANDOFF_TABLES = 0x80000009
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EV_EFI_HANDOFF_TABLES2 = 0x8000000B
    EV_EFI_VARIABLE_BOOT2 = 0x8000000C
    EV_EFI_GPT_EVENT2 = 0x8000000D
    EV_EFI_HCRTM_EVENT = 0x80000010
    EV_EFI_VARIABLE_AUTHORITY = 0x800000E0
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event: register, type (`EventType` where known), digests by bank, data.

    Which bytes a digest covers depends on the type; often it is not `data`.
    """

    pcr: int
    type: int
    digests: tuple[tuple[Alg, bytes], ...]
    data: bytes

    def digest(self, bank: Alg) -> bytes | None:
        """Give the digest for a bank; None if the event has none."""
        return next((digest for found, digest in self.digests if found is bank), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecId:
    """TCG_EfiSpecIdEvent (section 10.4.5.1): the header of a crypto-agile log.

    `banks` are (algorithm, digest size in bytes); `pcr` is 0, or 1 in a CC event log.
    """

    pcr: int
    platform_class: int
    version_minor: int
    version_major: int
    errata: int
    uintn_size: int
    banks: tuple[tuple[Alg, int], ...]
    vendor_info: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedEvent:
    """TCG_PCClientTaggedEvent (EV_EVENT_TAG): a number and the data it names."""

    tag: int
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the data of an EV_EVENT_TAG event.

        Raises:
            FormatError: another layout, or bytes left over.
        """
        read = Reader(data, what="TCG_PCClientTaggedEvent", order="little")
        tag = read.number(4, "taggedEventID")
        content = read.sized(4, "taggedEventData", maximum=MAX_LOG_BYTES)
        read.end()
        return cls(tag=tag, data=content)

    def pack(self) -> bytes:
        """Write the structure; the exact inverse of `parse`."""
        return Writer(order="little").number(self.tag, 4).sized(self.data, 4).done()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A whole log. `spec_id` is None in the SHA-1 form; `padding` is the rest of a CCEL area."""

    spec_id: SpecId | None
    events: tuple[Event, ...]
    padding: bytes = b""

    @classmethod
    def new(cls, *banks: Alg) -> Self:
        """Make an empty crypto-agile log for some banks (SHA-1 to SHA-512)."""
        spec_id = SpecId(
            pcr=0,
            platform_class=0,  # client
            version_minor=0,
            version_major=2,
            errata=0,
            uintn_size=2,  # 64-bit UINTN
            banks=tuple((bank, _DIGEST_BYTES[bank]) for bank in banks),
            vendor_info=b"",
        )
        return cls(spec_id=spec_id, events=())

    @classmethod
    def parse(cls, data: bytes, *, padded: bool = False) -> Self:
        """Read a log.

        Args:
            data: the log, at most `MAX_LOG_BYTES`.
            padded: whether zeros or ones may fill the rest (a CCEL area), else they are refused.

        Raises:
            FormatError: truncated, an unknown digest algorithm, a size that does not fit.
        """
        if len(data) > MAX_LOG_BYTES:
            raise FormatError(f"event log: {len(data)} bytes, at most {MAX_LOG_BYTES} are read")
        read = Reader(data, what="event log", order="little")
        if not data:
            raise FormatError("event log: empty")
        first = _legacy_event(read)
        spec_id = None
        events = [first]
        if first.type == EventType.EV_NO_ACTION and first.data.startswith(_SPEC_ID_03):
            spec_id, events = _spec_id(first), []
        sizes = {int(a): (a, n) for a, n in spec_id.banks} if spec_id else {}
        end = _start_of_padding(data) if padded else len(data)
        while read.offset < end:
            events.append(_legacy_event(read) if spec_id is None else _agile_event(read, sizes))
        return cls(spec_id=spec_id, events=tuple(events), padding=read.rest())

    @property
    def banks(self) -> tuple[Alg, ...]:
        """Banks that the log has digests for."""
        return (Alg.SHA1,) if self.spec_id is None else tuple(a for a, _ in self.spec_id.banks)

    def appended(self, *events: Event) -> Self:
        """Give the log with more events at its end."""
        return replace(self, events=(*self.events, *events))

    def pack(self) -> bytes:
        """Write the log; the exact inverse of `parse`."""
        out = Writer(order="little")
        if self.spec_id is None:
            for event in self.events:
                _pack_legacy(out, event)
            return out.raw(self.padding).done()
        header = _pack_spec_id(self.spec_id)
        sha1 = ((Alg.SHA1, bytes(_SHA1_BYTES)),)
        first = self.spec_id.pcr
        _pack_legacy(out, Event(pcr=first, type=EventType.EV_NO_ACTION, digests=sha1, data=header))
        for event in self.events:
            out.raw(pack_event(event))
        return out.raw(self.padding).done()


def pack_event(event: Event) -> bytes:
    """Write one TCG_PCR_EVENT2, as it is appended to a crypto-agile log."""
    out = Writer(order="little").number(event.pcr, 4).number(event.type, 4)
    out.number(len(event.digests), 4)
    for bank, digest in event.digests:
        out.number(bank, 2).raw(digest)
    return out.sized(event.data, 4).done()


def type_name(number: int) -> str:
    """Name an event type as the specification does; its number if it has no name."""
    try:
        return EventType(number).name
    except ValueError:
        return f"event type {number:#010x}"


def describe(event: Event) -> str:
    """Tell an event to people: its type, and its text where the data is one. Not authenticated."""
    text = _text(event)
    return type_name(event.type) + (f" {text!r}" if text else "")


def _text(event: Event) -> str:
    data = event.data
    if event.type == EventType.EV_EVENT_TAG:
        try:
            tagged = TaggedEvent.parse(data)
        except FormatError:
            return ""
        # the kernel's have a name as data: what was measured is not in the log
        unnamed = f"tag {tagged.tag:#010x}, {len(tagged.data)} bytes"
        return _LINUX_TAGS.get(tagged.tag, unnamed)
    if event.type not in _TEXT_TYPES:
        return ""
    encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-8"
    text = data.decode(encoding, "replace").rstrip("\0")
    return text[:_MAX_SHOWN] if text.isprintable() else ""


# Linux 6.12, drivers/firmware/efi/libstub/efistub.h: what the kernel measures into PCR 9
_LINUX_TAGS = {0x8F3B22EC: "Linux: initial RAM disk", 0x8F3B22ED: "Linux: command line"}
_TEXT_TYPES = frozenset(
    {
        EventType.EV_ACTION,
        EventType.EV_EFI_ACTION,
        EventType.EV_IPL,
        EventType.EV_POST_CODE,
        EventType.EV_S_CRTM_VERSION,
    }
)


def _legacy_event(read: Reader) -> Event:
    number, kind = read.number(4, "pcrIndex"), read.number(4, "eventType")
    digest = read.take(_SHA1_BYTES, "digest")
    data = read.sized(4, "event", maximum=read.remaining)
    return Event(pcr=number, type=kind, digests=((Alg.SHA1, digest),), data=data)


def _agile_event(read: Reader, sizes: Mapping[int, tuple[Alg, int]]) -> Event:
    """Read a TCG_PCR_EVENT2; `sizes` number of an algorithm -> bank, digest size in bytes."""
    number, kind = read.number(4, "pcrIndex"), read.number(4, "eventType")
    count = read.number(4, "digests.count")
    if count > len(sizes):
        raise FormatError(
            f"{read.what}: event at {read.offset:#x} has {count} digests, "
            f"the header names {len(sizes)} banks"
        )
    digests: dict[Alg, bytes] = {}
    for _ in range(count):
        algorithm = read.number(2, "digests.hashAlg")
        bank, size = sizes.get(algorithm, (None, 0))
        if bank is None or bank in digests:
            raise FormatError(
                f"{read.what}: digest algorithm {algorithm:#06x} at {read.offset - 2:#x} "
                "is not in the header, or twice in one event"
            )
        digests[bank] = read.take(size, "digest")
    data = read.sized(4, "event", maximum=read.remaining)
    return Event(pcr=number, type=kind, digests=tuple(digests.items()), data=data)


def _spec_id(event: Event) -> SpecId:
    if event.pcr not in _HEADER_PCRS or any(dict(event.digests)[Alg.SHA1]):
        raise FormatError("Spec ID event: want PCR 0 (1 in a CC event log) and a zero digest")
    read = Reader(event.data, what="Spec ID event", order="little")
    read.take(len(_SPEC_ID_03), "signature")
    platform_class = read.number(4, "platformClass")
    minor, major = read.number(1, "specVersionMinor"), read.number(1, "specVersionMajor")
    errata, uintn = read.number(1, "specErrata"), read.number(1, "uintnSize")
    count = read.number(4, "numberOfAlgorithms")
    if not 0 < count <= _MAX_BANKS:
        raise FormatError(f"Spec ID event: {count} algorithms, want 1 to {_MAX_BANKS}")
    banks: dict[Alg, int] = {}
    for _ in range(count):
        number, size = read.number(2, "algorithmId"), read.number(2, "digestSize")
        if number not in _DIGEST_BYTES or size != _DIGEST_BYTES[Alg(number)] or number in banks:
            raise FormatError(f"Spec ID event: algorithm {number:#06x} with {size} bytes")
        banks[Alg(number)] = size
    vendor_info = read.sized(1, "vendorInfo", maximum=255)
    read.end()
    return SpecId(
        pcr=event.pcr,
        platform_class=platform_class,
        version_minor=minor,
        version_major=major,
        errata=errata,
        uintn_size=uintn,
        banks=tuple(banks.items()),
        vendor_info=vendor_info,
    )


_DIGEST_BYTES = {
    Alg.SHA1: 20,
    Alg.SHA256: 32,
    Alg.SHA384: 48,
    Alg.SHA512: 64,
    Alg.SM3_256: 32,
    Alg.SHA3_256: 32,
    Alg.SHA3_384: 48,
    Alg.SHA3_512: 64,
}


def _pack_spec_id(spec_id: SpecId) -> bytes:
    out = Writer(order="little").raw(_SPEC_ID_03).number(spec_id.platform_class, 4)
    out.number(spec_id.version_minor, 1).number(spec_id.version_major, 1)
    out.number(spec_id.errata, 1).number(spec_id.uintn_size, 1).number(len(spec_id.banks), 4)
    for algorithm, size in spec_id.banks:
        out.number(algorithm, 2).number(size, 2)
    return out.sized(spec_id.vendor_info, 1).done()


def _pack_legacy(out: Writer, event: Event) -> None:
    out.number(event.pcr, 4).number(event.type, 4)
    out.raw(dict(event.digests)[Alg.SHA1]).sized(event.data, 4)


def _start_of_padding(data: bytes) -> int:
    """Give where the zeros or ones begin that fill the area; its end if there are none."""
    last = data[-1:]
    return len(data.rstrip(last)) if last in (b"\x00", b"\xff") else len(data)
