"""A node's machine as the agent sees it: a TPM that was given an AK, and this boot's event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from constellation.attestation.model import Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.attestation.model import Binding, Evidence

__all__ = ["TpmMachine"]


class _AkAttester(Protocol):
    """An attester whose AK tells machines apart."""

    async def attester_id(self) -> bytes: ...

    async def attest(self, binding: Binding) -> Evidence: ...


class TpmMachine:
    """The `Machine` of a variant whose TPM was given an AK. Make one with `connect`."""

    def __init__(
        self, tpm: Tpm, event_log: Path, *, variant: Variant, attester: _AkAttester
    ) -> None:
        self.variant = variant
        self._tpm = tpm
        self._event_log = event_log
        self._attester = attester

    @classmethod
    async def connect(cls, tpm: Path, *, event_log: Path, variant: Variant) -> Self:
        """Take the TPM; nobody else has it while this lives.

        Raises:
            Unavailable: it does not answer.
            FormatError: no node image attests with the variant.
        """
        if (make := _ATTESTERS.get(variant)) is None:
            raise FormatError(f"command line: no node image attests with variant {variant}")
        connected = await Tpm.connect(tpm)
        attester = make(connected, event_log)
        return cls(connected, event_log, variant=variant, attester=attester)

    async def close(self) -> None:
        """Let the TPM go."""
        await self._tpm.close()

    async def attester_id(self) -> bytes:
        """Give the identity that a verifier of the variant finds (32 bytes)."""
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


def _qemu_vtpm(tpm: Tpm, event_log: Path) -> _AkAttester:
    # a local node never loads it, nor what it stands on
    from constellation.attestation.platforms.persistent_ak import (  # noqa: PLC0415
        QemuVtpmAttester,
    )

    return QemuVtpmAttester(tpm, event_log)


_ATTESTERS: dict[Variant, Callable[[Tpm, Path], _AkAttester]] = {
    Variant.LOCAL_VTPM: local_vtpm.LocalVtpmAttester,
    Variant.QEMU_VTPM: _qemu_vtpm,
}
