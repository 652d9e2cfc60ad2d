"""How a call of AWS' API is sent: signed, bounded, patient; what its refusals mean.

The Query protocol (XML, read by `elements`), and JSON for services that have nothing else. A
service that asks for a pause gets it, within a deadline; credentials that ran out are fetched once
more.
Sources: AWS, "Query requests"; each service's "Common errors"; "Retry behavior"; Smithy, "AWS JSON
1.1 protocol"; EC2, "Common query parameters" (DryRun).
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode

from constellation.base import clock, rest
from constellation.base.errors import Conflict, ConstellationError, FormatError, Unavailable
from constellation.base.rest import Denied, Missing, Throttled
from constellation.providers import answers
from constellation.providers.aws.signature import signed_headers
from constellation.providers.elements import Xml, parse_xml
from constellation.providers.listing import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from constellation.base.rest import Answer
    from constellation.providers.answers import Fields
    from constellation.providers.aws.calls import QueryCall
    from constellation.providers.aws.signature import Credentials

__all__ = ["MOST_PAGES", "CredentialSource", "QueryClient", "WouldWork", "failure"]

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MOST_PAGES: Final = 50
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


class WouldWork(Conflict):
    """A dry run was allowed: nothing was done."""


_PLAIN: Final = {"DryRunOperation": WouldWork} | dict.fromkeys(_MISSING, Missing)


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
        form = {"Action": call.action, "Version": call.service.version, **parameters}
        answer = await self._send(call, urlencode(form).encode(), _FORM)
        return parse_xml(answer.body, what=f"{call.service.name} {call.action}")

    async def fields(self, call: QueryCall, body: Mapping[str, str]) -> Fields:
        """Send one call to a service that speaks JSON; raises as `call`."""
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"{call.service.target}.{call.action}",
        }
        answer = await self._send(call, json.dumps(body).encode(), headers)
        return answers.parse(answer.body, what=f"{call.service.name} {call.action}")

    async def try_(self, call: QueryCall, parameters: Mapping[str, str]) -> None:
        """Send a call of EC2's as a dry run.

        Raises:
            Denied: it is not allowed. Conflict: nothing is known, AWS did not come that far.
            FormatError: it was carried out: this is not what AWS does.
        """
        try:
            await self.call(call, {**parameters, "DryRun": "true"})
        except WouldWork:
            return
        raise FormatError(f"{call.action}: the service carried out a dry run")

    async def _send(self, call: QueryCall, body: bytes, headers: Mapping[str, str]) -> Answer:
        end, pause, fresh = clock.monotonic_s() + self.patience_s, _FIRST_PAUSE_S, False
        while True:
            try:
                return await self._once(call, body, headers, fresh=fresh)
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
        following, listing = "", Listing(call.permission, most_pages=MOST_PAGES)
        while True:
            page = await self.call(
                call, {**parameters, **({token: following} if following else {})}
            )
            listing.page(0)  # entries are counted by who reads them
            yield page
            following = page.text(next_token, default="")
            if not following:
                return
            if following in seen:
                raise FormatError(f"{page.where}: the same page again")
            seen.add(following)

    async def _once(
        self, call: QueryCall, body: bytes, headers: Mapping[str, str], *, fresh: bool
    ) -> Answer:
        service = call.service
        url = self.endpoint or f"https://{service.name}.{self.region}.amazonaws.com/"
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
        if answer.status not in range(200, 300):
            what = f"{service.name} {call.action}"
            raise failure(answer, what=what, call=call, hint=self.expired_hint)
        return answer


_FORM: Final = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


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
    if (kind := _PLAIN.get(code)) is not None:
        return kind(message)
    if code in _LATER or answer.status >= 500:  # noqa: PLR2004 - the server's errors
        return Unavailable(message)
    return Conflict(message)


def _code(body: bytes) -> tuple[str, str]:
    """Read code and message of an error: <Error><Code> at two places by service, or JSON."""
    try:
        if body.lstrip().startswith(b"{"):
            said = answers.parse(body, what="error")
            kind = said.text_or("__type", "").rpartition("#")[2]
            return kind, said.text_or("message", said.text_or("Message", ""))[:400]
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
