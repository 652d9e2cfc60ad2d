"""OpenStack as the operator sees it: groups of servers that the operator keeps itself.

OpenStack has no scaling groups, so a group here is the servers whose metadata names it, and a new
one is made as the group's template says: a port first, so that its address is known, then a server
with two volumes that go when it goes. What was begun and refused is taken back.

    create: port → server → listed → (control planes) load balancer's pools, addresses for all
    delete: load balancer's pools → drain → server → gone → port → (control planes) addresses
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, ConstellationError, Unavailable
from constellation.base.rest import Missing, Refused
from constellation.providers import tags
from constellation.providers.openstack import calls
from constellation.providers.openstack.access import ACCESS_FILE, read_access
from constellation.providers.openstack.identity import Cloud
from constellation.providers.openstack.metadata import CONTROL_PLANES, dump_addresses
from constellation.providers.openstack.servers import list_servers, server_tag
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.answers import Fields
    from constellation.providers.calls import Call
    from constellation.providers.openstack.access import Access, Template
    from constellation.providers.openstack.servers import Found
    from constellation.providers.protocols import Instance, NodeGroups

__all__ = ["KeptNodeGroups", "OpenStackNodeGroups"]

_DEADLINE_S = 300.0
_DRAIN_S = 10.0
_IMMUTABLE = 409
_NODE_DOCUMENT = Path("/run/constellation/node-document.json")
_MAX_DOCUMENT = 64 * 1024


class OpenStackNodeGroups:
    """`providers.protocols.NodeGroups` with the control planes' credential.

    `node_document` is what every machine of the cluster gets as user data.
    """

    def __init__(
        self,
        access: Access,
        *,
        node_document: bytes,
        pause_s: float = 2.0,
        drain_s: float = _DRAIN_S,
    ) -> None:
        self._access, self._document = access, node_document
        self._cloud = Cloud(access)
        self._pause_s, self._drain_s = pause_s, drain_s

    async def create(self, group: str) -> Instance:
        """Add one machine to a group; give it once Nova has made it.

        Raises:
            Conflict: there is no such group, or Nova could not make it: nothing of it is left.
            Unavailable, Denied, FormatError: see `Caller.call`.
        """
        template = self._access.groups.get(group)
        if template is None:
            raise Conflict(f"no template for group {group[:40]!r}")
        name = f"{template.name_prefix}-{tags.resource_part(group)}-{secrets.token_hex(4)}"
        port_id, address = await self._create_port(name, template)
        try:
            made = await self._create_server(name, group, template, port_id)
        except Conflict:
            await self._delete_port(name)
            raise
        if made.address != address:
            raise Unavailable(f"{name}: Nova says {made.address!r}, its port is {address}")
        try:
            await self._lead_to(name, address, template)
        except ConstellationError:
            # a control plane to which nothing leads would count as one: it is taken back
            with suppress(ConstellationError):
                await self.delete(made.instance_id)
            raise
        return made

    async def _lead_to(self, name: str, address: str, template: Template) -> None:
        """Let the load balancer lead to a new control plane, and tell all machines of it."""
        for pool in template.pools:
            member = {
                "name": name,
                "address": address,
                "protocol_port": pool.port,
                "subnet_id": template.subnet_id,
            }
            await self._settled(calls.ADD_MEMBER, {"pool": pool.pool_id}, {"member": member})
        if template.role is Role.CONTROL_PLANE:
            await self._tell_addresses()

    async def delete(self, instance_id: str) -> None:
        """Take a machine out of the load balancer and remove it; done already is no error."""
        same = [f for f in await self._servers() if f.instance.instance_id == instance_id]
        if not same:
            return
        (found,) = same
        if await self._leave_pools(found.instance.address):
            await asyncio.sleep(self._drain_s)
        await self._remove(found)
        if found.instance.role is Role.CONTROL_PLANE:
            await self._tell_addresses()

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster. Raises Unavailable, Denied, FormatError."""
        return tuple(f.instance for f in await self._servers())

    async def _servers(self) -> tuple[Found, ...]:
        compute = await self._cloud.caller(calls.COMPUTE)
        return await list_servers(compute, uid=self._access.uid)

    async def _create_port(self, name: str, template: Template) -> tuple[str, str]:
        answer = await self._fields(
            calls.CREATE_PORT,
            body={
                "port": {
                    "name": name,
                    "network_id": template.network_id,
                    "fixed_ips": [{"subnet_id": template.subnet_id}],
                    "security_groups": list(template.security_group_ids),
                }
            },
        )
        port = answer.fields("port")
        (fixed, *_) = port.items("fixed_ips", most=16) or (port,)
        return port.name("id"), fixed.address("ip_address")

    async def _create_server(
        self, name: str, group: str, template: Template, port_id: str
    ) -> Instance:
        servers = await self._servers()
        control_planes = _control_planes(servers)
        server: dict[str, Any] = {
            "name": name,
            "flavorRef": template.flavor_id,
            "networks": [{"port": port_id}],
            "user_data": base64.b64encode(self._document).decode(),
            "config_drive": True,
            "tags": [server_tag(self._access.uid)],
            "metadata": {
                tags.UID: self._access.uid,
                tags.ROLE: str(template.role),
                tags.GROUP: group,
                CONTROL_PLANES: control_planes,
            },
            "block_device_mapping_v2": list(_volumes(template)),
        }
        if template.availability_zones:
            # spread by count: what was removed from a zone is made there again sooner or later
            there = sum(f.instance.group == group for f in servers)
            zones = template.availability_zones
            server["availability_zone"] = zones[there % len(zones)]
        await self._fields(calls.CREATE_SERVER, body={"server": server})
        end = monotonic_s() + _DEADLINE_S
        while True:
            for found in await self._servers():
                if found.name != name:
                    continue
                if found.instance.state == "crashed":
                    await self._remove(found)
                    raise Conflict(f"{name}: Nova could not make it: {found.fault}")
                if found.instance.state == "running" and found.instance.address:
                    return found.instance
            await self._pause(end, f"{name} is not running")

    async def _remove(self, found: Found) -> None:
        with suppress(Missing):
            await self._call(calls.DELETE_SERVER, {"server": found.instance.instance_id})
        end = monotonic_s() + _DEADLINE_S
        while any(f.name == found.name for f in await self._servers()):
            await self._pause(end, f"{found.name} is not gone")
        await self._delete_port(found.name)

    async def _delete_port(self, name: str) -> None:
        answer = await self._fields(calls.LIST_PORTS, query={"name": name})
        for port in answer.items("ports", most=16):
            # whether the service has filtered them is its affair; what is removed is ours
            if port.text_or("name", "") == name:
                with suppress(Missing):
                    await self._call(calls.DELETE_PORT, {"port": port.name("id")})

    async def _leave_pools(self, address: str) -> bool:
        """Take an address out of every pool; say whether it was in one."""
        left = False
        pools = {p.pool_id for t in self._access.groups.values() for p in t.pools}
        for pool in sorted(pools):
            place = {"pool": pool}
            answer = await self._fields(calls.LIST_MEMBERS, parts=place, query={"address": address})
            for member in answer.items("members"):
                if member.text_or("address", "") == address:
                    with suppress(Missing):
                        member_id = {"member": member.name("id")}
                        await self._settled(calls.REMOVE_MEMBER, place | member_id, None)
                    left = True
        return left

    async def _settled(self, call: Call, parts: Mapping[str, str], body: Any) -> None:
        """Send a load balancer's call; while it works on an earlier one it refuses (409)."""
        end = monotonic_s() + _DEADLINE_S
        while True:
            try:
                await self._call(call, parts, body)
            except Refused as error:
                if error.status != _IMMUTABLE:
                    raise
                await self._pause(end, f"the load balancer is busy ({error})")
            else:
                return

    async def _tell_addresses(self) -> None:
        """Write into every machine's metadata which addresses control planes have now."""
        servers = await self._servers()
        addresses = _control_planes(servers)
        for found in servers:
            with suppress(Missing):
                await self._call(
                    calls.SET_METADATA,
                    {"server": found.instance.instance_id},
                    {"metadata": {CONTROL_PLANES: addresses}},
                )

    async def _call(self, call: Call, parts: Mapping[str, str], body: Any = None) -> None:
        caller = await self._cloud.caller(call.permission)
        await caller.call(call, parts=parts, body=body)

    async def _fields(
        self,
        call: Call,
        *,
        parts: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Fields:
        caller = await self._cloud.caller(call.permission)
        return await caller.fields(call, parts=parts or {}, query=query, body=body)

    async def _pause(self, end: float, what: str) -> None:
        if monotonic_s() + self._pause_s > end:
            raise Unavailable(f"{what} after {_DEADLINE_S:g} s")
        await asyncio.sleep(self._pause_s)


class KeptNodeGroups:
    """`providers.protocols.NodeGroups` of a control plane, by what lies on its disks now.

    The owner may have replaced the access since the last call (`services.kept_access`).
    """

    def __init__(self, *, access_file: Path = ACCESS_FILE, document: Path = _NODE_DOCUMENT) -> None:
        self._access_file, self._document = access_file, document
        self._known: tuple[Access, OpenStackNodeGroups] | None = None

    async def create(self, group: str) -> Instance:
        """Add one machine to a group; see `OpenStackNodeGroups`."""
        return await (await self._groups()).create(group)

    async def delete(self, instance_id: str) -> None:
        """Remove a machine; see `OpenStackNodeGroups`."""
        await (await self._groups()).delete(instance_id)

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster; see `OpenStackNodeGroups`."""
        return await (await self._groups()).list_instances()

    async def _groups(self) -> OpenStackNodeGroups:
        """Raises Conflict: the owner has given this node no access to the cloud's API."""
        access = await asyncio.to_thread(read_access, self._access_file)
        if access is None:
            raise Conflict(
                f"{self._access_file}: this node has no access to OpenStack's API",
                hint="groups stay as they are: give control planes an application credential",
            )
        if self._known is None or self._known[0] != access:
            document = await asyncio.to_thread(_read_document, self._document)
            self._known = (access, OpenStackNodeGroups(access, node_document=document))
        return self._known[1]


def _read_document(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_DOCUMENT)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


def _control_planes(servers: tuple[Found, ...]) -> str:
    return dump_addresses(
        tuple(
            f.instance.address
            for f in servers
            if f.instance.role is Role.CONTROL_PLANE and f.instance.address
        )
    )


def _volumes(template: Template) -> tuple[dict[str, Any], ...]:
    """Give the boot volume, of the image, and an empty one for the state disk (/dev/vdb)."""
    usual: dict[str, Any] = {"destination_type": "volume", "delete_on_termination": True}
    if template.volume_type:
        usual["volume_type"] = template.volume_type
    boot = {
        "boot_index": 0,
        "source_type": "image",
        "uuid": template.image_id,
        "volume_size": template.boot_volume_gb,
    }
    state = {"boot_index": -1, "source_type": "blank", "volume_size": template.state_volume_gb}
    return usual | boot, usual | state


if TYPE_CHECKING:
    _: type[NodeGroups] = OpenStackNodeGroups
    __: type[NodeGroups] = KeptNodeGroups
