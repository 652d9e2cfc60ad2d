"""Attests a VM whose TPM was made by our own daemon, or certified by its owner: for development.

A file of its own, so that a cloud's node image can be without it (design, section 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms import persistent_ak
from constellation.attestation.platforms.qemu_vtpm import QemuVtpmEvidence
from constellation.base import decode

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.tpm.device import Tpm

__all__ = ["QemuVtpmAttester"]


class QemuVtpmAttester:
    """Attests with the AK that lies where Azure's does too; see `persistent_ak`."""

    def __init__(self, tpm: Tpm, event_log: Path) -> None:
        self._tpm, self._event_log = tpm, event_log

    async def attester_id(self) -> bytes:
        """Give the identity that a verifier finds; see `persistent_ak.attester_id`."""
        return await persistent_ak.attester_id(self._tpm)

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        evidence = QemuVtpmEvidence(
            tpm=await persistent_ak.quote_with_ak(self._tpm, self._event_log, binding),
            ak_certificate=await self._tpm.nv_read(persistent_ak.AK_CERTIFICATE_INDEX),
        )
        return Evidence(variant=Variant.QEMU_VTPM, data=decode.dump(evidence))
