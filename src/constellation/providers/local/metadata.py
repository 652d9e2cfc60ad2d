"""The local cloud as a node sees it: three questions over HTTP to 169.254.169.254.

What comes back is bounded, parsed strictly, and a claim of an untrusted party. HTTP/1.0 with
`Connection: close` (RFC 1945, RFC 9112), so that an answer ends with its connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import Conflict, FormatError, Unavailable
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.protocols import Metadata

__all__ = ["HOST", "MAX_BYTES", "PORT", "Instances", "LocalMetadata", "ask"]

HOST, PORT = "169.254.169.254", 80
MAX_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 8 * 1024
_TIMEOUT_S = 5.0
_OK, _CONFLICT = 200, 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Answer of /v1/peers."""

    instances: tuple[Instance, ...]


class LocalMetadata:
    """`providers.protocols.Metadata` of the local cloud."""

    def __init__(self, *, host: str = HOST, port: int = PORT) -> None:
        self._host, self._port = host, port

    async def self_(self) -> Instance:
        """Say who this machine is. Raises Unavailable, FormatError."""
        data = await self._get("/v1/self")
        return decode.load(Instance, data, what="metadata self", max_bytes=MAX_BYTES)

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable, FormatError."""
        data = await self._get("/v1/peers")
        return decode.load(Instances, data, what="metadata peers", max_bytes=MAX_BYTES).instances

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._get("/v1/user-data")

    async def _get(self, path: str) -> bytes:
        return await ask(
            f"GET {path}", host=self._host, port=self._port, headers=(), timeout_s=_TIMEOUT_S
        )


async def ask(
    request: str, *, host: str, port: int, headers: tuple[str, ...], timeout_s: float
) -> bytes:
    """Send a request ("GET /path") without a body; give the answer's body, 64 KiB at most.

    Raises:
        Conflict: status 409, with what the server says.
        Unavailable: another status than 200, no answer, or not in time.
        FormatError: the answer is not HTTP, or longer.
    """
    method, _, path = request.partition(" ")
    where = f"http://{host}:{port}{path}"
    head = "\r\n".join((f"{method} {path} HTTP/1.0", f"Host: {host}", *headers))
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"{head}\r\n\r\n".encode())
                answer = b""
                while len(answer) <= _MAX_HEAD_BYTES + MAX_BYTES and (
                    chunk := await reader.read(65536)
                ):
                    answer += chunk
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"{where}: {error!r}") from error
    return _body(answer, where)


def _body(answer: bytes, where: str) -> bytes:
    head, found, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    words = lines[0].split(b" ", 2)
    if not found or not words[0].startswith(b"HTTP/1.") or len(words) < 2:  # noqa: PLR2004
        raise FormatError(f"{where}: not an HTTP answer")
    if words[1] == b"%d" % _CONFLICT:
        raise Conflict(body[:400].decode(errors="replace").strip())
    if words[1] != b"%d" % _OK:
        raise Unavailable(f"{where}: status {words[1][:3].decode(errors='replace')}")
    if len(body) > MAX_BYTES:
        raise FormatError(f"{where}: more than {MAX_BYTES} bytes")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip() != b"%d" % len(body):
            raise Unavailable(f"{where}: {len(body)} bytes came, {value[:20]!r} were announced")
    return body


if TYPE_CHECKING:
    _: type[Metadata] = LocalMetadata
