"""What an API server at a node's own address says of itself: its version, and whether it is ready.

`/version` and `/readyz` need no identity. The server is verified by the cluster CA, so the answer
is its own; the load balancer is not asked, since each API server counts.
Source: Kubernetes, "API health endpoints"; RFC 9112 (HTTP/1.0, so that an answer ends).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ask", "parse_version", "ready", "version"]

_PORT = 6443
_MAX_ANSWER_BYTES = 64 * 1024
_VERSION = re.compile(r"v[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}")


async def version(address: str, *, ca_file: Path, timeout_s: float, port: int = _PORT) -> str:
    """Ask for the version ("v1.36.2"). Raises Unavailable, FormatError."""
    status, body = await ask(address, "/version", ca_file=ca_file, timeout_s=timeout_s, port=port)
    if status != b"200":
        raise Unavailable(f"API server at {address}: status {status.decode(errors='replace')}")
    return parse_version(body, where=f"API server at {address}")


async def ready(address: str, *, ca_file: Path, timeout_s: float, port: int = _PORT) -> None:
    """Return if it says that it is ready. Raises Unavailable with what it says else."""
    status, body = await ask(address, "/readyz", ca_file=ca_file, timeout_s=timeout_s, port=port)
    if status != b"200":
        words = body.decode(errors="replace")[-500:]
        raise Unavailable(f"API server at {address} is not ready: {words}")


def parse_version(body: bytes, *, where: str) -> str:
    """Read the answer of /version. Raises FormatError."""
    said = decode.load(dict[str, str], body, what=f"{where}: /version", max_bytes=_MAX_ANSWER_BYTES)
    found = said.get("gitVersion", "")
    if not _VERSION.fullmatch(found):
        raise FormatError(f"{where}: version {found[:40]!r}, want v1.2.3")
    return found


async def ask(
    address: str, path: str, *, ca_file: Path, timeout_s: float, port: int
) -> tuple[bytes, bytes]:
    """Send one GET; give status and body. Raises Unavailable."""
    try:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=str(ca_file))
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(address, port, ssl=context)
            try:
                host = f"{address}:{port}"
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                answer = b""
                while len(answer) <= _MAX_ANSWER_BYTES and (chunk := await reader.read(8192)):
                    answer += chunk
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"API server at {address}: {str(error) or 'no answer'}") from error
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        raise Unavailable(f"API server at {address}: no answer")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    return (words[1] if len(words) > 1 else b""), body
