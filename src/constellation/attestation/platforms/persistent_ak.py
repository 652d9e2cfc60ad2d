"""Attests with an AK that the machine's maker left in its vTPM, as Azure does.

The AK is persistent at 0x81000003, its certificate (DER, maybe padded) in NV index 0x01C101D0;
on Azure's confidential VMs the HCL report is in NV index 0x01400001. Endorsements of the chip come
from an `EndorsementSource`, since who serves them differs (on Azure the host, by IMDS): they are
untrusted, as all that is sent here. Everything here does I/O; what it is worth is decided by the
verifiers. Source: Microsoft, "Azure confidential VMs: guest attestation"; TPM 2.0 Library, Part 3.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation.hcl.report import HclReport
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms.attesting import quote_registers
from constellation.attestation.platforms.azure_sev_snp import AzureSnpEvidence
from constellation.attestation.platforms.azure_tdx import AzureTdxEvidence
from constellation.attestation.platforms.azure_trustedlaunch import AzureTrustedLaunchEvidence
from constellation.attestation.snp.endorsements import Endorsements, vek_facts
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tpm import quote
from constellation.base import decode
from constellation.crypto.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    from constellation.attestation.platforms.azure_imds import Imds
    from constellation.attestation.platforms.vtpm import TpmPart
    from constellation.attestation.snp.kds import Kds
    from constellation.attestation.tdx.endorsements import Collateral
    from constellation.attestation.tdx.quote import Quote
    from constellation.attestation.tpm.device import Tpm

__all__ = [
    "AK_CERTIFICATE_INDEX",
    "AK_HANDLE",
    "HCL_REPORT_INDEX",
    "AzureSnpAttester",
    "AzureTdxAttester",
    "AzureTrustedLaunchAttester",
    "EndorsementSource",
    "ThimAndKds",
    "attester_id",
    "quote_with_ak",
]

AK_HANDLE = 0x81000003
AK_CERTIFICATE_INDEX = 0x01C101D0
HCL_REPORT_INDEX = 0x01400001

_CRL_DEADLINE_S = 10.0


class EndorsementSource(Protocol):
    """Gives what endorses this machine's chip."""

    async def endorsements(self) -> Endorsements:
        """Give certificates and revocation list.

        Raises:
            Unavailable: whoever serves them did not answer.
        """
        ...


async def attester_id(tpm: Tpm) -> bytes:
    """Give what `vtpm.VerifiedTpm` finds: SHA-256 (32 bytes) of the AK's key. Unavailable."""
    key = quote.public_key(await tpm.read_public(AK_HANDLE))
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


class AzureTrustedLaunchAttester:
    """Attests a trusted launch VM; `ak_chain` are intermediates (DER) to send along."""

    def __init__(self, tpm: Tpm, event_log: Path, *, ak_chain: tuple[bytes, ...]) -> None:
        self._tpm, self._event_log, self._ak_chain = tpm, event_log, ak_chain

    async def attester_id(self) -> bytes:
        """Give the identity that a verifier finds; see `attester_id`."""
        return await attester_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        evidence = AzureTrustedLaunchEvidence(
            tpm=await quote_with_ak(self._tpm, self._event_log, binding),
            ak_certificate=await self._tpm.nv_read(AK_CERTIFICATE_INDEX),
            ak_chain=self._ak_chain,
        )
        return Evidence(variant=Variant.AZURE_TRUSTEDLAUNCH, data=decode.dump(evidence))


class AzureSnpAttester:
    """Attests a confidential VM with SNP."""

    def __init__(self, tpm: Tpm, event_log: Path, *, source: EndorsementSource) -> None:
        self._tpm, self._event_log, self._source = tpm, event_log, source

    async def attester_id(self) -> bytes:
        """Give the identity that a verifier finds; see `attester_id`."""
        return await attester_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers, and read the HCL report of this boot; see `Attester`."""
        given = await self._source.endorsements()
        evidence = AzureSnpEvidence(
            tpm=await quote_with_ak(self._tpm, self._event_log, binding),
            hcl_report=await self._tpm.nv_read(HCL_REPORT_INDEX),
            vcek=given.vek,
            ask=given.intermediate or b"",
            crl=given.crl or b"",
        )
        return Evidence(variant=Variant.AZURE_SEV_SNP, data=decode.dump(evidence))


class AzureTdxAttester:
    """Attests a confidential VM with TDX; `endorse` finds the collateral of a quote's platform."""

    def __init__(
        self,
        tpm: Tpm,
        event_log: Path,
        *,
        imds: Imds,
        endorse: Callable[[Quote], Awaitable[Collateral]],
    ) -> None:
        self._tpm, self._event_log = tpm, event_log
        self._imds, self._endorse = imds, endorse

    async def attester_id(self) -> bytes:
        """Give the identity that a verifier finds; see `attester_id`."""
        return await attester_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers, and have the TDREPORT of this boot quoted; see `Attester`."""
        hcl = await self._tpm.nv_read(HCL_REPORT_INDEX)
        quote = await self._imds.td_quote(HclReport.parse(hcl).chip_report)
        evidence = AzureTdxEvidence(
            tpm=await quote_with_ak(self._tpm, self._event_log, binding),
            hcl_report=hcl,
            td_quote=quote,
            collateral=(await self._endorse(parse_quote(quote))).dump(),
        )
        return Evidence(variant=Variant.AZURE_TDX, data=decode.dump(evidence))


class ThimAndKds:
    """`EndorsementSource` of Azure: certificates from the host, the revocation list from AMD."""

    def __init__(self, imds: Imds, kds: Kds, *, now: Callable[[], datetime]) -> None:
        self._imds, self._kds, self._now = imds, kds, now

    async def endorsements(self) -> Endorsements:
        """See `EndorsementSource`; a list that is not to be had is left out: that is a finding."""
        vcek, ask = await self._imds.vcek()
        facts = vek_facts(Certificate.parse(vcek, what="VCEK"))
        crl = await self._kds.revocation_list(
            facts.product, facts.kind, now=self._now(), deadline_s=_CRL_DEADLINE_S
        )
        return Endorsements(vek=vcek, intermediate=ask, crl=crl)


async def quote_with_ak(tpm: Tpm, event_log: Path, binding: Binding) -> TpmPart:
    """Quote the registers with the AK at `AK_HANDLE`. Unavailable."""
    return await quote_registers(tpm, ak=AK_HANDLE, event_log=event_log, binding=binding)
