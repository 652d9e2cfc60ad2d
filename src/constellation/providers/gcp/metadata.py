"""Google Cloud as a node sees it: `providers.protocols.Metadata`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from constellation.providers.calls import Caller
from constellation.providers.gcp.instances import list_instances
from constellation.providers.gcp.metadata_server import METADATA_URL, MetadataServer
from constellation.providers.placement import Placement
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.placement import Placed
    from constellation.providers.protocols import Metadata

__all__ = ["COMPUTE_URL", "GcpMetadata", "compute"]

COMPUTE_URL: Final = "https://compute.googleapis.com/compute/v1"
_EXPIRED = "give the machines' template a service account that exists and is enabled"


class GcpMetadata:
    """This machine and its cluster, by the metadata server and the Compute Engine API."""

    def __init__(self, *, metadata_url: str = METADATA_URL, compute_url: str = COMPUTE_URL) -> None:
        self._server = MetadataServer(url=metadata_url)
        self._compute = compute(self._server, url=compute_url)

    async def self_(self) -> Instance:
        """Say who this machine is. Raises Unavailable, FormatError."""
        own = await self._server.self_()
        return Instance(
            instance_id=own.name,
            group=own.group,
            role=own.role,
            address=own.address,
            state="running",
        )

    async def placement(self) -> Placement:
        """Say where this machine is. Raises Unavailable, FormatError."""
        own = await self._server.self_()
        return Placement(
            provider_id=f"gce://{own.project}/{own.zone}/{own.name}",
            region=own.zone.rpartition("-")[0],
            zone=own.zone,
            machine_type=own.machine_type,
        ).checked()

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable, Denied, FormatError."""
        own = await self._server.self_()
        found = await list_instances(self._compute, project=own.project, uid=own.uid)
        return tuple(f.instance for f in found)

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._server.user_data()


def compute(server: MetadataServer, *, url: str) -> Caller:
    """Make the caller of the Compute Engine API with this machine's own identity."""
    return Caller(service="Compute Engine", base_url=url, signer=server, expired_hint=_EXPIRED)


if TYPE_CHECKING:
    _: type[Metadata] = GcpMetadata
    __: type[Placed] = GcpMetadata
