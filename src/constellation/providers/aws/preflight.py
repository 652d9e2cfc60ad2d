"""What speaks against making a cluster on AWS: image, machine types, quotas, rights.

Rights are asked for by dry runs of what Terraform begins with; AWS has none for autoscaling and
load balancers. Sources: Amazon EC2 API Reference ("DryRun"); Service Quotas, quota codes of EC2 and
VPC; EC2 User Guide, "On-Demand Instance quotas" (virtual CPUs of all standard families together).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, FormatError
from constellation.base.rest import Denied, Missing
from constellation.providers.aws import calls
from constellation.providers.aws.catalogue import AWS
from constellation.providers.preflight import Room, room_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.aws.calls import QueryCall
    from constellation.providers.aws.query import QueryClient
    from constellation.providers.elements import Xml
    from constellation.providers.protocols import Desired

__all__ = ["image_lines", "offer_lines", "quota_lines", "right_lines"]

# service and code of a quota -> its name for people
_CPUS: Final = ("ec2", "L-1216C47A", "virtual CPUs of standard machines")
_VPCS: Final = ("vpc", "L-F678F1CE", "networks (VPC)")
_ADDRESSES: Final = ("ec2", "L-0263D0A3", "elastic addresses")
_STANDARD: Final = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})
_FAMILY: Final = re.compile(r"([a-z]+)\d")
_MOST_CPUS = 10**6


async def image_lines(client: QueryClient, image: str, variant: Variant) -> tuple[str, ...]:
    """Say what keeps the node image from booting measured. Raises Denied, Unavailable."""
    gone = (f"image {image} is not in this region (or not yours to use)",)
    try:
        found = await client.call(calls.DESCRIBE_IMAGES, {"ImageId.1": image})
    except (Denied, Missing, Conflict) as error:
        if isinstance(error, Denied):
            raise
        return gone
    images = found.items("imagesSet")
    return _of_image(images[0], image, variant) if images else gone


async def offer_lines(client: QueryClient, desired: Desired) -> tuple[str, ...]:
    """Say which zones do not have the machine types that are wanted there."""
    wanted = {(g.instance_type, zone) for g in desired.groups for zone in g.zones}
    types = sorted({kind for kind, _ in wanted})
    filters = {"LocationType": "availability-zone", "Filter.1.Name": "instance-type"}
    filters |= {f"Filter.1.Value.{n}": kind for n, kind in enumerate(types, 1)}
    offered: set[tuple[str, str]] = set()
    async for page in client.pages(
        calls.DESCRIBE_OFFERINGS,
        filters,
        token="NextToken",  # noqa: S106 - the name of a parameter
        next_token="nextToken",  # noqa: S106 - the name of an element
    ):
        offered |= {
            (item.text("instanceType"), item.text("location"))
            for item in page.items("instanceTypeOfferingSet")
        }
    return tuple(f"{zone} has no machines {kind}" for kind, zone in sorted(wanted - offered))


async def quota_lines(
    client: QueryClient, desired: Desired, *, variant: Variant, own_network: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say which quotas have no room, and which were not told.

    `own_network`: the module makes a network, with an elastic address for each zone.
    """
    offer = AWS.of(variant)
    sizes = [
        (machine.vcpus, group.size)
        for group in desired.groups
        if (machine := offer.machine(group.instance_type) if offer is not None else None)
    ]
    wanted = {_CPUS: sum(vcpus * size for vcpus, size in sizes)}
    if own_network:
        wanted |= {_VPCS: 1, _ADDRESSES: len({z for g in desired.groups for z in g.zones})}
    rooms, notes = [], []
    for quota, more in wanted.items():
        service, code, name = quota
        try:
            limit = await _limit(client, service, code)
            used = await _USED[quota](client)
        except (Denied, Missing, Conflict) as error:
            if isinstance(error, Denied) and error.expired:
                raise
            notes.append(f"quota of {name} was not told: {error}")
            continue
        rooms.append(Room(quota=f"of {name}", limit=limit, used=used, more=more))
    return room_lines(rooms), tuple(notes)


async def right_lines(
    client: QueryClient, desired: Desired, *, own_network: bool, marks: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say which of Terraform's first calls are not allowed, and which could not be tried.

    `marks`: the tags that its resources have: rights are often held to them. A machine's right may
    be held to a network that is not there yet, so that its refusal is a note.
    """
    lines, notes = [], []
    for call, kind, parameters in _first_calls(desired, own_network=own_network):
        try:
            await client.try_(call, {**parameters, **_marked(kind, marks)})
        except Denied as error:
            if error.expired:
                raise
            said = f"no permission {call.permission}: Terraform needs it"
            if call is calls.RUN_INSTANCES:
                notes.append(f"{said}; a policy may allow it in the cluster's own network alone")
            else:
                lines.append(said)
        except Conflict as error:
            notes.append(f"permission {call.permission} was not told: {error}")
    return tuple(lines), tuple(notes)


def _first_calls(
    desired: Desired, *, own_network: bool
) -> list[tuple[QueryCall, str, Mapping[str, str]]]:
    """Give what Terraform begins with and can be tried: call, what it makes, parameters."""
    image = desired.image_path
    template = {"LaunchTemplateName": "constellation-try", "LaunchTemplateData.ImageId": image}
    tried: list[tuple[QueryCall, str, Mapping[str, str]]] = [
        (calls.CREATE_TEMPLATE, "launch-template", template)
    ]
    for group in desired.groups[:1]:
        one = {"ImageId": image, "InstanceType": group.instance_type}
        tried.append((calls.RUN_INSTANCES, "instance", one | {"MinCount": "1", "MaxCount": "1"}))
    if own_network:
        tried += [
            (calls.CREATE_VPC, "vpc", {"CidrBlock": "10.0.0.0/16"}),
            (calls.CREATE_GATEWAY, "internet-gateway", {}),
            (calls.ALLOCATE_ADDRESS, "elastic-ip", {"Domain": "vpc"}),
        ]
    return tried


def _marked(kind: str, marks: Mapping[str, str]) -> dict[str, str]:
    """Give the tags of what a call makes, as EC2 takes them."""
    found = {"TagSpecification.1.ResourceType": kind}
    for number, (key, value) in enumerate(sorted(marks.items()), 1):
        found[f"TagSpecification.1.Tag.{number}.Key"] = key
        found[f"TagSpecification.1.Tag.{number}.Value"] = value
    return found


def _of_image(image: Xml, name: str, variant: Variant) -> tuple[str, ...]:
    lines = []
    if (state := image.text("imageState", default="available")) != "available":
        lines.append(f"image {name} is {state}")
    if (machine := image.text("architecture", default="x86_64")) != "x86_64":
        lines.append(f"image {name} is for {machine}, expected x86_64")
    if variant is Variant.AWS_SEV_SNP and image.text("bootMode", default="") == "legacy-bios":
        lines.append(f"image {name} boots by legacy-bios, SEV-SNP needs uefi")
    return tuple(lines)


async def _limit(client: QueryClient, service: str, code: str) -> int:
    asked = {"ServiceCode": service, "QuotaCode": code}
    quota = (await client.fields(calls.GET_QUOTA, asked)).fields("Quota")
    return quota.number("Value", most=10**9)


async def _used_cpus(client: QueryClient) -> int:
    """Count virtual CPUs of running standard machines that are no spot instances."""
    running = {"Filter.1.Name": "instance-state-name", "MaxResults": "1000"}
    running |= {f"Filter.1.Value.{n}": s for n, s in enumerate(("pending", "running"), 1)}
    total = 0
    async for page in client.pages(
        calls.DESCRIBE_EVERYBODYS,
        running,
        token="NextToken",  # noqa: S106 - the name of a parameter
        next_token="nextToken",  # noqa: S106 - the name of an element
    ):
        for reservation in page.items("reservationSet"):
            total += sum(_cpus(item) for item in reservation.items("instancesSet"))
    return total


def _cpus(machine: Xml) -> int:
    family = _FAMILY.match(machine.text("instanceType"))
    spot = machine.text("instanceLifecycle", default="") == "spot"
    if family is None or family[1] not in _STANDARD or spot:
        return 0
    cores = machine.text("cpuOptions/coreCount", default="0")
    threads = machine.text("cpuOptions/threadsPerCore", default="1")
    if not (cores.isascii() and cores.isdigit() and threads.isascii() and threads.isdigit()):
        raise FormatError(f"{machine.where}: cpuOptions are no numbers")
    return min(int(cores[:6]) * int(threads[:6]), _MOST_CPUS)


async def _used_vpcs(client: QueryClient) -> int:
    return len((await client.call(calls.DESCRIBE_VPCS, {})).items("vpcSet"))


async def _used_addresses(client: QueryClient) -> int:
    return len((await client.call(calls.DESCRIBE_ADDRESSES, {})).items("addressesSet"))


_USED: Final = {_CPUS: _used_cpus, _VPCS: _used_vpcs, _ADDRESSES: _used_addresses}
