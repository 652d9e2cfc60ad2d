"""Whether a quote is authentic: made by Intel's quoting enclave on a platform that Intel certified.

`verify_signatures`, from the quote alone:
1. The quoting enclave is Intel's by its vendor id.
2. The PCK certificate leads to a root that the caller pins; all are valid now.
3. The PCK key signed the quoting enclave's report.
4. That report's data is SHA-256(attestation key ‖ authentication data), then zeros.
5. The attestation key signed header and body.
`verify`, with what Intel publishes besides (a missing or expired part is refused, never skipped):
6. Both revocation lists are their issuers' and current; they name none of the certificates.
7. TCB info and QE identity are signed by Intel's TCB signing key, over these bytes, and current.
8. They are about this kind of TEE, this FMSPC and this PCE.
9. Platform, TDX module and quoting enclave have TCB levels that Intel knows: see `tcb`.

Source: "Intel TDX DCAP: Quote Generation Library and Quote Verification Library", revision 0.9,
section 4 and appendix A.3. What is trusted afterwards: body and TCB status, as Intel's word. Which
software may run, and which status is good enough, is for `appraise` to say.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from constellation.attestation.model import Authentic
from constellation.attestation.tdx import tcb
from constellation.attestation.tdx.chain import (
    Chain,
    check_not_revoked,
    check_signature,
    check_window,
    verify_crl,
    verify_pck_chain,
    verify_signing_chain,
)
from constellation.attestation.tdx.endorsements import (
    QeIdentity,
    TcbInfo,
    parse_qe_identity,
    parse_tcb_info,
)
from constellation.attestation.tdx.pck import PckExtension, parse_extension
from constellation.attestation.tdx.quote import INTEL_QE_VENDOR_ID, TeeType
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from constellation.attestation.tdx.endorsements import Collateral
    from constellation.attestation.tdx.quote import Quote

__all__ = ["Signed", "VerifiedQuote", "verify", "verify_collateral", "verify_signatures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A quote whose signatures hold. Not authentic yet: revocation and TCB were not looked at."""

    quote: Quote
    chain: Chain
    pck: PckExtension


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """What an authentic quote says, and what Intel says of the platform that made it.

    `tcb_evaluation_data_number` is the lower of TCB info's and QE identity's; `next_update` is when
    the first part of the collateral expires.
    """

    quote: Quote
    pck: PckExtension
    tcb: tcb.Tcb
    tcb_evaluation_data_number: int
    next_update: datetime


def verify_signatures(quote: Quote, *, roots: tuple[bytes, ...], now: datetime) -> Signed:
    """Verify what needs no collateral: steps 1 to 5.

    Args:
        quote: parsed, untrusted.
        roots: certificates (DER) that are trusted: `roots.intel.SGX_ROOT_CA`.
        now: the time at which certificates must be valid.

    Raises:
        FormatError: a certificate or key is not one.
        Untrusted: the first check that fails.
    """
    data = quote.signature
    if quote.header.qe_vendor_id != INTEL_QE_VENDOR_ID:
        raise Untrusted(f"quote: QE vendor {quote.header.qe_vendor_id.hex()} is not Intel")
    chain = verify_pck_chain(data.pck_chain, roots=roots, now=now)
    check_signature(
        chain.leaf_key, data.qe_report_signature, data.qe_report.pack(), what="QE report by the PCK"
    )
    bound = hashlib.sha256(data.attestation_key + data.qe_auth_data).digest()
    if data.qe_report.report_data != bound + bytes(32):
        raise Untrusted("QE report: its data does not name this attestation key")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\x04" + data.attestation_key
        )
    except ValueError:
        raise FormatError("quote: the attestation key is not a point of P-256") from None
    check_signature(key, data.signature, quote.signed, what="quote by the attestation key")
    return Signed(quote=quote, chain=chain, pck=parse_extension(chain.leaf))


def verify(
    quote: Quote, *, collateral: Collateral, roots: tuple[bytes, ...], now: datetime
) -> Authentic[VerifiedQuote]:
    """Verify a quote with everything that Intel publishes about its platform: steps 1 to 9.

    Args:
        quote: parsed, untrusted.
        collateral: untrusted; every part is verified, none may be missing.
        roots: certificates (DER) that are trusted: `roots.intel.SGX_ROOT_CA`.
        now: the time at which certificates and collateral must be valid.

    Raises:
        FormatError: a part does not follow its specification.
        Untrusted: the first check that fails.
    """
    signed = verify_signatures(quote, roots=roots, now=now)
    (authority,) = signed.chain.intermediates
    pck_crl = verify_crl(collateral.pck_crl, issuer=authority, now=now, what="PCK CRL")
    check_not_revoked(signed.chain.leaf, pck_crl)
    tcb_info, qe_identity, root_crl = verify_collateral(collateral, roots=roots, now=now)
    check_not_revoked(authority, root_crl)
    _check_subject(signed, tcb_info, qe_identity)
    found = tcb.evaluate(
        signed.pck,
        quote.body,
        quote.signature.qe_report,
        tcb_info=tcb_info,
        qe_identity=qe_identity,
    )
    ends = (pck_crl.next_update_utc, root_crl.next_update_utc)
    return Authentic(
        VerifiedQuote(
            quote=quote,
            pck=signed.pck,
            tcb=found,
            tcb_evaluation_data_number=min(
                tcb_info.tcb_evaluation_data_number, qe_identity.tcb_evaluation_data_number
            ),
            next_update=min(
                tcb_info.next_update, qe_identity.next_update, *(e for e in ends if e is not None)
            ),
        )
    )


def verify_collateral(
    collateral: Collateral, *, roots: tuple[bytes, ...], now: datetime
) -> tuple[TcbInfo, QeIdentity, x509.CertificateRevocationList]:
    """Verify what is about no single quote: TCB info, QE identity, the root's revocation list.

    Raises:
        FormatError: a part does not follow its specification.
        Untrusted: a part is missing, not Intel's, revoked, not yet valid or expired.
    """
    chains = [
        verify_signing_chain(pem, roots=roots, now=now)
        for pem in (collateral.tcb_info_issuer_chain, collateral.qe_identity_issuer_chain)
    ]
    root_crl = None
    for chain in chains:
        root_crl = verify_crl(
            collateral.root_ca_crl, issuer=chain.root, now=now, what="root CA CRL"
        )
        check_not_revoked(chain.leaf, root_crl)
    assert root_crl is not None  # noqa: S101 - there are two chains
    tcb_info = parse_tcb_info(
        _signed(collateral.tcb_info, collateral.tcb_info_signature, chains[0], "TCB info")
    )
    check_window(tcb_info.issue_date, tcb_info.next_update, now=now, what="TCB info")
    qe_identity = parse_qe_identity(
        _signed(collateral.qe_identity, collateral.qe_identity_signature, chains[1], "QE identity")
    )
    check_window(qe_identity.issue_date, qe_identity.next_update, now=now, what="QE identity")
    return tcb_info, qe_identity, root_crl


def _signed(body: bytes, signature: bytes, chain: Chain, what: str) -> bytes:
    if not body:
        raise Untrusted(f"collateral: {what} is missing")
    if not _statement_holds(body, signature, chain.leaf):
        raise Untrusted(f"{what}: signature does not hold over these bytes")
    return body


@functools.lru_cache(maxsize=128)
def _statement_holds(body: bytes, signature: bytes, signer: x509.Certificate) -> bool:
    key = signer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - its chain was verified
    try:
        check_signature(key, signature, body, what="statement")
    except Untrusted:
        return False
    return True


def _check_subject(signed: Signed, tcb_info: TcbInfo, qe_identity: QeIdentity) -> None:
    tdx = signed.quote.tee is TeeType.TDX
    if tcb_info.id != ("TDX" if tdx else "SGX"):
        raise Untrusted(f"TCB info: for {tcb_info.id}, the quote is of {signed.quote.tee.name}")
    if qe_identity.id != ("TD_QE" if tdx else "QE"):
        raise Untrusted(f"QE identity: of {qe_identity.id!r}, want {'TD_QE' if tdx else 'QE'!r}")
    if tcb_info.fmspc != signed.pck.fmspc:
        raise Untrusted(
            f"TCB info: FMSPC {tcb_info.fmspc.hex()}, the platform has {signed.pck.fmspc.hex()}"
        )
    if tcb_info.pce_id != signed.pck.pce_id:
        raise Untrusted(
            f"TCB info: PCE-ID {tcb_info.pce_id.hex()}, the platform has {signed.pck.pce_id.hex()}"
        )
    if tcb_info.tcb_type:
        raise Untrusted(f"TCB info: type {tcb_info.tcb_type}, want 0: how to compare is unknown")
