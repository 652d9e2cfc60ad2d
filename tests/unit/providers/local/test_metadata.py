from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Unavailable
from constellation.providers.local.daemon import metadata_server
from constellation.providers.local.daemon.records import CloudRecord, with_node
from constellation.providers.local.metadata import LocalMetadata, _body
from constellation.providers.protocols import Group, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def _cloud(address: str = "127.0.0.1", artifacts: str = "") -> CloudRecord:
    cloud = CloudRecord(
        id="mini", address="127.0.0.1", node_document=b'{"a":1}', artifacts_path=artifacts
    )
    cloud, node = with_node(cloud, Group(name="workers", role=Role.WORKER, size=1))
    return cloud.put(replace(node, address=address))


@asynccontextmanager
async def _served(cloud: CloudRecord) -> AsyncIterator[int]:
    runner = web.AppRunner(metadata_server.application(lambda: cloud, lambda _: "running"))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _raw(answer: bytes) -> AsyncIterator[LocalMetadata]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield LocalMetadata(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


async def test_a_node_learns_who_it_is_by_its_address() -> None:
    async with _served(_cloud()) as port:
        me = await LocalMetadata(host="127.0.0.1", port=port).self_()
    assert (me.instance_id, me.role, me.state) == ("mini-workers-0", Role.WORKER, "running")


async def test_a_node_sees_its_peers_and_its_document() -> None:
    async with _served(_cloud()) as port:
        metadata = LocalMetadata(host="127.0.0.1", port=port)
        assert [p.instance_id for p in await metadata.peers()] == ["mini-workers-0"]
        assert await metadata.user_data() == b'{"a":1}'


async def test_a_stranger_learns_nothing() -> None:
    async with _served(_cloud(address="10.42.2.10")) as port:
        metadata = LocalMetadata(host="127.0.0.1", port=port)
        for question in (metadata.self_, metadata.peers, metadata.user_data):
            with pytest.raises(Unavailable, match="403"):
                await question()


async def test_artifacts_are_served_by_digest_and_nothing_else_is(tmp_path: Path) -> None:
    digest = "ab" * 32
    (tmp_path / "sha256").mkdir()
    (tmp_path / "sha256" / digest).write_bytes(b"artifact")
    (tmp_path / "sha256" / "other").write_bytes(b"secret")
    async with _served(_cloud(artifacts=str(tmp_path))) as port:
        metadata = LocalMetadata(host="127.0.0.1", port=port)
        assert await metadata._get(f"/v1/artifacts/sha256/{digest}") == b"artifact"
        for path in ("other", "%2e%2e%2fother", "..%2fsha256%2fother"):
            with pytest.raises(Unavailable, match="404"):
                await metadata._get(f"/v1/artifacts/sha256/{path}")


async def test_no_answer_is_unavailable() -> None:
    async with _raw(b"") as metadata:
        with pytest.raises(FormatError, match="not an HTTP answer"):
            await metadata.self_()
    with pytest.raises(Unavailable):
        await metadata.self_()


async def test_a_cut_answer_is_not_taken_for_a_whole_one() -> None:
    async with _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") as metadata:
        with pytest.raises(Unavailable, match="announced"):
            await metadata.user_data()


async def test_an_endless_answer_is_refused() -> None:
    async with _raw(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(200_000)) as metadata:
        with pytest.raises(FormatError, match="more than"):
            await metadata.user_data()


@given(st.binary(max_size=300))
def test_junk_is_a_format_error_or_unavailable(data: bytes) -> None:
    with suppress(FormatError, Unavailable):
        _body(data, "here")
