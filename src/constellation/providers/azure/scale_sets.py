"""This cluster's scale sets and their machines as Azure Resource Manager lists them.

Three lists: the scale sets of the resource group (which carry the tags), and of each set its
machines and its interfaces, since only these have addresses. Each is followed page by page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from constellation.providers import answers, tags
from constellation.providers.azure.calls import (
    API_VERSIONS,
    LIST_INTERFACES,
    LIST_SETS,
    LIST_VMS,
)
from constellation.providers.calls import Caller
from constellation.providers.listing import Listing, once_each
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from constellation.base.rest import Answer
    from constellation.providers.answers import Fields
    from constellation.providers.azure.imds import Imds
    from constellation.providers.azure.imds import Self as MachineSelf
    from constellation.providers.calls import Call, Signer
    from constellation.providers.protocols import Role

__all__ = ["ARM_URL", "Found", "ResourceManager", "ScaleSet"]

ARM_URL: Final = "https://management.azure.com"
_MOST_PAGES = 200
_EXPIRED = "give the scale set an identity that exists and has the role of infra/iam/azure"
# Azure's provisioning state -> ours, where the power state does not matter
_PROVISIONING: Final = {"Creating": "starting", "Deleting": "stopping", "Failed": "crashed"}
_POWER: Final = {
    "PowerState/running": "running",
    "PowerState/starting": "starting",
    "PowerState/stopping": "stopping",
    "PowerState/deallocating": "stopping",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSet:
    """A scale set of the cluster: one node group."""

    name: str
    group: str
    role: Role
    capacity: int
    sku: str
    tier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A machine, its scale set, and its number in there."""

    instance: Instance
    scale_set: str
    number: str


class ResourceManager:
    """Azure Resource Manager, for one resource group and one cluster (its uid) in it."""

    def __init__(
        self,
        signer: Signer,
        *,
        subscription: str,
        resource_group: str,
        uid: str,
        url: str,
        expired_hint: str = _EXPIRED,
    ) -> None:
        self._caller = Caller(
            service="Azure Resource Manager", base_url=url, signer=signer, expired_hint=expired_hint
        )
        self._place = {"subscription": subscription, "resource_group": resource_group}
        self._uid = uid

    @classmethod
    def of_machine(cls, imds: Imds, own: MachineSelf, *, url: str) -> ResourceManager:
        """Make the one that this machine reaches with its own identity."""
        return cls(
            imds,
            subscription=own.subscription,
            resource_group=own.resource_group,
            uid=own.uid,
            url=url,
        )

    async def sets(self) -> tuple[ScaleSet, ...]:
        """List the cluster's scale sets. Raises as `Caller.call`, and FormatError."""
        found = []
        async for item in self.list_(LIST_SETS, {}):
            tagged = item.fields_or_none("tags")
            if tagged is None or tagged.text_or(tags.UID, "") != self._uid:
                continue
            where = f"{item.where}.tags"
            sku = item.fields("sku")
            found.append(
                ScaleSet(
                    name=item.name("name"),
                    group=tags.checked_group(tagged.text(tags.GROUP), where=where),
                    role=answers.role_of(tagged.text(tags.ROLE), where=where),
                    capacity=sku.number("capacity", most=1000),
                    sku=sku.name("name"),
                    tier=sku.text_or("tier", "Standard"),
                )
            )
        return tuple(found)

    async def machines(self, sets: tuple[ScaleSet, ...]) -> tuple[Found, ...]:
        """List the machines of scale sets. Raises as `Caller.call`, and FormatError."""
        found: list[Found] = []
        for one in sets:
            addresses = {}
            async for item in self.list_(LIST_INTERFACES, {"scale_set": one.name}):
                machine, address = _interface(item)
                if machine:
                    addresses[machine] = address
            query = {"$expand": "instanceView"}
            listed = self.list_(LIST_VMS, {"scale_set": one.name}, query)
            found += [_machine(item, one, addresses) async for item in listed]
        return once_each(found, what="Azure Resource Manager: machines")

    async def call(self, call: Call, parts: Mapping[str, str], body: Any = None) -> Answer:
        """Send one call below the resource group; see `Caller.call`."""
        place = {k: v for k, v in self._place.items() if k in call.parts}
        return await self._caller.call(
            call, parts=place | dict(parts), query=_version(call), body=body
        )

    async def list_(
        self, call: Call, parts: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> AsyncIterator[Fields]:
        """Give the entries of a list, page by page. Raises as `Caller.call`, and FormatError."""
        place = {k: v for k, v in self._place.items() if k in call.parts}
        answer = await self._caller.call(
            call, parts=place | dict(parts), query=_version(call) | dict(query or {})
        )
        listing = Listing(call.path, most_pages=_MOST_PAGES)
        while True:
            page = answers.parse(answer.body, what=f"Azure Resource Manager: {call.path}")
            items = page.items("value")
            listing.page(len(items))
            for item in items:
                yield item
            next_link = page.text_or("nextLink", "", longest=8192)
            if not next_link:
                return
            answer = await self._caller.page(call, next_link)


def _version(call: Call) -> dict[str, str]:
    return {"api-version": API_VERSIONS[call]}


def _interface(item: Fields) -> tuple[str, str]:
    """Give a machine's number and its address, empty where it is no machine's first one."""
    properties = item.fields("properties")
    machine = properties.fields_or_none("virtualMachine")
    if machine is None or properties.raw("primary") is False:
        return "", ""
    for configuration in properties.items("ipConfigurations", most=64):
        found = configuration.fields("properties")
        if found.has("privateIPAddress"):
            number = answers.last_part(machine.text("id"), where=f"{item.where}: virtualMachine")
            return number, found.address("privateIPAddress")
    return "", ""


def _machine(item: Fields, scale_set: ScaleSet, addresses: Mapping[str, str]) -> Found:
    number = item.name("instanceId")
    return Found(
        instance=Instance(
            instance_id=item.name("name"),
            group=scale_set.group,
            role=scale_set.role,
            address=addresses.get(number, ""),
            state=_state(item.fields("properties")),
        ),
        scale_set=scale_set.name,
        number=number,
    )


def _state(properties: Fields) -> str:
    provisioning = properties.text_or("provisioningState", "")
    if provisioning in _PROVISIONING:
        return _PROVISIONING[provisioning]
    view = properties.fields_or_none("instanceView")
    for status in view.items("statuses", most=64) if view is not None else ():
        code = status.text_or("code", "")
        if code.startswith("PowerState/"):
            return _POWER.get(code, "off")
    return "unknown"
