"""This cluster's servers as Nova lists them: by tag, page by page.

Source: OpenStack Compute API, "List Servers Detailed" (tags, limit, marker).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.providers import answers, tags
from constellation.providers.listing import Listing, once_each
from constellation.providers.openstack.calls import LIST_SERVERS
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.answers import Fields
    from constellation.providers.calls import Caller

__all__ = ["Found", "list_servers", "server_tag"]

_PAGE_SIZE = 500
_MOST_PAGES = 200
# Nova's word -> ours
_STATES: Final = {
    "ACTIVE": "running",
    "BUILD": "starting",
    "REBOOT": "starting",
    "HARD_REBOOT": "starting",
    "ERROR": "crashed",
    "SHUTOFF": "off",
    "SUSPENDED": "off",
    "PAUSED": "off",
    "SOFT_DELETED": "stopping",
    "DELETED": "stopping",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A server, its name, and why it failed ("" : it did not)."""

    instance: Instance
    name: str
    fault: str


def server_tag(uid: str) -> str:
    """Give the tag that all servers of a cluster have."""
    return f"{tags.UID}-{uid}"


async def list_servers(compute: Caller, *, uid: str) -> tuple[Found, ...]:
    """List the servers of a cluster. Raises as `Caller.call`, and FormatError."""
    found: list[Found] = []
    query = {"tags": server_tag(uid), "limit": str(_PAGE_SIZE)}
    listing = Listing("Nova: servers", most_pages=_MOST_PAGES)
    while True:
        answer = await compute.fields(LIST_SERVERS, parts={}, query=query)
        page = answer.items("servers")
        listing.page(len(page))
        # the tag finds them; whether they are ours is said by their metadata
        found += [_found(s) for s in page if _uid(s) == uid]
        # not the link itself: behind proxies Nova often names an address of its own
        if not answer.items("servers_links", most=4) or not page:
            return once_each(found, what="Nova: servers")
        query["marker"] = page[-1].name("id")


def _uid(server: Fields) -> str:
    return server.fields("metadata").text_or(tags.UID, "")


def _found(server: Fields) -> Found:
    metadata = server.fields("metadata")
    fault = server.fields_or_none("fault")
    instance = Instance(
        instance_id=server.name("id"),
        group=tags.checked_group(metadata.text(tags.GROUP), where=f"{server.where}.metadata"),
        role=answers.role_of(metadata.text(tags.ROLE), where=f"{server.where}.metadata"),
        address=_address(server),
        state=_STATES.get(server.text("status"), "unknown"),
    )
    return Found(
        instance=instance,
        name=server.name("name"),
        fault=fault.text_or("message", "unsaid")[:400] if fault is not None else "",
    )


def _address(server: Fields) -> str:
    networks = server.raw("addresses")
    if not isinstance(networks, dict):
        return ""
    for network in list(networks)[:16]:
        for address in server.fields("addresses").items(network, most=64):
            fixed = address.text_or("OS-EXT-IPS:type", "fixed") == "fixed"
            if fixed and address.number("version", most=6) == 4:  # noqa: PLR2004 - IPv4
                return address.address("addr")
    return ""
