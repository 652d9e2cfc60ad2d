"""Whether a report is authentic: signed by a key that AMD made for one chip and its firmware.

1. The report names the kind of key that the given certificate is of, and ECDSA P-384.
2. The root (ARK) is one of the caller's, signs itself, and signs the intermediate (ASK or ASVK).
3. The intermediate signs the certificate of the VCEK or VLEK; all three are valid now, each names
   its issuer, the upper two are authorities.
4. The revocation list, where there is one, is the ARK's; the intermediate is not on it. A list that
   is missing or out of date is recorded (`crl_present`, `crl_current`) for the policy to judge.
5. The key's signature over the report's first 672 bytes holds.
6. The report is of the line of chips, the chip (VCEK) and the firmware (reported TCB) that the
   certificate was made for.

Sources: AMD 56860 rev. 1.58, sections 3.1 and 7.3; AMD 57230 rev. 1.00, section 3; RFC 5280,
section 6; RFC 8017, section 8.1 (RSASSA-PSS). Afterwards every field of the report is what the
secure processor said. Whether that is acceptable: `appraise`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from constellation.attestation.model import Authentic
from constellation.attestation.roots import amd
from constellation.attestation.snp.endorsements import Endorsements, VekFacts, vek_facts
from constellation.attestation.snp.report import (
    SIGNED_BYTES,
    Line,
    Product,
    Report,
    SigningKey,
    Tcb,
)
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.certificate import (
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    Certificate,
    RevocationList,
)

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "ChainFacts",
    "EndorsedReport",
    "forget",
    "forget_chips",
    "verify",
    "verify_chain",
    "verify_intermediate",
    "verify_list",
]

_ECDSA_P384_SHA384 = 1  # SIGNATURE_ALGO, AMD 56860, Table 139
_RSA_BITS = 4096
_KNOWN_CRITICAL = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
# AlgorithmIdentifier: RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 8017, A.2.3);
# AMD's certificates spell out the default trailerField in some and leave it out in others
_PSS_PARAMETERS = bytes.fromhex(
    "a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500"
    "a203020130"
)
_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")
_ALGORITHMS = frozenset(
    bytes((0x30, len(_RSASSA_PSS) + 2 + len(p))) + _RSASSA_PSS + bytes((0x30, len(p))) + p
    for p in (_PSS_PARAMETERS, _PSS_PARAMETERS + bytes.fromhex("a303020101"))
)
_CACHED = 16
_CACHED_CHIPS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFacts:
    """What a verified chain says: the key's certificate, its facts, and the state of the CRL."""

    vek: Certificate
    facts: VekFacts
    crl_present: bool
    crl_current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsedReport:
    """A report and what vouches for it.

    `crl_current` is False too if there is no list. `csp_id` names the cloud that a VLEK was lent
    to, empty for a VCEK.
    """

    report: Report
    product: Product
    line: Line
    signing_key: SigningKey
    csp_id: str
    crl_present: bool
    crl_current: bool

    def tcb(self, which: str) -> Tcb:
        """Give a TCB by component; `which` is current, reported, committed or launch."""
        return Tcb.parse(getattr(self.report, f"{which}_tcb"), product=self.product)


def verify(
    report: Report, *, endorsements: Endorsements, roots: tuple[bytes, ...], now: datetime
) -> Authentic[EndorsedReport]:
    """Verify a report with its chain.

    Args:
        report: from `parse_report`.
        endorsements: certificates and CRL, untrusted.
        roots: ARK certificates (DER or PEM) that are trusted: `roots.amd.ARKS`.
        now: the time to verify at, with zone.

    Raises:
        FormatError: a certificate or the list does not follow its specification.
        Untrusted: the first check that fails.
    """
    _check_kind(report, endorsements)
    chain = verify_chain(endorsements, roots=roots, now=now)
    _check_signature(report, chain)
    _check_machine(report, chain.facts)
    return Authentic(
        EndorsedReport(
            report=report,
            product=chain.facts.product,
            line=report.line(chain.facts.product),
            signing_key=chain.facts.kind,
            csp_id=chain.facts.csp_id,
            crl_present=chain.crl_present,
            crl_current=chain.crl_current,
        )
    )


def verify_chain(
    endorsements: Endorsements, *, roots: tuple[bytes, ...], now: datetime
) -> ChainFacts:
    """Verify the certificate of a VCEK or VLEK (steps 2 to 4); see `verify`."""
    vek = _parse_vek(endorsements.vek)
    _p384_key(vek.spki)
    facts = vek_facts(vek)
    what = f"{facts.kind} certificate"
    name = vek.issuer_name()
    given = endorsements.intermediate
    if given is None and (given := amd.INTERMEDIATES.get(name)) is None:
        raise Untrusted(f"{what}: issuer {name[:60]!r} is not known, and no intermediate was given")
    intermediate = verify_intermediate(given, roots=roots, now=now)[0]
    prefix = "SEV-" if facts.kind is SigningKey.VCEK else "SEV-VLEK-"
    if (found := intermediate.common_name()) != f"{prefix}{facts.product}":
        raise Untrusted(
            f"{what} of {facts.product}: issuer {found!r}, want {prefix}{facts.product}"
        )
    if vek.issuer != intermediate.subject:
        raise Untrusted(f"{what}: it names another issuer than the intermediate")
    vek.check_critical(what, known=_KNOWN_CRITICAL)
    _check_vek_signature(endorsements.vek, intermediate.spki, what)
    vek.check_validity(what, now=now)
    current = False
    if endorsements.crl is not None:
        current = verify_list(endorsements.crl, intermediate, roots=roots, now=now)
    return ChainFacts(
        vek=vek, facts=facts, crl_present=endorsements.crl is not None, crl_current=current
    )


def verify_intermediate(
    data: bytes, *, roots: tuple[bytes, ...], now: datetime
) -> tuple[Certificate, Certificate]:
    """Verify an ASK or ASVK against the roots; give it and its ARK.

    Raises:
        FormatError: a certificate does not follow its specification.
        Untrusted: the first check that fails.
    """
    what = "intermediate certificate"
    intermediate = _parse(data, what)
    root = _root_of(intermediate.issuer, what, roots=roots)
    intermediate.check_authority(what)
    intermediate.check_critical(what, known=_KNOWN_CRITICAL)
    _check_signed(intermediate, by=root, what=what)
    intermediate.check_validity(what, now=now)
    root.check_validity("root certificate", now=now)
    return intermediate, root


def _root_of(issuer: bytes, what: str, *, roots: tuple[bytes, ...]) -> Certificate:
    for data in roots:
        root = _parse(data, "root certificate")
        if root.subject == issuer:
            root.check_authority("root certificate")
            if root.issuer != root.subject:
                raise Untrusted("root certificate: not issued by itself")
            _check_signed(root, by=root, what="root certificate")
            return root
    raise Untrusted(f"{what}: none of the given roots issued it")


def verify_list(
    data: bytes, intermediate: Certificate, *, roots: tuple[bytes, ...], now: datetime
) -> bool:
    """Verify the ARK's revocation list (RFC 5280, section 6.3); gives whether it is current.

    Raises:
        FormatError: not a list.
        Untrusted: not that of the intermediate's root, or it names one of the two.
    """
    crl = _parse_list(data)
    root = _root_of(intermediate.issuer, "intermediate certificate", roots=roots)
    if crl.issuer != root.subject:
        raise Untrusted("CRL: its issuer is not the root of this chain")
    _check_rsa_signature(root.spki, crl.signature_algorithm, crl.signature, crl.tbs, "CRL")
    # revoked is for ever: an old list that names the certificate counts as well
    for certificate, what in ((intermediate, "intermediate certificate"), (root, "root")):
        if certificate.serial in crl.revoked:
            raise Untrusted(f"{what}: revoked: serial {certificate.serial:#x} is on the CRL")
    return crl.this_update <= now <= crl.next_update


def _check_kind(report: Report, endorsements: Endorsements) -> None:
    if report.signature_algo != _ECDSA_P384_SHA384:
        raise Untrusted(f"report: unsupported signature algorithm {report.signature_algo}, want 1")
    if report.mask_chip_key:
        raise Untrusted("report: the host masks the chip's key: there is no signature")
    vek = _parse_vek(endorsements.vek)
    _p384_key(vek.spki)
    kind = vek_facts(vek).kind
    if report.signing_key is not kind:
        found = report.signing_key or "another key"
        raise Untrusted(f"report: signed by {found}, the certificate is a {kind}'s")


def _check_signature(report: Report, chain: ChainFacts) -> None:
    r, s = (int.from_bytes(n, "little") for n in (report.signature_r, report.signature_s))
    try:
        _p384_key(chain.vek.spki).verify(
            encode_dss_signature(r, s), report.pack()[:SIGNED_BYTES], ec.ECDSA(hashes.SHA384())
        )
    except InvalidSignature:
        raise Untrusted(
            f"report: signature: the {chain.facts.kind} of this certificate did not make it"
        ) from None


def _check_machine(report: Report, facts: VekFacts) -> None:
    if (found := report.line(facts.product).product) is not facts.product:
        raise Untrusted(f"report: of a {found}, the certificate is of a {facts.product}")
    reported = Tcb.parse(report.reported_tcb, product=facts.product)
    if reported != facts.tcb:
        # AMD 57230, section 1.1: the key is derived from exactly this TCB
        raise Untrusted(f"report: reported TCB {reported}, the certificate is for {facts.tcb}")
    for raw in (report.current_tcb, report.committed_tcb, report.launch_tcb):
        Tcb.parse(raw, product=facts.product)
    if facts.kind is SigningKey.VCEK:
        expected = facts.hwid.ljust(len(report.chip_id), b"\0")
        if not hmac.compare_digest(report.chip_id, expected):
            raise Untrusted(
                f"report: chip id {report.chip_id.hex()}, the certificate is of {expected.hex()}"
            )


@lru_cache(maxsize=_CACHED_CHIPS)
def _p384_key(spki: bytes) -> ec.EllipticCurvePublicKey:
    key = _load_key(spki, "VEK certificate")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Untrusted("VEK certificate: wrong key type, want ECDSA P-384")
    return key


def _check_signed(certificate: Certificate, *, by: Certificate, what: str) -> None:
    _check_rsa_signature(
        by.spki, certificate.signature_algorithm, certificate.signature, certificate.tbs, what
    )


def _load_key(spki: bytes, what: str) -> object:
    try:
        return load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"{what}: its key: {error}") from None


def forget_chips() -> None:
    """Forget what is remembered of chips' certificates; changes time, never a verdict."""
    for cache in (_parse_vek, _p384_key, _check_vek_signature):
        cache.cache_clear()


def forget() -> None:
    """Forget all that is remembered; changes time, never a verdict."""
    forget_chips()
    for cache in (_parse, _parse_list, _check_rsa_signature):
        cache.cache_clear()


# What is remembered below depends on nothing but its arguments: whether these bytes are signed by
# that key does not change with the time, and validity and revocation are checked each time.


@lru_cache(maxsize=_CACHED)
def _parse(data: bytes, what: str) -> Certificate:
    return Certificate.parse(data, what=what)


@lru_cache(maxsize=_CACHED_CHIPS)
def _parse_vek(data: bytes) -> Certificate:
    return Certificate.parse(data, what="VEK certificate")


@lru_cache(maxsize=_CACHED_CHIPS)
def _check_vek_signature(vek: bytes, spki: bytes, what: str) -> None:
    certificate = _parse_vek(vek)
    _check_rsa_signature.__wrapped__(
        spki, certificate.signature_algorithm, certificate.signature, certificate.tbs, what
    )


@lru_cache(maxsize=8)
def _parse_list(data: bytes) -> RevocationList:
    return RevocationList.parse(data, what="CRL")


@lru_cache(maxsize=_CACHED)
def _check_rsa_signature(
    spki: bytes, algorithm: bytes, signature: bytes, message: bytes, what: str
) -> None:
    if algorithm not in _ALGORITHMS:
        raise Untrusted(f"{what}: signature algorithm is not RSASSA-PSS with SHA-384, salt 48")
    key = _load_key(spki, f"issuer of {what}")
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _RSA_BITS:
        raise Untrusted(f"{what}: its issuer's key is not RSA of {_RSA_BITS} bits")
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except InvalidSignature:
        raise Untrusted(f"{what}: chain: its issuer did not make this signature") from None
