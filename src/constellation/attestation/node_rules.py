"""Which rules must a node of a variant pass? One function a variant, from values alone. Pure.

What a release states (registers, launch values), what the owner demands of chips and clouds, whose
node it must be: `node_policy` makes the variant's appraisal policy of them. A value that a variant
needs and nobody gave accepts nothing; one that it does not know is refused.
Source: design, sections 6 and 7.
"""

# ruff: noqa: PLC0415 - a variant's modules are imported when it is asked for, as in registry
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.attestation.policy import OneOf
from constellation.attestation.snp.report import Line, Tcb  # noqa: TC001 - decode reads the hints
from constellation.attestation.tdx.status import TcbStatus  # noqa: TC001 - decode reads the hints
from constellation.base.errors import FormatError, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from constellation.attestation.model import AttestationResult
    from constellation.attestation.policy import Policy

__all__ = [
    "ChipMinimum",
    "NodeIdentity",
    "PlatformDemands",
    "ReferenceValues",
    "cluster_claim",
    "findings_on_life",
    "is_given_to_cluster",
    "launch_claims",
    "node_policy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipMinimum:
    """A line of AMD's chips that is accepted, and the oldest firmware that it may have."""

    line: Line
    tcb: Tcb


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformDemands:
    """What the owner demands beside the node image: of chips, of firmware's age, of the cloud.

    Attributes:
        chips: accepted lines of AMD's chips; none accepts no SNP report.
        chip_roots: AMD's ARKs (DER) where the cloud has a root of its own beside them.
        tdx_statuses: accepted TCB statuses of Intel's platforms; none accepts no TD.
        minimum_tcb_evaluation: lowest tcbEvaluationDataNumber of Intel's collateral.
        project_ids: Google Cloud projects whose machines are accepted.
        csp_ids: names in AWS' VLEKs, for example `CN=cc-us-east-2.amazonaws.com`.
    """

    chips: tuple[ChipMinimum, ...]
    chip_roots: tuple[bytes, ...]
    tdx_statuses: tuple[TcbStatus, ...]
    minimum_tcb_evaluation: int
    project_ids: tuple[str, ...]
    csp_ids: tuple[str, ...]

    @property
    def minimum_tcb(self) -> dict[Line, Tcb]:
        """Give the accepted lines as `snp` takes them."""
        return {chip.line: chip.tcb for chip in self.chips}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """What a release states of a genuine boot: every acceptable value.

    `registers`: by number, PCRs (of the variant's bank) or RTMRs. `launch`: by claim, of what the
    machine was started with: `measurement`, `id_key_digest` (SNP), `mr_td` (TDX), 48 bytes each.
    """

    registers: Mapping[int, tuple[bytes, ...]]
    launch: Mapping[str, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """Whose node it must be: the node document's bytes, and the cluster that it was given to.

    `cluster_id` has 32 bytes; None: the node must not have been given to any cluster yet.
    """

    document: bytes
    cluster_id: bytes | None


def node_policy(
    variant: Variant,
    reference: ReferenceValues,
    *,
    demands: PlatformDemands | None,
    identity: NodeIdentity,
) -> Policy:
    """Give the rules for a node.

    Args:
        variant: how it attests.
        reference: of all releases that are accepted now, together.
        demands: the owner's; None suffices where only a local TPM is believed.
        identity: whose node it is.

    Raises:
        Rejected: the variant needs demands or launch values that are not there, or cannot show
            what is asked.
        FormatError: reference values that the variant does not have, or of another size.
    """
    made = _RULES.get(variant)
    if made is None:
        raise Rejected((f"variant {variant}: this build has no rules for it",))
    rules, launch_claims = made
    if strange := sorted(reference.launch.keys() - set(launch_claims)):
        raise FormatError(f"reference values for {strange[0][:40]!r}: {variant} has no such claim")
    return rules(_Asked(variant=variant, reference=reference, demands=demands, identity=identity))


def launch_claims(variant: Variant) -> tuple[str, ...]:
    """Name the claims about a machine's start that a release may state for a variant."""
    return _RULES[variant][1]


def cluster_claim(variant: Variant) -> str:
    """Name the claim that says whether a node was given to a cluster, and to which.

    Raises:
        Rejected: the variant has no register that could say it.
    """
    if variant in (Variant.QEMU_TDX, Variant.GCP_TDX):
        return "rtmr3"
    if variant is Variant.QEMU_SEV_SNP:
        raise Rejected((f"variant {variant}: it has no register for what happens after start",))
    return "pcr15"


def is_given_to_cluster(result: AttestationResult, *, document: bytes) -> bool:
    """Say whether an appraised node was given to a cluster since power-on.

    Raises:
        Rejected: its evidence has no register that says so.
    """
    name = cluster_claim(result.variant)
    found = result.claims.get(name)
    if not isinstance(found, bytes) or not found:
        raise Rejected((f"{name}: found nothing, expected what says whether it was given away",))
    if result.variant is Variant.GCP_TDX:
        from constellation.attestation.platforms import td

        return found != td.exactly(hashlib.sha384(document).digest()).value
    return any(found)


def findings_on_life(result: AttestationResult, *, document: bytes, given: bool) -> tuple[str, ...]:
    """Ask an appraised node once more whether it was given to a cluster, as `given` expects it.

    Raises:
        Rejected: its variant has no register that says so.
    """
    name = cluster_claim(result.variant)
    try:
        is_given = is_given_to_cluster(result, document=document)
    except Rejected as error:
        return error.findings
    if is_given is given:
        return ()
    found = result.claims[name]
    shown = found.hex() if isinstance(found, bytes) and any(found) else "zero"
    if given:
        return (f"{name}: found {shown}, expected this cluster's (a node that was given to it)",)
    return (f"{name}: found {shown}, expected zero (a node that was freshly booted)",)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The arguments of `node_policy`, with what is missing refused where it is needed."""

    variant: Variant
    reference: ReferenceValues
    demands: PlatformDemands | None
    identity: NodeIdentity

    @property
    def wanted(self) -> PlatformDemands:
        if self.demands is None:
            raise Rejected(
                (f"variant {self.variant}: the cluster policy demands nothing of the platform",)
            )
        return self.demands

    def launch(self, claim: str) -> tuple[bytes, ...]:
        return tuple(self.reference.launch.get(claim, ()))

    @property
    def document_sha256(self) -> bytes:
        return hashlib.sha256(self.identity.document).digest()

    @property
    def document_sha384(self) -> bytes:
        return hashlib.sha384(self.identity.document).digest()

    @property
    def rtmrs(self) -> dict[str, tuple[bytes, ...]]:
        return {f"rtmr{number}": values for number, values in self.reference.registers.items()}


def _local_vtpm(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import local_vtpm

    return local_vtpm.policy(
        asked.reference.registers,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _qemu_vtpm(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import qemu_vtpm

    return qemu_vtpm.policy(
        asked.reference.registers,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _azure_trustedlaunch(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import azure_trustedlaunch

    return azure_trustedlaunch.policy(
        asked.reference.registers,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _azure_sev_snp(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import azure_sev_snp

    measurements, id_keys = asked.launch("measurement"), asked.launch("id_key_digest")
    if not measurements and not id_keys:
        raise Rejected((f"variant {asked.variant}: no release says which paravisor is accepted",))
    return azure_sev_snp.policy(
        asked.reference.registers,
        measurements=measurements,
        id_key_digests=id_keys,
        minimum_tcb=asked.wanted.minimum_tcb,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _azure_tdx(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import azure_tdx

    return azure_tdx.policy(
        asked.reference.registers,
        mr_td=asked.launch("mr_td"),
        statuses=asked.wanted.tdx_statuses,
        minimum_tcb_evaluation=asked.wanted.minimum_tcb_evaluation,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _gcp_sev_es(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import gcp_sev_es

    return gcp_sev_es.policy(
        asked.reference.registers,
        project_ids=asked.wanted.project_ids,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _gcp_sev_snp(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import gcp_sev_snp

    return gcp_sev_snp.policy(
        asked.reference.registers,
        measurements=asked.launch("measurement"),
        minimum_tcb=asked.wanted.minimum_tcb,
        project_ids=asked.wanted.project_ids,
        node_document_digest=asked.document_sha256,
        cluster_id=asked.identity.cluster_id,
    )


def _gcp_tdx(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import gcp_tdx

    registers = dict(asked.rtmrs)
    return gcp_tdx.policy(
        # RTMR0 is Google's firmware's: a rule of its own
        {name: values for name, values in registers.items() if name != "rtmr0"},
        mr_td=OneOf(asked.launch("mr_td")),
        rtmr0=OneOf(registers.get("rtmr0", ())),
        statuses=asked.wanted.tdx_statuses,
        minimum_tcb_evaluation=asked.wanted.minimum_tcb_evaluation,
        node_document_digest=asked.document_sha384,
        cluster_id=asked.identity.cluster_id,
    )


def _aws_nitro_tpm(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import aws_nitro_tpm

    return aws_nitro_tpm.policy(
        asked.reference.registers,
        node_document_digest=asked.document_sha384,
        cluster_id=asked.identity.cluster_id,
    )


def _aws_sev_snp(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import aws_sev_snp

    return aws_sev_snp.policy(
        asked.reference.registers,
        measurements=asked.launch("measurement"),
        minimum_tcb=asked.wanted.minimum_tcb,
        csp_ids=asked.wanted.csp_ids,
        node_document_digest=asked.document_sha384,
        cluster_id=asked.identity.cluster_id,
    )


def _qemu_sev_snp(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import qemu_sev_snp

    if asked.identity.cluster_id is not None:
        cluster_claim(asked.variant)  # refuses: nothing in the report could say it
    if asked.reference.registers:
        raise FormatError(f"reference values for registers: {asked.variant} has none")
    return qemu_sev_snp.policy(
        measurements=asked.launch("measurement"),
        minimum_tcb=asked.wanted.minimum_tcb,
        node_document_digest=asked.document_sha256,
    )


def _qemu_tdx(asked: _Asked) -> Policy:
    from constellation.attestation.platforms import qemu_tdx

    return qemu_tdx.policy(
        {**asked.rtmrs, "mr_td": asked.launch("mr_td")},
        statuses=asked.wanted.tdx_statuses,
        minimum_tcb_evaluation=asked.wanted.minimum_tcb_evaluation,
        node_document_digest=asked.document_sha384,
        cluster_id=asked.identity.cluster_id,
    )


_SNP, _TD = ("measurement",), ("mr_td",)
_RULES: Mapping[Variant, tuple[Callable[[_Asked], Policy], tuple[str, ...]]] = {
    Variant.AWS_NITRO_TPM: (_aws_nitro_tpm, ()),
    Variant.AWS_SEV_SNP: (_aws_sev_snp, _SNP),
    Variant.AZURE_SEV_SNP: (_azure_sev_snp, (*_SNP, "id_key_digest")),
    Variant.AZURE_TDX: (_azure_tdx, _TD),
    Variant.AZURE_TRUSTEDLAUNCH: (_azure_trustedlaunch, ()),
    Variant.GCP_SEV_ES: (_gcp_sev_es, ()),
    Variant.GCP_SEV_SNP: (_gcp_sev_snp, _SNP),
    Variant.GCP_TDX: (_gcp_tdx, _TD),
    Variant.LOCAL_VTPM: (_local_vtpm, ()),
    Variant.QEMU_SEV_SNP: (_qemu_sev_snp, _SNP),
    Variant.QEMU_TDX: (_qemu_tdx, _TD),
    Variant.QEMU_VTPM: (_qemu_vtpm, ()),
}
"""The rules of each variant, and the launch claims that a release may state for it."""
