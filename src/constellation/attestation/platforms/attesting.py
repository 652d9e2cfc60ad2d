"""What attesters with a vTPM share: a quote of an AK for a binding, with this boot's event log.

Everything here does I/O, and nothing here is trusted: what it is worth is decided by verifiers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.attestation.platforms.vtpm import QUOTED_PCRS, TpmPart, qualifying_data
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.model import Binding
    from constellation.attestation.tpm.device import Tpm

__all__ = ["quote_registers", "read_log"]


async def quote_registers(tpm: Tpm, *, ak: int, event_log: Path, binding: Binding) -> TpmPart:
    """Quote PCR 0 to 15 with the AK under a handle.

    Raises:
        Unavailable: the TPM or the log is not there.
    """
    public = await tpm.read_public(ak)
    pcrs = await tpm.read_pcrs(QUOTED_PCRS, bank=Alg.SHA256)
    quoted, signature = await tpm.quote(
        ak, qualifying_data=qualifying_data(binding), pcrs=QUOTED_PCRS, bank=Alg.SHA256
    )
    return TpmPart(
        quote=quoted,
        signature=signature,
        ak_public=public.pack(),
        pcrs=dict(pcrs),
        event_log=await read_log(event_log),
    )


async def read_log(path: Path) -> bytes:
    """Read this boot's TCG event log.

    Raises:
        Unavailable: it is not there.
    """
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise Unavailable(f"event log {path}: {error.strerror}") from error
