"""Which machines does EC2 list for a cluster? By its tag, page by page, each entry checked.

Source: Amazon EC2 API Reference, "DescribeInstances" (2016-11-15); 1,000 entries a page.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError
from constellation.providers import answers, tags
from constellation.providers.aws import calls
from constellation.providers.listing import MOST_ENTRIES
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.aws.query import QueryClient
    from constellation.providers.elements import Xml

__all__ = ["list_instances", "parse_page"]

_PAGE = 1000
_STATES: Final = {"pending": "starting", "running": "running", "stopping": "off", "stopped": "off"}
_GONE: Final = ("shutting-down", "terminated")


async def list_instances(client: QueryClient, uid: str) -> tuple[Instance, ...]:
    """List the machines of the cluster `uid` that are not on their way out.

    Raises:
        Denied, Unavailable, FormatError: see `QueryClient`.
    """
    filters = {"Filter.1.Name": f"tag:{tags.UID}", "Filter.1.Value.1": uid}
    for number, state in enumerate(_STATES, 1):
        filters["Filter.2.Name"] = "instance-state-name"
        filters[f"Filter.2.Value.{number}"] = state
    found: dict[str, Instance] = {}
    async for page in client.pages(
        calls.DESCRIBE_INSTANCES,
        {**filters, "MaxResults": str(_PAGE)},
        token="NextToken",  # noqa: S106 - the name of a parameter
        next_token="nextToken",  # noqa: S106 - the name of an element
    ):
        found |= {i.instance_id: i for i in parse_page(page, uid)}
        if len(found) > MOST_ENTRIES:
            raise FormatError(f"EC2: more than {MOST_ENTRIES} machines of {uid}")
    return tuple(sorted(found.values(), key=lambda i: i.instance_id))


def parse_page(page: Xml, uid: str) -> tuple[Instance, ...]:
    """Read one page; machines without an address (not yet, no more) are left out.

    Raises:
        FormatError: an entry is not a machine of this cluster, or not what AWS describes.
    """
    return tuple(
        instance
        for reservation in page.items("reservationSet")
        for item in reservation.items("instancesSet")
        if (instance := _instance(item, uid)) is not None
    )


def _instance(item: Xml, uid: str) -> Instance | None:
    state = item.text("instanceState/name")
    address = item.text("privateIpAddress", default="")
    if state in _GONE or not address:
        return None
    marks = {t.text("key"): t.text("value", default="") for t in item.items("tagSet", most=200)}
    if marks.get(tags.UID) != uid:
        raise FormatError(f"{item.where}: a machine of {marks.get(tags.UID)!r}, asked for {uid}")
    instance_id = item.text("instanceId")
    if not answers.NAME.fullmatch(instance_id):
        raise FormatError(f"{item.where}: {instance_id[:60]!r} names no machine")
    return Instance(
        instance_id=instance_id,
        group=tags.checked_group(marks.get(tags.GROUP, ""), where=item.where),
        role=answers.role_of(marks.get(tags.ROLE, ""), where=item.where),
        address=_address(address, where=item.where),
        state=_STATES.get(state, "crashed"),
    )


def _address(text: str, *, where: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise FormatError(f"{where}: {text[:40]!r} is no IPv4 address") from None
