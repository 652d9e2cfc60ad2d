"""What speaks against making a cluster on OpenStack: flavours, zones, image, quotas.

What a machine may do is not asked for: OpenStack has no call that says it, and an application
credential either has its roles or does not. Sources: Compute API v2.1, "List Flavors With Details",
"Show Rate And Absolute Limits", "Get Availability Zone Information"; Block Storage API v3, "Show
absolute limits"; Image API v2, "Show image". -1 is no limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Conflict, FormatError
from constellation.base.rest import Denied, Missing
from constellation.providers.listing import Listing
from constellation.providers.openstack import calls
from constellation.providers.preflight import Room, room_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.answers import Fields
    from constellation.providers.calls import Call
    from constellation.providers.openstack.identity import Cloud
    from constellation.providers.protocols import Desired

__all__ = ["Flavor", "flavor_of", "list_flavors", "preflight_lines"]

_PAGE_SIZE, _MOST_PAGES = 1000, 10
_MOST = 10**9
_UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A machine type as the cloud has it; memory in MiB."""

    flavor_id: str
    name: str
    vcpus: int
    ram_mib: int


async def list_flavors(cloud: Cloud) -> tuple[Flavor, ...]:
    """List the cloud's machine types. Raises as `Caller.call`, and FormatError."""
    compute = await cloud.caller(calls.COMPUTE)
    found: list[Flavor] = []
    query = {"limit": str(_PAGE_SIZE)}
    listing = Listing("Nova: flavors", most_pages=_MOST_PAGES)
    while True:
        answer = await compute.fields(calls.LIST_FLAVORS, parts={}, query=query)
        page = answer.items("flavors")
        listing.page(len(page))
        found += [
            Flavor(
                flavor_id=f.name("id"),
                name=f.text("name", longest=255),
                vcpus=f.number("vcpus", most=_MOST),
                ram_mib=f.number("ram", most=_MOST),
            )
            for f in page
        ]
        if not answer.items("flavors_links", most=4) or not page:
            return tuple(found)
        query["marker"] = page[-1].name("id")


def flavor_of(flavors: tuple[Flavor, ...], wanted: str) -> Flavor | None:
    """Give the machine type of that id, else the only one of that name; None: there is none."""
    by_id = [f for f in flavors if f.flavor_id == wanted]
    named = by_id or [f for f in flavors if f.name == wanted]
    return named[0] if len(named) == 1 else None


async def preflight_lines(
    cloud: Cloud, desired: Desired, *, boot_volume_gb: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say what speaks against making the machines, and what was not told."""
    flavors = await list_flavors(cloud)
    wanted = {g.instance_type: flavor_of(flavors, g.instance_type) for g in desired.groups}
    lines = [f"no machines {name}" for name, flavor in wanted.items() if flavor is None]
    lines += await _zones(cloud, {zone for g in desired.groups for zone in g.zones})
    needed = _needed(desired, wanted, boot_volume_gb=boot_volume_gb)
    project, notes = await cloud.project(), list[str]()
    for look in (
        partial(_full, cloud, calls.COMPUTE_LIMITS, {}, needed),
        partial(_full, cloud, calls.VOLUME_LIMITS, {"project": project}, needed),
        partial(_image, cloud, desired.image_path),
    ):
        try:
            lines += await look()
        except (Conflict, FormatError) as error:
            if isinstance(error, Denied) and error.expired:
                raise
            notes.append(f"not looked at: {error}")
    return tuple(lines), tuple(notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A quota: its name for people, and the fields of its limit and of what is used."""

    name: str
    limit: str
    used: str


_KINDS: Final = {
    calls.COMPUTE_LIMITS: (
        _Kind(name="cores", limit="maxTotalCores", used="totalCoresUsed"),
        _Kind(name="instances", limit="maxTotalInstances", used="totalInstancesUsed"),
        _Kind(name="memory (MiB)", limit="maxTotalRAMSize", used="totalRAMUsed"),
    ),
    calls.VOLUME_LIMITS: (
        _Kind(name="volumes", limit="maxTotalVolumes", used="totalVolumesUsed"),
        _Kind(name="volumes (GB)", limit="maxTotalVolumeGigabytes", used="totalGigabytesUsed"),
    ),
}


def _needed(
    desired: Desired, flavors: Mapping[str, Flavor | None], *, boot_volume_gb: int
) -> dict[str, int]:
    """Give what the machines take of each quota; each has two volumes."""
    needed = dict.fromkeys((kind.name for kinds in _KINDS.values() for kind in kinds), 0)
    for group in desired.groups:
        if (flavor := flavors[group.instance_type]) is not None:
            needed["cores"] += flavor.vcpus * group.size
            needed["memory (MiB)"] += flavor.ram_mib * group.size
        needed["instances"] += group.size
        needed["volumes"] += 2 * group.size
        needed["volumes (GB)"] += (group.state_disk_gb + boot_volume_gb) * group.size
    return needed


async def _full(
    cloud: Cloud, call: Call, parts: Mapping[str, str], needed: Mapping[str, int]
) -> tuple[str, ...]:
    """Say which quotas of one service have no room."""
    caller = await cloud.caller(call.permission)
    absolute = (await caller.fields(call, parts=parts)).fields("limits").fields("absolute")
    return room_lines(
        Room(
            quota=f"of {kind.name}",
            limit=_limit(absolute, kind.limit),
            used=absolute.number(kind.used, most=_MOST),
            more=needed[kind.name],
        )
        for kind in _KINDS[call]
    )


def _limit(absolute: Fields, key: str) -> int:
    return _MOST if absolute.raw(key) == _UNLIMITED else absolute.number(key, most=_MOST)


async def _zones(cloud: Cloud, wanted: set[str]) -> tuple[str, ...]:
    if not wanted:
        return ()
    compute = await cloud.caller(calls.COMPUTE)
    answer = await compute.fields(calls.LIST_ZONES, parts={})
    there = {
        zone.text("zoneName", longest=255)
        for zone in answer.items("availabilityZoneInfo")
        if zone.fields("zoneState").raw("available") is True
    }
    return tuple(f"no availability zone {name}" for name in sorted(wanted - there))


async def _image(cloud: Cloud, image: str) -> tuple[str, ...]:
    caller = await cloud.caller(calls.IMAGE)
    try:
        found = await caller.fields(calls.GET_IMAGE, parts={"image": image})
    except Missing:
        return (f"image {image} is not there (or not yours to use)",)
    status = found.text_or("status", "")
    return () if status == "active" else (f"image {image} is {status or 'of no status'}",)
