from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from constellation.base import rest
from constellation.base.errors import Conflict, FormatError, Unavailable, UserError
from constellation.base.rest import Denied, Missing, Refused, Throttled
from constellation.providers.calls import next_page
from tests.fakes.rest_service import Request, RestService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service() -> AsyncIterator[RestService]:
    async with RestService().serving() as made:
        yield made


async def _get(url: str, *, max_bytes: int = 100, timeout_s: float = 5) -> rest.Answer:
    return await rest.send(
        "GET", url, headers={}, body=None, timeout_s=timeout_s, max_bytes=max_bytes
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://169.254.169.254.example.org/",
        "http://127.0.0.1@example.org/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://[half/",
    ],
)
async def test_only_https_leaves_the_machine(url: str) -> None:
    with pytest.raises(UserError, match=r"want https|no address"):
        await _get(url)


async def test_a_redirect_is_not_followed(service: RestService) -> None:
    def away(_request: Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{service.url}/there"})

    service.route("GET", "/here", away)
    service.route("GET", "/there", lambda _: {})
    with pytest.raises(Conflict, match="status 302"):
        rest.accept(await _get(f"{service.url}/here"), what="here")
    assert service.count("GET", "/there") == 0


async def test_an_answer_that_is_too_long_is_refused(service: RestService) -> None:
    service.route("GET", "/long", lambda _: web.Response(body=b"x" * 101))
    with pytest.raises(FormatError, match="more than 100 bytes"):
        await _get(f"{service.url}/long")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Denied), (403, Denied), (404, Missing), (410, Missing), (409, Refused),
        (412, Refused), (429, Throttled), (500, Unavailable), (503, Unavailable), (302, Refused),
    ],
)  # fmt: skip
def test_a_status_means_one_error(status: int, error: type[Exception]) -> None:
    answer = rest.Answer(status=status, headers={}, body=b"why")
    with pytest.raises(error, match=f"a call: status {status}: why"):
        rest.accept(answer, what="a call")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7.0), ("-1", None), ("99999999", 86400.0), ("9999999999", float("inf")), ("soon", None)],
)
def test_how_long_to_wait_is_read_strictly(said: str, seconds: float | None) -> None:
    answer = rest.Answer(status=429, headers={"retry-after": said}, body=b"")
    with pytest.raises(Throttled) as caught:
        rest.accept(answer, what="a call")
    assert caught.value.retry_after_s == seconds


def test_what_cannot_be_printed_is_not_shown() -> None:
    answer = rest.Answer(status=400, headers={}, body=b"\x1b[2Jgone")
    with pytest.raises(Conflict, match=r"^a call: status 400$"):
        rest.accept(answer, what="a call")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.org.evil.example/x",
        "https://api.example.org@evil.example/x",
        "http://api.example.org/x",
        "https://api.example.org",
        "https://api.example.org/" + "x" * 9000,
    ],
)
def test_a_next_page_elsewhere_gets_no_token(url: str) -> None:
    with pytest.raises(FormatError, match="next page"):
        next_page(url, base_url="https://api.example.org")


def test_a_next_page_of_the_service_is_followed() -> None:
    url = "https://api.example.org/x?page=2"
    assert next_page(url, base_url="https://api.example.org") == url


async def test_plain_http_goes_to_one_address_more_if_a_caller_names_it() -> None:
    # 127.0.0.2 stands for such an address: nobody listens there
    url = "http://127.0.0.2:9/"

    async def get(plain_too: str) -> None:
        await rest.send(
            "GET", url, headers={}, body=None, timeout_s=5, max_bytes=9, plain_too=plain_too
        )

    with pytest.raises(Unavailable, match="ConnectError"):
        await get("127.0.0.2")
    for other in ("", "127.0.0.3", "127.0.0.2:9"):
        with pytest.raises(UserError, match="want https"):
            await get(other)
