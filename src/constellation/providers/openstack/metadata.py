"""OpenStack as a node sees it: `providers.protocols.Metadata`, by metadata service or config drive.

A node without the cloud's credential learns of its peers from its own metadata: the addresses of
control planes, which Terraform writes at first and the operator keeps true. A control plane asks
Nova, whose list JoinService compares with what nodes say.
Source: Nova, "Metadata service" and "Config drives": openstack/latest/{meta_data.json,user_data},
EC2-compatible local-ipv4.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from constellation.base import rest
from constellation.base.errors import FormatError, Unavailable
from constellation.base.rest import Missing
from constellation.providers import answers, tags
from constellation.providers.openstack.access import ACCESS_FILE, read_access
from constellation.providers.openstack.calls import COMPUTE
from constellation.providers.openstack.identity import Cloud
from constellation.providers.openstack.servers import list_servers
from constellation.providers.placement import Placement
from constellation.providers.protocols import Instance, Role

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.providers.answers import Fields
    from constellation.providers.openstack.access import Access
    from constellation.providers.placement import Placed
    from constellation.providers.protocols import Metadata

__all__ = [
    "CONTROL_PLANES",
    "METADATA_URL",
    "ConfigDrive",
    "MetadataService",
    "OpenStackMetadata",
    "Source",
    "dump_addresses",
]

METADATA_URL: Final = "http://169.254.169.254"
CONTROL_PLANES: Final = "constellation-control-planes"
_TIMEOUT_S = 5.0
_MAX_BYTES = 256 * 1024
_MAX_USER_DATA = 64 * 1024
# Nova: values of metadata have 255 characters at most
_MOST_ADDRESSES = 15


class Source(Protocol):
    """Where a node's files of metadata come from."""

    async def read(self, path: str) -> bytes:
        """Give one file, by its path below the source. Raises Unavailable, Missing."""
        ...

    async def address(self) -> str:
        """Give this machine's address as the source has it. Raises Unavailable, FormatError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataService:
    """Nova's metadata service at the link-local address."""

    url: str = METADATA_URL

    async def read(self, path: str) -> bytes:
        """Give one file; see `Source`."""
        answer = await rest.send(
            "GET",
            f"{self.url}/{path}",
            headers={},
            body=None,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
        )
        return rest.accept(answer, what=f"metadata service: {path}").body

    async def address(self) -> str:
        """Give this machine's address; see `Source`."""
        return (await self.read("latest/meta-data/local-ipv4")).decode(errors="replace").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDrive:
    """The files of a config drive (label `config-2`), where it is mounted."""

    folder: Path

    async def read(self, path: str) -> bytes:
        """Give one file; see `Source`."""
        return await asyncio.to_thread(self._read, path)

    async def address(self) -> str:
        """Give this machine's address; see `Source`."""
        data = answers.parse(await self.read("ec2/latest/meta-data.json"), what="config drive")
        return data.text("local-ipv4", longest=64)

    def _read(self, path: str) -> bytes:
        try:
            with (self.folder / path).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise Missing(f"config drive: no {path}") from None
        except OSError as error:
            raise Unavailable(f"config drive: {path}: {error.strerror}") from error
        if len(data) > _MAX_BYTES:
            raise FormatError(f"config drive: {path}: more than {_MAX_BYTES} bytes")
        return data


class OpenStackMetadata:
    """This machine and its cluster; `access` is there on control planes only."""

    def __init__(self, *, source: Source | None = None, access: Path = ACCESS_FILE) -> None:
        self._source: Source = source or MetadataService()
        self._access = access
        self._known: tuple[Access, Cloud] | None = None

    async def self_(self) -> Instance:
        """Say who this machine is. Raises Unavailable, FormatError."""
        data, meta = await self._own()
        return Instance(
            instance_id=data.name("uuid"),
            group=tags.checked_group(meta.text(tags.GROUP), where=tags.GROUP),
            role=answers.role_of(meta.text(tags.ROLE), where=tags.ROLE),
            address=_checked(await self._source.address()),
            state="running",
        )

    async def placement(self) -> Placement:
        """Say where this machine is: metadata has neither region nor flavour."""
        data, _ = await self._own()
        return Placement(
            provider_id=f"openstack:///{data.name('uuid')}",
            region="",
            zone=data.text_or("availability_zone", "", longest=63),
            machine_type="",
        ).checked()

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster: control planes only where there is no credential.

        Raises:
            Unavailable, Denied, FormatError: as `Caller.call`.
        """
        access = await asyncio.to_thread(read_access, self._access)
        if access is not None:
            # a token is asked for once, until the owner replaces the credential
            if self._known is None or self._known[0] != access:
                self._known = (access, Cloud(access))
            compute = await self._known[1].caller(COMPUTE)
            return tuple(f.instance for f in await list_servers(compute, uid=access.uid))
        _, meta = await self._own()
        listed = meta.text_or(CONTROL_PLANES, "", longest=255)
        addresses = [_checked(a) for a in listed.split(",") if a]
        # what they are called is not known here, and not needed: they prove who they are
        return tuple(
            Instance(
                instance_id=address,
                group="",
                role=Role.CONTROL_PLANE,
                address=address,
                state="unknown",
            )
            for address in addresses
        )

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        data = await self._source.read("openstack/latest/user_data")
        if len(data) > _MAX_USER_DATA:
            raise FormatError(f"user data: {len(data)} bytes, at most {_MAX_USER_DATA} are read")
        return data

    async def _own(self) -> tuple[Fields, Fields]:
        body = await self._source.read("openstack/latest/meta_data.json")
        data = answers.parse(body, what="meta_data.json")
        return data, data.fields("meta")


def dump_addresses(addresses: tuple[str, ...]) -> str:
    """Write control planes' addresses as a machine's metadata has them."""
    return ",".join(sorted(addresses)[:_MOST_ADDRESSES])


def _checked(address: str) -> str:
    return answers.Fields({"address": address}, "metadata").address("address")


if TYPE_CHECKING:
    _: type[Metadata] = OpenStackMetadata
    __: type[Placed] = OpenStackMetadata
