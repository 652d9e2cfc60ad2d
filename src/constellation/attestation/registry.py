"""Which verifier and attester belong to a variant: one table, no registration at import time.

A variant's modules are imported when it is asked for: a node carries what its own variant needs.
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.base import clock
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from constellation.attestation.model import Attester, Verifier
    from constellation.attestation.platforms.qemu_sev_snp import Endorse
    from constellation.attestation.policy import Policy
    from constellation.attestation.snp.endorsements import Endorsements
    from constellation.attestation.snp.report import Report
    from constellation.attestation.tdx.pcs import PcsClient
    from constellation.attestation.tpm.device import Tpm

__all__ = ["NodeDevices", "attester", "published_roots", "verifier"]

_ENDORSE_DEADLINE_S = 30.0


def _local_vtpm(policy: Policy, roots: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.local_vtpm import LocalVtpmVerifier

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


def _gcp_sev_snp(policy: Policy, roots: tuple[bytes, ...], chips: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.gcp_sev_snp import GcpSnpVerifier

    return GcpSnpVerifier(policy=policy, chip_roots=chips or _arks(), trust_roots=roots)


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


def _aws_sev_snp(policy: Policy, roots: tuple[bytes, ...], chips: tuple[bytes, ...]) -> Verifier:
    from constellation.attestation.platforms.aws_sev_snp import AwsSnpVerifier

    return AwsSnpVerifier(policy=policy, chip_roots=chips or _arks(), trust_roots=roots)


def _arks() -> tuple[bytes, ...]:
    from constellation.attestation.roots.amd import ARKS

    return ARKS


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDevices:
    """What attesters find on a node.

    `event_log` is this boot's log; `cache` a folder where endorsements of the chip are kept, which
    come from the chip makers' services, or on Azure from the host.
    """

    tpm: Tpm
    event_log: Path
    cache: Path


def _kds_endorse(devices: NodeDevices) -> Endorse:
    from constellation.attestation.snp.kds import Kds

    kds = Kds(devices.cache / "kds")

    async def endorse(report: Report, *, certificates: bytes) -> Endorsements:
        return await kds.endorse(
            report,
            certificates=certificates,
            product=None,
            now=clock.now(),
            deadline_s=_ENDORSE_DEADLINE_S,
        )

    return endorse


def _pcs(devices: NodeDevices) -> PcsClient:
    from constellation.attestation.tdx import pcs

    return pcs.PcsClient(cache=devices.cache / "pcs", now=clock.now, get=pcs.get)


def _local_vtpm_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.local_vtpm_machine import LocalVtpmAttester

    return LocalVtpmAttester(devices.tpm, devices.event_log)


def _qemu_vtpm_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.qemu_vtpm_attester import QemuVtpmAttester

    return QemuVtpmAttester(devices.tpm, devices.event_log)


def _azure_trustedlaunch_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.persistent_ak import AzureTrustedLaunchAttester

    # the verifier carries Microsoft's intermediates
    return AzureTrustedLaunchAttester(devices.tpm, devices.event_log, ak_chain=())


def _azure_sev_snp_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.azure_imds import Imds
    from constellation.attestation.platforms.persistent_ak import AzureSnpAttester, ThimAndKds
    from constellation.attestation.snp.kds import Kds

    source = ThimAndKds(Imds(), Kds(devices.cache / "kds"), now=clock.now)
    return AzureSnpAttester(devices.tpm, devices.event_log, source=source)


def _azure_tdx_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.azure_imds import Imds
    from constellation.attestation.platforms.persistent_ak import AzureTdxAttester

    return AzureTdxAttester(
        devices.tpm, devices.event_log, imds=Imds(), endorse=_pcs(devices).of_quote
    )


def _gcp_sev_es_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.gcp_attester import GcpSevEsAttester

    return GcpSevEsAttester(devices.tpm, devices.event_log)


def _gcp_sev_snp_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.gcp_attester import GcpSnpAttester
    from constellation.attestation.snp.device import open_device

    return GcpSnpAttester(
        devices.tpm, devices.event_log, device=open_device(), endorse=_kds_endorse(devices)
    )


def _aws_nitro_tpm_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.aws_attester import AwsNitroTpmAttester

    return AwsNitroTpmAttester(devices.tpm, devices.event_log)


def _aws_sev_snp_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.aws_attester import AwsSnpAttester
    from constellation.attestation.snp.device import open_device

    return AwsSnpAttester(
        devices.tpm, devices.event_log, device=open_device(), endorse=_kds_endorse(devices)
    )


def _qemu_sev_snp_attester(devices: NodeDevices) -> Attester:
    from constellation.attestation.platforms.qemu_sev_snp import QemuSnpAttester
    from constellation.attestation.snp.device import open_device

    return QemuSnpAttester(device=open_device(), endorse=_kds_endorse(devices))


def _td_attester(variant: Variant) -> Callable[[NodeDevices], Attester]:
    def make(devices: NodeDevices) -> Attester:
        from constellation.attestation.platforms.td import TdAttester
        from constellation.attestation.tdx.device import CCEL, RTMR3, TSM_REPORTS, Folder, TdGuest

        guest = TdGuest(reports=Folder(TSM_REPORTS), ccel=CCEL, rtmr3=RTMR3)
        return TdAttester(variant=variant, device=guest, endorse=_pcs(devices).of_quote)

    return make


_VERIFIERS: Mapping[Variant, Callable[[Policy, tuple[bytes, ...]], Verifier]] = {
    Variant.AWS_NITRO_TPM: _aws_nitro_tpm,
    Variant.AZURE_SEV_SNP: _azure_sev_snp,
    Variant.AZURE_TDX: _azure_tdx,
    Variant.AZURE_TRUSTEDLAUNCH: _azure_trustedlaunch,
    Variant.GCP_SEV_ES: _gcp_sev_es,
    Variant.GCP_TDX: _gcp_tdx,
    Variant.LOCAL_VTPM: _local_vtpm,
    Variant.QEMU_SEV_SNP: _qemu_sev_snp,
    Variant.QEMU_TDX: _qemu_tdx,
    Variant.QEMU_VTPM: _qemu_vtpm,
}
_WITH_CHIP_ROOTS: Mapping[
    Variant, Callable[[Policy, tuple[bytes, ...], tuple[bytes, ...]], Verifier]
] = {Variant.AWS_SEV_SNP: _aws_sev_snp, Variant.GCP_SEV_SNP: _gcp_sev_snp}
"""Variants whose chip and whose cloud each have a root."""
_ATTESTERS: Mapping[Variant, Callable[[NodeDevices], Attester]] = {
    Variant.AWS_NITRO_TPM: _aws_nitro_tpm_attester,
    Variant.AWS_SEV_SNP: _aws_sev_snp_attester,
    Variant.AZURE_SEV_SNP: _azure_sev_snp_attester,
    Variant.AZURE_TDX: _azure_tdx_attester,
    Variant.AZURE_TRUSTEDLAUNCH: _azure_trustedlaunch_attester,
    Variant.GCP_SEV_ES: _gcp_sev_es_attester,
    Variant.GCP_SEV_SNP: _gcp_sev_snp_attester,
    Variant.GCP_TDX: _td_attester(Variant.GCP_TDX),
    Variant.LOCAL_VTPM: _local_vtpm_attester,
    Variant.QEMU_SEV_SNP: _qemu_sev_snp_attester,
    Variant.QEMU_TDX: _td_attester(Variant.QEMU_TDX),
    Variant.QEMU_VTPM: _qemu_vtpm_attester,
}


def verifier(
    variant: Variant,
    *,
    policy: Policy,
    trust_roots: tuple[bytes, ...],
    chip_roots: tuple[bytes, ...] = (),
) -> Verifier:
    """Make the verifier of a variant.

    `trust_roots` (DER) are the authorities that the variant's first link leads to: the chip
    maker's where the chip vouches for everything (`azure-sev-snp`, all of TDX), else the
    cloud's. Where both are needed (`gcp-sev-snp`, `aws-sev-snp`) they are the cloud's, and
    `chip_roots` the chip's, AMD's published ones if there are none: a cloud's root never vouches
    for a chip.

    Raises:
        UserError: this release cannot verify the variant.
    """
    if (both := _WITH_CHIP_ROOTS.get(variant)) is not None:
        return both(policy, trust_roots, chip_roots)
    make = _VERIFIERS.get(variant)
    if make is None:
        known = ", ".join(sorted({*_VERIFIERS, *_WITH_CHIP_ROOTS}))
        raise UserError(f"variant {variant}: expected one of {known}")
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


def attester(variant: Variant, devices: NodeDevices) -> Attester:
    """Make the attester of a variant on this node.

    Raises:
        UserError: this release cannot attest with the variant.
        Unavailable: the chip's device is not there: it is not such a machine.
    """
    make = _ATTESTERS.get(variant)
    if make is None:
        raise UserError(f"variant {variant}: expected one of {', '.join(sorted(_ATTESTERS))}")
    return make(devices)
