"""How an SNP guest gets its report: through configfs, or through /dev/sev-guest on older kernels.

Both give the report and the certificate table that the host attached (often empty).
Sources: Linux, Documentation/ABI/testing/configfs-tsm-report, Documentation/virt/coco/sev-guest.rst
and include/uapi/linux/sev-guest.h; AMD 56860 rev. 1.58, Tables 22 and 24 (MSG_REPORT_REQ, _RSP).
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from constellation.attestation.snp.report import REPORT_BYTES
from constellation.attestation.tsm import REPORTS, request_report
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RawReport", "SevGuestDevice", "SnpDevice", "TsmDevice", "open_device"]

_DEVICE = Path("/dev/sev-guest")
_PROVIDER = "sev_guest"
_SNP_GET_EXT_REPORT = 0xC0205302  # _IOWR('S', 2, struct snp_guest_request_ioctl)
_MESSAGE_VERSION = 1
_TABLE_BYTES = 16 * 4096
_RESPONSE_BYTES = 4000
_HEADER_BYTES = 32  # status, size, reserved: what MSG_REPORT_RSP has before the report
_USER_DATA_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReport:
    """A report (1184 bytes) and the host's certificate table (may be empty); untrusted."""

    report: bytes
    certificates: bytes


class SnpDevice(Protocol):
    """Has the secure processor sign 64 bytes."""

    async def report(self, report_data: bytes) -> RawReport:
        """Get a report over 64 bytes.

        Raises:
            Unavailable: the device or the firmware did not give one.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TsmDevice:
    """The device behind configfs; `folder` is where it is mounted."""

    folder: Path = REPORTS

    async def report(self, report_data: bytes) -> RawReport:
        """See `SnpDevice`."""
        answer = await request_report(report_data, folder=self.folder)
        if answer.provider != _PROVIDER:
            raise Unavailable(f"{self.folder}: provider {answer.provider!r}, want {_PROVIDER!r}")
        return RawReport(report=answer.outblob, certificates=answer.auxblob)


class _Request(ctypes.Structure):
    """Struct snp_ext_report_req; `data` is struct snp_report_req."""

    _fields_ = (
        ("user_data", ctypes.c_uint8 * _USER_DATA_BYTES),
        ("vmpl", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 28),
        ("certs_address", ctypes.c_uint64),
        ("certs_len", ctypes.c_uint32),
    )


class _Ioctl(ctypes.Structure):
    """Struct snp_guest_request_ioctl."""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("exitinfo2", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SevGuestDevice:
    """The device node; `ioctl` is the system call's, so that a test can be the kernel."""

    path: Path = _DEVICE
    ioctl: Callable[[int, int, ctypes.Structure], object] = fcntl.ioctl

    async def report(self, report_data: bytes) -> RawReport:
        """See `SnpDevice`."""
        if len(report_data) != _USER_DATA_BYTES:
            raise ValueError(f"report data: {len(report_data)} bytes, want {_USER_DATA_BYTES}")
        return await asyncio.to_thread(self._report, report_data)

    def _report(self, report_data: bytes) -> RawReport:
        certificates = ctypes.create_string_buffer(_TABLE_BYTES)
        response = ctypes.create_string_buffer(_RESPONSE_BYTES)
        request = _Request(
            user_data=(ctypes.c_uint8 * _USER_DATA_BYTES)(*report_data),
            certs_address=ctypes.addressof(certificates),
            certs_len=_TABLE_BYTES,
        )
        call = _Ioctl(
            msg_version=_MESSAGE_VERSION,
            req_data=ctypes.addressof(request),
            resp_data=ctypes.addressof(response),
        )
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self.ioctl(handle, _SNP_GET_EXT_REPORT, call)
            finally:
                os.close(handle)
        except OSError as error:
            raise Unavailable(
                f"{self.path}: {error.strerror}, firmware error {call.exitinfo2:#x}"
            ) from error
        status = int.from_bytes(response.raw[:4], "little")
        size = int.from_bytes(response.raw[4:8], "little")
        if status or size != REPORT_BYTES:
            raise Unavailable(f"{self.path}: status {status}, report of {size} bytes")
        table = certificates.raw
        return RawReport(
            report=response.raw[_HEADER_BYTES : _HEADER_BYTES + size],
            certificates=table if any(table) else b"",
        )


def open_device(*, folder: Path = REPORTS, path: Path = _DEVICE) -> SnpDevice:
    """Choose the device of this guest.

    Raises:
        Unavailable: there is none.
    """
    if folder.is_dir():
        return TsmDevice(folder=folder)
    if path.exists():
        return SevGuestDevice(path=path)
    raise Unavailable(f"neither {folder} nor {path} is there", hint="is this an SEV-SNP guest?")
