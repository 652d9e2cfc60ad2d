"""Which of a machine's disks is its state disk: by content, and never by order or name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.disk.found import Disk, candidates, choose, inspected, read_disks
from constellation.disk.superblock import DiskState, State

if TYPE_CHECKING:
    from pathlib import Path

NEW, KNOWN = DiskState(state=State.NEW, uuid=b""), DiskState(state=State.KNOWN, uuid=b"u" * 16)
STATE = Disk(
    name="nvme1n1",
    size_bytes=30 * 1024**3,
    model="Amazon Elastic Block Store",
    place="/sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1",
    read_only=False,
    removable=False,
    has_root=False,
)


SECOND_GENERATION = "/sys/devices/LNXSYSTM:00/VMBUS:00/f8b3781a-1e82-4818-a1c3-63d806ec15bb"
"""The controller of image and temporary disk on Azure."""


def test_the_only_other_disk_is_it() -> None:
    root = replace(STATE, name="nvme0n1", has_root=True)
    assert candidates((root, STATE), provider="aws") == (STATE,)


@pytest.mark.parametrize(
    ("provider", "change"),
    [
        ("aws", {"has_root": True}),
        ("aws", {"read_only": True}),
        ("aws", {"removable": True}),
        ("openstack", {"size_bytes": 64 * 1024**2}),
        ("aws", {"model": "Amazon EC2 NVMe Instance Storage"}),
        ("gcp", {"model": "nvme_card"}),
        ("gcp", {"model": "nvme_card0"}),
        ("gcp", {"model": "EphemeralDisk"}),
        ("azure", {"model": "Microsoft NVMe Direct Disk v2"}),
        ("azure", {"place": "/sys/devices/VMBUS:00/00000000-0001-8899-0000-000000000000/x/sdb"}),
        ("azure", {"place": f"{SECOND_GENERATION}/host0/target0:0:0/0:0:0:1/block/sdb"}),
    ],
)
def test_what_forgets_or_carries_something_else_is_none(
    provider: str, change: dict[str, object]
) -> None:
    assert candidates((replace(STATE, **change),), provider=provider) == ()  # type: ignore[arg-type] # any field


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("aws", "Amazon Elastic Block Store"),
        ("gcp", "nvme_card-pd"),
        ("gcp", "PersistentDisk"),
        ("azure", "MSFT NVMe Accelerator v1.0"),
        ("azure", "Virtual Disk"),
        ("openstack", ""),
    ],
)
def test_a_clouds_network_disk_may_be_it(provider: str, model: str) -> None:
    assert candidates((replace(STATE, model=model),), provider=provider)


def test_azures_second_data_disk_may_be_it() -> None:
    data = SECOND_GENERATION.replace("f8b3781a", "f8b3781b")
    for lun in (0, 1, 11):
        disk = replace(STATE, place=f"{data}/host1/target1:0:0/1:0:0:{lun}/block/sdc")
        assert candidates((disk,), provider="azure") == (disk,)


def test_a_known_disk_goes_before_a_blank_one_whatever_their_names() -> None:
    # a volume of a pod that nobody has formatted yet is attached to a node that starts again
    for names in (("vdb", "vdc"), ("vdc", "vdb")):
        assert choose({names[0]: NEW, names[1]: KNOWN, "vdd": None}) == names[1]
    assert choose({"vdb": NEW, "vdd": None}) == "vdb"


@pytest.mark.parametrize(
    "found",
    [{}, {"vdb": None}, {"vdb": NEW, "vdc": NEW}, {"vdb": KNOWN, "vdc": KNOWN, "vdd": NEW}],
)
def test_none_or_several_are_waited_for(found: dict[str, DiskState | None]) -> None:
    with pytest.raises(Unavailable, match="state disk"):
        choose(found)


def test_a_disk_of_somebody_else_is_none_and_one_that_cannot_be_read_stops_the_choice() -> None:
    def inspect(name: str) -> DiskState:
        if name == "nvme2n1":
            raise Rejected(("state disk: neither blank nor LUKS2",))
        if name == "nvme3n1":
            raise FormatError("LUKS2: junk")
        if name == "nvme4n1":
            raise Unavailable("state disk: Input/output error")
        return NEW

    names = ("nvme1n1", "nvme2n1", "nvme3n1")
    disks = tuple(replace(STATE, name=name) for name in names)
    assert inspected(disks, inspect) == {"nvme1n1": NEW, "nvme2n1": None, "nvme3n1": None}
    with pytest.raises(Unavailable):
        inspected((replace(STATE, name="nvme4n1"),), inspect)


def block(sys: Path, name: str, *, parts: tuple[str, ...] = (), **attributes: str) -> Path:
    """Write a disk as sysfs has it: a folder below devices, and a link in block."""
    place = sys / "devices" / name
    for part in parts:
        (place / part).mkdir(parents=True)
    place.mkdir(parents=True, exist_ok=True)
    shown = {"size": str(8 * 1024**3 // 512), "ro": "0", "removable": "0", **attributes}
    for key, value in shown.items():
        (place / key).parent.mkdir(exist_ok=True)
        (place / key).write_text(f"{value}\n")
    (sys / "block").mkdir(exist_ok=True)
    (sys / "block" / name).symlink_to(place)
    return place


def mapped_root(sys: Path, *partitions: Path) -> None:
    place = block(sys, "dm-0", **{"dm/name": "root"})
    (place / "slaves").mkdir()
    for partition in partitions:
        (place / "slaves" / partition.name).symlink_to(partition)


def test_sysfs_says_on_which_disks_the_verified_root_lies(tmp_path: Path) -> None:
    image = block(tmp_path, "nvme0n1", parts=("nvme0n1p2", "nvme0n1p3"))
    block(tmp_path, "nvme1n1", **{"device/model": "Amazon Elastic Block Store              "})
    block(tmp_path, "nvme0c0n1", hidden="1")
    block(tmp_path, "nvme2n1", hidden="1")
    block(tmp_path, "sr0", removable="1")
    block(tmp_path, "loop0")
    mapped_root(tmp_path, image / "nvme0n1p2", image / "nvme0n1p3")
    found = read_disks(tmp_path)
    assert [(d.name, d.has_root, d.model) for d in found] == [
        ("nvme0n1", True, ""),
        ("nvme1n1", False, "Amazon Elastic Block Store"),
    ]
    assert found[1].size_bytes == 8 * 1024**3
    assert [d.name for d in candidates(found, provider="aws")] == ["nvme1n1"]


def test_without_a_verified_root_no_disk_is_chosen(tmp_path: Path) -> None:
    block(tmp_path, "vda")
    block(tmp_path, "dm-0", **{"dm/name": "other"})
    with pytest.raises(Unavailable, match="verified root"):
        read_disks(tmp_path)


def test_every_variant_that_an_image_is_built_for_keeps_an_authentic_disk() -> None:
    # what `choose` believes of content is no more than what ADR 101 lets a header say
    from constellation.disk.state_disk import way_of  # noqa: PLC0415 - one use
    from constellation.image.flavours import FLAVOURS  # noqa: PLC0415

    native = way_of(Variant.LOCAL_VTPM)
    assert all(way_of(v) is not native for variants in FLAVOURS.values() for v in variants)
