"""Reports through configfs and through the device node, with a test as the kernel."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.snp.device import (
    RawReport,
    SevGuestDevice,
    TsmDevice,
    open_device,
)
from constellation.attestation.tsm import request_report
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPORT = bytes(range(32)) * 37
DATA = b"\x5a" * 64


@contextmanager
def configfs(
    folder: Path, *, provider: str = "sev_guest", generation: int = 1
) -> Iterator[list[bytes]]:
    """Be the kernel: fill each new folder, and let it be removed with what is in it."""
    seen: list[bytes] = []
    original = type(folder).mkdir
    remove = type(folder).rmdir

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)  # type: ignore[arg-type] # passed on
        if self.parent == folder:
            (self / "outblob").write_bytes(REPORT)
            (self / "auxblob").write_bytes(b"table")
            (self / "provider").write_text(f"{provider}\n")
            (self / "generation").write_text(f"{generation}\n")

    def rmdir(self: Path) -> None:
        if self.parent == folder:
            seen.append((self / "inblob").read_bytes())
            for file in self.iterdir():
                file.unlink()
        remove(self)

    patch = pytest.MonkeyPatch()
    patch.setattr(type(folder), "mkdir", mkdir)
    patch.setattr(type(folder), "rmdir", rmdir)
    try:
        yield seen
    finally:
        patch.undo()


async def test_a_report_is_one_folder_that_is_removed_afterwards(tmp_path: Path) -> None:
    with configfs(tmp_path) as seen:
        answer = await open_device(folder=tmp_path).report(DATA)
    assert answer == RawReport(report=REPORT, certificates=b"table")
    assert seen == [DATA]
    assert not list(tmp_path.iterdir())


async def test_a_write_in_between_is_noticed(tmp_path: Path) -> None:
    with configfs(tmp_path, generation=2), pytest.raises(Unavailable, match="somebody else wrote"):
        await request_report(DATA, folder=tmp_path)
    with configfs(tmp_path, generation=2):
        await request_report(DATA, folder=tmp_path, privlevel=0)


async def test_another_vendors_report_is_none_of_ours(tmp_path: Path) -> None:
    with configfs(tmp_path, provider="tdx_guest"), pytest.raises(Unavailable, match="tdx_guest"):
        await TsmDevice(folder=tmp_path).report(DATA)


async def test_a_machine_without_device_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is there"):
        open_device(folder=tmp_path / "none", path=tmp_path / "none")
    with pytest.raises(Unavailable, match="No such file"):
        await TsmDevice(folder=tmp_path / "none").report(DATA)
    with pytest.raises(Unavailable, match="No such file"):
        await SevGuestDevice(path=tmp_path / "none").report(DATA)


@pytest.mark.parametrize("table", [b"", b"certificates"])
async def test_the_device_node_is_asked_as_the_kernel_documents_it(
    tmp_path: Path, table: bytes
) -> None:
    node = tmp_path / "sev-guest"
    node.touch()

    def kernel(_: int, number: int, call: ctypes.Structure) -> None:
        assert number == 0xC0205302
        assert ctypes.sizeof(call) == number >> 16 & 0x3FFF
        assert call.msg_version == 1
        request = ctypes.string_at(call.req_data, 112)
        assert request[:96] == DATA + bytes(32)
        address = int.from_bytes(request[96:104], "little")
        assert int.from_bytes(request[104:108], "little") == 0x10000
        ctypes.memmove(address, table, len(table))
        answer = bytes(4) + len(REPORT).to_bytes(4, "little") + bytes(24) + REPORT
        ctypes.memmove(call.resp_data, answer, len(answer))

    answer = await SevGuestDevice(path=node, ioctl=kernel).report(DATA)
    assert answer.report == REPORT
    assert answer.certificates.rstrip(b"\0") == table


async def test_what_the_firmware_refuses_is_unavailable(tmp_path: Path) -> None:
    node = tmp_path / "sev-guest"
    node.touch()

    def refuse(_: int, __: int, call: ctypes.Structure) -> None:
        call.exitinfo2 = 0x16
        raise OSError(5, "Input/output error")

    def fail(_: int, __: int, call: ctypes.Structure) -> None:
        ctypes.memmove(call.resp_data, b"\x16\0\0\0", 4)

    with pytest.raises(Unavailable, match="firmware error 0x16"):
        await SevGuestDevice(path=node, ioctl=refuse).report(DATA)
    with pytest.raises(Unavailable, match="status 22"):
        await SevGuestDevice(path=node, ioctl=fail).report(DATA)
