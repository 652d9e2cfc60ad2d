"""In which order a disk is made and opened, and what stops it; with programs that work on files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Rejected, Unavailable
from constellation.base.secret import Secret
from constellation.disk import luks
from constellation.disk.luks_header import MARKER
from constellation.disk.superblock import State
from tests.fakes.luks_edits import setting, with_json
from tests.fakes.mapper_programs import MapperPrograms
from tests.vectors.luks2_header import UUID, made_header

if TYPE_CHECKING:
    from pathlib import Path

KEY = Secret(b"k" * 64)
BLANK, MARKED, LUKS = bytes(4).hex(), MARKER[:4].hex(), b"LUKS".hex()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MapperPrograms:
    found = MapperPrograms(home=tmp_path)
    found.install(monkeypatch)
    return found


async def made(machine: MapperPrograms) -> Path:
    """Make a disk up to its end, and cut the power."""
    await luks.format_and_open(machine.disk, UUID, KEY, mount_point=machine.home / "state")
    await luks.finish(machine.disk, mount_point=machine.home / "state")
    for path in (machine.home / "mapper").iterdir():
        path.unlink()
    (machine.home / "diary").unlink()
    return machine.home / "state"


async def test_a_disk_bears_the_marker_until_it_is_finished(machine: MapperPrograms) -> None:
    state = machine.home / "state"
    await luks.format_and_open(machine.disk, UUID, KEY, mount_point=state)
    assert machine.diary() == [
        f"cryptsetup luksFormat {MARKED}",
        f"cryptsetup open {MARKED}",
        *[f"dmsetup {MARKED}"] * 2,
        f"mkfs.ext4 {MARKED}",
        f"mount {MARKED}",
    ]
    assert luks.inspect(machine.disk).state is State.NEW
    await luks.finish(machine.disk, mount_point=state)
    assert machine.diary()[-1] == f"sync {MARKED}"
    found = luks.inspect(machine.disk)
    assert (found.state, found.uuid) == (State.KNOWN, UUID)
    assert not luks._HEADER_COPY.exists()


async def test_a_finished_disk_opens_by_its_key_and_is_not_written_to(
    machine: MapperPrograms,
) -> None:
    state = await made(machine)
    before = machine.disk.read_bytes()
    await luks.open_known(machine.disk, UUID, KEY, mount_point=state)
    assert machine.diary() == [f"cryptsetup open {LUKS}", *[f"dmsetup {LUKS}"] * 2, f"mount {LUKS}"]
    assert machine.disk.read_bytes() == before
    assert not luks._HEADER_COPY.exists()


async def test_a_disk_whose_formatting_was_interrupted_is_made_anew(
    machine: MapperPrograms,
) -> None:
    await luks.format_and_open(machine.disk, UUID, KEY, mount_point=machine.home / "state")
    (machine.home / "state" / "encrypted").rmdir()
    await made(machine)
    assert luks.inspect(machine.disk).state is State.KNOWN


async def test_a_known_disk_is_never_formatted(machine: MapperPrograms) -> None:
    state = await made(machine)
    with pytest.raises(Rejected, match="known, want new"):
        await luks.format_and_open(machine.disk, UUID, KEY, mount_point=state)
    assert machine.diary() == []


async def test_another_uuid_or_header_is_refused_before_a_key_is_used(
    machine: MapperPrograms,
) -> None:
    state = await made(machine)
    with pytest.raises(Rejected, match="want known"):
        await luks.open_known(machine.disk, bytes(range(1, 17)), KEY, mount_point=state)
    changed = with_json(made_header(), setting("segments/0/encryption", "cipher_null-ecb"))
    with machine.disk.open("r+b") as file:
        file.write(changed)
    with pytest.raises(Rejected, match="cipher_null"):
        await luks.open_known(machine.disk, UUID, KEY, mount_point=state)
    assert machine.diary() == []


async def test_another_key_is_refused(machine: MapperPrograms) -> None:
    state = await made(machine)
    with pytest.raises(Rejected, match="does not open its key slot"):
        await luks.open_known(machine.disk, UUID, Secret(b"n" * 64), mount_point=state)
    assert not machine.mapped()
    assert not luks._HEADER_COPY.exists()


async def test_a_header_that_cryptsetup_makes_otherwise_is_not_used(
    machine: MapperPrograms,
) -> None:
    other = with_json(made_header(), setting("keyslots/0/kdf/iterations", 2000))
    (machine.home / "makes").write_bytes(other)
    with pytest.raises(Rejected, match="iterations"):
        await luks.format_and_open(machine.disk, UUID, KEY, mount_point=machine.home / "state")
    assert machine.diary() == [f"cryptsetup luksFormat {MARKED}"]


@pytest.mark.parametrize("line", ["crypt", "integrity"])
async def test_what_the_kernel_maps_otherwise_is_neither_written_to_nor_mounted(
    machine: MapperPrograms, line: str
) -> None:
    path = machine.home / line
    path.write_text(path.read_text().replace(" 48 ", " 0 ").replace("integrity:48", "integrity:0"))
    with pytest.raises(Rejected, match=f"dm-{line}"):
        await luks.format_and_open(machine.disk, UUID, KEY, mount_point=machine.home / "state")
    assert not machine.mapped()
    assert machine.diary()[-1] == f"cryptsetup close {MARKED}"


async def test_a_disk_that_cannot_be_mounted_is_closed_again(machine: MapperPrograms) -> None:
    state = await made(machine)
    (machine.home / "cannot-mount").touch()
    with pytest.raises(Unavailable, match="mount ended with 32"):
        await luks.open_known(machine.disk, UUID, KEY, mount_point=state)
    assert not machine.mapped()


async def test_a_key_of_another_size_is_a_bug(machine: MapperPrograms) -> None:
    state = await made(machine)
    with pytest.raises(ValueError, match="32 bytes"):
        await luks.open_known(machine.disk, UUID, Secret(bytes(32)), mount_point=state)
