from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import Unavailable, UserError
from constellation.base.fetch import HttpStatus, TooLarge, download, get_bounded, partial_path
from tests.fakes.origin_server import OriginServer, origin_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BODY = bytes(range(256)) * 64
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
async def server() -> AsyncIterator[OriginServer]:
    async with origin_server() as running:
        running.files["/file"] = BODY
        yield running


async def _download(server: OriginServer, target: Path, **changes: object) -> int:
    wanted: dict[str, object] = {"sha256": SHA256, "max_bytes": 1 << 20, "timeout_s": 10.0}
    return await download(f"{server.url}/file", target, **(wanted | changes))  # type: ignore[arg-type] # keyword names vary by test


async def test_a_file_appears_only_when_it_is_whole(server: OriginServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "file"
    size = await _download(server, target, on_bytes=lambda done, total: seen.append((done, total)))
    assert (size, target.read_bytes()) == (len(BODY), BODY)
    assert seen[-1] == (len(BODY), len(BODY))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


async def test_other_bytes_are_refused_and_nothing_is_kept(
    server: OriginServer, tmp_path: Path
) -> None:
    with pytest.raises(WrongDigest, match=f"expected {'0' * 64}, found {SHA256}"):
        await _download(server, tmp_path / "file", sha256="0" * 64)
    assert not list(tmp_path.iterdir())


async def test_a_broken_download_goes_on_where_it_stopped(
    server: OriginServer, tmp_path: Path
) -> None:
    server.breaks["/file"] = 1000
    with pytest.raises(Unavailable):
        await _download(server, tmp_path / "file")
    assert partial_path(tmp_path / "file").stat().st_size == 1000
    await _download(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.requests[1][1]["range"] == "bytes=1000-"


async def test_a_server_without_ranges_sends_all_of_it_again(
    server: OriginServer, tmp_path: Path
) -> None:
    server.ignores_ranges = True
    partial_path(tmp_path / "file").write_bytes(b"x" * 1000)
    await _download(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(BODY), b"x" * (len(BODY) + 5)])
async def test_a_damaged_partial_file_is_made_anew(
    server: OriginServer, tmp_path: Path, left: bytes
) -> None:
    partial_path(tmp_path / "file").write_bytes(left)
    await _download(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.requests) == 2


async def test_a_partial_file_that_is_whole_is_taken(server: OriginServer, tmp_path: Path) -> None:
    partial_path(tmp_path / "file").write_bytes(BODY)
    await _download(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.requests) == 1


async def test_more_bytes_than_allowed_are_refused(server: OriginServer, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        await _download(server, tmp_path / "file", max_bytes=len(BODY) - 1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TooLarge):
        await get_bounded(f"{server.url}/file", max_bytes=10, timeout_s=5.0)


async def test_more_bytes_than_allowed_are_refused_where_nobody_said_how_many_come(
    server: OriginServer, tmp_path: Path
) -> None:
    server.chunked.add("/file")
    assert await _download(server, tmp_path / "file") == len(BODY)
    with pytest.raises(TooLarge):
        await _download(server, tmp_path / "other", max_bytes=len(BODY) - 1)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


async def test_redirects_are_followed_with_the_range_and_without_the_token(
    server: OriginServer, tmp_path: Path
) -> None:
    async with origin_server() as other:
        other.redirects["/file"] = f"{server.url}/file"
        partial_path(tmp_path / "file").write_bytes(BODY[:7])
        await download(
            f"{other.url}/file", tmp_path / "file", sha256=SHA256, max_bytes=1 << 20,
            timeout_s=10.0, headers={"Authorization": "Bearer secret"},
        )  # fmt: skip
        assert other.requests[0][1]["authorization"] == "Bearer secret"
    assert "authorization" not in server.requests[0][1]
    assert server.requests[0][1]["range"] == "bytes=7-"


async def test_redirects_end(server: OriginServer) -> None:
    server.redirects["/loop"] = "/loop"
    with pytest.raises(Unavailable, match="more than 5 redirects"):
        await get_bounded(f"{server.url}/loop", max_bytes=10, timeout_s=5.0)


@pytest.mark.parametrize("location", ["https://127.0.0.1:1/x", "ftp://127.0.0.1/x", "file:///x"])
async def test_a_redirect_to_another_scheme_is_refused(server: OriginServer, location: str) -> None:
    server.redirects["/away"] = location
    with pytest.raises(UserError, match="redirects to"):
        await get_bounded(f"{server.url}/away", max_bytes=10, timeout_s=5.0)


async def test_a_redirect_to_plain_http_elsewhere_is_refused(server: OriginServer) -> None:
    server.redirects["/away"] = "http://example.invalid/x"
    with pytest.raises(UserError, match="want https"):
        await get_bounded(f"{server.url}/away", max_bytes=10, timeout_s=5.0)


@pytest.mark.parametrize("url", ["http://example.invalid/", "ftp://example.invalid/", "nothing"])
async def test_plain_http_is_for_loopback_only(url: str) -> None:
    with pytest.raises(UserError, match="want https"):
        await get_bounded(url, max_bytes=10, timeout_s=5.0)


async def test_a_refusal_names_its_status(server: OriginServer) -> None:
    server.statuses["/gone"] = 410
    with pytest.raises(HttpStatus, match="status 410") as caught:
        await get_bounded(f"{server.url}/gone", max_bytes=10, timeout_s=5.0)
    assert caught.value.status == 410


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await get_bounded("http://127.0.0.1:1/", max_bytes=10, timeout_s=5.0)
