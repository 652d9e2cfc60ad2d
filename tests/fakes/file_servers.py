"""A web server of files by digest on 127.0.0.1, which may lie in every way that HTTP allows."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import web

from constellation.base import clock
from constellation.base.file_server import Door, Pace
from constellation.crypto.signing import dump_private_key, generate_key, spki
from constellation.crypto.x509 import CertificateAuthority
from constellation.trust.artifact_list import Artifact, ArtifactKind
from constellation.trust.artifact_sources import NEVER_ASKED

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAME", "FileServer", "artifact_of", "door_to", "file_server"]

NAME = "files.example"
"""A name that only `door_to` knows."""

BRISK = Pace(connect_s=2.0, piece_bytes=64 * 1024, piece_s=1.5)

Liar = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


def artifact_of(
    data: bytes, name: str = "kubelet", kind: ArtifactKind = ArtifactKind.BINARY
) -> Artifact:
    return Artifact(
        name=name, kind=kind, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
    )


def door_to(*addresses: str, closed: tuple[str, ...] = ()) -> Door:
    """Give the door of a node, on which `NAME` has these addresses, and loopback alone is open."""
    loopback = ipaddress.IPv4Network("127.0.0.0/8")

    async def ask(host: str, port: int) -> tuple[str, ...]:
        assert port
        return (addresses or ("127.0.0.1",)) if host == NAME else (host,)

    kept = tuple(network for network in NEVER_ASKED if network != loopback)
    return Door(closed=(*kept, *map(ipaddress.IPv4Network, closed)), ask=ask)


@dataclass(kw_only=True)
class FileServer:
    """`files` by digest; `lie` answers in place of the truth, for all files or one digest."""

    port: int = 0
    prefix: str = "/constellation"
    files: dict[str, bytes] = field(default_factory=dict)
    lie: Liar | None = None
    lies: dict[str, Liar] = field(default_factory=dict)
    folder: Path | None = None
    """Files come from there, as from any web server's."""
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The source, by the name that `door_to` knows."""
        return f"http://{NAME}:{self.port}{self.prefix}"

    def add(self, *contents: bytes) -> None:
        for data in contents:
            self.files[hashlib.sha256(data).hexdigest()] = data

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        folder, _, digest = request.path.rpartition("/")
        data = self.files.get(digest) if folder == f"{self.prefix}/sha256" else None
        if self.folder is not None and folder == f"{self.prefix}/sha256":
            path = self.folder / "sha256" / digest
            data = path.read_bytes() if path.is_file() else None
        lie = self.lies.get(digest, self.lie)
        if lie is not None:
            return await lie(request, data or b"")
        if data is None:
            raise web.HTTPNotFound
        return web.Response(body=data)


@contextlib.asynccontextmanager
async def file_server() -> AsyncIterator[FileServer]:
    made = FileServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", made._answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.port = runner.addresses[0][1]
        yield made
    finally:
        await runner.cleanup()


def says(status: int, **headers: str) -> Liar:
    """Answer with a status; names of headers with _ for -."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def lie(_request: web.Request, _data: bytes) -> web.StreamResponse:
        return web.Response(status=status, headers=sent)

    return lie


def gives(change: Callable[[bytes], bytes]) -> Liar:
    """Answer with other bytes, honestly announced."""

    async def lie(_request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(body=change(data))

    return lie


async def in_chunks(request: web.Request, data: bytes) -> web.StreamResponse:
    """Say no length and send without end."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(10_000):
            await response.write(data)
    return response


async def cut_short(request: web.Request, data: bytes) -> web.StreamResponse:
    """Announce all of it, and end in the middle."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def drips(request: web.Request, data: bytes) -> web.StreamResponse:
    """Send a byte now and then: no pause is long, and the end never comes."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for byte in data:
            await response.write(bytes([byte]))
            await asyncio.sleep(0.02)
    return response


async def silent(_request: web.Request, data: bytes) -> web.StreamResponse:
    """Take the request, and say nothing."""
    await asyncio.sleep(30)
    return web.Response(body=data)


async def bomb(_request: web.Request, data: bytes) -> web.StreamResponse:
    """Announce the right size of a body that unpacks to a thousand times as much."""
    packed = gzip.compress(bytes(1024 * 1024))
    body = (packed + bytes(len(data)))[: len(data)]
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


def tls_pair(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give who believes an authority, and a server that it has certified for this name."""
    authority = CertificateAuthority.create("files", now=clock.now(), lifetime=timedelta(hours=1))
    key = generate_key()
    certificate = authority.issue(
        spki(key.public_key()), common_name=name, dns=(name,), usage="server", now=clock.now(),
        lifetime=timedelta(hours=1),
    )  # fmt: skip
    pem = folder / "server.pem"
    pem.write_bytes(certificate + dump_private_key(key).reveal())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    return client, server
