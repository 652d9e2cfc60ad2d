"""What all variants with a vTPM share: the quote's part of their evidence, registers, rules.

Each variant's own file says who vouches for the AK; here is what follows from it:
 a. The AK's public area has the vouched key, and makes it an AK (`tpm.quote`).
 b. The quote is that AK's, over SHA-256 of the binding and exactly `QUOTED_PCRS` of one bank.
 c. The event log replays to the quoted registers, but for PCR 10: that is the kernel's (IMA), no
    firmware's log has it, and no rule reads it.
Source: TCG TPM 2.0 Library 1.59; TCG PC Client Platform Firmware Profile 1.06, section 3.3.4.
Afterwards the registers are trusted as far as whoever vouches for the AK.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation import policy as rules
from constellation.attestation.policy import Exactly, OneOf, Policy, Rule, Unchecked
from constellation.attestation.tpm import pcr, quote, replay
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.explain import explain
from constellation.attestation.tpm.public import Public
from constellation.attestation.tpm.structures import Alg
from constellation.base import decode
from constellation.base.errors import FormatError, Rejected, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from constellation.attestation.model import Binding, Claims, Evidence, Variant

__all__ = [
    "QUOTED_PCRS",
    "TPM_RULES",
    "TpmPart",
    "VerifiedTpm",
    "logged",
    "open_evidence",
    "qualifying_data",
    "register_rules",
    "require",
    "verify_tpm",
]

QUOTED_PCRS = tuple(range(16))
"""The static registers; 16 and above can be reset by software."""
DOCUMENT_PCR, CLUSTER_PCR = 8, 15
IMA_PCR = 10
IMAGE_PCRS = (4, 9, 11)
"""What the node image decides: kernel, command line and initrd, sections of the unified image."""
ZERO_PCRS = (12, 13)
"""Overrides and extensions: a node image has none."""

_FIRMWARE = "the provider's firmware, which changes without notice; see PCR 4, 9 and 11"
_UNCHECKED: Mapping[int, str] = {
    **dict.fromkeys((0, 1, 2, 3, 6), _FIRMWARE),
    5: "partition table and boot manager's choices; the image that was started is in PCR 4",
    7: "Secure Boot's state and keys are the provider's; the image is pinned by PCR 4, 9 and 11",
    10: "IMA's; node images do not use it, and its order is not fixed",
    14: "shim's; node images start without one",
}
_MAX_EVIDENCE_BYTES = 512 * 1024

E_ = TypeVar("E_")


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPart:
    """The vTPM's part of evidence; untrusted.

    `quote` TPMS_ATTEST, `signature` TPMT_SIGNATURE, `ak_public` TPMT_PUBLIC, `pcrs` register ->
    value, `event_log` the TCG log of this boot.
    """

    quote: bytes
    signature: bytes
    ak_public: bytes
    pcrs: dict[int, bytes]
    event_log: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTpm:
    """An authentic quote and its log; `spki` is the AK's key, SubjectPublicKeyInfo (DER)."""

    quote: quote.Quote
    log: EventLog
    spki: bytes

    @property
    def attester_id(self) -> bytes:
        """SHA-256 (32 bytes) of the AK's key.

        Not of its public area: only the key is vouched for, a node chooses how it shows the rest.
        """
        return hashlib.sha256(self.spki).digest()

    @property
    def claims(self) -> dict[str, bytes | int]:
        """Registers as `pcr0` …, and what the quote says of the TPM."""
        attest = self.quote.attest
        return {
            **{f"pcr{number}": value for number, value in self.quote.pcrs.items()},
            "tpm.firmware_version": attest.firmware_version,
            "tpm.reset_count": attest.clock_info.reset_count,
        }


def open_evidence(kind: type[E_], evidence: Evidence, *, variant: Variant) -> E_:
    """Read evidence as canonical JSON of `kind`.

    Raises:
        FormatError: not that, or not in canonical form.
        Untrusted: evidence of another variant.
    """
    if evidence.variant is not variant:
        raise Untrusted(f"evidence of variant {evidence.variant}, expected {variant}")
    what = f"{variant} evidence"
    document = decode.load(kind, evidence.data, what=what, max_bytes=_MAX_EVIDENCE_BYTES)
    if decode.dump(document) != evidence.data:
        # one spelling only: what was signed is then all there is
        raise FormatError(f"{what}: not in canonical form")
    return document


def qualifying_data(binding: Binding) -> bytes:
    """Give what a quote must include for a binding: its SHA-256, 32 bytes."""
    return hashlib.sha256(binding).digest()


def verify_tpm(
    part: TpmPart, *, ak: CertificatePublicKeyTypes, binding: Binding, bank: Alg = Alg.SHA256
) -> VerifiedTpm:
    """Verify steps a to c for an AK that somebody vouches for.

    Raises:
        FormatError: a structure does not follow its specification.
        Untrusted: the first check that fails.
    """
    public = Public.parse(part.ak_public)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    spki = ak.public_bytes(*form)
    if quote.public_key(public).public_bytes(*form) != spki:
        raise Untrusted("AK: another key than the one that is vouched for")
    quoted = quote.verify(
        part.quote,
        signature=part.signature,
        ak_public=public,
        qualifying_data=qualifying_data(binding),
        bank=bank,
        pcrs=part.pcrs,
    ).claims
    if tuple(quoted.pcrs) != QUOTED_PCRS:
        raise Untrusted(f"quote: registers {tuple(quoted.pcrs)}, expected 0 to 15")
    log = EventLog.parse(part.event_log)
    log = replay.verify(log, bank=bank, pcrs=logged(quoted.pcrs)).claims
    return VerifiedTpm(quote=quoted, log=log, spki=spki)


def logged(pcrs: Mapping[int, bytes]) -> dict[int, bytes]:
    """Give the registers that a firmware's log explains: all but IMA's.

    A kernel with IMA extends PCR 10 by an aggregate of the others as soon as it finds a TPM.
    Source: TCG PC Client Platform Firmware Profile 1.06, section 3.3.4.8 (PCR 8 to 15 are the
    operating system's); Linux 6.12, security/integrity/ima/ima_init.c.
    """
    return {number: value for number, value in pcrs.items() if number != IMA_PCR}


def register_rules(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    node_document_digest: bytes,
    cluster_id: bytes | None,
    bank: Alg = Alg.SHA256,
) -> dict[str, Rule]:
    """Give a rule for each of `QUOTED_PCRS`.

    Args:
        reference: accepted values by register, of the bank's size. PCR 4, 9 and 11 accept nothing
            without; 12 and 13 are zero; others are unchecked unless they are given here.
        node_document_digest: the cluster's node document by the bank's hash, for PCR 8.
        cluster_id: 32 bytes: PCR 15 must hold this cluster; None: PCR 15 must be zero.
        bank: the bank that is quoted.

    Raises:
        FormatError: reference values for a register that is fixed, or of another size.
    """
    size, zero = pcr.digest_size(bank), pcr.initial(bank, CLUSTER_PCR)
    fixed = {DOCUMENT_PCR, CLUSTER_PCR, *ZERO_PCRS}
    if strange := sorted(n for n in reference if n in fixed or n not in QUOTED_PCRS):
        raise FormatError(f"reference values for PCR {strange[0]}: the image does not decide it")
    values = [v for accepted in reference.values() for v in accepted]
    if any(len(v) != size for v in (*values, node_document_digest)):
        raise FormatError(f"reference values: want {size} bytes each ({bank.name})")
    made: dict[str, Rule] = {f"pcr{n}": Unchecked(reason) for n, reason in _UNCHECKED.items()}
    made |= {f"pcr{n}": OneOf(()) for n in IMAGE_PCRS}
    made |= {f"pcr{n}": OneOf(tuple(accepted)) for n, accepted in reference.items()}
    made |= {f"pcr{n}": Exactly(zero) for n in ZERO_PCRS}
    made[f"pcr{DOCUMENT_PCR}"] = Exactly(pcr.extend(bank, zero, node_document_digest))
    joined = zero if cluster_id is None else pcr.extend(bank, zero, pcr.digest_of(bank, cluster_id))
    made[f"pcr{CLUSTER_PCR}"] = Exactly(joined)
    return made


TPM_RULES: Mapping[str, Rule] = {
    "tpm.firmware_version": Unchecked("the provider's vTPM; who vouches for the AK vouches for it"),
    "tpm.reset_count": Unchecked("tells how often the machine was started"),
}


def require(policy: Policy, claims: Claims, *, log: EventLog, bank: Alg) -> tuple[str, ...]:
    """Give a line for each claim that went unchecked, or refuse; registers are explained.

    Raises:
        Rejected: with every finding; a register's says which event makes the difference.
    """
    try:
        return rules.require(policy, claims)
    except Rejected as error:
        found = tuple(_explained(line, policy, claims, log, bank) for line in error.findings)
        raise Rejected(found, hint=error.hint) from None


def _explained(finding: str, policy: Policy, claims: Claims, log: EventLog, bank: Alg) -> str:
    name = finding.partition(":")[0]
    if not name.startswith("pcr") or not name[3:].isdigit() or name not in claims:
        return finding
    match policy.get(name):
        case Exactly(bytes() as value):
            accepted: tuple[bytes, ...] = (value,)
        case OneOf(values):
            accepted = tuple(value for value in values if isinstance(value, bytes))
        case _:
            return finding
    return str(explain(int(name[3:]), bank=bank, found=log, accepted=accepted))
