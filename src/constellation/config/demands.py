"""What does the owner demand of chips, firmware and cloud, beside the node image? By the conf.

The conf names a provider, a region or project and a variant; the rest are the defaults that
`tests/golden/policy-VARIANT.txt` shows. `create` notes them in the state file; from there they go
into every cluster policy, which the owner signs: no release and no cloud can say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.model import Variant
from constellation.attestation.node_rules import ChipMinimum, PlatformDemands
from constellation.attestation.tdx.appraise import STRICT_STATUSES

if TYPE_CHECKING:
    from constellation.config.schema import Config

__all__ = ["platform_demands"]

_WITH_SNP = frozenset({Variant.AWS_SEV_SNP, Variant.AZURE_SEV_SNP, Variant.GCP_SEV_SNP,
                       Variant.QEMU_SEV_SNP})  # fmt: skip
_WITH_TDX = frozenset({Variant.AZURE_TDX, Variant.GCP_TDX, Variant.QEMU_TDX})
_MINIMUM_TCB_EVALUATION = 1


def platform_demands(config: Config) -> PlatformDemands | None:
    """Give the demands; None where nothing but a local TPM is believed.

    What a variant does not show is demanded of nobody: its part stays empty.
    """
    provider, variant = config.provider, Variant(config.attestation.variant)
    if variant in (Variant.LOCAL_VTPM, Variant.QEMU_VTPM):
        return None
    chips = snp.MINIMUM_TCB.items() if variant in _WITH_SNP else ()
    return PlatformDemands(
        chips=tuple(ChipMinimum(line=line, tcb=tcb) for line, tcb in chips),
        # AMD's published ones
        chip_roots=(),
        tdx_statuses=STRICT_STATUSES if variant in _WITH_TDX else (),
        minimum_tcb_evaluation=_MINIMUM_TCB_EVALUATION,
        project_ids=(provider.gcp.project,) if provider.gcp is not None else (),
        csp_ids=(f"CN=cc-{provider.aws.region}.amazonaws.com",) if provider.aws is not None else (),
    )
