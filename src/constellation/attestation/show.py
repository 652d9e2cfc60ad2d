"""What a file of evidence is, found by its content, and its fields in words.

Nothing here is verified, and nothing decides a verdict: for people who want to look. Each parser is
the strict one that verification uses; the first that accepts the bytes names the kind.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation import chain, snp
from constellation.attestation.hcl.report import HclReport, ReportType
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.attestation.ima import measurement_list
from constellation.attestation.nitro import document as nitro
from constellation.attestation.platforms.azure_trustedlaunch import unpadded
from constellation.attestation.snp.endorsements import vek_facts
from constellation.attestation.snp.report import GuestPolicy, PlatformInfo
from constellation.attestation.tdx.attributes import TdAttribute
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tpm import forms
from constellation.attestation.tpm.eventlog import EventLog, describe
from constellation.attestation.tpm.structures import Attest, parse_signature
from constellation.base.errors import ConstellationError, FormatError
from constellation.crypto.certificate import Certificate, RevocationList

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Field", "Shown", "show"]

_MAX_ITEMS = 2000
_MEANINGS: Mapping[str, type[Flag]] = {
    "policy": GuestPolicy,
    "platform_info": PlatformInfo,
    "td_attributes": TdAttribute,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: its dotted name, its value (hexadecimal for bytes), what it means."""

    name: str
    value: str | int
    meaning: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value}" + (f" ({self.meaning})" if self.meaning else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A file's kind in words, and its fields in order."""

    kind: str
    fields: tuple[Field, ...]


def show(data: bytes) -> Shown:
    """Find out what `data` is and give its fields.

    Raises:
        FormatError: none of the kinds that we know.
    """
    for kind, parse in _PARSERS:
        try:
            value = parse(data)
        except (ConstellationError, ValueError):
            continue
        fields = itertools.islice(_flatten("", value), _MAX_ITEMS)
        return Shown(kind=kind, fields=tuple(fields))
    raise FormatError(
        f"{len(data)} bytes beginning {data[:8].hex() or 'with nothing'}: no kind that is known",
        hint=f"known are: {', '.join(kind for kind, _ in _PARSERS)}",
    )


def _hcl(data: bytes) -> object:
    report = HclReport.parse(data)
    chip: object = report.chip_report
    if report.report_type is ReportType.SNP:
        chip = snp.parse_report(report.chip_report)
    return {
        "header": report,
        "chip_report": chip,
        "runtime_data": RuntimeData.parse(report.runtime_data),
    }


def _nitro(data: bytes) -> object:
    return nitro.parse(data)


def _log(data: bytes) -> object:
    log = EventLog.parse(data)
    if not log.events:
        raise FormatError("no events")
    return {
        f"event{index}": {
            "pcr": event.pcr,
            "what": describe(event),
            **{bank.name.lower(): digest for bank, digest in event.digests},
        }
        for index, event in enumerate(log.events)
    }


def _ima(data: bytes) -> object:
    entries = measurement_list.parse(data)
    return {
        f"entry{index}": {
            "digest": entry.digest,
            "path": entry.path,
            "violation": entry.is_violation,
        }
        for index, entry in enumerate(entries)
    }


def _certificates(data: bytes) -> object:
    found = chain.load_all(data, what="certificate")
    return {f"certificate{n}": _certificate(c) for n, c in enumerate(found)}


def _certificate(certificate: x509.Certificate) -> dict[str, object]:
    return {
        "subject": chain.name_of(certificate),
        "issuer": chain.name_of(certificate, issuer=True),
        "serial": f"{certificate.serial_number:#x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "public_key": certificate.public_key(),
        "extensions": ", ".join(e.oid.dotted_string for e in certificate.extensions),
    }


def _vek(data: bytes) -> object:
    return vek_facts(Certificate.parse(data, what="VEK certificate"))


def _crl(data: bytes) -> object:
    found = RevocationList.parse(data, what="CRL")
    return {
        "this_update": found.this_update.isoformat(),
        "next_update": found.next_update.isoformat(),
        "revoked": ", ".join(f"{serial:#x}" for serial in sorted(found.revoked)),
    }


def _padded(data: bytes) -> object:
    return _certificates(unpadded(data))


def _tdx(data: bytes) -> object:
    return parse_quote(data)


def _ak(data: bytes) -> object:
    return {"ak": forms.parse_ak(data)}


_PARSERS: tuple[tuple[str, Callable[[bytes], object]], ...] = (
    ("Azure HCL report", _hcl),
    ("AWS Nitro attestation document", _nitro),
    ("TPM quote (TPMS_ATTEST)", Attest.parse),
    ("SEV-SNP report", snp.parse_report),
    ("TDX or SGX quote", _tdx),
    ("VCEK or VLEK certificate", _vek),
    ("certificates", _certificates),
    ("certificate, padded", _padded),
    ("certificate revocation list", _crl),
    ("TDX collateral", Collateral.parse),
    ("register values", forms.parse_pcrs),
    ("TPM signature (TPMT_SIGNATURE)", parse_signature),
    ("key", _ak),
    ("TCG event log", _log),
    ("IMA measurement list", _ima),
)


def _flatten(name: str, value: Any) -> Iterator[Field]:
    below = f"{name}." if name else ""
    if isinstance(value, x509.Certificate):
        yield from _flatten(name, _certificate(value))
    elif isinstance(value, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        yield Field(name=name, value=value.public_bytes(*form).hex(), meaning=_key(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _flatten(f"{below}{field.name}", getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(f"{below}{key}", item)
    elif isinstance(value, tuple | list | frozenset):
        for index, item in enumerate(value):
            yield from _flatten(f"{name}[{index}]", item)
    else:
        yield _leaf(name, value)


def _leaf(name: str, value: Any) -> Field:
    last = name.rpartition(".")[2]
    if isinstance(value, Enum):
        raw = value.value
        return Field(
            name=name,
            value=raw if isinstance(raw, int | str) else str(raw),
            meaning=str(value.name),
        )
    if isinstance(value, bytes):
        return Field(name=name, value=value.hex(), meaning=f"{len(value)} bytes")
    if isinstance(value, bool) or value is None:
        return Field(name=name, value=json.dumps(value), meaning="")
    if isinstance(value, int):
        return Field(name=name, value=value, meaning=_meaning(last, value))
    return Field(name=name, value=str(value), meaning="")


def _meaning(name: str, value: int) -> str:
    if (names := _MEANINGS.get(name)) is not None:
        bits = [str(bit.name).lower() for bit in names if value & bit.value]
        return f"{value:#x}: {', '.join(bits) or 'no bit that has a name'}"
    if name.endswith("_ms"):
        return datetime.fromtimestamp(value / 1000, UTC).isoformat() if value < 1 << 42 else ""
    return f"{value:#x}" if value > 9 else ""  # noqa: PLR2004 - one digit says it all


def _key(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return (
        f"RSA, {key.key_size} bits"
        if isinstance(key, rsa.RSAPublicKey)
        else f"EC, {key.curve.name}"
    )
