"""A device is blank, ours, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import Rejected
from constellation.disk.superblock import SUPERBLOCK_END, State, judge

UUID = bytes(range(1, 17))


def ext4(
    *,
    label: bytes = b"constellation",
    compat: int = 0x800,
    incompat: int = 0x10000,
    uuid: bytes = UUID,
) -> bytes:
    image = bytearray(SUPERBLOCK_END)
    image[1024 + 0x38 : 1024 + 0x3A] = (0xEF53).to_bytes(2, "little")
    image[1024 + 0x5C : 1024 + 0x60] = compat.to_bytes(4, "little")
    image[1024 + 0x60 : 1024 + 0x64] = incompat.to_bytes(4, "little")
    image[1024 + 0x68 : 1024 + 0x78] = uuid
    image[1024 + 0x78 : 1024 + 0x88] = label.ljust(16, b"\0")
    return bytes(image)


def test_a_blank_device_is_new() -> None:
    assert judge(bytes(SUPERBLOCK_END), blank=True).state is State.NEW


def test_our_file_system_is_known_by_its_uuid() -> None:
    found = judge(ext4(), blank=False)
    assert (found.state, found.uuid) == (State.KNOWN, UUID)


def test_a_disk_whose_formatting_was_interrupted_is_new() -> None:
    assert judge(ext4(label=b"constellation-0"), blank=False).state is State.NEW


def test_zeros_at_the_start_alone_do_not_make_a_disk_blank() -> None:
    with pytest.raises(Rejected, match="neither blank nor ext4"):
        judge(bytes(SUPERBLOCK_END), blank=False)


@pytest.mark.parametrize(
    ("image", "finding"),
    [
        (ext4(label=b"data"), "label"),
        (ext4(compat=0), "stable_inodes"),
        (ext4(incompat=0x40), "without encrypt"),
        (ext4(uuid=bytes(16)), "UUID"),
    ],
)
def test_a_file_system_of_somebody_else_is_refused(image: bytes, finding: str) -> None:
    with pytest.raises(Rejected, match=finding):
        judge(image, blank=False)


@given(st.binary(min_size=SUPERBLOCK_END, max_size=SUPERBLOCK_END))
def test_junk_is_never_taken_for_a_new_disk(image: bytes) -> None:
    with pytest.raises(Rejected):
        judge(image, blank=False)
