"""Which verifier and attester belong to a variant: one table, no registration at import time.

A variant's modules are imported when it is asked for: a node carries what its own variant needs.
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.attestation.platforms.local_vtpm import LocalVtpmAttester, LocalVtpmVerifier
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from constellation.attestation.model import Attester, Verifier
    from constellation.attestation.policy import Policy
    from constellation.attestation.tpm.device import Tpm

__all__ = ["attester", "published_roots", "verifier"]


def _local_vtpm(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    return LocalVtpmVerifier(policy=policy, trust_roots=roots)


def _qemu_vtpm(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.qemu_vtpm import QemuVtpmVerifier

    return QemuVtpmVerifier(policy=policy, trust_roots=roots)


def _azure_sev_snp(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.azure_sev_snp import AzureSnpVerifier

    return AzureSnpVerifier(policy=policy, trust_roots=roots)


def _azure_tdx(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.azure_tdx import AzureTdxVerifier

    return AzureTdxVerifier(policy=policy, trust_roots=roots)


def _azure_trustedlaunch(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.azure_trustedlaunch import AzureTrustedLaunchVerifier

    return AzureTrustedLaunchVerifier(policy=policy, trust_roots=roots)


def _gcp_sev_es(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.gcp_sev_es import GcpSevEsVerifier

    return GcpSevEsVerifier(policy=policy, trust_roots=roots)


def _gcp_sev_snp(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.gcp_sev_snp import GcpSnpVerifier
    from constellation.attestation.roots.amd import ARKS

    return GcpSnpVerifier(policy=policy, chip_roots=ARKS, trust_roots=roots)


def _gcp_tdx(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.gcp_tdx import GcpTdxVerifier

    return GcpTdxVerifier(policy=policy, trust_roots=roots)


def _qemu_sev_snp(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.qemu_sev_snp import QemuSnpVerifier

    return QemuSnpVerifier(policy=policy, trust_roots=roots)


def _qemu_tdx(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.qemu_tdx import QemuTdxVerifier

    return QemuTdxVerifier(policy=policy, trust_roots=roots)


def _aws_nitro_tpm(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.aws_nitro_tpm import AwsNitroTpmVerifier

    return AwsNitroTpmVerifier(policy=policy, trust_roots=roots)


def _aws_sev_snp(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.aws_sev_snp import AwsSnpVerifier
    from constellation.attestation.roots.amd import ARKS

    return AwsSnpVerifier(policy=policy, chip_roots=ARKS, trust_roots=roots)


def _local_vtpm_attester(tpm: Tpm, event_log: Path) -> Attester:
    return LocalVtpmAttester(tpm, event_log)


def _qemu_vtpm_attester(tpm: Tpm, event_log: Path) -> Attester:
    from constellation.attestation.platforms.persistent_ak import QemuVtpmAttester

    return QemuVtpmAttester(tpm, event_log)


def _azure_trustedlaunch_attester(tpm: Tpm, event_log: Path) -> Attester:
    from constellation.attestation.platforms.persistent_ak import AzureTrustedLaunchAttester

    # the verifier carries Microsoft's intermediates
    return AzureTrustedLaunchAttester(tpm, event_log, ak_chain=())


_VERIFIERS: Mapping[Variant, Callable[[Policy, tuple[bytes, ...]], Verifier]] = {
    Variant.AWS_NITRO_TPM: _aws_nitro_tpm,
    Variant.AWS_SEV_SNP: _aws_sev_snp,
    Variant.AZURE_SEV_SNP: _azure_sev_snp,
    Variant.AZURE_TDX: _azure_tdx,
    Variant.AZURE_TRUSTEDLAUNCH: _azure_trustedlaunch,
    Variant.GCP_SEV_ES: _gcp_sev_es,
    Variant.GCP_SEV_SNP: _gcp_sev_snp,
    Variant.GCP_TDX: _gcp_tdx,
    Variant.LOCAL_VTPM: _local_vtpm,
    Variant.QEMU_SEV_SNP: _qemu_sev_snp,
    Variant.QEMU_TDX: _qemu_tdx,
    Variant.QEMU_VTPM: _qemu_vtpm,
}
_ATTESTERS: Mapping[Variant, Callable[[Tpm, Path], Attester]] = {
    Variant.AZURE_TRUSTEDLAUNCH: _azure_trustedlaunch_attester,
    Variant.LOCAL_VTPM: _local_vtpm_attester,
    Variant.QEMU_VTPM: _qemu_vtpm_attester,
}


def verifier(variant: Variant, *, policy: Policy, trust_roots: tuple[bytes, ...]) -> Verifier:
    """Make the verifier of a variant.

    `trust_roots` (DER) are the authorities that the variant's first link leads to: the chip
    maker's where the chip vouches for everything (`azure-sev-snp`, all of TDX), else the
    cloud's. Where both are needed (`gcp-sev-snp`, `aws-sev-snp`) they are the cloud's, and the
    chip's are AMD's published ones: a cloud's root never vouches for a chip.

    Raises:
        UserError: this release cannot verify the variant.
    """
    make = _VERIFIERS.get(variant)
    if make is None:
        raise UserError(f"variant {variant}: expected one of {', '.join(sorted(_VERIFIERS))}")
    return make(policy, trust_roots)


def published_roots(variant: Variant) -> tuple[bytes, ...]:
    """Give the published authorities (DER) of a variant, for `verifier`; none for local ones."""
    from constellation.attestation.roots import amd, aws, google, intel, microsoft

    known: Mapping[Variant, tuple[bytes, ...]] = {
        Variant.AWS_NITRO_TPM: aws.ROOTS,
        Variant.AWS_SEV_SNP: aws.ROOTS,
        Variant.AZURE_SEV_SNP: amd.ARKS,
        Variant.AZURE_TDX: intel.ROOTS,
        Variant.AZURE_TRUSTEDLAUNCH: microsoft.ROOTS,
        Variant.GCP_SEV_ES: google.ROOTS,
        Variant.GCP_SEV_SNP: google.ROOTS,
        Variant.GCP_TDX: intel.ROOTS,
        Variant.QEMU_SEV_SNP: amd.ARKS,
        Variant.QEMU_TDX: intel.ROOTS,
    }
    return known.get(variant, ())


def attester(variant: Variant, *, tpm: Tpm, event_log: Path) -> Attester:
    """Make the attester of a variant with a TPM; `event_log` is this boot's log.

    Raises:
        UserError: this release cannot attest with the variant.
    """
    make = _ATTESTERS.get(variant)
    if make is None:
        raise UserError(f"variant {variant}: expected one of {', '.join(sorted(_ATTESTERS))}")
    return make(tpm, event_log)
