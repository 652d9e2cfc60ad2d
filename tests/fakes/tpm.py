"""A real TPM for tests: swtpm, from the project's tools root, else from the host.

Not a fake: it signs and extends as hardware does. A missing swtpm fails the test that wants one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from constellation.base import tools_root
from constellation.base.errors import Unavailable
from constellation.crypto.x509 import CertificateAuthority, load_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["NOW", "LocalCloudCa", "program", "swtpm"]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
_START_DEADLINE_S = 10.0


def program(name: str) -> tuple[str, ...]:
    """Give the words that start a program of the tools root, or of the host."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constellation"
    for root in sorted(cache.glob("image/tools-*")):
        if root.is_dir():
            try:
                return tools_root.command(root, name)
            except Unavailable:
                continue
    if path := shutil.which(name):
        return (path,)
    raise AssertionError(f"{name} is neither in a tools root below {cache} nor on PATH")


@asynccontextmanager
async def swtpm(folder: Path) -> AsyncIterator[Path]:
    """Run a powered TPM whose state lies in `folder`; gives its data socket.

    The socket has a folder of its own: the path of a unix socket has 107 bytes at most.
    """
    with tempfile.TemporaryDirectory(prefix="tpm-") as short:
        async with _running(folder / "state", Path(short) / "tpm.sock") as data:
            yield data


@asynccontextmanager
async def _running(state: Path, data: Path) -> AsyncIterator[Path]:
    state.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *program("swtpm"),
        *("socket", "--tpm2", "--tpmstate", f"dir={state}"),
        *("--server", f"type=unixio,path={data}"),
        *("--flags", "not-need-init,startup-clear"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        end = time.monotonic() + _START_DEADLINE_S
        while not data.exists():
            if process.returncode is not None or time.monotonic() > end:
                raise AssertionError(f"swtpm did not start: {process.returncode}")
            await asyncio.sleep(0.01)
        yield data
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class LocalCloudCa:
    """The local cloud's authority: certifies AKs, as the daemon's does."""

    def __init__(self) -> None:
        self.authority = CertificateAuthority.create(
            "local cloud", now=NOW, lifetime=timedelta(days=365)
        )

    @property
    def root(self) -> bytes:
        return self.authority.certificate.public_bytes(Encoding.DER)

    def certify(self, spki: bytes) -> bytes:
        pem = self.authority.issue(
            spki, common_name="AK", usage="client", now=NOW, lifetime=timedelta(days=30)
        )
        return load_certificate(pem).public_bytes(Encoding.DER)
