"""Which calls a cloud's client makes, as one table; a client can make no other.

Each row names the permission that the call needs and why it is made: the IAM files in `infra/iam`
are written from these tables, so that a machine's identity may do what its programs do, and no more
(issue: least privilege). A `Caller` sends them: signed, bounded, patient with a service that asks
for a pause, and with credentials that ran out while nobody looked.
"""

from __future__ import annotations

import asyncio
import json
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

from constellation.base import rest
from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError, Unavailable
from constellation.base.rest import Denied, Throttled
from constellation.base.secret import Secret
from constellation.providers import answers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from constellation.base.rest import Answer
    from constellation.providers.answers import Fields

__all__ = ["MOST_LIFETIME_S", "Call", "Caller", "Signer", "Token", "next_page"]

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._()-]{0,127}")
_TIMEOUT_S, _PATIENCE_S = 20.0, 60.0
MOST_LIFETIME_S: Final = 24 * 3600
# a token is used while it has this long to live: no call takes longer
_MARGIN_S = 120
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an API: method, path with {parts}, the permission it needs, and why.

    `repeatable`: sending it twice does what sending it once does, so that it may be sent again
    after an answer was lost. `linked`: permissions on other resources that its body names.
    """

    method: str
    path: str
    permission: str
    why: str
    repeatable: bool
    linked: tuple[str, ...] = ()

    def url_path(self, **parts: str) -> str:
        """Fill in the parts, each a single path segment. Raises FormatError."""
        for name, part in parts.items():
            if not _PART.fullmatch(part):
                raise FormatError(f"{name}: {part[:60]!r} is no part of a path")
        return self.path.format(**parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """Name the parts of the path."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.path) if name)


class Signer(Protocol):
    """What makes a request the caller's own: a token in a header, or a signature over it."""

    async def headers(
        self, *, method: str, url: str, body: bytes, fresh: bool
    ) -> Mapping[str, str]:
        """Give headers; `fresh`: the service did not accept the last ones."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token and until when (seconds of `clock.monotonic_s`) it is worth using."""

    value: Secret
    until_s: float

    @classmethod
    def lasting(cls, text: str, *, lifetime_s: float) -> Token:
        """Make one of what a service said; lifetime in seconds from now. Raises FormatError."""
        if not text.isascii():
            raise FormatError("a token has other characters than ASCII")
        until_s = monotonic_s() + max(0.0, lifetime_s - _MARGIN_S)
        return cls(value=Secret(text.encode()), until_s=until_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Sends a service's calls; every limit that a call has is here.

    `expired_hint` says what a person does when even fresh credentials are not accepted.
    """

    service: str
    base_url: str
    signer: Signer
    expired_hint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    patience_s: float = _PATIENCE_S

    async def call(
        self,
        call: Call,
        *,
        parts: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Send one call until it is answered; give the successful answer.

        Raises:
            Denied: credentials that are not accepted, or do not allow it; the hint says more.
            Missing, Refused: see `rest.accept`.
            Unavailable: no answer within the patience, or a pause asked for that is longer.
        """
        path = call.url_path(**parts)
        suffix = "?" + urlencode(query, quote_via=quote) if query else ""
        return await self._send(call, self.base_url + path + suffix, body)

    async def page(self, call: Call, url: str) -> Answer:
        """Get the next page where the service says it is, on the service's own host."""
        return await self._send(call, next_page(url, base_url=self.base_url), None)

    async def fields(
        self,
        call: Call,
        *,
        parts: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Fields:
        """Send one call; give the JSON object that it is answered with. Raises as `call`."""
        answer = await self.call(call, parts=parts, query=query, body=body)
        return answers.parse(answer.body, what=f"{self.service}: {call.method} {call.path}")

    async def _send(self, call: Call, url: str, body: Any) -> Answer:
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        end, pause, fresh = monotonic_s() + self.patience_s, _FIRST_PAUSE_S, False
        while True:
            try:
                return await self._once(call, url, data, fresh=fresh)
            except Denied as error:
                if not error.expired or fresh:
                    raise Denied(
                        f"{error} (it needs {call.permission or 'no permission'}: {call.why})",
                        status=error.status,
                        hint=self.expired_hint if error.expired else _FORBIDDEN_HINT,
                    ) from None
                fresh = True
            except Throttled as error:
                pause = max(pause, error.retry_after_s or 0.0)
                await self._pause(pause, end, error)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            except Unavailable as error:
                if not call.repeatable:
                    raise
                await self._pause(pause, end, error)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _pause(self, pause_s: float, end: float, error: Unavailable) -> None:
        if monotonic_s() + pause_s > end:
            raise error
        await asyncio.sleep(pause_s)

    async def _once(self, call: Call, url: str, data: bytes, *, fresh: bool) -> Answer:
        what = f"{self.service}: {call.method} {urlsplit(url).path}"
        signed = await self.signer.headers(method=call.method, url=url, body=data, fresh=fresh)
        sent = {**self.headers, **signed}
        if data:
            sent["Content-Type"] = "application/json"
        answer = await rest.send(
            call.method,
            url,
            headers=sent,
            body=data or None,
            timeout_s=_TIMEOUT_S,
            max_bytes=answers.MAX_ANSWER_BYTES,
            tls=self.tls,
        )
        return rest.accept(answer, what=what)


_FORBIDDEN_HINT = "the identity lacks that permission: compare its role with infra/iam"


def next_page(url: str, *, base_url: str) -> str:
    """Give the address of a next page if it is the service's own. Raises FormatError.

    What comes back names where the next request, and with it a token, goes.
    """
    if not url.startswith(base_url.rstrip("/") + "/") or not url.isascii() or len(url) > _LONGEST:
        raise FormatError(f"next page: {url[:120]!r} is not below {base_url}")
    return url


_LONGEST = 8192
