"""Which device is the state disk, and how it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.disk import luks, native
from constellation.disk.state_disk import device_from_host, inspect, way_of
from constellation.disk.superblock import State
from tests.unit.disk.test_luks_header import header
from tests.unit.disk.test_superblock import ext4

if TYPE_CHECKING:
    from pathlib import Path

BYTES = 20 * 1024 * 1024


def disk(path: Path, start: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(BYTES)
    return path


@pytest.mark.parametrize("variant", Variant)
def test_only_a_local_node_s_disk_is_not_authentic(variant: Variant) -> None:
    assert way_of(variant) is (native if variant is Variant.LOCAL_VTPM else luks)


def test_each_way_knows_its_own_disks_alone(tmp_path: Path) -> None:
    blank = disk(tmp_path / "blank")
    natives, authentic = disk(tmp_path / "native", ext4()), disk(tmp_path / "luks", header())
    for variant, own, other in (
        (Variant.LOCAL_VTPM, natives, authentic),
        (Variant.QEMU_VTPM, authentic, natives),
    ):
        assert inspect(blank, variant=variant).state is State.NEW
        assert inspect(own, variant=variant).state is State.KNOWN
        with pytest.raises(Rejected, match="neither blank nor"):
            inspect(other, variant=variant)


@pytest.mark.parametrize("offset", [512 * 1024, BYTES - 1])
def test_a_disk_with_data_elsewhere_is_not_blank(tmp_path: Path, offset: int) -> None:
    path = disk(tmp_path / "disk")
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"x")
    with pytest.raises(Rejected, match="neither blank nor"):
        inspect(path, variant=Variant.QEMU_VTPM)


@pytest.mark.parametrize(
    "text", ["", "../../sda", "/dev/sda", ".hidden", "a/b", "a b", "x" * 129, "\0"]
)
def test_a_device_is_a_number_or_a_name_of_udev_s(tmp_path: Path, text: str) -> None:
    (tmp_path / "state-disk").write_text(text)
    with pytest.raises(FormatError, match="MAJOR:MINOR or a name"):
        device_from_host(tmp_path / "state-disk", tmp_path / "device", names=tmp_path)


def test_a_name_that_no_disk_has_yet_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state-disk").write_text("virtio-state-disk\n")
    with pytest.raises(Unavailable, match="no disk is named virtio-state-disk"):
        device_from_host(tmp_path / "state-disk", tmp_path / "device", names=tmp_path)
    (tmp_path / "virtio-state-disk").write_text("no device")
    with pytest.raises(Unavailable, match="is no disk"):
        device_from_host(tmp_path / "state-disk", tmp_path / "device", names=tmp_path)


def test_a_machine_without_a_state_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="has no state disk"):
        device_from_host(tmp_path / "state-disk", tmp_path / "device")
