"""A web server on 127.0.0.1 with the origins' habits: ranges, redirects, tokens, broken answers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["OriginServer", "origin_server"]


@dataclass(slots=True, kw_only=True)
class OriginServer:
    """What the server has and how it behaves; `requests` keeps (path, headers) of each request."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    # path -> how many bytes are sent before the connection breaks, the first time only
    breaks: dict[str, int] = field(default_factory=dict)
    ignores_ranges: bool = False
    # sent in chunks, so that nobody knows the length before
    chunked: set[str] = field(default_factory=set)
    # paths below this need the token; the realm is /token
    private: str = ""
    token: str = "opensesame"
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            target = head[0].split(" ")[1]
            path = target.partition("?")[0]
            pairs = (line.split(": ", 1) for line in head[1:] if ": " in line)
            headers = {name.lower(): value for name, value in pairs}
            self.requests.append((target, headers))
            writer.write(self._answer(path, headers))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, path: str, headers: dict[str, str]) -> bytes:
        if path in self.redirects:
            return _head(307, {"Location": self.redirects[path]}, 0)
        if path in self.statuses:
            return _head(self.statuses[path], {}, 0)
        if path == "/token":
            body = b'{"token":"%s"}' % self.token.encode()
            return _head(200, {}, len(body)) + body
        authorized = headers.get("authorization") == f"Bearer {self.token}"
        if self.private and path.startswith(self.private) and not authorized:
            challenge = f'Bearer realm="{self.url}/token",service="fake",scope="pull"'
            return _head(401, {"WWW-Authenticate": challenge}, 0)
        if path not in self.files:
            return _head(404, {}, 0)
        return self._file(path, headers)

    def _file(self, path: str, headers: dict[str, str]) -> bytes:
        body = self.files[path]
        if path in self.chunked:
            head = _head(200, {"Transfer-Encoding": "chunked"}, None)
            return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        start = 0
        if "range" in headers and not self.ignores_ranges:
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return _head(416, {}, 0)
        rest = body[start:]
        extra = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        sent = rest[: self.breaks.pop(path, len(rest))]
        return _head(206 if start else 200, extra, len(rest)) + sent


def _head(status: int, headers: dict[str, str], length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {status} Fake", "Connection: close"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextlib.asynccontextmanager
async def origin_server() -> AsyncIterator[OriginServer]:
    """Run a server while the block runs."""
    fake = OriginServer()
    server = await asyncio.start_server(fake._serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    async with server:
        yield fake
