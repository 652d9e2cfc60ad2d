"""A small HTTP API on 127.0.0.1 that answers as its cloud documents, and can be made to misbehave.

service.throttle = [1, 1]           # the next two requests are answered with 429 and Retry-After: 1
service.fail = [500]                # the next one with 500
service.requests                    # (method, path) of each request that was answered by a route
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = ["Refusal", "Request", "RestService"]


class Refusal(Exception):
    """A route's refusal: status and what the body says."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a route gets: the parts of its path, and the rest of the request."""

    parts: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        if self.headers.get("Content-Type") != "application/json":
            raise Refusal(415, "want application/json")
        found: dict[str, Any] = json.loads(self.body)
        return found


class RestService:
    """Routes are methods named in `routes`: (method, path with {parts}) -> handler."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.throttle: list[float] = []
        self.fail: list[int] = []
        self.twist: Callable[[str, Any], Any] = _as_it_is  # what a hostile service makes of it
        self.url = ""
        self._routes: list[tuple[str, re.Pattern[str], str, Callable[[Request], Any]]] = []

    def route(self, method: str, path: str, handler: Callable[[Request], Any]) -> None:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
        self._routes.append((method, re.compile(pattern), path, handler))

    def check(self, request: Request) -> None:
        """Refuse what the service does not accept for any route: tokens, versions."""

    def authorised(self, request: Request, method: str, path: str) -> None:
        """Refuse what the caller's rights do not cover."""

    def app(self) -> web.Application:
        """Give it for a server of one's own."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.answer)
        return app

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def answer(self, got: web.Request) -> web.Response:
        """Answer a request by its route."""
        if self.throttle:
            after = self.throttle.pop(0)
            return web.Response(status=429, headers={"Retry-After": f"{after:g}"}, text="slow down")
        if self.fail:
            return web.Response(status=self.fail.pop(0), text="broken")
        for method, pattern, path, handler in self._routes:
            match = pattern.fullmatch(got.path)
            if match is None or method != got.method:
                continue
            request = Request(
                parts=match.groupdict(),
                query=dict(got.query),
                headers=got.headers,
                body=await got.read(),
            )
            try:
                self.check(request)
                self.authorised(request, method, got.path)
                self.requests.append((method, path))
                answer = handler(request)
            except Refusal as refusal:
                return web.json_response({"error": str(refusal)}, status=refusal.status)
            if isinstance(answer, web.Response):
                return answer
            return web.json_response(self.twist(path, answer))
        return web.json_response({"error": f"no {got.method} {got.path}"}, status=404)

    def count(self, method: str, path: str) -> int:
        """How often a route was answered."""
        return self.requests.count((method, path))


def _as_it_is(_path: str, answer: Any) -> Any:
    return answer
