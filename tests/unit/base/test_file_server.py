"""Whatever a file server does, these bytes come or none, soon, and from nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from constellation.base.digest import WrongDigest
from constellation.base.file_server import Door, NotServed, Wanted, fetch_file
from constellation.trust.artifact_sources import NEVER_ASKED
from tests.fakes import file_servers
from tests.fakes.file_servers import BRISK, NAME, FileServer, door_to, file_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.errors import ConstellationError

DATA = bytes(range(256)) * 1024
FILE = file_servers.artifact_of(DATA)
SELF = Wanted(name="artifact kubelet", sha256=FILE.sha256, size_bytes=len(DATA))


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as made:
        made.add(DATA)
        yield made


async def fetch(server: FileServer, folder: Path, *, door: Door | None = None) -> Path:
    target = folder / FILE.sha256
    await fetch_file(
        f"{server.url}/sha256/{FILE.sha256}", target, wanted=SELF, door=door or door_to(),
        pace=BRISK,
    )  # fmt: skip
    return target


async def refused(
    server: FileServer, folder: Path, *, door: Door | None = None
) -> ConstellationError:
    """Give the refusal; nothing may be left of the file, and what was there before stays."""
    before = b"what was there before"
    (folder / FILE.sha256).write_bytes(before)
    with pytest.raises((NotServed, WrongDigest)) as caught:
        await fetch(server, folder, door=door)
    assert [p.name for p in folder.iterdir()] == [FILE.sha256]
    assert (folder / FILE.sha256).read_bytes() == before
    assert server.url in str(caught.value) or NAME in str(caught.value)
    return caught.value


async def test_the_bytes_come_whole_and_may_be_run(server: FileServer, tmp_path: Path) -> None:
    target = await fetch(server, tmp_path)
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o777 == 0o555
    assert [p.name for p in tmp_path.iterdir()] == [FILE.sha256]
    (headers,) = server.headers
    assert headers["host"] == f"{NAME}:{server.port}", "virtual hosts and buckets go by the name"
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("place", [0, len(DATA) // 2, len(DATA) - 1])
async def test_a_changed_bit_is_named_with_both_digests(
    server: FileServer, tmp_path: Path, place: int
) -> None:
    def change(data: bytes) -> bytes:
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    server.lie = file_servers.gives(change)
    error = await refused(server, tmp_path)
    assert isinstance(error, WrongDigest)
    assert f"artifact kubelet from {server.url}" in str(error)
    assert f"expected {FILE.sha256}, found {file_servers.artifact_of(change(DATA)).sha256}" in str(
        error
    )


@pytest.mark.parametrize("change", [lambda d: d + b"x", lambda d: d[:-1], lambda _: b""])
async def test_another_size_is_refused_before_a_byte_is_read(
    server: FileServer, tmp_path: Path, change: object
) -> None:
    server.lie = file_servers.gives(change)  # type: ignore[arg-type] # a lambda's
    error = await refused(server, tmp_path)
    assert f"expected {len(DATA)}" in str(error)
    assert isinstance(error, NotServed)
    assert not error.again


async def test_a_body_without_a_length_is_not_begun(server: FileServer, tmp_path: Path) -> None:
    server.lie = file_servers.in_chunks
    assert "does not say how long" in str(await refused(server, tmp_path))


async def test_a_body_that_ends_early_may_be_asked_for_again(
    server: FileServer, tmp_path: Path
) -> None:
    server.lie = file_servers.cut_short
    error = await refused(server, tmp_path)
    assert isinstance(error, NotServed)
    assert error.again


@pytest.mark.parametrize("lie", [file_servers.drips, file_servers.silent])
async def test_a_server_that_keeps_us_waiting_is_left(
    server: FileServer, tmp_path: Path, lie: file_servers.Liar
) -> None:
    server.lie = lie
    begun = time.monotonic()
    error = await refused(server, tmp_path)
    assert time.monotonic() - begun < 4 * BRISK.piece_s
    assert "slower than" in str(error)
    assert isinstance(error, NotServed)
    assert error.again


async def test_a_packed_body_is_not_unpacked(server: FileServer, tmp_path: Path) -> None:
    server.lie = file_servers.bomb
    assert "encoded ('gzip')" in str(await refused(server, tmp_path))


@pytest.mark.parametrize(
    "where", ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:{port}/there", "/there"]
)
async def test_no_redirect_is_followed_and_its_aim_is_named(
    server: FileServer, tmp_path: Path, where: str
) -> None:
    where = where.format(port=server.port)
    server.lie = file_servers.says(302, Location=where)
    error = await refused(server, tmp_path)
    assert where in str(error)
    assert len(server.asked) == 1
    assert isinstance(error, NotServed)
    assert not error.again


@pytest.mark.parametrize(
    ("status", "again"), [(404, False), (403, False), (206, False), (429, True), (503, True)]
)
async def test_another_status_gives_nothing(
    server: FileServer, tmp_path: Path, status: int, again: bool
) -> None:
    server.lie = file_servers.says(status, Retry_After="7")
    error = await refused(server, tmp_path)
    assert isinstance(error, NotServed)
    assert (f"status {status}" in str(error), error.again, error.pause_s) == (True, again, 7.0)


async def test_headers_without_end_are_not_kept(tmp_path: Path) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-Y: %s\r\n" % (b"y" * 4096) * 100)
        writer.close()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(NotServed, match="RemoteProtocolError"):
            await fetch_file(
                f"http://{NAME}:{port}/", tmp_path / "file", wanted=SELF, door=door_to(),
                pace=BRISK,
            )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "0.0.0.1", "127.255.255.254", "169.254.169.254", "168.63.129.16", "224.0.0.1"],
)
async def test_a_name_does_not_lead_to_this_machine_or_a_clouds_own_services(
    server: FileServer, tmp_path: Path, address: str
) -> None:
    async def ask(_host: str, _port: int) -> tuple[str, ...]:
        return (address,)

    error = await refused(server, tmp_path, door=Door(closed=NEVER_ASKED, ask=ask))
    assert f"{NAME} is {address}: no request goes there" in str(error)
    assert not server.asked


async def test_a_name_does_not_lead_into_the_clusters_networks(
    server: FileServer, tmp_path: Path
) -> None:
    door = door_to("10.244.3.7", closed=("10.244.0.0/16",))
    assert "10.244.3.7: no request goes there" in str(await refused(server, tmp_path, door=door))


async def test_of_a_names_addresses_only_open_ones_are_asked(
    server: FileServer, tmp_path: Path
) -> None:
    door = door_to("169.254.169.254", "127.0.0.1", closed=("127.0.0.2/32",))
    await fetch(server, tmp_path, door=door)
    assert len(server.asked) == 1


async def test_the_address_that_was_looked_at_is_the_one_that_is_asked(
    server: FileServer, tmp_path: Path
) -> None:
    answers = iter([("127.0.0.1",), ("169.254.169.254",)])

    async def rebinding(_host: str, _port: int) -> tuple[str, ...]:
        return next(answers)

    usual = door_to()
    await fetch(server, tmp_path, door=Door(closed=usual.closed, ask=rebinding))
    assert len(server.asked) == 1
    assert next(answers) == ("169.254.169.254",), "the name was asked once"


async def test_localhost_is_found_out_by_the_real_resolver(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.url.replace(NAME, "localhost")
    with pytest.raises(NotServed, match=r"localhost is 127\.0\.0\.1: no request goes there"):
        await fetch_file(
            f"{url}/x", tmp_path / "file", wanted=SELF, door=Door(closed=NEVER_ASKED), pace=BRISK
        )
    assert not server.asked


async def test_a_name_that_nobody_knows_may_be_asked_for_again(
    server: FileServer, tmp_path: Path
) -> None:
    async def unknown(_host: str, _port: int) -> tuple[str, ...]:
        raise OSError("Name or service not known")

    error = await refused(server, tmp_path, door=Door(closed=NEVER_ASKED, ask=unknown))
    assert isinstance(error, NotServed)
    assert error.again


async def test_an_address_that_does_not_answer_is_passed_over(
    server: FileServer, tmp_path: Path
) -> None:
    await fetch(server, tmp_path, door=door_to("127.0.0.77", "127.0.0.1"))


async def test_https_is_checked_against_the_name(tmp_path: Path) -> None:
    """A certificate for another name is no certificate, although the request goes to an address."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "files").mkdir()
    client, server_side = file_servers.tls_pair(NAME, tmp_path / "keys")

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side).start()
    port = runner.addresses[0][1]
    try:
        await fetch_file(
            f"https://{NAME}:{port}/x", tmp_path / "files" / "file", wanted=SELF, door=door_to(),
            pace=BRISK, tls=client,
        )  # fmt: skip
        with pytest.raises(NotServed, match="ConnectError"):
            await fetch_file(
                f"https://127.0.0.1:{port}/x", tmp_path / "files" / "other", wanted=SELF,
                door=door_to(), pace=BRISK, tls=client,
            )  # fmt: skip
    finally:
        await runner.cleanup()
    assert [p.name for p in (tmp_path / "files").iterdir()] == ["file"]


def test_the_closed_networks_are_what_they_are_meant_to_be() -> None:
    assert ipaddress.IPv4Network("10.0.0.0/8") not in NEVER_ASKED, "a private server is"
