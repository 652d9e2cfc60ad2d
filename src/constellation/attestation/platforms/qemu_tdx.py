"""Variant `qemu-tdx`: a TD on one's own host. Intel vouches for it; nobody else is believed.

Which register holds what:
- MRTD: the firmware, predicted from its image (`tdx.tdvf`).
- RTMR0: what the host configured, as the firmware saw it; RTMR1: boot loader and kernel;
  RTMR2: command line, initrd, sections of the unified image. All from reference values.
- MRCONFIGID: SHA-384 of the node document. The host sets it when it starts the TD.
- RTMR3: zero; after the node was given to its cluster, extended with SHA-384 of the clusterID.

The verifier's procedure:
 1. The evidence is canonical JSON; the quote is authentic, of a TD, made for this binding; the CC
    event log replays to the registers (`td`, steps a to d).
 2. The claims pass the policy; an RTMR that does not is explained by its events.

What a malicious host can still do: refuse, delay, stop, start again, and offer hardware whose TCB
is older than the policy's status allows: that is refused. Sources: "Intel TDX Module 1.5 ABI
specification"; "Intel TDX DCAP: Quote Verification"; UEFI 2.10, section 38.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import td
from constellation.attestation.policy import Exactly
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy
    from constellation.attestation.tdx.status import TcbStatus

__all__ = ["QemuTdxVerifier", "policy"]


def policy(
    reference: Mapping[str, tuple[bytes, ...]],
    *,
    statuses: tuple[TcbStatus, ...],
    minimum_tcb_evaluation: int,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node.

    Args:
        reference: accepted values (48 bytes) of `mr_td`, `rtmr0`, `rtmr1`, `rtmr2`; one that is
            left out accepts nothing.
        statuses: accepted TCB statuses.
        minimum_tcb_evaluation: lowest tcbEvaluationDataNumber of collateral.
        node_document_digest: SHA-384 (48 bytes) of the cluster's node document, for MRCONFIGID.
        cluster_id: 32 bytes: RTMR3 must hold this cluster; None: RTMR3 must be zero.

    Raises:
        FormatError: reference values for a register that the image does not decide.
    """
    if len(node_document_digest) != 48:  # noqa: PLR2004 - SHA-384
        raise FormatError(f"node document: digest of {len(node_document_digest)} bytes, want 48")
    joined = () if cluster_id is None else (td.cluster_event(cluster_id),)
    registers = {
        **td.image_rules(reference),
        "mr_config_id": Exactly(node_document_digest),
        "rtmr3": td.exactly(*joined),
    }
    return td.td_policy(registers, statuses=statuses, minimum_tcb_evaluation=minimum_tcb_evaluation)


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuTdxVerifier:
    """Verifies and appraises `qemu-tdx` evidence; `trust_roots` are Intel's (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        return td.appraise_td(
            evidence,
            variant=Variant.QEMU_TDX,
            binding=binding,
            policy=self.policy,
            roots=self.trust_roots,
            now=now,
        )
