"""AWS as the operator sees it: `providers.protocols.NodeGroups` over autoscaling groups.

A machine is added by one more wanted machine, and known by its id not being there before. One is
removed by name, together with its place, after it was taken out of every target group; the group's
own decisions (balancing, replacing) are suspended by the module.
Sources: Amazon EC2 Auto Scaling API Reference ("SetDesiredCapacity",
"TerminateInstanceInAutoScalingGroup"), Elastic Load Balancing API Reference ("DeregisterTargets").
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import Conflict, FormatError, Unavailable, UserError
from constellation.base.rest import Missing
from constellation.providers import tags
from constellation.providers.aws import calls
from constellation.providers.aws.imds import URL, Imds
from constellation.providers.aws.instances import list_instances
from constellation.providers.aws.query import QueryClient

if TYPE_CHECKING:
    from constellation.providers.elements import Xml
    from constellation.providers.protocols import Instance, NodeGroups

__all__ = ["AwsNodeGroups"]

_ID = re.compile(r"i-[0-9a-f]{8,17}")
_MADE_S, _DRAINED_S, _PAUSE_S = 300.0, 120.0, 2.0
_MOST_GROUPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """An autoscaling group: wanted and most machines, its target groups and machines."""

    name: str
    wanted: int
    most: int
    target_groups: tuple[str, ...]
    members: tuple[str, ...]


class AwsNodeGroups:
    """`providers.protocols.NodeGroups` of AWS; the arguments are for tests."""

    def __init__(
        self,
        *,
        url: str = URL,
        endpoint: str = "",
        made_s: float = _MADE_S,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._imds, self._endpoint = Imds(url=url), endpoint
        self._made_s, self._pause_s = made_s, pause_s

    async def create(self, group: str) -> Instance:
        """Add one machine to a group; gives it once EC2 lists it.

        Raises:
            UserError: no such group. Conflict: the group is full.
            Unavailable: AWS does not list it in time; it may come later, as one more machine.
        """
        client, uid = await self._client()
        tags.checked_group(group, where="node group")
        before = {i.instance_id for i in await list_instances(client, uid)}
        found = await self._of_group(client, uid, group)
        if found.wanted >= found.most:
            raise Conflict(f"{found.name} has {found.wanted} of at most {found.most} machines")
        # the wanted number is absolute: said twice, it still makes one machine
        await client.call(
            calls.SET_DESIRED_CAPACITY,
            {
                "AutoScalingGroupName": found.name,
                "DesiredCapacity": str(found.wanted + 1),
                "HonorCooldown": "false",
            },
        )
        end = clock.monotonic_s() + self._made_s
        while clock.monotonic_s() < end:
            for instance in await list_instances(client, uid):
                if instance.group == group and instance.instance_id not in before:
                    return instance
            await asyncio.sleep(self._pause_s)
        raise Unavailable(f"{found.name}: the new machine is not listed yet")

    async def delete(self, instance_id: str) -> None:
        """Take a machine out of the load balancer and remove it; done already is no error.

        Raises:
            UserError: this is no machine's id, or not one of this cluster.
            Unavailable, Denied: AWS does not do it now.
        """
        if not _ID.fullmatch(instance_id):
            raise UserError(f"{instance_id[:60]!r} names no machine")
        client, uid = await self._client()
        group = next((g for g in await self._groups(client, uid) if instance_id in g.members), None)
        if group is None:
            if any(i.instance_id == instance_id for i in await list_instances(client, uid)):
                raise Unavailable(f"{instance_id} is in no autoscaling group (yet, or any more)")
            return
        for target_group in group.target_groups:
            await self._drain(client, target_group, instance_id)
        with contextlib.suppress(Missing):
            await client.call(
                calls.TERMINATE,
                {"InstanceId": instance_id, "ShouldDecrementDesiredCapacity": "true"},
            )

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster. Raises Unavailable, Denied, FormatError."""
        client, uid = await self._client()
        return await list_instances(client, uid)

    async def _client(self) -> tuple[QueryClient, str]:
        place = await self._imds.place()
        client = QueryClient(region=place.region, source=self._imds, endpoint=self._endpoint)
        return client, await self._imds.uid()

    async def _of_group(self, client: QueryClient, uid: str, group: str) -> _Group:
        for found in await self._groups(client, uid, group=group):
            return found
        raise UserError(f"node group {group}: AWS has no autoscaling group of it in {uid}")

    async def _groups(
        self, client: QueryClient, uid: str, *, group: str = ""
    ) -> tuple[_Group, ...]:
        filters = {
            "Filters.member.1.Name": f"tag:{tags.UID}",
            "Filters.member.1.Values.member.1": uid,
        }
        if group:
            filters["Filters.member.2.Name"] = f"tag:{tags.GROUP}"
            filters["Filters.member.2.Values.member.1"] = group
        found: list[_Group] = []
        async for page in client.pages(
            calls.DESCRIBE_GROUPS,
            filters,
            token="NextToken",  # noqa: S106 - the name of a parameter
            next_token="DescribeAutoScalingGroupsResult/NextToken",  # noqa: S106 - of an element
        ):
            listed = page.items("DescribeAutoScalingGroupsResult/AutoScalingGroups")
            found += [_group(item, uid) for item in listed]
        if len(found) > _MOST_GROUPS:
            raise FormatError(
                f"{uid}: {len(found)} autoscaling groups, want {_MOST_GROUPS} at most"
            )
        return tuple(found)

    async def _drain(self, client: QueryClient, target_group: str, instance_id: str) -> None:
        target = {"TargetGroupArn": target_group, "Targets.member.1.Id": instance_id}
        try:
            await client.call(calls.DEREGISTER, target)
            end = clock.monotonic_s() + _DRAINED_S
            while clock.monotonic_s() < end:
                health = await client.call(calls.TARGET_HEALTH, target)
                states = {
                    item.text("TargetHealth/State")
                    for item in health.items(
                        "DescribeTargetHealthResult/TargetHealthDescriptions", most=10
                    )
                }
                if states <= {"unused"}:
                    return
                await asyncio.sleep(self._pause_s)
        except Missing:
            return  # not a target, or the target group is gone: nothing is led there
        raise Unavailable(f"{instance_id} is still drained by the load balancer")


def _group(item: Xml, uid: str) -> _Group:
    marks = {t.text("Key"): t.text("Value", default="") for t in item.items("Tags", most=200)}
    if marks.get(tags.UID) != uid:
        raise FormatError(f"{item.where}: a group of {marks.get(tags.UID)!r}, asked for {uid}")
    return _Group(
        name=item.text("AutoScalingGroupName"),
        wanted=_number(item, "DesiredCapacity"),
        most=_number(item, "MaxSize"),
        target_groups=tuple(t.text() for t in item.items("TargetGroupARNs", most=50)),
        members=tuple(m.text("InstanceId") for m in item.items("Instances")),
    )


def _number(item: Xml, name: str) -> int:
    text = item.text(name)
    if not text.isascii() or not text.isdigit() or len(text) > 6:  # noqa: PLR2004 - no such group
        raise FormatError(f"{item.where}/{name}: {text[:20]!r} is no number of machines")
    return int(text)


if TYPE_CHECKING:
    _: type[NodeGroups] = AwsNodeGroups
