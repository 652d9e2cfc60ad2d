"""How a call of AWS' Query protocol is sent: signed, bounded, patient, and its XML read strictly.

A service that asks for a pause gets it, within a deadline; credentials that ran out are fetched
once more. Sources: AWS, "Query requests"; each service's "Common errors"; "Retry behavior".
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from constellation.base import clock, rest
from constellation.base.errors import Conflict, ConstellationError, FormatError, Unavailable
from constellation.base.rest import Denied, Missing, Throttled
from constellation.providers.aws.signature import signed_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from constellation.base.rest import Answer
    from constellation.providers.aws.calls import QueryCall
    from constellation.providers.aws.signature import Credentials

__all__ = ["MOST_PAGES", "CredentialSource", "QueryClient", "Xml", "failure", "parse_xml"]

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MOST_PAGES: Final = 50
_MAX_TEXT = 4096
_MAX_ITEMS = 2000
_TIMEOUT_S, _PATIENCE_S = 20.0, 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0

# AWS says most refusals with status 400 and a code
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException",
     "RequestThrottled", "SlowDown", "EC2ThrottledException"}
)  # fmt: skip
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId",
     "AuthFailure", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidAccessKeyId"}
)  # fmt: skip
_FORBIDDEN = frozenset({"AccessDenied", "UnauthorizedOperation", "AccessDeniedException"})
_MISSING = frozenset(
    {"InvalidInstanceID.NotFound", "TargetGroupNotFound", "InvalidTarget", "LoadBalancerNotFound"}
)
_LATER = frozenset({"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable",
                    "ScalingActivityInProgress", "ResourceContention"})  # fmt: skip


class CredentialSource(Protocol):
    """Where credentials come from; `fresh`: the last ones were not accepted."""

    async def credentials(self, *, fresh: bool) -> Credentials:
        """Give them. Raises Unavailable, FormatError."""
        ...


class Xml:
    """One element of an answer and where it stands; namespaces are left out of names."""

    def __init__(self, element: ET.Element, where: str) -> None:
        self.element, self.where = element, where

    def find(self, path: str) -> Xml | None:
        """Give the element below, by names with / between; None where it is missing."""
        found: ET.Element | None = self.element
        for name in path.split("/"):
            found = (
                next((e for e in found if _name(e) == name), None) if found is not None else None
            )
        return Xml(found, f"{self.where}/{path}") if found is not None else None

    def items(self, path: str, *, most: int = _MAX_ITEMS) -> tuple[Xml, ...]:
        """Give the `item` or `member` elements of a list; none where it is missing.

        Raises:
            FormatError: more than `most`.
        """
        parent = self.find(path)
        if parent is None:
            return ()
        found = [e for e in parent.element if _name(e) in ("item", "member")]
        if len(found) > most:
            raise FormatError(f"{parent.where}: {len(found)} items, want {most} at most")
        return tuple(Xml(e, f"{parent.where}[{i}]") for i, e in enumerate(found))

    def text(self, path: str = "", *, default: str | None = None) -> str:
        """Give the text of an element, 4096 characters at most.

        Raises:
            FormatError: it is missing and has no default, is longer, or cannot be shown.
        """
        found = self.find(path) if path else self
        if found is None:
            if default is None:
                raise FormatError(f"{self.where}/{path}: missing")
            return default
        text = (found.element.text or "").strip()
        if len(text) > _MAX_TEXT or not (text.isprintable() or not text):
            raise FormatError(f"{found.where}: {text[:40]!r} is no text that we take")
        return text


def parse_xml(data: bytes, *, what: str) -> Xml:
    """Read an answer.

    Raises:
        FormatError: not well-formed XML, or with a document type (entities are never expanded).
    """
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise FormatError(f"{what}: XML with a document type")
    try:
        return Xml(ET.fromstring(data), what)  # noqa: S314 - no document type, bounded size
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise FormatError(f"{what}: not XML: {str(error)[:100]}") from None


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryClient:
    """Sends the calls of `calls.ALL`.

    `endpoint` "" is each service's own in the region; a test names its server. `expired_hint` says
    what a person does about credentials that are not accepted.
    """

    region: str
    source: CredentialSource
    endpoint: str = ""
    expired_hint: str = ""
    patience_s: float = _PATIENCE_S

    async def call(self, call: QueryCall, parameters: Mapping[str, str]) -> Xml:
        """Send one call until it is answered; give the answer's root element.

        Raises:
            Denied: credentials that are not accepted, or do not allow it.
            Missing: what it names is not there. Conflict: refused for another reason.
            Unavailable: no answer within the patience. FormatError: not what AWS answers.
        """
        end, pause, fresh = clock.monotonic_s() + self.patience_s, _FIRST_PAUSE_S, False
        while True:
            try:
                return await self._once(call, parameters, fresh=fresh)
            except Denied as error:
                if fresh or not error.expired:
                    raise
                fresh = True
            except Throttled as error:
                await _pause(max(pause, error.retry_after_s or 0.0), end, error)
            except Unavailable as error:
                if not call.repeatable:
                    raise
                await _pause(pause, end, error)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def pages(
        self, call: QueryCall, parameters: Mapping[str, str], *, token: str, next_token: str
    ) -> AsyncIterator[Xml]:
        """Send a call for page after page.

        `token` is the parameter's name, `next_token` the path of its value in an answer.

        Raises:
            FormatError: more than 50 pages, or the same token again.
        """
        seen: set[str] = set()
        following = ""
        while len(seen) < MOST_PAGES:
            page = await self.call(
                call, {**parameters, **({token: following} if following else {})}
            )
            yield page
            following = page.text(next_token, default="")
            if not following:
                return
            if following in seen:
                raise FormatError(f"{page.where}: the same page again")
            seen.add(following)
        raise FormatError(f"{call.permission}: more than {MOST_PAGES} pages")

    async def _once(self, call: QueryCall, parameters: Mapping[str, str], *, fresh: bool) -> Xml:
        service = call.service
        url = self.endpoint or f"https://{service.name}.{self.region}.amazonaws.com/"
        body = urlencode({"Action": call.action, "Version": service.version, **parameters}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        signed = signed_headers(
            "POST",
            url,
            headers=headers,
            body=body,
            credentials=await self.source.credentials(fresh=fresh),
            region=self.region,
            service=service.name,
            now=clock.now(),
        )
        answer = await rest.send(
            "POST",
            url,
            headers=signed,
            body=body,
            timeout_s=_TIMEOUT_S,
            max_bytes=MAX_ANSWER_BYTES,
        )
        what = f"{service.name} {call.action}"
        if answer.status not in range(200, 300):
            raise failure(answer, what=what, call=call, hint=self.expired_hint)
        return parse_xml(answer.body, what=what)


def failure(answer: Answer, *, what: str, call: QueryCall, hint: str) -> ConstellationError:
    """Say which of our errors a refusal is: AWS' code decides, then the status."""
    code, said = _code(answer.body)
    message = f"{what}: status {answer.status}" + (f": {code}: {said}" if code else "")
    if code in _THROTTLED or answer.status == 429:  # noqa: PLR2004 - RFC 6585, section 4
        after = answer.headers.get("retry-after", "")
        pause = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None  # noqa: PLR2004
        return Throttled(message, retry_after_s=pause)
    if code in _EXPIRED or answer.status == 401:  # noqa: PLR2004 - RFC 9110, section 15.5.2
        return Denied(message, status=401, hint=hint)
    if code in _FORBIDDEN or answer.status == 403:  # noqa: PLR2004 - RFC 9110, section 15.5.4
        needs = f"it needs {call.permission}: {call.why}"
        return Denied(message, status=403, hint=f"compare the role with infra/iam/aws: {needs}")
    if code in _MISSING:
        return Missing(message)
    if code in _LATER or answer.status >= 500:  # noqa: PLR2004 - the server's errors
        return Unavailable(message)
    return Conflict(message)


def _code(body: bytes) -> tuple[str, str]:
    """Read code and message of an error: <Error><Code>, at two places by service."""
    try:
        root = parse_xml(body, what="error")
        for path in ("Error", "Errors/Error"):
            if (found := root.find(path)) is not None:
                return found.text("Code", default=""), found.text("Message", default="")[:400]
    except FormatError:
        pass
    return "", ""


async def _pause(pause_s: float, end: float, error: Unavailable) -> None:
    # jitter keeps nodes apart that were all asked to wait
    pause_s *= random.uniform(1.0, 1.25)  # noqa: S311 - no secret
    if clock.monotonic_s() + pause_s > end:
        raise error
    await asyncio.sleep(pause_s)
