"""The local cloud as a node sees it: three questions over HTTP to 169.254.169.254.

What comes back is bounded, parsed strictly, and a claim of an untrusted party. HTTP/1.0 with
`Connection: close` (RFC 1945, RFC 9112), so that an answer ends with its connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.protocols import Metadata

__all__ = ["Instances", "LocalMetadata"]

_HOST, _PORT = "169.254.169.254", 80
_MAX_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 8 * 1024
_TIMEOUT_S = 5.0
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Answer of /v1/peers."""

    instances: tuple[Instance, ...]


class LocalMetadata:
    """`providers.protocols.Metadata` of the local cloud."""

    def __init__(self, *, host: str = _HOST, port: int = _PORT) -> None:
        self._host, self._port = host, port

    async def self_(self) -> Instance:
        """Say who this machine is. Raises Unavailable, FormatError."""
        data = await self._get("/v1/self")
        return decode.load(Instance, data, what="metadata self", max_bytes=_MAX_BYTES)

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable, FormatError."""
        data = await self._get("/v1/peers")
        return decode.load(Instances, data, what="metadata peers", max_bytes=_MAX_BYTES).instances

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._get("/v1/user-data")

    async def _get(self, path: str) -> bytes:
        where = f"http://{self._host}:{self._port}{path}"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: {self._host}\r\n\r\n".encode())
                    answer = b""
                    while len(answer) <= _MAX_HEAD_BYTES + _MAX_BYTES and (
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
    if words[1] != b"%d" % _OK:
        raise Unavailable(f"{where}: status {words[1][:3].decode(errors='replace')}")
    if len(body) > _MAX_BYTES:
        raise FormatError(f"{where}: more than {_MAX_BYTES} bytes")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip() != b"%d" % len(body):
            raise Unavailable(f"{where}: {len(body)} bytes came, {value[:20]!r} were announced")
    return body


if TYPE_CHECKING:
    _: type[Metadata] = LocalMetadata
