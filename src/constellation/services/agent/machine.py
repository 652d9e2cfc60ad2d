"""A node's machine as the agent sees it: its TPM, this boot's event log, the variant's attester."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from constellation.attestation import registry
from constellation.attestation.model import NodeAttester
from constellation.attestation.platforms import measuring
from constellation.attestation.platforms.node_events import bank_of
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.model import Binding, Evidence, Variant

__all__ = ["TpmMachine"]


class TpmMachine:
    """The `Machine` of a variant whose registers are a TPM's. Make one with `connect`."""

    def __init__(
        self, tpm: Tpm, event_log: Path, *, variant: Variant, attester: NodeAttester
    ) -> None:
        self.variant = variant
        self._tpm = tpm
        self._event_log = event_log
        self._attester = attester
        self._bank = bank_of(variant)
        self._id = b""

    @classmethod
    async def connect(cls, tpm: Path, *, event_log: Path, cache: Path, variant: Variant) -> Self:
        """Take the TPM; nobody else has it while this lives. `cache`: see `NodeDevices`.

        Raises:
            Unavailable: it does not answer, or the chip's device is not there (yet).
            FormatError: no node image attests with the variant.
        """
        connected = await Tpm.connect(tpm)
        try:
            devices = registry.NodeDevices(tpm=connected, event_log=event_log, cache=cache)
            attester = _attester(variant, devices)
        except BaseException:
            await connected.close()
            raise
        return cls(connected, event_log, variant=variant, attester=attester)

    async def close(self) -> None:
        """Let the TPM go."""
        await self._tpm.close()

    async def attester_id(self) -> bytes:
        """Give the identity that a verifier of the variant finds (32 bytes), the same each time."""
        self._id = self._id or await self._attester.attester_id()
        return self._id

    async def attest(self, binding: Binding) -> Evidence:
        """Quote the registers; see `Attester`."""
        return await self._attester.attest(binding)

    async def is_given(self) -> bool:
        """Say whether PCR 15 was extended since power-on."""
        return await measuring.is_given_to_cluster(self._tpm, bank=self._bank)

    async def give(self, cluster_id: bytes) -> None:
        """Extend PCR 15 and append to the event log; `Conflict` the second time."""
        await measuring.give_to_cluster(
            self._tpm, cluster_id, event_log=self._event_log, bank=self._bank
        )


def _attester(variant: Variant, devices: registry.NodeDevices) -> NodeAttester:
    made = registry.attester(variant, devices)
    if not isinstance(made, NodeAttester):
        raise FormatError(f"command line: no node image attests with variant {variant}")
    return made
