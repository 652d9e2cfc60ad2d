"""Azure as the operator sees it: scale sets (uniform orchestration, upgraded by hand).

A scale set names its machines itself: `create` asks for one more than there are, and gives the
machine that was not there before. `delete` first writes the machine's own network profile without
the load balancer's pools, waits until that holds and open connections have had time to end, and
then removes the machine, by which the set becomes smaller by one.
Source: Azure REST API, virtualMachineScaleSets (Update, Delete Instances) and
virtualMachineScaleSetVMs (Get, Update); "Networking for Azure virtual machine scale sets",
updating a specific instance.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, FormatError, Unavailable
from constellation.base.rest import Missing
from constellation.providers import answers
from constellation.providers.azure.calls import DELETE_VMS, GET_VM, RESIZE_SET, UPDATE_VM
from constellation.providers.azure.imds import IMDS_URL, Imds
from constellation.providers.azure.scale_sets import ARM_URL, ResourceManager

if TYPE_CHECKING:
    from constellation.providers.answers import Fields
    from constellation.providers.azure.scale_sets import Found, ScaleSet
    from constellation.providers.protocols import Instance, NodeGroups

__all__ = ["AzureNodeGroups", "detached"]

_DEADLINE_S = 300.0
_DRAIN_S = 10.0
_SENT_BACK = ("location", "tags", "properties")


class AzureNodeGroups:
    """`providers.protocols.NodeGroups`, with the identity of the control plane that we run on."""

    def __init__(
        self,
        *,
        imds_url: str = IMDS_URL,
        arm_url: str = ARM_URL,
        pause_s: float = 5.0,
        drain_s: float = _DRAIN_S,
    ) -> None:
        self._imds, self._arm_url = Imds(url=imds_url), arm_url
        self._pause_s, self._drain_s = pause_s, drain_s

    async def create(self, group: str) -> Instance:
        """Add one machine to a group; give it once it is listed with its address.

        Raises:
            Conflict: there is no such group, or it was refused (a quota, say).
            Unavailable, Denied, FormatError: see `Caller.call`.
        """
        manager = await self._manager()
        scale_set = await _of_group(manager, group)
        before = {f.number for f in await manager.machines((scale_set,))}
        # the set's own count: a machine that is being made counts there before it is listed
        capacity = max(scale_set.capacity, len(before)) + 1
        sku = {"name": scale_set.sku, "tier": scale_set.tier, "capacity": capacity}
        await manager.call(RESIZE_SET, {"scale_set": scale_set.name}, {"sku": sku})
        end = monotonic_s() + _DEADLINE_S
        while True:
            for found in await manager.machines((scale_set,)):
                if found.number not in before and found.instance.address:
                    return found.instance
            await self._pause(end, f"{scale_set.name}: its new machine is not listed")

    async def delete(self, instance_id: str) -> None:
        """Take a machine out of the load balancer and remove it; done already is no error."""
        manager = await self._manager()
        machines = await manager.machines(await manager.sets())
        same = [f for f in machines if f.instance.instance_id == instance_id]
        if not same or same[0].instance.state == "stopping":
            return
        (found,) = same
        try:
            await self._detach(manager, found)
            await manager.call(
                DELETE_VMS, {"scale_set": found.scale_set}, {"instanceIds": [found.number]}
            )
        except Missing:
            return

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster. Raises Unavailable, Denied, FormatError."""
        manager = await self._manager()
        return tuple(f.instance for f in await manager.machines(await manager.sets()))

    async def _manager(self) -> ResourceManager:
        return ResourceManager.of_machine(self._imds, await self._imds.self_(), url=self._arm_url)

    async def _detach(self, manager: ResourceManager, found: Found) -> None:
        place = {"scale_set": found.scale_set, "vm": found.number}
        end = monotonic_s() + _DEADLINE_S
        model = await _model(manager, place)
        without = detached(model)
        if without is None:
            return
        await manager.call(UPDATE_VM, place, without)
        while detached(model) is not None or _state(model) == "Updating":
            await self._pause(end, f"{found.instance.instance_id} is still in the load balancer")
            model = await _model(manager, place)
        await asyncio.sleep(self._drain_s)

    async def _pause(self, end: float, what: str) -> None:
        if monotonic_s() + self._pause_s > end:
            raise Unavailable(f"{what} after {_DEADLINE_S:g} s")
        await asyncio.sleep(self._pause_s)


def detached(model: Fields) -> dict[str, Any] | None:
    """Give a machine's model without the load balancer's pools, None where it is in none.

    The rest goes back as it came: what is left out of a PUT would be taken away.

    Raises:
        FormatError: the model has no network profile of the machine's own.
    """
    sent = {key: copy.deepcopy(model.raw(key)) for key in _SENT_BACK if model.has(key)}
    profile = model.fields("properties").fields("networkProfileConfiguration")
    changed = False
    if not profile.items("networkInterfaceConfigurations", most=16):
        raise FormatError(f"{model.where}: no interface in its network profile")
    interfaces = sent["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"]
    for interface, fields in zip(
        interfaces, profile.items("networkInterfaceConfigurations"), strict=True
    ):
        configurations = fields.fields("properties").items("ipConfigurations", most=64)
        for number, configuration in enumerate(configurations):
            properties = configuration.fields("properties")
            for pools in ("loadBalancerBackendAddressPools", "loadBalancerInboundNatPools"):
                if properties.items(pools, most=64):
                    interface["properties"]["ipConfigurations"][number]["properties"][pools] = []
                    changed = True
    return sent if changed else None


async def _of_group(manager: ResourceManager, group: str) -> ScaleSet:
    same = [s for s in await manager.sets() if s.group == group]
    if len(same) != 1:
        raise Conflict(f"{len(same)} scale sets of this cluster are for group {group[:40]!r}")
    return same[0]


async def _model(manager: ResourceManager, place: dict[str, str]) -> Fields:
    answer = await manager.call(GET_VM, place)
    return answers.parse(answer.body, what=f"machine {place['vm']} of {place['scale_set']}")


def _state(model: Fields) -> str:
    return model.fields("properties").text_or("provisioningState", "")


if TYPE_CHECKING:
    _: type[NodeGroups] = AzureNodeGroups
