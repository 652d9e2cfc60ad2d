"""Attests instances of AWS: `aws-nitro-tpm` and `aws-sev-snp`.

The hypervisor's document is asked for through the TPM: an NV index is made, the request written
into it, AWS' vendor command answers in its place. Everything here does I/O; verifiers decide what
it is worth. Source: AWS, "NitroTPM attestation document", and its program nitro-tpm-attest.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from constellation.attestation import snp
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.nitro import document as nitro
from constellation.attestation.nitro.request import BUFFER_BYTES, pack_request, parse_response
from constellation.attestation.platforms.attesting import read_log
from constellation.attestation.platforms.aws_nitro_tpm import AwsNitroTpmEvidence
from constellation.attestation.platforms.aws_sev_snp import AwsSnpEvidence
from constellation.attestation.platforms.chip import report_data
from constellation.attestation.platforms.vtpm import qualifying_data
from constellation.attestation.tpm.device import CommandRefused
from constellation.base import decode

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.platforms.qemu_sev_snp import Endorse
    from constellation.attestation.snp.device import SnpDevice

__all__ = ["BUFFER_INDEX", "AwsNitroTpmAttester", "AwsSnpAttester", "NsmTpm"]

BUFFER_INDEX = 0x01800C0E
"""An NV index that the owner may define (TCG registry: 0x01800000 to 0x01BFFFFF)."""

_NONCE_BYTES = 32


class NsmTpm(Protocol):
    """The part of a `Tpm` that a document is asked for through."""

    async def nv_define(self, index: int, size: int, *, owner: bool) -> None:
        """Define an index of the owner."""
        ...

    async def nv_undefine(self, index: int, *, owner: bool) -> None:
        """Remove it."""
        ...

    async def nv_write(self, index: int, data: bytes, *, owner: bool) -> None:
        """Write it."""
        ...

    async def nv_read(self, index: int) -> bytes:
        """Read it whole."""
        ...

    async def nsm_request(self, index: int) -> None:
        """Have the request in it answered in its place."""
        ...


async def _document(tpm: NsmTpm, nonce: bytes) -> bytes:
    try:
        await tpm.nv_define(BUFFER_INDEX, BUFFER_BYTES, owner=True)
    except CommandRefused:
        # left behind by a program that was cut off here: it outlives a power cut
        await tpm.nv_undefine(BUFFER_INDEX, owner=True)
        await tpm.nv_define(BUFFER_INDEX, BUFFER_BYTES, owner=True)
    try:
        await tpm.nv_write(BUFFER_INDEX, pack_request(nonce), owner=True)
        await tpm.nsm_request(BUFFER_INDEX)
        return parse_response(await tpm.nv_read(BUFFER_INDEX))
    finally:
        await tpm.nv_undefine(BUFFER_INDEX, owner=True)


async def _module_id(tpm: NsmTpm) -> bytes:
    # whoever makes the answer false gets a name that no verifier finds
    document = nitro.parse(await _document(tpm, bytes(_NONCE_BYTES)))
    return hashlib.sha256(document.module_id.encode()).digest()


class AwsNitroTpmAttester:
    """Attests an instance with NitroTPM."""

    def __init__(self, tpm: NsmTpm, event_log: Path) -> None:
        self._tpm, self._event_log = tpm, event_log

    async def attester_id(self) -> bytes:
        """Give what `VerifiedNitroTpm` finds: SHA-256 (32 bytes) of the module id. Unavailable."""
        return await _module_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Have the hypervisor sign the registers; see `Attester`."""
        evidence = AwsNitroTpmEvidence(
            document=await _document(self._tpm, qualifying_data(binding)),
            event_log=await read_log(self._event_log),
        )
        return Evidence(variant=Variant.AWS_NITRO_TPM, data=decode.dump(evidence))


class AwsSnpAttester:
    """Attests an instance with SEV-SNP: the report commits to the binding and the document."""

    def __init__(
        self, tpm: NsmTpm, event_log: Path, *, device: SnpDevice, endorse: Endorse
    ) -> None:
        self._tpm, self._event_log = tpm, event_log
        self._device, self._endorse = device, endorse

    async def attester_id(self) -> bytes:
        """Give what `VerifiedNitroTpm` finds: SHA-256 (32 bytes) of the module id. Unavailable."""
        return await _module_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Have the hypervisor sign the registers, and the chip the document; see `Attester`."""
        document = await _document(self._tpm, qualifying_data(binding))
        raw = await self._device.report(report_data(binding, companion=document))
        given = await self._endorse(snp.parse_report(raw.report), certificates=raw.certificates)
        evidence = AwsSnpEvidence(
            report=raw.report,
            vlek=given.vek,
            asvk=given.intermediate or b"",
            crl=given.crl or b"",
            document=document,
            event_log=await read_log(self._event_log),
        )
        return Evidence(variant=Variant.AWS_SEV_SNP, data=decode.dump(evidence))
