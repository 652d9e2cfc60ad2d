"""Azure as a node sees it: `providers.protocols.Metadata`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.providers.azure.component_config import FILE, cloud_conf
from constellation.providers.azure.imds import IMDS_URL, Imds
from constellation.providers.azure.scale_sets import ARM_URL, ResourceManager
from constellation.providers.azure.wire_server import WIRE_SERVER_URL, WireServer
from constellation.providers.placement import Placement
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.placement import Awaits, Configures, Placed
    from constellation.providers.protocols import Metadata

__all__ = ["AzureMetadata"]


class AzureMetadata:
    """This machine and its cluster, by the metadata service and Azure Resource Manager."""

    def __init__(
        self,
        *,
        imds_url: str = IMDS_URL,
        arm_url: str = ARM_URL,
        wire_server_url: str = WIRE_SERVER_URL,
    ) -> None:
        self._imds = Imds(url=imds_url)
        self._wire_server = WireServer(url=wire_server_url)
        self._arm_url = arm_url

    async def self_(self) -> Instance:
        """Say who this machine is. Raises Unavailable, FormatError."""
        own = await self._imds.self_()
        return Instance(
            instance_id=own.name,
            group=own.group,
            role=own.role,
            address=own.address,
            state="running",
        )

    async def placement(self) -> Placement:
        """Say where this machine is. Raises Unavailable, FormatError."""
        own = await self._imds.self_()
        return Placement(
            # Azure's own components write it like this, and compare it without regard to case
            provider_id=f"azure://{own.resource_id}",
            region=own.location,
            zone=f"{own.location}-{own.zone}" if own.zone else "",
            machine_type=own.machine_type,
        ).checked()

    async def component_config(self) -> Mapping[str, bytes]:
        """Give what Azure's own components read. Raises Unavailable, FormatError."""
        return {FILE: cloud_conf(await self._imds.self_())}

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable, Denied, FormatError."""
        manager = ResourceManager.of_machine(
            self._imds, await self._imds.self_(), url=self._arm_url
        )
        return tuple(f.instance for f in await manager.machines(await manager.sets()))

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._imds.user_data()

    async def report_ready(self) -> None:
        """Tell Azure that this machine was set up. Raises Unavailable, Conflict, FormatError."""
        await self._wire_server.report_ready()


if TYPE_CHECKING:
    _: type[Metadata] = AzureMetadata
    __: type[Placed] = AzureMetadata
    ___: type[Configures] = AzureMetadata
    ____: type[Awaits] = AzureMetadata
