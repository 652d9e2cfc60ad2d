"""Variant `local-vtpm`: a software TPM that the local cloud's CA vouches for. For development.

Who is believed: everything around the node. The machine that runs the cluster runs the TPM too, and
could have it sign anything; what this variant gives is the whole procedure of a real one.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `TpmEvidence`.
 2. The AK's certificate is signed by one of the given authorities, and valid now. Such an authority
    certifies nothing but AKs that `manufacture` made in a TPM.
 3. The AK's public area has the certified key, and the attributes of `AK_TEMPLATE`.
 4. The quote is that AK's, over SHA-256 of the binding and exactly the registers of
    `QUOTED_PCRS` in the SHA-256 bank; its qualifiedSigner has the Name of that public area.
 5. The event log replays to the quoted registers, and no byte of it is unproven.
 6. The claims (registers, TPM firmware version, reset count) pass the policy; a register that does
    not is explained by its events.

Sources: TCG TPM 2.0 Library 1.59, Parts 1 to 3; TCG PC Client Platform Firmware Profile 1.06;
RFC 5280. After it ran, register values and the AK's identity are trusted as far as the CA is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation import policy as rules
from constellation.attestation.model import AttestationResult, Binding, Claims, Evidence, Variant
from constellation.attestation.platforms.local_vtpm_log import (
    BANK,
    CLUSTER_PCR,
    DOCUMENT_PCR,
    IMAGE_PCRS,
    QUOTED_PCRS,
    ZERO_PCRS,
    TpmEvidence,
    check,
    firmware_log,
    predicted_pcrs,
)
from constellation.attestation.platforms.local_vtpm_machine import LocalVtpmAttester, manufacture
from constellation.attestation.platforms.measuring import (
    give_to_cluster,
    is_given_to_cluster,
    measure_node_document,
)
from constellation.attestation.platforms.node_events import cluster_event
from constellation.attestation.policy import Exactly, OneOf, Policy, Unchecked
from constellation.attestation.tpm import pcr, quote, replay
from constellation.attestation.tpm.device import AK_TEMPLATE
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.explain import explain
from constellation.attestation.tpm.public import Public
from constellation.base import decode
from constellation.base.errors import FormatError, Rejected, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "WARNING",
    "LocalVtpmAttester",
    "LocalVtpmVerifier",
    "firmware_log",
    "give_to_cluster",
    "is_given_to_cluster",
    "manufacture",
    "measure_node_document",
    "policy",
    "predicted_pcrs",
]

WARNING = (
    "local-vtpm is for development: whoever controls the machine that runs the cluster controls "
    "its TPMs, and can read the nodes' memory"
)

_MAX_EVIDENCE_BYTES = 256 * 1024
_MAX_CERTIFICATE_BYTES = 4096
_NOT_A_CERTIFICATE = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm)
_ENDORSEMENT = 0x4000000B  # TPM_RH_ENDORSEMENT
_UNCHECKED_TPM = Unchecked("a software TPM of the local cloud; its CA vouches for it as it is")
_UNCHECKED_RESETS = Unchecked(
    "tells how often the machine was started, which is no secret's matter"
)


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a local node.

    Args:
        reference: accepted values (32 bytes) of each of PCR 0, 4, 7, 9, 11; a register that is
            left out accepts nothing.
        node_document_digest: SHA-256 (32 bytes) of the cluster's node document, for PCR 8.
        cluster_id: 32 bytes: PCR 15 must hold this cluster; None: PCR 15 must be zero.

    Raises:
        FormatError: a reference value for a register that the image does not decide.
    """
    zero = pcr.initial(BANK, CLUSTER_PCR)
    if strange := sorted(reference.keys() - {*IMAGE_PCRS, *ZERO_PCRS}):
        raise FormatError(f"reference values for PCR {strange[0]}: the image does not decide it")
    made: dict[str, rules.Rule] = {
        f"pcr{number}": OneOf(tuple(reference.get(number, ()))) for number in IMAGE_PCRS
    }
    for number in ZERO_PCRS:
        if any(value != zero for value in reference.get(number, ())):
            raise FormatError(f"reference values for PCR {number}: it is zero on local nodes")
        made[f"pcr{number}"] = Exactly(zero)
    made[f"pcr{DOCUMENT_PCR}"] = Exactly(pcr.extend(BANK, zero, node_document_digest))
    joined = None if cluster_id is None else cluster_event(cluster_id, bank=BANK).digests[0][1]
    made[f"pcr{CLUSTER_PCR}"] = Exactly(zero if joined is None else pcr.extend(BANK, zero, joined))
    made["tpm.firmware_version"] = _UNCHECKED_TPM
    made["tpm.reset_count"] = _UNCHECKED_RESETS
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalVtpmVerifier:
    """Verifies and appraises `local-vtpm` evidence; `trust_roots` are authorities (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = _parse(evidence)
        certificate = _check_certificate(document.ak_certificate, roots=self.trust_roots, now=now)
        public = _check_ak(document.ak_public, certificate)
        quoted = quote.verify(
            document.quote,
            signature=document.signature,
            ak_public=public,
            qualifying_data=hashlib.sha256(binding).digest(),
            bank=BANK,
            pcrs=document.pcrs,
        ).claims
        _check_registers(quoted)
        log = EventLog.parse(document.event_log)
        check(log)
        log = replay.verify(log, bank=BANK, pcrs=quoted.pcrs).claims
        claims: dict[str, bytes | int] = {f"pcr{n}": v for n, v in quoted.pcrs.items()}
        claims["tpm.firmware_version"] = quoted.attest.firmware_version
        claims["tpm.reset_count"] = quoted.attest.clock_info.reset_count
        return AttestationResult(
            variant=Variant.LOCAL_VTPM,
            attester_id=hashlib.sha256(document.ak_public).digest(),
            claims=claims,
            unchecked=_require(self.policy, claims, log),
            warnings=(WARNING,),
        )


def _parse(evidence: Evidence) -> TpmEvidence:
    if evidence.variant is not Variant.LOCAL_VTPM:
        raise Untrusted(f"evidence of variant {evidence.variant}, expected {Variant.LOCAL_VTPM}")
    what = "local-vtpm evidence"
    document = decode.load(TpmEvidence, evidence.data, what=what, max_bytes=_MAX_EVIDENCE_BYTES)
    if decode.dump(document) != evidence.data:
        # one spelling only: what was signed is then all there is
        raise FormatError(f"{what}: not in canonical form")
    return document


def _check_certificate(der: bytes, *, roots: tuple[bytes, ...], now: datetime) -> x509.Certificate:
    if len(der) > _MAX_CERTIFICATE_BYTES:
        raise FormatError(f"AK certificate: {len(der)} bytes, at most {_MAX_CERTIFICATE_BYTES}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        authorities = [x509.load_der_x509_certificate(root) for root in roots]
    except _NOT_A_CERTIFICATE as error:
        raise FormatError(f"AK certificate or its authority: {error}") from None
    if not der.endswith(b"\0" + certificate.signature):
        # X.690, section 8.6.2: no unused bits; nothing else in a certificate is outside a signature
        raise FormatError("AK certificate: its signature is not whole bytes")
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, TypeError, *_NOT_A_CERTIFICATE):
            continue
        _check_validity(authority, "AK authority", now)
        _check_validity(certificate, "AK certificate", now)
        if certificate == authority:
            raise Untrusted("AK certificate: it is the authority's own")
        return certificate
    raise Untrusted("AK certificate: none of the given authorities issued it")


def _check_validity(certificate: x509.Certificate, what: str, now: datetime) -> None:
    # RFC 5280, section 4.1.2.5
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        raise Untrusted(f"{what}: valid from {first} to {last}, now is {now}")


def _check_ak(packed: bytes, certificate: x509.Certificate) -> Public:
    public = Public.parse(packed)
    if replace(public, key=AK_TEMPLATE.key) != AK_TEMPLATE:
        raise Untrusted("AK: not made from the template of local AKs")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = certificate.public_key().public_bytes(*form)
    except _NOT_A_CERTIFICATE as error:
        raise FormatError(f"AK certificate: its key: {error}") from None
    if quote.public_key(public).public_bytes(*form) != certified:
        raise Untrusted("AK: the certificate is another key's")
    return public


def _check_registers(quoted: quote.Quote) -> None:
    if tuple(quoted.pcrs) != QUOTED_PCRS:
        raise Untrusted(f"quote: registers {tuple(quoted.pcrs)}, expected {QUOTED_PCRS}")
    # TPM 2.0 Library, Part 1, section 16: a primary key's qualified name is
    # nameAlg ‖ H(hierarchy's handle ‖ Name), so the AK itself vouches for its attributes
    digest = hashlib.sha256(_ENDORSEMENT.to_bytes(4, "big") + quoted.ak_name).digest()
    if quoted.attest.qualified_signer != quoted.ak_name[:2] + digest:
        raise Untrusted("quote: qualifiedSigner is not this AK in the endorsement hierarchy")


def _require(policy: Policy, claims: Claims, log: EventLog) -> tuple[str, ...]:
    try:
        return rules.require(policy, claims)
    except Rejected as error:
        found = tuple(_explained(line, policy, log) for line in error.findings)
        raise Rejected(found, hint=error.hint) from None


def _explained(finding: str, policy: Policy, log: EventLog) -> str:
    name = finding.partition(":")[0]
    if not name.startswith("pcr") or not name[3:].isdigit():
        return finding
    match policy.get(name):
        case Exactly(bytes() as value):
            accepted: tuple[bytes, ...] = (value,)
        case OneOf(values):
            accepted = tuple(value for value in values if isinstance(value, bytes))
        case _:
            return finding
    return str(explain(int(name[3:]), bank=BANK, found=log, accepted=accepted))
