"""One bounded HTTP request of any method to a service's API, and what its refusals mean.

`fetch` is for files and documents; this is for calls that change something. A request goes where it
is sent and nowhere else: redirects are not followed, since they would carry a token along. Plain
http is for this machine and for the link-local address at which clouds answer their own machines
(RFC 3927), and goes there directly, by no proxy. A caller may name one address more, for its own
request alone.
"""

from __future__ import annotations

import asyncio
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx2

from constellation.base.errors import Conflict, FormatError, Unavailable, UserError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = [
    "Answer",
    "Denied",
    "Missing",
    "Refused",
    "Throttled",
    "accept",
    "retry_after_s",
    "send",
    "trusting",
]

_PLAIN: Final = ("127.0.0.1", "169.254.169.254")
_SUCCESS = range(200, 300)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE, _MANY = 401, 403, 404, 410, 429
_UNAVAILABLE = 503
_SHOWN = 300
_LONGEST_RETRY_AFTER_S = 24 * 3600.0


class Denied(Conflict):
    """The service does not accept the credentials (401), or they do not allow the call (403)."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status

    @property
    def expired(self) -> bool:
        """Whether other credentials may help: they were not known, or not any more."""
        return self.status == _UNAUTHORIZED


class Missing(Conflict):
    """What the call names is not there, or not there yet (404, 410)."""


class Refused(Conflict):
    """Any other status that says no: the call is malformed, or the state does not allow it."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Throttled(Unavailable):
    """The service asks for a pause (429, or 503 with Retry-After): seconds, None: unsaid."""

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: status, headers (lower-case names), and all of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def trusting(certificates_pem: bytes) -> ssl.SSLContext:
    """Make a TLS context for a service whose certificate these authorities (PEM) have issued."""
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(cadata=certificates_pem.decode("ascii"))
    except (ValueError, OSError) as error:
        raise FormatError(f"certificates to trust: {error}") from None
    return context


async def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout_s: float,
    max_bytes: int,
    tls: ssl.SSLContext | None = None,
    plain_too: str = "",
) -> Answer:
    """Send one request; give the answer, whatever its status.

    `plain_too`: an address at which the caller's cloud answers its own machines by plain http.

    Raises:
        UserError: neither https nor http to this machine, 169.254.169.254 or `plain_too`.
        FormatError: the answer is longer than `max_bytes`; the address or a header cannot be sent.
        Unavailable: no answer, or not whole within `timeout_s` seconds.
    """
    direct = _checked(url, plain_too)
    where = _where(method, url)
    sent = {"Accept-Encoding": "identity", **headers}
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx2.AsyncClient(
                verify=tls or _certificates(),
                trust_env=not direct,
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            ) as client,
            client.stream(method, url, headers=sent, content=body) as response,
        ):
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > max_bytes:
                    raise FormatError(f"{where}: more than {max_bytes} bytes")
            return Answer(
                status=response.status_code, headers=dict(response.headers), body=bytes(data)
            )
    except TimeoutError:
        raise Unavailable(f"{where}: no whole answer within {timeout_s:g} s") from None
    except (httpx2.InvalidURL, UnicodeError) as error:
        # both may be made of what another answer said; neither is repeated: a header may be secret
        raise FormatError(f"{where[:200]}: cannot be sent ({type(error).__name__})") from None
    except httpx2.TransportError as error:
        raise Unavailable(f"{where}: {type(error).__name__}: {error}") from error


def accept(answer: Answer, *, what: str) -> Answer:
    """Give a successful answer back, or raise what another status means.

    Raises:
        Denied: 401 or 403. Missing: 404 or 410. Refused: any other of 100 to 499.
        Throttled: 429, or 503 with Retry-After. Unavailable: 500 and up.
    """
    status = answer.status
    if status in _SUCCESS:
        return answer
    said = answer.body[:_SHOWN].decode(errors="replace").strip()
    message = f"{what}: status {status}" + (f": {said}" if said.isprintable() and said else "")
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        raise Denied(message, status=status)
    if status in (_NOT_FOUND, _GONE):
        raise Missing(message)
    after = retry_after_s(answer.headers.get("retry-after"))
    if status == _MANY or (status == _UNAVAILABLE and after is not None):
        asks = "" if after is None else f"; it asks for a pause of {after:g} s"
        raise Throttled(message + asks, retry_after_s=after)
    if status >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6: the server's errors
        raise Unavailable(message)
    raise Refused(message, status=status)


def retry_after_s(text: str | None) -> float | None:
    """Read the header Retry-After, a day at most; None: there is none, or no count of seconds."""
    # RFC 9110, section 10.2.3: seconds; a date is what no cloud's API sends, and means "unsaid"
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(float(text), _LONGEST_RETRY_AFTER_S) if len(text) < 10 else math.inf  # noqa: PLR2004


def _where(method: str, url: str) -> str:
    # without the query: it may be long, and is the only part that could ever hold what is private
    parts = urlsplit(url)
    return f"{method} {parts.scheme}://{parts.netloc}{parts.path}"


def _checked(url: str, plain_too: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UserError(f"{url[:200]!r} is no address") from None
    plain = parts.scheme == "http" and parts.hostname in (*_PLAIN, plain_too)
    if parts.scheme != "https" and not plain:
        raise UserError(
            f"{url[:200]}: want https", hint="plain http is for this machine's own cloud only"
        )
    return plain


@functools.cache
def _certificates() -> ssl.SSLContext:
    # reading all root certificates takes longer than a request
    return httpx2.create_ssl_context()
