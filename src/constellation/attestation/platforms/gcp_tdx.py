"""Variant `gcp-tdx`: a TD on Google's hosts. Intel vouches for it; the vTPM there is not used.

Which register holds what:
- MRTD: Google's firmware. RTMR0: what the host configured, as the firmware saw it; Google changes
  both without notice, so their rules are the caller's, with reference values or a reason.
- RTMR1: boot loader and kernel; RTMR2: command line, initrd, sections of the unified image: from
  reference values.
- MRCONFIGID: zero: on this cloud nobody can set it.
- RTMR3: extended with SHA-384 of the node document before the node talks to anybody, and with
  SHA-384 of the clusterID after the node was given to its cluster.

The verifier's procedure:
 1. The evidence is canonical JSON; the quote is authentic, of a TD, made for this binding; the CC
    event log replays to the registers (`td`, steps a to d).
 2. The claims pass the policy; an RTMR that does not is explained by its events.

What a malicious host can still do: refuse, delay, stop, start again. Google's vTPM is the
hypervisor's, so its quotes would add nothing: RTMRs are the authority. Sources: "Intel TDX Module
1.5 ABI specification"; "Intel TDX DCAP: Quote Verification"; UEFI 2.10, section 38.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import td
from constellation.attestation.policy import Exactly, Rule
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy
    from constellation.attestation.tdx.status import TcbStatus

__all__ = ["GcpTdxVerifier", "policy"]


def policy(
    reference: Mapping[str, tuple[bytes, ...]],
    *,
    mr_td: Rule,
    rtmr0: Rule,
    statuses: tuple[TcbStatus, ...],
    minimum_tcb_evaluation: int,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node.

    Args:
        reference: accepted values (48 bytes) of `rtmr1` and `rtmr2`; one that is left out accepts
            nothing.
        mr_td: rule for Google's firmware.
        rtmr0: rule for the configuration that the firmware saw.
        statuses: accepted TCB statuses.
        minimum_tcb_evaluation: lowest tcbEvaluationDataNumber of collateral.
        node_document_digest: SHA-384 (48 bytes) of the cluster's node document, for RTMR3.
        cluster_id: 32 bytes: RTMR3 must hold this cluster too; None: the document alone.

    Raises:
        FormatError: reference values for a register that the image does not decide.
    """
    if len(node_document_digest) != 48:  # noqa: PLR2004 - SHA-384
        raise FormatError(f"node document: digest of {len(node_document_digest)} bytes, want 48")
    joined = () if cluster_id is None else (td.cluster_event(cluster_id),)
    registers = {
        **td.image_rules(reference),
        "mr_td": mr_td,
        "rtmr0": rtmr0,
        "mr_config_id": Exactly(bytes(48)),
        "rtmr3": td.exactly(node_document_digest, *joined),
    }
    return td.td_policy(registers, statuses=statuses, minimum_tcb_evaluation=minimum_tcb_evaluation)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpTdxVerifier:
    """Verifies and appraises `gcp-tdx` evidence; `trust_roots` are Intel's (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        return td.appraise_td(
            evidence,
            variant=Variant.GCP_TDX,
            binding=binding,
            policy=self.policy,
            roots=self.trust_roots,
            now=now,
        )
