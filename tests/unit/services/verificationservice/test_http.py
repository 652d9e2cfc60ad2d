"""Tests of the VerificationService's HTTP side: one form of request, one JSON answer."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.atls.binding import verify_binding
from constellation.atls.nonce_batch import Place, root_of
from constellation.attestation.model import Evidence, Variant
from constellation.attestation.policy import Exactly
from constellation.base import clock
from constellation.crypto.x509 import CertificateAuthority, certificate_digest
from constellation.services.verificationservice.answers import CALLS, Answers
from constellation.services.verificationservice.http import HttpVerification
from constellation.services.verificationservice.http_request import HttpRefusal, parse_request
from tests.fakes.machines import Maker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.machines import Machine

PCR4, NONCE = bytes([1]) * 32, bytes(range(32))
CA = CertificateAuthority.create("kubernetes", now=clock.now(), lifetime=timedelta(days=1))
MAKER = Maker()
TARGET = f"/v1/evidence?nonce={NONCE.hex()}"
HEAD = f"GET {TARGET} HTTP/1.1\r\nHost: node:30080\r\nAccept: */*\r\n\r\n".encode()


@dataclass(kw_only=True)
class Node:
    port: int
    machine: Machine
    ca: Path

    async def send(self, data: bytes) -> tuple[int, dict[str, str], Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        named = dict(f.split(": ", 1) for f in fields)
        assert int(named["Content-Length"]) == len(body)
        return int(line.split()[1]), named, json.loads(body)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    machine, ca = MAKER.machine(pcr4=PCR4), tmp_path / "ca.crt"
    ca.write_bytes(CA.certificate_pem)
    server = HttpVerification(Answers(machine, cluster_ca=ca, node_name="w-0", limits=CALLS))
    await server.start("127.0.0.1", 0)
    yield Node(port=server.port, machine=machine, ca=ca)
    server.close()
    await server.wait_closed()


async def test_anybody_gets_evidence_for_a_nonce_as_json(node: Node) -> None:
    status, fields, document = await node.send(HEAD)
    assert status == 200
    assert (fields["Content-Type"], fields["Cache-Control"]) == ("application/json", "no-store")
    assert document["node_name"] == "w-0"
    batch = document["batch"]
    path = tuple(bytes.fromhex(p) for p in batch["path"])
    root = root_of(NONCE, Place(index=batch["index"], size=batch["size"], path=path))
    digest = certificate_digest(document["cluster_ca_certificate"].encode())
    evidence = Evidence(
        variant=Variant(document["variant"]), data=base64.b64decode(document["evidence"])
    )
    binding = verify_binding(nonces_root=root, cluster_ca_digest=digest)
    assert MAKER.appraiser({"pcr4": Exactly(PCR4)})(evidence, binding).claims["pcr4"] == PCR4


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (HEAD.replace(b"GET", b"POST"), 405, "method"),
        (HEAD.replace(b"GET", b"HEAD"), 405, "method"),
        (HEAD.replace(b"/v1/evidence", b"/v1/secrets"), 404, "path"),
        (HEAD.replace(b"/v1/evidence", b"/v1/../v1/evidence"), 404, "path"),
        (HEAD.replace(b"?nonce=", b"?Nonce="), 400, "nonce"),
        (HEAD.replace(NONCE.hex().encode(), NONCE.hex().encode()[:-2]), 400, "nonce"),
        (HEAD.replace(NONCE.hex().encode(), NONCE.hex().encode() + b"00"), 400, "nonce"),
        (HEAD.replace(NONCE.hex().encode(), b"g" * 64), 400, "nonce"),
        (HEAD.replace(b" HTTP/1.1", b"&nonce=00 HTTP/1.1"), 400, "nonce"),
        (HEAD.replace(b"HTTP/1.1", b"HTTP/2.0"), 400, "request line"),
        (HEAD.replace(b"GET ", b"GET  "), 400, "request line"),
        (HEAD.replace(b"Host: node:30080\r\n", b""), 400, "0 host fields"),
        (HEAD.replace(b"Accept", b"Host"), 400, "2 host fields"),
        (HEAD.replace(b"Accept:", b"Accept :"), 400, "field"),
        (HEAD.replace(b"Accept: */*", b" folded"), 400, "field"),
        (HEAD.replace(b"Accept: */*", b"Content-Length: 4"), 400, "no body"),
        (HEAD.replace(b"Accept: */*", b"Transfer-Encoding: chunked"), 400, "no body"),
        (HEAD.replace(b"*/*", b"x" * 5000), 431, "more than 4096"),
    ],
)
async def test_any_other_request_is_refused_and_nothing_is_quoted(
    node: Node, request_: bytes, status: int, words: str
) -> None:
    found, _, document = await node.send(request_)
    assert found == status
    assert words in document["error"]
    assert set(document) == {"error"}
    assert node.machine.asked == []
    assert (await node.send(HEAD))[0] == 200


async def test_a_request_without_end_is_refused_before_it_ends(node: Node) -> None:
    status, _, document = await node.send(b"GET /" + b"a" * 5000)
    assert (status, document) == (431, {"error": "request: more than 4096 bytes"})
    with pytest.raises(HttpRefusal, match="more than 4096"):
        parse_request(HEAD.replace(b"*/*", b"x" * 5000))


async def test_the_oldest_form_needs_no_host_and_a_body_of_nothing_is_none(node: Node) -> None:
    assert (await node.send(f"GET {TARGET} HTTP/1.0\r\n\r\n".encode()))[0] == 200
    assert (await node.send(HEAD.replace(b"Accept: */*", b"Content-Length: 0")))[0] == 200


async def test_a_node_that_cannot_answer_says_when_to_come_again(node: Node) -> None:
    node.ca.unlink()
    status, fields, document = await node.send(HEAD)
    assert (status, fields["Retry-After"]) == (503, "60")
    assert "no cluster CA yet" in document["error"]


async def test_one_connection_is_one_answer(node: Node) -> None:
    status, fields, _ = await node.send(HEAD + HEAD)
    assert (status, fields["Connection"]) == (200, "close")
    assert len(node.machine.asked) == 1


async def test_connections_that_say_nothing_are_few_and_others_get_in(node: Node) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(40)]
    await asyncio.sleep(0.1)
    ended = sum(reader.at_eof() or reader.exception() is not None for reader, _ in silent)
    assert ended == 8, "32 of one address wait"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", node.port, local_addr=("127.0.0.2", 0)
    )
    writer.write(HEAD)
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
    for _, open_ in (*silent, (reader, writer)):
        open_.close()


@given(st.binary(max_size=300))
def test_junk_is_refused_with_a_status(junk: bytes) -> None:
    for data in (junk, junk + b"\r\n\r\n", HEAD[:40] + junk + b"\r\n\r\n"):
        assert _status(data) in (200, 400, 404, 405, 431)


def _status(data: bytes) -> int:
    try:
        return 200 if len(parse_request(data)) == 32 else 0
    except HttpRefusal as refusal:
        return refusal.status
