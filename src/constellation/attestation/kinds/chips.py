"""Reports and quotes of chips: SEV-SNP, TDX, SGX."""

from __future__ import annotations

from constellation.attestation import snp
from constellation.attestation.kinds.request import Found, Given
from constellation.attestation.roots import amd, intel
from constellation.attestation.tdx import appraise as tdx_appraise
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import EnclaveReport, parse_quote
from constellation.attestation.tdx.verify import verify as verify_quote
from constellation.attestation.tdx.verify import verify_signatures
from constellation.base.errors import Untrusted

__all__ = ["crl_line", "endorsements", "snp_report", "tdx_quote", "verified_quote"]


def endorsements(given: Given, key: str) -> snp.Endorsements:
    """Gather what comes with a report whose key has role `key`."""
    return snp.Endorsements(
        vek=given.files[key], intermediate=given.optional("intermediate"), crl=given.crl
    )


def crl_line(given: Given) -> tuple[str, ...]:
    """Say that there is no revocation list, where there is none."""
    return () if given.crl else ("revocation: no --crl was given",)


def snp_report(given: Given) -> Found:
    """Verify an SNP report for `--report-data`."""
    report = snp.parse_report(given.files["report"])
    authentic = snp.verify(
        report,
        endorsements=endorsements(given, "vek"),
        roots=given.roots or amd.ARKS,
        now=given.now,
    )
    _expect_report_data(given, authentic.claims.report.report_data)
    return Found(claims=snp.claims(authentic), unchecked=crl_line(given))


def tdx_quote(given: Given) -> Found:
    """Verify a TDX or SGX quote for `--report-data`."""
    found = verified_quote(given, "quote")
    _expect_report_data(given, parse_quote(given.files["quote"]).body.report_data)
    return found


def verified_quote(given: Given, role: str) -> Found:
    """Verify the quote of a role: with collateral all of it, without it the signatures alone.

    Without it the claims lack what Intel says of the platform, so that no policy accepts them.
    """
    parsed, roots = parse_quote(given.files[role]), given.roots or intel.ROOTS
    if given.collateral is not None:
        collateral = Collateral.parse(given.collateral)
        verified = verify_quote(parsed, collateral=collateral, roots=roots, now=given.now)
        return Found(claims=tdx_appraise.claims(verified))
    body = verify_signatures(parsed, roots=roots, now=given.now).quote.body
    claims: dict[str, bytes | int] = {"report_data": body.report_data}
    names = (
        ("mr_enclave", "mr_signer") if isinstance(body, EnclaveReport) else tdx_appraise.REGISTERS
    )
    claims |= {name: getattr(body, name) for name in names}
    line = "collateral: none was given: revocation and TCB of the platform are not known"
    return Found(claims=claims, unchecked=(line,))


def _expect_report_data(given: Given, found: bytes) -> None:
    expected = given.must("report_data")
    if found != expected:
        raise Untrusted(f"report data {found.hex()}, expected {expected.hex()}")
