"""AWS as a node sees it: `providers.protocols.Metadata` over instance metadata and EC2's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.providers.aws.imds import URL, Imds
from constellation.providers.aws.instances import list_instances
from constellation.providers.aws.query import QueryClient
from constellation.providers.placement import Placement

if TYPE_CHECKING:
    from constellation.providers.placement import Placed
    from constellation.providers.protocols import Instance, Metadata

__all__ = ["AwsMetadata"]


class AwsMetadata:
    """`providers.protocols.Metadata` of AWS; `endpoint` is for tests."""

    def __init__(self, *, url: str = URL, endpoint: str = "") -> None:
        self._imds, self._endpoint = Imds(url=url), endpoint

    async def self_(self) -> Instance:
        """Say who this machine is. Raises Unavailable, FormatError."""
        return await self._imds.self_()

    async def placement(self) -> Placement:
        """Say where this machine is. Raises Unavailable, FormatError."""
        place = await self._imds.place()
        return Placement(
            provider_id=f"aws:///{place.zone}/{place.instance_id}",
            region=place.region,
            zone=place.zone,
            machine_type=place.machine_type,
        ).checked()

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable, Denied, FormatError."""
        place = await self._imds.place()
        client = QueryClient(region=place.region, source=self._imds, endpoint=self._endpoint)
        return await list_instances(client, await self._imds.uid())

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._imds.user_data()


if TYPE_CHECKING:
    _: type[Metadata] = AwsMetadata
    __: type[Placed] = AwsMetadata
