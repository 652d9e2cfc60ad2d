"""Attests instances of Google Cloud with a vTPM: `gcp-sev-es` and `gcp-sev-snp`.

The AK is made anew from the template in NV (the same TPM gives the same key), its certificate (DER)
is beside it: 0x01C10002 and 0x01C10003 for ECC P-256, 0x01C10000 and 0x01C10001 for RSA 2048.
Everything here does I/O; verifiers decide what it is worth. Source: Google, "Shielded VM" and
go-tpm-tools' `client` package (indices); TPM 2.0 Library, Part 3.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation import snp
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms.attesting import quote_registers
from constellation.attestation.platforms.chip import report_data
from constellation.attestation.platforms.gcp_sev_es import GcpSevEsEvidence
from constellation.attestation.platforms.gcp_sev_snp import GcpSnpEvidence
from constellation.attestation.tpm import quote
from constellation.attestation.tpm.device import CommandRefused
from constellation.base import decode
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.attestation.platforms.qemu_sev_snp import Endorse
    from constellation.attestation.snp.device import SnpDevice
    from constellation.attestation.tpm.device import Tpm
    from constellation.attestation.tpm.public import Public

__all__ = ["AK_INDICES", "GcpSevEsAttester", "GcpSnpAttester"]

AK_INDICES = ((0x01C10002, 0x01C10003), (0x01C10000, 0x01C10001))
"""NV indices of certificate and template, the preferred kind of key first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ak:
    handle: int
    public: Public
    certificate: bytes


@contextlib.asynccontextmanager
async def _ak(tpm: Tpm) -> AsyncIterator[_Ak]:
    """Make the AK, and free its slot afterwards."""
    for certificate_index, template_index in AK_INDICES:
        try:
            template = await tpm.nv_read(template_index)
            certificate = await tpm.nv_read(certificate_index)
        except CommandRefused as error:
            if error.is_missing:
                continue
            raise
        # some images store the size of a TPM2B_PUBLIC before the TPMT_PUBLIC
        sized = int.from_bytes(template[:2], "big") == len(template) - 2
        handle, public = await tpm.create_primary(template[2:] if sized else template)
        try:
            yield _Ak(handle=handle, public=public, certificate=certificate)
        finally:
            await tpm.flush(handle)
        return
    raise Unavailable("this vTPM has no certified AK", hint="is it an instance with Shielded VM?")


async def _attester_id(tpm: Tpm) -> bytes:
    async with _ak(tpm) as ak:
        key = quote.public_key(ak.public)
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


class GcpSevEsAttester:
    """Attests an instance with SEV or SEV-ES."""

    def __init__(self, tpm: Tpm, event_log: Path) -> None:
        self._tpm, self._event_log = tpm, event_log

    async def attester_id(self) -> bytes:
        """Give what `vtpm.VerifiedTpm` finds: SHA-256 (32 bytes) of the AK's key. Unavailable."""
        return await _attester_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        async with _ak(self._tpm) as ak:
            evidence = GcpSevEsEvidence(
                tpm=await quote_registers(
                    self._tpm, ak=ak.handle, event_log=self._event_log, binding=binding
                ),
                ak_certificate=ak.certificate,
                ak_chain=(),  # the verifier carries Google's intermediates
            )
        return Evidence(variant=Variant.GCP_SEV_ES, data=decode.dump(evidence))


class GcpSnpAttester:
    """Attests an instance with SEV-SNP: the report commits to the binding and the vTPM's AK."""

    def __init__(self, tpm: Tpm, event_log: Path, *, device: SnpDevice, endorse: Endorse) -> None:
        self._tpm, self._event_log = tpm, event_log
        self._device, self._endorse = device, endorse

    async def attester_id(self) -> bytes:
        """Give what `vtpm.VerifiedTpm` finds: SHA-256 (32 bytes) of the AK's key. Unavailable."""
        return await _attester_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers, then have the chip sign binding and AK; see `Attester`."""
        async with _ak(self._tpm) as ak:
            part = await quote_registers(
                self._tpm, ak=ak.handle, event_log=self._event_log, binding=binding
            )
        raw = await self._device.report(report_data(binding, companion=part.ak_public))
        given = await self._endorse(snp.parse_report(raw.report), certificates=raw.certificates)
        evidence = GcpSnpEvidence(
            tpm=part,
            ak_certificate=ak.certificate,
            ak_chain=(),
            report=raw.report,
            vcek=given.vek,
            ask=given.intermediate or b"",
            crl=given.crl or b"",
        )
        return Evidence(variant=Variant.GCP_SEV_SNP, data=decode.dump(evidence))
