"""This cluster's machines as Compute Engine lists them, page by page.

One aggregated list over all zones, filtered by the cluster's label: two calls for 1,000 machines.
Source: Compute Engine API v1, instances.aggregatedList.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.providers import answers, tags
from constellation.providers.gcp.calls import LIST_INSTANCES
from constellation.providers.listing import Listing, once_each
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.providers.answers import Fields
    from constellation.providers.calls import Call, Caller

__all__ = ["Found", "list_instances", "pages"]

_PAGE_SIZE = "500"
_MOST_PAGES = 200
_ENTRIES: Final = ("instances", "instanceGroupManagers")
# Compute Engine's word -> ours
_STATES: Final = {
    "PROVISIONING": "starting",
    "STAGING": "starting",
    "RUNNING": "running",
    "STOPPING": "stopping",
    "SUSPENDING": "stopping",
    "SUSPENDED": "off",
    "STOPPED": "off",
    "TERMINATED": "off",
    "REPAIRING": "crashed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A machine, where it is, and the name of the managed group that made it ("" : none)."""

    instance: Instance
    zone: str
    manager: str


async def list_instances(caller: Caller, *, project: str, uid: str) -> tuple[Found, ...]:
    """List the machines of a cluster. Raises as `Caller.call`, and FormatError."""
    query = {"filter": f"labels.{tags.UID}={uid}", "maxResults": _PAGE_SIZE}
    found = []
    async for scope in pages(caller, LIST_INSTANCES, project=project, query=query):
        for item in scope.items("instances"):
            machine = _found(item, uid)
            if machine is not None:
                found.append(machine)
    return once_each(found, what="Compute Engine: machines")


async def pages(
    caller: Caller, call: Call, *, project: str, query: dict[str, str]
) -> AsyncIterator[Fields]:
    """Give each zone's part of each page of an aggregated list."""
    token, listing = "", Listing(call.path, most_pages=_MOST_PAGES)
    while True:
        asked = query | ({"pageToken": token} if token else {})
        answer = await caller.fields(call, parts={"project": project}, query=asked)
        found = answer.fields_or_none("items")
        scopes = found.values() if found is not None else ()
        listing.page(sum(1 + len(scope.items(key)) for _, scope in scopes for key in _ENTRIES))
        for _name, scope in scopes:
            yield scope
        token = answer.text_or("nextPageToken", "")
        if not token:
            return


def _found(item: Fields, uid: str) -> Found | None:
    labels = item.fields("labels")
    # the filter is the service's; what it means is ours
    if labels.text_or(tags.UID, "") != uid:
        return None
    interfaces = item.items("networkInterfaces", most=16)
    # a machine that is being made has no address yet
    address = interfaces[0].address("networkIP") if _has_address(interfaces) else ""
    instance = Instance(
        instance_id=item.name("name"),
        group=tags.checked_group(labels.text(tags.GROUP), where=f"{item.where}: {tags.GROUP}"),
        role=answers.role_of(labels.text(tags.ROLE), where=f"{item.where}: {tags.ROLE}"),
        address=address,
        state=_STATES.get(item.text("status"), "unknown"),
    )
    metadata = item.fields_or_none("metadata")
    manager = ""
    for entry in metadata.items("items") if metadata is not None else ():
        if entry.text_or("key", "") == "created-by":
            manager = answers.last_part(entry.text("value"), where=f"{item.where}: created-by")
    zone = answers.last_part(item.text("zone"), where=f"{item.where}.zone")
    return Found(instance=instance, zone=zone, manager=manager)


def _has_address(interfaces: tuple[Fields, ...]) -> bool:
    return bool(interfaces) and interfaces[0].has("networkIP")
