from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.providers.local.daemon import dns
from constellation.providers.local.daemon.dns_message import Code, parse_query
from constellation.providers.local.daemon.records import CloudRecord, with_node
from constellation.providers.protocols import Group, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NODE = Group(name="workers", role=Role.WORKER, size=1)
CLOUD, _ = with_node(CloudRecord(id="mini", address="127.0.0.1"), NODE)
SERVED = dns.names(CLOUD)
OPT = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
A, AAAA, AXFR = 1, 28, 252


def _query(
    name: str, kind: int = A, *, flags: int = 0x0100, class_: int = 1, extra: bytes = b""
) -> bytes:
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split(".") if x)
    header = struct.pack(">HHHHHH", 0x1234, flags, 1, 0, 0, int(bool(extra)))
    return header + labels + b"\0" + struct.pack(">HH", kind, class_) + extra


def _reply(data: bytes) -> tuple[int, int, int]:
    """Give response code, count of answers, count of authorities."""
    number, flags, _, answers, authorities, _ = struct.unpack_from(">HHHHHH", data)
    assert number == 0x1234
    assert flags & 0x8000
    return flags & 0xF, answers, authorities


def _ask(name: str, kind: int = A, **how: int) -> tuple[int, int, int]:
    return _reply(dns.answer(_query(name, kind, **how), SERVED))


def test_the_api_is_the_load_balancer() -> None:
    query = _query("api.constellation.internal")
    # the whole message as RFC 1035 draws it: authoritative, one A record of 5 s
    assert dns.answer(query, SERVED) == (
        struct.pack(">HHHHHH", 0x1234, 0x8500, 1, 1, 0, 0)
        + query[12:]
        + bytes.fromhex("c00c00010001000000050004")
        + IPv4Address("10.42.0.1").packed
    )


@pytest.mark.parametrize("name", ["mini-workers-0", "MINI-Workers-0.Constellation.Internal"])
def test_an_instance_has_its_name_with_and_without_the_zone_in_any_case(name: str) -> None:
    said = dns.answer(_query(name), SERVED)
    assert _reply(said) == (Code.NO_ERROR, 1, 0)
    assert said.endswith(IPv4Address("10.42.2.10").packed)


@pytest.mark.parametrize(
    ("name", "kind", "how", "expected"),
    [
        ("nobody.constellation.internal", A, {}, (Code.NO_NAME, 0, 1)),
        ("constellation.internal", A, {}, (Code.NO_ERROR, 0, 1)),
        ("api.constellation.internal", AAAA, {}, (Code.NO_ERROR, 0, 1)),
        ("example.org", A, {}, (Code.REFUSED, 0, 0)),
        ("notconstellation.internal", A, {}, (Code.REFUSED, 0, 0)),
        ("", A, {}, (Code.REFUSED, 0, 0)),
        ("constellation.internal", AXFR, {}, (Code.REFUSED, 0, 0)),
        ("api.constellation.internal", A, {"class_": 3}, (Code.REFUSED, 0, 0)),
        ("api.constellation.internal", A, {"flags": 0x2800}, (Code.NOT_IMPLEMENTED, 0, 0)),
    ],
)
def test_what_is_not_served_is_said_as_the_specification_wants(
    name: str, kind: int, how: dict[str, int], expected: tuple[int, int, int]
) -> None:
    assert _ask(name, kind, **how) == expected


def test_a_dot_inside_a_label_does_not_make_another_name() -> None:
    query = struct.pack(">HHHHHH", 0x1234, 0, 1, 0, 0, 0) + b"\x1aapi.constellation.internal\0"
    assert _reply(dns.answer(query + struct.pack(">HH", 1, 1), SERVED))[0] == Code.REFUSED


def test_edns_is_answered_with_edns_and_its_version_is_checked() -> None:
    assert dns.answer(_query("mini-workers-0", extra=OPT), SERVED).endswith(OPT)
    newer = b"\0" + struct.pack(">HHIH", 41, 1232, 1 << 16, 0)
    said = dns.answer(_query("mini-workers-0", extra=newer), SERVED)
    assert struct.unpack_from(">I", said, len(said) - 6)[0] >> 24 == Code.BAD_VERSION >> 4


@pytest.mark.parametrize(
    "data",
    [
        _query("a.b", flags=0x8100),  # an answer
        _query("a.b") + b"x",
        _query("a.b")[:-1],
        _query("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 63),
        _query("a.b", extra=OPT + b"x"),
        _query("a.b", extra=OPT.replace(b"\0\x29", b"\0\x01")),
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",  # a pointer to itself
        struct.pack(">HHHHHH", 1, 0, 2, 0, 0, 0) + _query("a.b")[12:],
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        b"x" * 513,
    ],
)
def test_what_is_no_query_is_refused_by_the_parser(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_query(data)


def test_an_answer_is_never_answered() -> None:
    assert dns.answer(_query("mini-workers-0", flags=0x8000), SERVED) == b""
    assert dns.answer(b"short", SERVED) == b""


@given(st.binary(max_size=600))
def test_junk_gets_a_short_answer_or_none(data: bytes) -> None:
    assert len(dns.answer(data, SERVED)) <= len(data) + 100


@given(st.binary(max_size=80), st.booleans())
def test_junk_after_a_good_header_never_breaks_the_resolver(tail: bytes, edns: bool) -> None:
    header = struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, int(edns))
    assert len(dns.answer(header + tail, SERVED)) >= 12


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, int]]:
    stream = socket.create_server(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(stream.getsockname())
    for each in (stream, datagrams):
        each.setblocking(False)
    resolver = await dns.serve_on(stream, datagrams, lambda data: dns.answer(data, SERVED))
    yield stream.getsockname()
    await resolver.close()


async def test_udp_and_tcp_give_the_same_answer(served: tuple[str, int]) -> None:
    query = _query("api.constellation.internal")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, served)
        await loop.sock_sendall(client, b"junk")
        await loop.sock_sendall(client, query)
        async with asyncio.timeout(5):
            said = await loop.sock_recv(client, 4096)
    reader, writer = await asyncio.open_connection(*served)
    for _ in range(2):
        writer.write(len(query).to_bytes(2) + query)
        size = int.from_bytes(await reader.readexactly(2))
        assert await reader.readexactly(size) == said
    writer.write((60000).to_bytes(2))
    assert await reader.read() == b""
    writer.close()
