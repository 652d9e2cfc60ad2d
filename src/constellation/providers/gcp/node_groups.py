"""Google Cloud as the operator sees it: regional managed instance groups.

`create` names the new machine itself, so that a repeated request is refused, not done twice;
`delete` asks the group to remove it, which first drains it at the load balancer (the module in
`infra/gcp` sets a draining time) and makes the group smaller by one.
Source: Compute Engine API v1, regionInstanceGroupManagers.createInstances and .deleteInstances.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, FormatError, Unavailable, UserError
from constellation.providers import answers, tags
from constellation.providers.gcp.calls import (
    CREATE_INSTANCES,
    DELETE_INSTANCES,
    GET_OPERATION,
    LIST_GROUPS,
)
from constellation.providers.gcp.instances import Found, list_instances, pages
from constellation.providers.gcp.metadata import COMPUTE_URL, compute
from constellation.providers.gcp.metadata_server import METADATA_URL, MetadataServer

if TYPE_CHECKING:
    from constellation.providers.calls import Call
    from constellation.providers.gcp.metadata_server import Self
    from constellation.providers.protocols import Instance, NodeGroups

__all__ = ["GcpNodeGroups"]

_DEADLINE_S = 120.0
_GONE = frozenset({"off", "stopping"})
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manager:
    """A managed instance group: its name and region."""

    name: str
    region: str


class GcpNodeGroups:
    """`providers.protocols.NodeGroups`, with the identity of the control plane that we run on."""

    def __init__(
        self,
        *,
        metadata_url: str = METADATA_URL,
        compute_url: str = COMPUTE_URL,
        pause_s: float = 2.0,
    ) -> None:
        self._server = MetadataServer(url=metadata_url)
        self._compute = compute(self._server, url=compute_url)
        self._pause_s = pause_s

    async def create(self, group: str) -> Instance:
        """Add one machine to a group; give it once the API lists it.

        Raises:
            Conflict: there is no such group, or it was refused (a quota, say).
            Unavailable, Denied, FormatError: see `Caller.call`.
        """
        own = await self._server.self_()
        manager = await self._manager(own, group)
        name = f"{manager.name[: _LONGEST_NAME - 9]}-{secrets.token_hex(4)}"
        await self._change(
            CREATE_INSTANCES, own, manager, body={"instances": [{"name": name}]}, what=name
        )
        end = monotonic_s() + _DEADLINE_S
        while True:
            # the group's acceptance is not the machine's existence, nor that of its address
            for found in await self._found(own):
                if found.instance.instance_id == name and found.instance.address:
                    return found.instance
            if monotonic_s() + self._pause_s > end:
                raise Unavailable(f"{manager.name}: {name} is not listed after {_DEADLINE_S:g} s")
            await asyncio.sleep(self._pause_s)

    async def delete(self, instance_id: str) -> None:
        """Drain a machine at the load balancer and remove it; done already is not an error."""
        own = await self._server.self_()
        same = [f for f in await self._found(own) if f.instance.instance_id == instance_id]
        if not same or same[0].instance.state in _GONE:
            return
        (found,) = same
        if not found.manager:
            raise Conflict(
                f"{instance_id[:80]}: no group made this machine",
                hint="remove it with the tool that made it",
            )
        path = f"zones/{found.zone}/instances/{found.instance.instance_id}"
        await self._change(
            DELETE_INSTANCES,
            own,
            _Manager(name=found.manager, region=found.zone.rpartition("-")[0]),
            body={"instances": [path], "skipInstancesOnValidationError": True},
            what=instance_id,
        )

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster. Raises Unavailable, Denied, FormatError."""
        return tuple(f.instance for f in await self._found(await self._server.self_()))

    async def _found(self, own: Self) -> tuple[Found, ...]:
        return await list_instances(self._compute, project=own.project, uid=own.uid)

    async def _manager(self, own: Self, group: str) -> _Manager:
        try:
            name = f"{own.uid}-{tags.resource_part(tags.checked_group(group, where='group'))}"
        except FormatError as error:
            raise UserError(str(error)) from None
        query = {"filter": f"name eq {name}", "maxResults": "500"}
        managers = [
            _Manager(
                name=item.name("name"),
                region=answers.last_part(item.text("region"), where=item.where),
            )
            async for scope in pages(self._compute, LIST_GROUPS, project=own.project, query=query)
            for item in scope.items("instanceGroupManagers")
            if item.name("name") == name
        ]
        if len(managers) != 1:
            raise Conflict(f"{len(managers)} managed instance groups are named {name}, want one")
        return managers[0]

    async def _change(
        self, call: Call, own: Self, manager: _Manager, *, body: object, what: str
    ) -> None:
        place = {"project": own.project, "region": manager.region}
        answer = await self._compute.fields(call, parts=place | {"group": manager.name}, body=body)
        end = monotonic_s() + _DEADLINE_S
        while answer.text("status") != "DONE":
            if monotonic_s() + self._pause_s > end:
                raise Unavailable(f"{what}: {manager.name} has not answered in {_DEADLINE_S:g} s")
            await asyncio.sleep(self._pause_s)
            answer = await self._compute.fields(
                GET_OPERATION, parts=place | {"operation": answer.name("name")}
            )
        error = answer.fields_or_none("error")
        if error is not None:
            said = "; ".join(e.text_or("message", "unsaid") for e in error.items("errors", most=20))
            raise Conflict(f"{what}: {manager.name} refused it: {said[:400]}")


if TYPE_CHECKING:
    _: type[NodeGroups] = GcpNodeGroups
