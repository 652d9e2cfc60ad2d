"""Quotes, event log and registers of the TD that this program runs in, through Linux.

Quotes come from configfs-tsm: a folder is made, 64 bytes are written to `inblob`, the quote is read
from `outblob`; `generation` tells whether somebody else wrote in between. RTMR3 is extended by
writing a digest to the register's file. Sources: Linux, Documentation/ABI/testing/
configfs-tsm-report (6.7) and sysfs-devices-virtual-misc-tdx_guest (6.16); ACPI 6.5, CCEL table.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from constellation.attestation.tdx.rtmr import DIGEST_BYTES
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CCEL", "RTMR3", "TSM_REPORTS", "Folder", "TdGuest", "TsmFolder"]

TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
CCEL = Path("/sys/firmware/acpi/tables/data/CCEL")
RTMR3 = Path("/sys/class/misc/tdx_guest/measurements/rtmr3:sha384")

_PROVIDER = b"tdx_guest"
_REPORT_DATA_BYTES = 64
_TRIES = 3

T_ = TypeVar("T_")


class TsmFolder(Protocol):
    """The folder of configfs-tsm in which entries are made; blocking, each call short."""

    def make(self, entry: str) -> None:
        """Make an entry."""
        ...

    def write(self, entry: str, name: str, data: bytes) -> None:
        """Write a file of an entry, in one piece."""
        ...

    def read(self, entry: str, name: str) -> bytes:
        """Read a file of an entry."""
        ...

    def remove(self, entry: str) -> None:
        """Remove an entry."""
        ...


class Folder:
    """`TsmFolder` as the kernel has it."""

    def __init__(self, path: Path) -> None:
        """Use the folder `path`, usually `TSM_REPORTS`."""
        self._path = path

    def make(self, entry: str) -> None:
        """Make an entry; the kernel puts its files in."""
        (self._path / entry).mkdir()

    def write(self, entry: str, name: str, data: bytes) -> None:
        """Write a file of an entry in one call, as the kernel wants it."""
        with (self._path / entry / name).open("wb", buffering=0) as file:
            file.write(data)

    def read(self, entry: str, name: str) -> bytes:
        """Read a file of an entry."""
        return (self._path / entry / name).read_bytes()

    def remove(self, entry: str) -> None:
        """Remove an entry; its files go with it."""
        (self._path / entry).rmdir()


class TdGuest:
    """This TD."""

    def __init__(self, *, reports: TsmFolder, ccel: Path, rtmr3: Path) -> None:
        """Use what the kernel offers: `Folder(TSM_REPORTS)`, `CCEL`, `RTMR3`."""
        self._reports, self._ccel, self._rtmr3 = reports, ccel, rtmr3

    async def quote(self, report_data: bytes) -> bytes:
        """Get a quote over 64 bytes.

        Raises:
            ValueError: not 64 bytes.
            Unavailable: no TD, no quoting service on the host, or no answer.
        """
        if len(report_data) != _REPORT_DATA_BYTES:
            raise ValueError(f"report data of {len(report_data)} bytes, want {_REPORT_DATA_BYTES}")
        return await asyncio.to_thread(self._quote, report_data)

    async def event_log(self) -> bytes:
        """Read the CCEL area, with whatever fills its end.

        Raises:
            Unavailable: the firmware gave none.
        """
        return await asyncio.to_thread(_tried, "CC event log", self._ccel.read_bytes)

    async def extend_rtmr3(self, digest: bytes) -> None:
        """Extend RTMR3 with a SHA-384 digest (48 bytes). There is no way back but a new start.

        Raises:
            ValueError: not 48 bytes.
            Unavailable: the kernel does not offer the register.
        """
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"digest of {len(digest)} bytes, want {DIGEST_BYTES}")

        def write() -> None:
            # never made by us: a file of that name elsewhere would swallow the measurement
            with self._rtmr3.open("r+b", buffering=0) as file:
                file.write(digest)

        await asyncio.to_thread(_tried, "RTMR3", write)

    async def rtmr3(self) -> bytes:
        """Read RTMR3 (48 bytes).

        Raises:
            Unavailable: the kernel does not offer the register.
        """
        return await asyncio.to_thread(_tried, "RTMR3", self._rtmr3.read_bytes)

    def _quote(self, report_data: bytes) -> bytes:
        entry = f"constellation-{secrets.token_hex(8)}"
        _tried("configfs-tsm", lambda: self._reports.make(entry))
        try:
            return _tried("TD quote", lambda: self._read_quote(entry, report_data))
        finally:
            with contextlib.suppress(OSError):
                self._reports.remove(entry)

    def _read_quote(self, entry: str, report_data: bytes) -> bytes:
        provider = self._reports.read(entry, "provider").strip()
        if provider != _PROVIDER:
            raise Unavailable(f"configfs-tsm: provider {provider[:32]!r}, want {_PROVIDER!r}")
        for _ in range(_TRIES):
            before = int(self._reports.read(entry, "generation"))
            self._reports.write(entry, "inblob", report_data)
            quote = self._reports.read(entry, "outblob")
            # one write, ours: else the quote may be over somebody else's bytes
            if int(self._reports.read(entry, "generation")) == before + 1 and quote:
                return quote
        raise Unavailable(f"TD quote: the entry changed under us {_TRIES} times")


def _tried(what: str, call: Callable[[], T_]) -> T_:
    try:
        return call()
    except OSError as error:
        raise Unavailable(f"{what}: {error.strerror or error}") from error
