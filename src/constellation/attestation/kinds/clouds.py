"""What clouds add: HCL reports, AK certificates, Nitro documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from constellation.attestation import chain, snp
from constellation.attestation.google import certificate as gce
from constellation.attestation.hcl.report import HclReport, ReportType, runtime_data_of
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.attestation.kinds.chips import crl_line, endorsements, verified_quote
from constellation.attestation.kinds.registers import quoted
from constellation.attestation.kinds.request import Found, Given, require_together
from constellation.attestation.nitro import document as nitro
from constellation.attestation.platforms.azure import configuration_claims
from constellation.attestation.platforms.azure_sev_snp import verify_hcl
from constellation.attestation.platforms.azure_tdx import bound_runtime_data
from constellation.attestation.platforms.azure_trustedlaunch import verify_ak_certificate
from constellation.attestation.roots import amd, aws, google, microsoft
from constellation.attestation.tdx.quote import parse_quote
from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from constellation.attestation.tpm.forms import Key

__all__ = [
    "azure_ak",
    "azure_hcl",
    "azure_snp",
    "azure_tdx",
    "gce_ak",
    "gce_ek",
    "gce_vtpm",
    "nitro_enclave",
    "nitro_tpm",
]


def azure_snp(given: Given) -> Found:
    """Verify an HCL report with its chip, and the quote of its AK."""
    authentic, runtime = verify_hcl(
        given.files["hcl_report"],
        endorsements=endorsements(given, "vcek"),
        roots=given.roots or amd.ARKS,
        now=given.now,
    )
    claims = {**snp.claims(authentic), **configuration_claims(runtime)}
    if "quote" not in given.files:
        line = "vTPM: no quote was given: the registers are not known"
        return Found(claims=claims, unchecked=(*crl_line(given), line))
    require_together(given)
    tpm = quoted(given, runtime.ak)
    return Found(claims={**claims, **tpm.claims}, unchecked=(*crl_line(given), *tpm.unchecked))


def azure_tdx(given: Given) -> Found:
    """Verify an HCL report with its TD quote, and the quote of its AK."""
    # the binding is checked first: it needs no collateral, and says more when machines are mixed
    data = given.files["td_quote"]
    runtime = bound_runtime_data(given.files["hcl_report"], parse_quote(data))
    tpm = quoted(given, runtime.ak)
    claims = {**tpm.claims, **configuration_claims(runtime)}
    verified = verified_quote(given, "td_quote")
    return Found(
        claims={**verified.claims, **claims}, unchecked=(*verified.unchecked, *tpm.unchecked)
    )


def azure_hcl(given: Given) -> Found:
    """Check the form of an HCL report; nothing signs it here."""
    report = HclReport.parse(given.files["hcl_report"])
    raw = runtime_data_of(report, expected=report.report_type, report_data=report.report_data)
    kind = "SNP report" if report.report_type is ReportType.SNP else "TDREPORT"
    line = f"{kind}: nothing was given that signs it; the runtime data only agrees with it"
    return Found(claims=configuration_claims(RuntimeData.parse(raw)), unchecked=(line,))


def azure_ak(given: Given) -> Found:
    """Verify an AK certificate of Azure, and a quote of that AK."""
    key = _azure_ak_key(given)
    claims: dict[str, bytes | int] = {"ak.modulus": key.modulus}
    if "quote" not in given.files:
        return Found(claims=claims, unchecked=(_NO_REVOCATION, "vTPM: no quote was given"))
    require_together(given)
    tpm = quoted(given, key.key)
    return Found(claims={**claims, **tpm.claims}, unchecked=(_NO_REVOCATION, *tpm.unchecked))


_NO_REVOCATION = "revocation: the cloud's lists do not come with the evidence"


@dataclass(frozen=True, slots=True)
class _AzureAk:
    key: Key
    modulus: bytes


def _azure_ak_key(given: Given) -> _AzureAk:
    extra = given.optional("chain")
    key = verify_ak_certificate(
        given.files["ak_certificate"],
        intermediates=(
            *(chain.load_all(extra, what="chain") if extra else ()),
            *(chain.load(der, what="intermediate") for der in microsoft.INTERMEDIATES),
        ),
        roots=given.authorities(microsoft.ROOTS),
        now=given.now,
    )
    number = key.public_numbers().n
    return _AzureAk(key, number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _gce_key(given: Given, role: str, purpose: gce.Purpose) -> gce.CertifiedKey:
    leaf, *rest = chain.load_all(given.files[role], what=role)
    extra = given.optional("chain")
    return gce.verify(
        leaf,
        purpose=purpose,
        intermediates=(
            *rest,
            *(chain.load_all(extra, what="chain") if extra else ()),
            *(chain.load(der, what="intermediate") for der in google.INTERMEDIATES),
        ),
        roots=given.authorities(google.ROOTS),
        now=given.now,
    ).claims


def gce_vtpm(given: Given) -> Found:
    """Verify a quote of an AK that Google certified."""
    certified = _gce_key(given, "ak_certificate", gce.Purpose.AK)
    tpm = quoted(given, certified.key)
    claims = {**certified.instance.claims, **tpm.claims}
    return Found(claims=claims, unchecked=(_NO_REVOCATION, *tpm.unchecked))


def gce_ak(given: Given) -> Found:
    """Verify a certificate of a GCE vTPM's AK."""
    claims = _gce_key(given, "certificate", gce.Purpose.AK).instance.claims
    return Found(claims=claims, unchecked=(_NO_REVOCATION,))


def gce_ek(given: Given) -> Found:
    """Verify a certificate of a GCE vTPM's EK."""
    claims = _gce_key(given, "certificate", gce.Purpose.EK).instance.claims
    return Found(claims=claims, unchecked=(_NO_REVOCATION,))


def _document(given: Given, kind: nitro.Kind) -> nitro.Document:
    return nitro.verify(
        nitro.parse(given.files["document"]),
        kind=kind,
        nonce=given.must("nonce"),
        roots=given.authorities(aws.ROOTS),
        now=given.now,
    ).claims


def _document_claims(document: nitro.Document) -> dict[str, bytes | int]:
    return {
        **{f"pcr{number}": value for number, value in sorted(document.pcrs.items())},
        "nitro.module_id": document.module_id.encode(),
        "nitro.timestamp_ms": document.timestamp_ms,
        "nitro.user_data": document.user_data,
        "nitro.public_key": document.public_key,
    }


def nitro_tpm(given: Given) -> Found:
    """Verify a NitroTPM document, and a quote of the key that it names."""
    document = _document(given, nitro.Kind.NITRO_TPM)
    claims = _document_claims(document)
    if "quote" not in given.files:
        return Found(claims=claims, unchecked=("TPM: no quote was given beside the document",))
    require_together(given)
    try:
        ak = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), document.public_key)
    except ValueError:
        raise Untrusted("Nitro document: its public_key is not the AK (a point of P-256)") from None
    tpm = quoted(given, ak)
    if any(claims.get(name) != value for name, value in tpm.claims.items() if name[:3] == "pcr"):
        raise Untrusted("quote: other registers than the Nitro document's")
    return Found(claims={**tpm.claims, **claims}, unchecked=tpm.unchecked)


def nitro_enclave(given: Given) -> Found:
    """Verify an enclave document."""
    return Found(claims=_document_claims(_document(given, nitro.Kind.ENCLAVE)))
