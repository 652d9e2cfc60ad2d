"""How a guest gets its chip's report from Linux: one folder in configfs, the same for all vendors.

1. Make a folder under `/sys/kernel/config/tsm/report`; it is one request.
2. Write `inblob`, the 64 bytes to be signed, and `privlevel` where one is asked for.
3. Read `provider`, `outblob` (the report or quote) and `auxblob` (certificates, may be empty).
4. Read `generation`: it counts writes; another number means that someone else wrote in between.
5. Remove the folder.

Source: Linux, Documentation/ABI/testing/configfs-tsm-report. The reads block while the firmware
works, so they run in a thread. Nothing here is trusted: a verifier elsewhere reads the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REPORTS", "TsmReport", "request_report"]

REPORTS = Path("/sys/kernel/config/tsm/report")
"""Where Linux 6.7 and later offers reports, once configfs is mounted and a provider is loaded."""

_INBLOB_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TsmReport:
    """What the kernel answered: who made it (`sev_guest`, `tdx_guest`), report, certificates."""

    provider: str
    outblob: bytes
    auxblob: bytes


async def request_report(
    inblob: bytes, *, folder: Path = REPORTS, privlevel: int | None = None, timeout_s: float = 30.0
) -> TsmReport:
    """Have 64 bytes signed; `privlevel` is a VMPL or the like, None: the kernel's own.

    Raises:
        Unavailable: no such folder, an error of the firmware, or no answer in time.
    """
    if len(inblob) != _INBLOB_BYTES:
        raise ValueError(f"inblob: {len(inblob)} bytes, want {_INBLOB_BYTES}")
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.to_thread(_request, inblob, folder, privlevel)
    except TimeoutError:
        raise Unavailable(f"{folder}: no report within {timeout_s:g} s") from None
    except OSError as error:
        hint = "is this a confidential VM, with its guest driver loaded?"
        raise Unavailable(f"{folder}: {error.strerror or error}", hint=hint) from error


def _request(inblob: bytes, folder: Path, privlevel: int | None) -> TsmReport:
    writes = 1 if privlevel is None else 2
    with _entry(folder) as entry:
        (entry / "inblob").write_bytes(inblob)
        if privlevel is not None:
            (entry / "privlevel").write_text(str(privlevel))
        outblob = (entry / "outblob").read_bytes()
        auxblob = (entry / "auxblob").read_bytes() if (entry / "auxblob").exists() else b""
        provider = (entry / "provider").read_text().strip()
        if (found := int((entry / "generation").read_text())) != writes:
            raise Unavailable(
                f"{entry}: generation {found}, expected {writes}: somebody else wrote"
            )
    return TsmReport(provider=provider, outblob=outblob, auxblob=auxblob)


@contextlib.contextmanager
def _entry(folder: Path) -> Iterator[Path]:
    entry = folder / f"constellation-{secrets.token_hex(8)}"
    entry.mkdir()
    try:
        yield entry
    finally:
        entry.rmdir()
