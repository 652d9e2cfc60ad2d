"""A local node's machine as the agent sees it: a TPM on a socket, and this boot's event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from constellation.attestation.model import Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.model import Binding, Evidence

__all__ = ["LocalMachine"]


class LocalMachine:
    """The `Machine` of variant `local-vtpm`. Make one with `connect`."""

    variant = Variant.LOCAL_VTPM

    def __init__(self, tpm: Tpm, event_log: Path) -> None:
        self._tpm = tpm
        self._event_log = event_log
        self._attester = local_vtpm.LocalVtpmAttester(tpm, event_log)

    @classmethod
    async def connect(cls, tpm: Path, *, event_log: Path) -> Self:
        """Take the TPM; nobody else has it while this lives.

        Raises:
            Unavailable: it does not answer.
        """
        return cls(await Tpm.connect(tpm), event_log)

    async def close(self) -> None:
        """Let the TPM go."""
        await self._tpm.close()

    async def attester_id(self) -> bytes:
        """Give the SHA-256 (32 bytes) of the AK's public area."""
        return await self._attester.attester_id()

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        return await self._attester.attest(binding)

    async def is_given(self) -> bool:
        """Say whether PCR 15 was extended since power-on."""
        return await local_vtpm.is_given_to_cluster(self._tpm)

    async def give(self, cluster_id: bytes) -> None:
        """Extend PCR 15 and append to the event log; `Conflict` the second time."""
        await local_vtpm.give_to_cluster(self._tpm, cluster_id, event_log=self._event_log)
