"""What a local machine does with its TPM beyond `measuring`: get an AK, attest.

The daemon calls `manufacture` once; on the node the attestation agent owns the TPM and attests.
Everything here does I/O; what evidence is worth is decided in `local_vtpm`.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms.local_vtpm_log import BANK, QUOTED_PCRS, TpmEvidence
from constellation.attestation.tpm import pcr, quote, replay
from constellation.attestation.tpm.device import CommandRefused, Tpm
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg, Attest
from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable, Untrusted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.attestation.tpm.public import Public

__all__ = [
    "AK_CERTIFICATE_INDEX",
    "AK_HANDLE",
    "LocalVtpmAttester",
    "manufacture",
]

AK_HANDLE = 0x81000003
"""Persistent handle of the AK."""
AK_CERTIFICATE_INDEX = 0x01C101D0
"""NV index of the AK's certificate (DER)."""


async def manufacture(tpm: Tpm, certify: Callable[[bytes], bytes]) -> None:
    """Give a TPM its AK and the AK's certificate; a TPM that has both is left as it is.

    Args:
        tpm: started (swtpm: `startup-clear`, or call `Tpm.startup`).
        certify: SubjectPublicKeyInfo (DER) -> certificate (DER or PEM). Its authority must certify
            nothing but AKs that come from here: that is what makes a certified key an AK.
    """
    public = await _existing(tpm)
    if public is None:
        handle, public = await tpm.create_primary_ak()
        try:
            await tpm.persist(handle, AK_HANDLE)
        finally:
            await tpm.flush(handle)
    elif await _certificate(tpm):
        return
    spki = quote.public_key(public).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificate = certify(spki)
    if certificate.startswith(b"-----"):
        certificate = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    try:
        await tpm.nv_define(AK_CERTIFICATE_INDEX, len(certificate))
    except CommandRefused:
        # defined, but not written: it was interrupted here, and the size may be another now
        await tpm.nv_undefine(AK_CERTIFICATE_INDEX)
        await tpm.nv_define(AK_CERTIFICATE_INDEX, len(certificate))
    await tpm.nv_write(AK_CERTIFICATE_INDEX, certificate)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Registers and the log that explains them."""

    pcrs: dict[int, bytes]
    event_log: bytes

    def is_quoted(self, quoted: bytes) -> bool:
        """Say whether a quote is over these very registers: its digest says so."""
        return Attest.parse(quoted).pcr_digest == pcr.quote_digest(Alg.SHA256, self.pcrs)

    def is_whole(self) -> bool:
        """Say whether the log has every event of the registers, so that it may be kept."""
        try:
            log = EventLog.parse(self.event_log)
            return replay.registers(log, bank=BANK, pcrs=QUOTED_PCRS) == self.pcrs
        except (FormatError, Untrusted):
            return False


class LocalVtpmAttester:
    """Attests with the AK of `manufacture`; one call at a time (the agent serialises them).

    Registers and log are read once and kept for as long as quotes are over the same registers.
    """

    def __init__(self, tpm: Tpm, event_log: Path) -> None:
        self._tpm = tpm
        self._event_log = event_log
        self._identity: tuple[bytes, bytes] | None = None
        self._kept: _Measured | None = None

    async def attester_id(self) -> bytes:
        """Give the SHA-256 (32 bytes) of the AK's public area.

        Raises:
            Unavailable: the TPM did not answer or was not manufactured.
        """
        public, _ = await self._own()
        return hashlib.sha256(public).digest()

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers over SHA-256 of `binding`; see `Attester`."""
        public, certificate = await self._own()
        quoted, signature = await self._tpm.quote(
            AK_HANDLE,
            qualifying_data=hashlib.sha256(binding).digest(),
            pcrs=QUOTED_PCRS,
            bank=BANK,
        )
        measured = self._kept
        if measured is None or not measured.is_quoted(quoted):
            pcrs = await self._tpm.read_pcrs(QUOTED_PCRS, bank=BANK)
            measured = _Measured(dict(pcrs), await _read(self._event_log))
            self._kept = measured if measured.is_whole() else None
        evidence = TpmEvidence(
            quote=quoted,
            signature=signature,
            ak_public=public,
            ak_certificate=certificate,
            pcrs=measured.pcrs,
            event_log=measured.event_log,
        )
        return Evidence(variant=Variant.LOCAL_VTPM, data=decode.dump(evidence))

    async def _own(self) -> tuple[bytes, bytes]:
        if self._identity is None:
            public, certificate = await _existing(self._tpm), await _certificate(self._tpm)
            if public is None or not certificate:
                raise Unavailable(
                    "the TPM has no AK or no certificate for it",
                    hint="the local daemon manufactures it when it creates the machine",
                )
            self._identity = (public.pack(), certificate)
        return self._identity


async def _existing(tpm: Tpm) -> Public | None:
    try:
        return await tpm.read_public(AK_HANDLE)
    except CommandRefused as error:
        if error.is_missing:
            return None
        raise


async def _certificate(tpm: Tpm) -> bytes:
    try:
        return await tpm.nv_read(AK_CERTIFICATE_INDEX)
    except CommandRefused as error:
        if error.is_missing:
            return b""
        raise


async def _read(path: Path) -> bytes:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise Unavailable(f"event log {path}: {error.strerror}") from error
