"""A file of known size and SHA-256 from a web server that nobody trusts: these bytes, or none.

The server may be anybody's, and so may its name's addresses be. A request goes to an address that
was looked at first, and to that very one (a name that is asked twice may answer twice); never to
this machine, to a cloud's own services, or where the caller has services of its own. No redirect is
followed. The answer must announce the exact size and no encoding; its bytes are hashed as they are
written, under a name of their own until the digest is right: the checked bytes are the bytes used.
Sources: RFC 9110, sections 8.4 and 15; RFC 6890 (addresses).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import httpx2

from constellation.base.digest import WrongDigest
from constellation.base.errors import Unavailable
from constellation.base.rest import retry_after_s

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

__all__ = [
    "PARTIAL",
    "USUAL_PACE",
    "Door",
    "Lookup",
    "NotServed",
    "Pace",
    "Wanted",
    "fetch_file",
    "lookup",
]

PARTIAL = ".part"
"""End of the names of files that are not whole; they begin with a dot."""

_MIB = 1024 * 1024
_MOST_ADDRESSES = 4
_MODE = 0o555  # programs run from there
_OK, _MANY, _TOO_EARLY, _TIMED_OUT = 200, 429, 425, 408
_SERVER_ERRORS = range(500, 600)
_REDIRECTS = range(300, 400)
_SHOWN = 120

Lookup = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""Gives the IPv4 addresses of a host's name, as somebody says."""


class NotServed(Unavailable):
    """A server did not give the file: `again`, the same request may work after `pause_s`."""

    def __init__(
        self, message: str, *, again: bool, pause_s: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.again, self.pause_s = again, pause_s


async def lookup(host: str, port: int) -> tuple[str, ...]:
    """Ask this machine's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, family=socket.AF_INET, type=socket.SOCK_STREAM
    )
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where requests may go: to none of the networks `closed`, by addresses that `ask` gives.

    Usually closed: `trust.artifact_sources.NEVER_ASKED`, and where the caller has services.
    """

    closed: tuple[ipaddress.IPv4Network, ...]
    ask: Lookup = lookup

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Give the addresses of a host that may be asked, four at most.

        Raises:
            NotServed: nobody knows the name, or none of its addresses may be asked.
        """
        try:
            found = await self.ask(host, port)
        except (OSError, UnicodeError) as error:
            raise NotServed(f"the name {host} is not known: {error}", again=True) from None
        allowed = tuple(a for a in found if self._opens_to(a))
        if not allowed:
            shown = ", ".join(found[:_MOST_ADDRESSES]) or "no address"
            raise NotServed(
                f"{host} is {shown}: no request goes there",
                again=not found,
                hint="this machine, a cloud's own services and the cluster's inner networks are no "
                "file servers",
            )
        return allowed[:_MOST_ADDRESSES]

    def _opens_to(self, text: str) -> bool:
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            return False
        return not any(address in network for network in self.closed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How slow a server may be: a connection in `connect_s`, each piece of bytes in `piece_s`.

    The first piece's time includes that until the answer begins.
    """

    connect_s: float
    piece_bytes: int
    piece_s: float


USUAL_PACE = Pace(connect_s=10.0, piece_bytes=_MIB, piece_s=20.0)
"""52 kB/s at the least, so 600 MB take 3.3 hours at the most, and any stall ends in 20 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The file: a name for people, SHA-256 (64 hexadecimal digits) and exact size."""

    name: str
    sha256: str
    size_bytes: int


async def fetch_file(
    url: str,
    target: Path,
    *,
    wanted: Wanted,
    door: Door,
    pace: Pace,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Have the file at `target`, mode 0555, or nothing: no part of it is left behind.

    Args:
        url: http or https, without user, query and fragment.
        target: replaced once the bytes are right; its folder must exist.
        wanted: what it must be.
        door: which addresses may be asked.
        pace: how slow the server may be.
        tls: whom to believe about https; None: the usual authorities.

    Raises:
        WrongDigest: other bytes came.
        NotServed: they did not come: no connection, another status, a redirect, another size, an
            encoding, too slow, no room on the disk. The message names the address asked.
    """
    try:
        with _unfinished(target) as part:
            with part.open("wb") as file:
                found = await _copy(url, file, wanted=wanted, door=door, pace=pace, tls=tls)
                os.fchmod(file.fileno(), _MODE)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            if found != wanted.sha256:
                raise WrongDigest(f"{wanted.name} from {url}", expected=wanted.sha256, found=found)
            await asyncio.to_thread(part.replace, target)
    except httpx2.TransportError as error:
        # also an answer that ends before its size, or is no HTTP
        what = f"{type(error).__name__}: {error}"[:_SHOWN]
        raise NotServed(f"{url}: {what}", again=True) from None
    except TimeoutError:
        raise NotServed(
            f"{url}: slower than {pace.piece_bytes} bytes in {pace.piece_s:g} s", again=True
        ) from None
    except OSError as error:
        raise NotServed(f"{target.parent}: {error.strerror or error}", again=False) from error


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Lend a file that nobody else writes to; whatever is left of it goes."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=PARTIAL)
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


async def _copy(
    url: str, file: BinaryIO, *, wanted: Wanted, door: Door, pace: Pace, tls: ssl.SSLContext | None
) -> str:
    """Write the answer's bytes; give the SHA-256 of what was written."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _port_of(parts.scheme)
    digest, size = hashlib.sha256(), 0
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(pace.piece_s) as patience:
        addresses = await door.addresses(host, port)
        async with _client(pace, tls) as client:
            response = await _first_answer(client, url, addresses)
            try:
                _judge_head(url, response, wanted=wanted)
                left = pace.piece_bytes
                async for chunk in response.aiter_raw():
                    size, left = size + len(chunk), left - len(chunk)
                    if size > wanted.size_bytes:
                        raise NotServed(f"{url}: more than {wanted.size_bytes} bytes", again=False)
                    digest.update(chunk)
                    file.write(chunk)
                    if left <= 0:
                        left = pace.piece_bytes
                        patience.reschedule(loop.time() + pace.piece_s)
            finally:
                await response.aclose()
    if size != wanted.size_bytes:
        raise NotServed(f"{url}: ended after {size} of {wanted.size_bytes} bytes", again=True)
    return digest.hexdigest()


async def _first_answer(
    client: httpx2.AsyncClient, url: str, addresses: Iterable[str]
) -> httpx2.Response:
    """Ask the first of the addresses that takes a connection; the name goes along, for TLS too."""
    parts = urlsplit(url)
    failure: httpx2.TransportError | None = None
    for address in addresses:
        port = f":{parts.port}" if parts.port else ""
        request = client.build_request(
            "GET",
            f"{parts.scheme}://{address}{port}{parts.path}",
            headers={"Host": parts.netloc, "Accept-Encoding": "identity", "Connection": "close"},
            extensions={"sni_hostname": parts.hostname or ""},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            failure = error
    assert failure is not None  # noqa: S101 - a door gives one address at least
    raise failure


def _judge_head(url: str, response: httpx2.Response, *, wanted: Wanted) -> None:
    status, headers = response.status_code, response.headers
    if status in _REDIRECTS:
        where = headers.get("location", "")[:_SHOWN]
        raise NotServed(
            f"{url}: leads elsewhere (status {status}, {where!r}), and is not followed",
            again=False,
            hint="name the address that has the files itself",
        )
    if status != _OK:
        busy = status in (_MANY, _TOO_EARLY, _TIMED_OUT) or status in _SERVER_ERRORS
        pause = retry_after_s(headers.get("retry-after"))
        raise NotServed(f"{url}: status {status}", again=busy, pause_s=pause)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise NotServed(f"{url}: encoded ({encoding[:_SHOWN]!r}), wanted as it is", again=False)
    announced = headers.get("content-length")
    if announced is None or "transfer-encoding" in headers:
        raise NotServed(f"{url}: does not say how long it is", again=False)
    if announced != str(wanted.size_bytes):
        raise NotServed(
            f"{url}: {announced[:_SHOWN]} bytes, expected {wanted.size_bytes}", again=False
        )


def _client(pace: Pace, tls: ssl.SSLContext | None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        verify=tls or _certificates(),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(pace.piece_s, connect=pace.connect_s),
    )


def _port_of(scheme: str) -> int:
    return {"http": 80, "https": 443}[scheme]


@functools.cache
def _certificates() -> ssl.SSLContext:
    # reading all root certificates takes longer than a request
    return httpx2.create_ssl_context()
