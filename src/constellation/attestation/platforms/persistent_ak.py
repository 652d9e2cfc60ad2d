"""Attests with an AK that the machine's maker left in its vTPM: Azure, and QEMU with our own CA.

The AK is persistent at 0x81000003, its certificate (DER, maybe padded) in NV index 0x01C101D0;
on Azure's confidential VMs the HCL report is in NV index 0x01400001. Endorsements of the chip come
from an `EndorsementSource`, since who serves them differs (on Azure the host, by IMDS): they are
untrusted, as all that is sent here. Everything here does I/O; what it is worth is decided by the
verifiers. Source: Microsoft, "Azure confidential VMs: guest attestation"; TPM 2.0 Library, Part 3.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms.azure_sev_snp import AzureSnpEvidence
from constellation.attestation.platforms.azure_trustedlaunch import AzureTrustedLaunchEvidence
from constellation.attestation.platforms.qemu_vtpm import QemuVtpmEvidence
from constellation.attestation.platforms.vtpm import QUOTED_PCRS, TpmPart, qualifying_data
from constellation.attestation.tpm.structures import Alg
from constellation.base import decode
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.snp.endorsements import Endorsements
    from constellation.attestation.tpm.device import Tpm

__all__ = [
    "AK_CERTIFICATE_INDEX",
    "AK_HANDLE",
    "HCL_REPORT_INDEX",
    "AzureSnpAttester",
    "AzureTrustedLaunchAttester",
    "EndorsementSource",
    "QemuVtpmAttester",
]

AK_HANDLE = 0x81000003
AK_CERTIFICATE_INDEX = 0x01C101D0
HCL_REPORT_INDEX = 0x01400001


class EndorsementSource(Protocol):
    """Gives what endorses this machine's chip."""

    async def endorsements(self) -> Endorsements:
        """Give certificates and revocation list.

        Raises:
            Unavailable: whoever serves them did not answer.
        """
        ...


class QemuVtpmAttester:
    """Attests a VM whose TPM was made by our own daemon."""

    def __init__(self, tpm: Tpm, event_log: Path) -> None:
        self._tpm, self._event_log = tpm, event_log

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        evidence = QemuVtpmEvidence(
            tpm=await _quote(self._tpm, self._event_log, binding),
            ak_certificate=await self._tpm.nv_read(AK_CERTIFICATE_INDEX),
        )
        return Evidence(variant=Variant.QEMU_VTPM, data=decode.dump(evidence))


class AzureTrustedLaunchAttester:
    """Attests a trusted launch VM; `ak_chain` are intermediates (DER) to send along."""

    def __init__(self, tpm: Tpm, event_log: Path, *, ak_chain: tuple[bytes, ...]) -> None:
        self._tpm, self._event_log, self._ak_chain = tpm, event_log, ak_chain

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        evidence = AzureTrustedLaunchEvidence(
            tpm=await _quote(self._tpm, self._event_log, binding),
            ak_certificate=await self._tpm.nv_read(AK_CERTIFICATE_INDEX),
            ak_chain=self._ak_chain,
        )
        return Evidence(variant=Variant.AZURE_TRUSTEDLAUNCH, data=decode.dump(evidence))


class AzureSnpAttester:
    """Attests a confidential VM with SNP."""

    def __init__(self, tpm: Tpm, event_log: Path, *, source: EndorsementSource) -> None:
        self._tpm, self._event_log, self._source = tpm, event_log, source

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers, and read the HCL report of this boot; see `Attester`."""
        given = await self._source.endorsements()
        evidence = AzureSnpEvidence(
            tpm=await _quote(self._tpm, self._event_log, binding),
            hcl_report=await self._tpm.nv_read(HCL_REPORT_INDEX),
            vcek=given.vek,
            ask=given.intermediate or b"",
            crl=given.crl or b"",
        )
        return Evidence(variant=Variant.AZURE_SEV_SNP, data=decode.dump(evidence))


async def _quote(tpm: Tpm, event_log: Path, binding: Binding) -> TpmPart:
    public = await tpm.read_public(AK_HANDLE)
    pcrs = await tpm.read_pcrs(QUOTED_PCRS, bank=Alg.SHA256)
    quoted, signature = await tpm.quote(
        AK_HANDLE, qualifying_data=qualifying_data(binding), pcrs=QUOTED_PCRS, bank=Alg.SHA256
    )
    try:
        log = await asyncio.to_thread(event_log.read_bytes)
    except OSError as error:
        raise Unavailable(f"event log {event_log}: {error.strerror}") from error
    return TpmPart(
        quote=quoted,
        signature=signature,
        ak_public=public.pack(),
        pcrs=dict(pcrs),
        event_log=log,
    )
