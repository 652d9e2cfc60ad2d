"""A node whose evidence is that of a cloud's machine; the rest is `owner_world.Node`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.attestation.google.technology import Technology
from constellation.attestation.model import Variant
from constellation.attestation.tpm.eventlog import EventType
from tests.fakes.owner_world import Node
from tests.fakes.tpm import LocalCloudCa

if TYPE_CHECKING:
    from constellation.attestation.model import Binding, Evidence
    from tests.fakes.clouds import Machine

__all__ = ["CloudNode"]


@dataclass(kw_only=True)
class CloudNode(Node):
    """A node whose evidence is that of a cloud's machine."""

    machine: Machine

    async def power_on(self, document: bytes) -> None:
        self.document = document
        self.machine.tpm.boot(document)
        if self.variant is Variant.GCP_SEV_SNP:
            # Google's firmware says in each boot what the machine is
            data = b"GCE NonHostInfo\0" + bytes([Technology.AMD_SEV_SNP]) + bytes(15)
            self.machine.tpm.measure(0, EventType.EV_NONHOST_INFO, data)

    async def quote(self, binding: Binding) -> Evidence:
        return self.machine.evidence(binding)

    async def give(self, cluster_id: bytes) -> None:
        self.machine.tpm.measure(15, EventType.EV_EVENT_TAG, cluster_id)

    @classmethod
    def of(cls, machine: Machine) -> CloudNode:
        return cls(
            folder=Path(),
            socket=Path(),
            ca=LocalCloudCa(),
            variant=machine.variant,
            machine=machine,
        )
