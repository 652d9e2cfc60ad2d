"""Which kinds of evidence files can be verified by themselves, each as its own short procedure.

For `constellation evidence verify` and for tests on published evidence: files of one machine, by
role, go in; claims come out, or the first check that failed. Unlike in `registry` the files are as
vendors and tools publish them. Pure: `now`, roots, nonces are arguments. Afterwards the claims are
authentic; `judge` holds them against a policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation import policy as rules
from constellation.attestation.kinds import chips, clouds, registers
from constellation.attestation.kinds.request import OPTIONS, QUOTE, Given, Kind, Verdict
from constellation.attestation.snp.appraise import relevant
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.policy import Policy

__all__ = ["KINDS", "Given", "Kind", "Verdict", "verify"]

_UNAPPRAISED = "no --policy was given: authentic, not appraised"


def verify(kind: str, given: Given, *, policy: Policy | None) -> Verdict:
    """Verify files of one kind and, with a policy, appraise their claims.

    Raises:
        UserError: an unknown kind or role, a role or option missing, an option that nothing checks.
        FormatError: a file does not follow its specification.
        Untrusted: the first check that fails.
        Rejected: authentic, but refused by the policy; every finding.
    """
    known = KINDS.get(kind)
    if known is None:
        raise UserError(f"{kind!r}: expected one of {', '.join(KINDS)}", where="--kind")
    _check_roles(kind, known, given)
    found = known.procedure(given)
    if policy is None:
        lines = tuple(f"{claim}: {_UNAPPRAISED}" for claim in sorted(found.claims))
        return Verdict(
            kind=kind,
            claims=found.claims,
            unchecked=(*found.unchecked, *lines),
            appraised=False,
        )
    held = rules.require(relevant(policy, found.claims), found.claims)
    return Verdict(
        kind=kind, claims=found.claims, unchecked=(*found.unchecked, *held), appraised=True
    )


def _check_roles(name: str, kind: Kind, given: Given) -> None:
    allowed = {*kind.required, *kind.optional}
    wanted = f"{name} takes {', '.join(kind.required)}" + (
        f" and, where there, {', '.join(kind.optional)}" if kind.optional else ""
    )
    if unknown := sorted(given.files.keys() - allowed):
        raise UserError(f"role {unknown[0]}: {wanted}", where="ROLE=FILE")
    if missing := [role for role in kind.required if role not in given.files]:
        raise UserError(f"role {missing[0]} is missing: {wanted}", where="ROLE=FILE")
    for option in kind.wants:
        given.must(option)
    for option in OPTIONS:
        if getattr(given, option) not in (None, ()):
            _check_option(name, kind, given, option)


def _check_option(name: str, kind: Kind, given: Given, option: str) -> None:
    """Refuse an option that the procedure would not look at: whoever gave it expects a check."""
    where = "--root" if option == "roots" else "--" + option.replace("_", "-")
    if option not in (*kind.wants, *kind.takes):
        raise UserError(f"{name} would not look at it", where=where)
    role = kind.with_role.get(option)
    if role is not None and role not in given.files:
        raise UserError(f"without {role}=FILE nothing would look at it", where=where)


_LOG = ("event_log",)

KINDS: Mapping[str, Kind] = {
    "snp": Kind(
        about="SEV-SNP report with its VCEK or VLEK",
        required=("report", "vek"),
        optional=("intermediate",),
        wants=("report_data",),
        takes=(
            "roots",
            "crl",
        ),
        procedure=chips.snp_report,
    ),
    "tdx": Kind(
        about="TDX or SGX quote with its collateral",
        required=("quote",),
        wants=("report_data",),
        takes=(
            "roots",
            "collateral",
        ),
        procedure=chips.tdx_quote,
    ),
    "tpm-quote": Kind(
        about="TPM quote by an AK that nobody vouches for",
        required=(*QUOTE, "ak"),
        optional=_LOG,
        wants=("nonce",),
        procedure=registers.tpm_quote,
    ),
    "event-log": Kind(
        about="TCG event log against register values",
        required=("log", "pcrs"),
        procedure=registers.event_log,
    ),
    "ima": Kind(
        about="IMA measurement list",
        required=("list",),
        optional=("pcrs",),
        procedure=registers.ima,
    ),
    "azure-snp": Kind(
        about="Azure HCL report of SNP, with the vTPM's quote",
        required=("hcl_report", "vcek"),
        optional=("intermediate", *QUOTE, *_LOG),
        takes=("roots", "crl", "nonce"),
        with_role={"nonce": "quote"},
        procedure=clouds.azure_snp,
    ),
    "azure-tdx": Kind(
        about="Azure HCL report of TDX, with TD quote and the vTPM's quote",
        required=("hcl_report", "td_quote", *QUOTE),
        optional=_LOG,
        wants=("nonce",),
        takes=(
            "roots",
            "collateral",
        ),
        procedure=clouds.azure_tdx,
    ),
    "azure-hcl": Kind(
        about="Azure HCL report alone: form and runtime data",
        required=("hcl_report",),
        procedure=clouds.azure_hcl,
    ),
    "azure-ak": Kind(
        about="AK certificate of an Azure vTPM, with a quote",
        required=("ak_certificate",),
        optional=("chain", *QUOTE, *_LOG),
        takes=(
            "roots",
            "nonce",
        ),
        with_role={"nonce": "quote"},
        procedure=clouds.azure_ak,
    ),
    "gce-vtpm": Kind(
        about="GCE vTPM quote by a certified AK",
        required=("ak_certificate", *QUOTE),
        optional=("chain", *_LOG),
        wants=("nonce",),
        takes=("roots",),
        procedure=clouds.gce_vtpm,
    ),
    "gce-ak": Kind(
        about="AK certificate of a GCE vTPM",
        required=("certificate",),
        optional=("chain",),
        takes=("roots",),
        procedure=clouds.gce_ak,
    ),
    "gce-ek": Kind(
        about="EK certificate of a GCE vTPM",
        required=("certificate",),
        optional=("chain",),
        takes=("roots",),
        procedure=clouds.gce_ek,
    ),
    "nitro-tpm": Kind(
        about="AWS NitroTPM document, with a quote by the key that it names",
        required=("document",),
        optional=QUOTE,
        wants=("nonce",),
        takes=("roots",),
        procedure=clouds.nitro_tpm,
    ),
    "nitro-enclave": Kind(
        about="AWS Nitro enclave document",
        required=("document",),
        wants=("nonce",),
        takes=("roots",),
        procedure=clouds.nitro_enclave,
    ),
}
"""Every kind by its name, as `--kind` takes it."""
