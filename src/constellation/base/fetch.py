"""How bytes come from the network: bounded, by https, checked before they get their name.

`download` writes to a partial file beside the target, goes on where an earlier call stopped (RFC
9110, section 14), hashes while it copies, and renames only what has the expected digest.
`get_bounded` is for small documents. Proxies and certificates are the environment's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin, urlsplit

import httpx2

from constellation.base.digest import WrongDigest
from constellation.base.errors import FormatError, Unavailable, UserError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

__all__ = ["Document", "HttpStatus", "TooLarge", "download", "get_bounded", "partial_path"]

_MAX_REDIRECTS = 5
_CHUNK_BYTES = 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOOPBACK = "127.0.0.1"
_OK = 200
_PARTIAL = 206
_RANGE_NOT_SATISFIABLE = 416


class HttpStatus(Unavailable):
    """A server answered with another status than success; `headers` have lower-case names."""

    def __init__(self, url: str, *, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"{url} answered with status {status}")
        self.status = status
        self.headers = headers


class TooLarge(FormatError):
    """An answer is longer than what is read at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A small answer: its bytes, its headers (lower-case names), and where it was found."""

    body: bytes
    headers: Mapping[str, str]
    url: str


async def get_bounded(
    url: str, *, max_bytes: int, timeout_s: float, headers: Mapping[str, str] | None = None
) -> Document:
    """Get a document of at most `max_bytes` within `timeout_s` seconds in all.

    Raises:
        UserError: neither https nor http to 127.0.0.1, or a redirect leaves that.
        HttpStatus: another status than 200.
        TooLarge: it is longer.
        Unavailable: no answer, or not in time.
    """
    try:
        async with asyncio.timeout(timeout_s), _answer(url, headers or {}) as response:
            if response.status_code != _OK:
                raise HttpStatus(url, status=response.status_code, headers=dict(response.headers))
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise TooLarge(f"{url}: more than {max_bytes} bytes")
            return Document(body=bytes(body), headers=dict(response.headers), url=str(response.url))
    except TimeoutError:
        raise Unavailable(f"{url} did not answer within {timeout_s:g} s") from None


def partial_path(target: Path) -> Path:
    """Give where the bytes of an unfinished download to `target` lie."""
    return target.with_name(f".{target.name}.part")


async def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    max_bytes: int,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> int:
    """Download a file whose SHA-256 (hexadecimal) is known; give its size in bytes.

    Args:
        url: https, or http to 127.0.0.1.
        target: gets the file once it is whole and right; its folder must exist.
        sha256: what it must be.
        max_bytes: a longer answer is refused.
        timeout_s: for the whole file.
        headers: for the first host only; a redirect to another one does not carry them.
        on_bytes: told how many of how many bytes (0: unknown) are there.

    Raises:
        UserError, HttpStatus, TooLarge, Unavailable: as `get_bounded`; an `Unavailable` keeps the
            partial file, and the same call goes on from there.
        WrongDigest: other bytes came; nothing of them is kept.
    """
    part = partial_path(target)
    try:
        async with asyncio.timeout(timeout_s):
            for fresh in (False, True):
                resumed, found, size = await _copy(
                    url, part, max_bytes=max_bytes, headers=headers or {}, fresh=fresh,
                    on_bytes=on_bytes,
                )  # fmt: skip
                if found == sha256:
                    part.replace(target)
                    return size
                part.unlink()
                # what an earlier call left may be to blame: once more, all of it
                if not resumed:
                    break
    except TimeoutError:
        raise Unavailable(f"{url} was not whole within {timeout_s:g} s") from None
    except TooLarge:
        part.unlink(missing_ok=True)
        raise
    raise WrongDigest(url, expected=sha256, found=found)


async def _copy(
    url: str,
    part: Path,
    *,
    max_bytes: int,
    headers: Mapping[str, str],
    fresh: bool,
    on_bytes: Callable[[int, int], None] | None,
) -> tuple[bool, str, int]:
    """Fill the partial file; give whether it was begun before, its SHA-256, and its size."""
    with part.open("w+b" if fresh else "a+b") as file:
        start = file.tell()
        ranged = {**headers, "Range": f"bytes={start}-"} if start else dict(headers)
        async with _answer(url, ranged) as response:
            status = response.status_code
            if status == _RANGE_NOT_SATISFIABLE and start:
                # it is whole already, or not ours: the digest decides
                return True, await asyncio.to_thread(_digest_of_start, file), start
            if status not in (_OK, _PARTIAL):
                raise HttpStatus(url, status=status, headers=dict(response.headers))
            resumed = status == _PARTIAL
            if resumed and not _continues(response.headers.get("content-range", ""), start):
                raise Unavailable(f"{url}: not the range that was asked for ({start} and on)")
            if not resumed:
                file.truncate(0)
                start = 0
            file.seek(0)
            digest = hashlib.sha256()
            await asyncio.to_thread(_feed, file, digest.update)
            total = start + int(response.headers.get("content-length", "0"))
            if total > max_bytes:
                raise TooLarge(f"{url}: {total} bytes, at most {max_bytes} are read")
            size = start
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge(f"{url}: more than {max_bytes} bytes")
                digest.update(chunk)
                file.write(chunk)
                if on_bytes is not None:
                    on_bytes(size, total)
        return resumed, digest.hexdigest(), size


def _continues(content_range: str, start: int) -> bool:
    return content_range.startswith(f"bytes {start}-")


def _digest_of_start(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    _feed(file, digest.update)
    return digest.hexdigest()


def _feed(file: BinaryIO, update: Callable[[bytes], None]) -> None:
    while chunk := file.read(_CHUNK_BYTES):
        update(chunk)


@contextlib.asynccontextmanager
async def _answer(url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
    """Send a GET and follow redirects that stay as private as the first URL is."""
    sent = {"Accept-Encoding": "identity", **headers}
    _allowed(url, before=None)
    # a pause of a minute within an answer counts as no answer; callers bound the whole
    timeout = httpx2.Timeout(60.0, connect=10.0)
    async with httpx2.AsyncClient(timeout=timeout, verify=_certificates()) as client:
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                async with client.stream("GET", url, headers=sent) as response:
                    if response.status_code not in _REDIRECTS:
                        yield response
                        return
                    location = urljoin(url, response.headers.get("location", ""))
                _allowed(location, before=url)
                if urlsplit(location).netloc != urlsplit(url).netloc:
                    # a token for one host is nobody else's; the range is for the file
                    sent = {k: v for k, v in sent.items() if k in ("Accept-Encoding", "Range")}
                url = location
        except httpx2.TransportError as error:
            raise Unavailable(f"{url}: {type(error).__name__}: {error}") from error
    raise Unavailable(f"{url}: more than {_MAX_REDIRECTS} redirects")


@functools.cache
def _certificates() -> ssl.SSLContext:
    # reading all root certificates takes longer than a request
    return httpx2.create_ssl_context()


def _allowed(url: str, *, before: str | None) -> None:
    scheme = urlsplit(url).scheme
    local = scheme == "http" and urlsplit(url).hostname == _LOOPBACK
    if before is not None and urlsplit(before).scheme != scheme:
        raise UserError(f"{before} redirects to {scheme or 'no URL'}, want what it has itself")
    if scheme != "https" and not local:
        raise UserError(f"{url[:200]}: want https", hint="plain http is for 127.0.0.1 only")
