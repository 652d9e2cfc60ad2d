"""AMD SEV-SNP: from bytes to a verdict. Each step gives another type; nothing can be left out.

    report = parse_report(data)                          # bytes -> Report: shape only
    authentic = verify(report, endorsements=Endorsements(vek=..., crl=...),
                       roots=amd.ARKS, now=now)          # -> Authentic[EndorsedReport]
    authentic.claims.report.report_data                  # what the secure processor signed
    claims(authentic)                                    # -> Claims, flat: "policy.debug": 0
    policy = default_policy(report_data=binding, measurements=(digest,), ...)
    unchecked = appraise(authentic, policy=policy)       # Rejected with every finding, or lines

A verifier that has claims of its own (registers) merges them: `found = {**claims(a), **mine}`, then
`attestation.policy.require(relevant(policy, found), found)`. The trust anchors are
`attestation.roots.amd.ARKS`.
"""

from constellation.attestation.snp.appraise import (
    MINIMUM_TCB,
    appraise,
    claims,
    default_policy,
    relevant,
)
from constellation.attestation.snp.endorsements import (
    CertificateTable,
    Endorsements,
    parse_certificate_table,
)
from constellation.attestation.snp.report import (
    Line,
    Product,
    Report,
    SigningKey,
    Tcb,
    parse_report,
)
from constellation.attestation.snp.verify import EndorsedReport, verify, verify_chain

__all__ = [
    "MINIMUM_TCB",
    "CertificateTable",
    "EndorsedReport",
    "Endorsements",
    "Line",
    "Product",
    "Report",
    "SigningKey",
    "Tcb",
    "appraise",
    "claims",
    "default_policy",
    "parse_certificate_table",
    "parse_report",
    "relevant",
    "verify",
    "verify_chain",
]
