"""Bytes that no gRPC peer sends are the caller's error, and no bug of ours: nothing in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from constellation.atls.grpc_bounds import BoundedChannel, LocalServer
from constellation.rpc.stubs.kmsv2_grpc import KeyManagementServiceStub
from constellation.rpc.stubs.kmsv2_pb2 import EncryptRequest, StatusRequest
from constellation.services.keyservice.kms_plugin import KmsPlugin
from tests.fakes.cluster_machines import OURS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[BoundedChannel]:
    server = LocalServer([KmsPlugin(OURS.master)], max_message_bytes=1024)
    await server.start(path=str(tmp_path / "sock"))
    made = BoundedChannel(path=str(tmp_path / "sock"))
    yield made
    made.close()
    server.close()
    await server.wait_closed()


async def send(channel: BoundedChannel, data: bytes) -> None:
    """Call Encrypt with these bytes."""
    async with KeyManagementServiceStub(channel).Encrypt.open(timeout=5) as stream:
        await stream.send_request()
        await stream._stream.send_data(data, end_stream=True)
        stream._end_done = stream._send_message_done = True
        await stream.recv_message()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x01\x00\x00\x00\x01x", Status.INVALID_ARGUMENT),
        (b"\x00\x00", Status.INVALID_ARGUMENT),
        (b"\x00\x00\x00\x00\x09short", Status.INVALID_ARGUMENT),
        (b"\x00\x00\x00\x00\x03\x0a\xff\x01", Status.INVALID_ARGUMENT),
        (b"\x00\x00\x00\x10\x00" + bytes(4096), Status.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_caller_is_told_and_nobody_else(
    channel: BoundedChannel, data: bytes, status: Status, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(GRPCError) as caught:
        await send(channel, data)
    assert caught.value.status is status
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    # one message after the other: bodies of five bytes are no headers
    for text in (b"\x01abcd", b"", b"\x01abcd"):
        reply = await KeyManagementServiceStub(channel).Encrypt(EncryptRequest(plaintext=text))
        assert reply.ciphertext


async def test_metadata_that_would_have_to_be_decoded_ends_the_connection(
    channel: BoundedChannel, caplog: pytest.LogCaptureFixture
) -> None:
    stub = KeyManagementServiceStub(channel)
    with pytest.raises(StreamTerminatedError):
        await stub.Status(StatusRequest(), timeout=5, metadata={"x-bin": b"x"})
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert (await stub.Status(StatusRequest(), timeout=5)).healthz == "ok"
    protocol = await channel.__connect__()
    raw = protocol.processor.connection.create_stream()
    path = "/v2.KeyManagementService/Status"
    names = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    usual = {"te": "trailers", "content-type": "application/grpc"}
    trace = {"grpc-trace-bin": "not base64"}  # of gRPC itself, which nobody here reads
    await raw.send_request(list((names | usual | trace).items()), _processor=protocol.processor)
    await raw.send_data(bytes(5), end_stream=True)
    assert dict(await raw.recv_headers())[":status"] == "200"
    assert dict(await raw.recv_trailers())["grpc-status"] == "0"
