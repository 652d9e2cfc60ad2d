"""Targets: protocols that a server speaks with anybody, above the transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection

from constellation.atls.grpc_bounds import OpenServer
from constellation.atls.limits import USUAL
from constellation.rpc.stubs.verify_grpc import VerificationServiceBase
from constellation.rpc.stubs.verify_pb2 import GetEvidenceReply, GetEvidenceRequest
from constellation.services.verificationservice.http_request import parse_request
from tests.fuzz.target import Target, repeated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpclib.server import Stream

__all__ = ["TARGETS"]


class _Verification(VerificationServiceBase):
    async def GetEvidence(  # noqa: N802 - the name in verify.proto
        self, stream: Stream[GetEvidenceRequest, GetEvidenceReply]
    ) -> None:
        request = await stream.recv_message()
        if request is not None:
            await stream.send_message(GetEvidenceReply(evidence=request.nonce))


class _Wire(asyncio.Transport):
    """Keeps how much was written; ends when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.ended = 0, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("10.42.2.10", 40000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return self.written

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    abort = close


class _Loop:
    """One event loop for all inputs, made at the first."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, data: bytes) -> object:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(_serve(data))


async def _serve(data: bytes) -> int:
    """Feed what follows the preface, in pieces; the first byte says how long they are."""
    server = OpenServer(
        [_Verification()], limits=USUAL, life_s=1, max_message_bytes=1024, max_unread_bytes=65536
    )
    wire, protocol = _Wire(), server._protocol_factory()
    protocol.connection_made(wire)
    protocol.data_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
    step = 1 + (data[0] if data else 0)
    for start in range(1, len(data), step):
        protocol.data_received(data[start : start + step])
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    return wire.written


def _dialogs() -> Iterable[bytes]:
    peer = H2Connection(H2Configuration(validate_outbound_headers=False))
    peer.initiate_connection()
    peer.data_to_send()
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/constellation.verify.v1.VerificationService/GetEvidence",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc+proto",
    }
    peer.send_headers(1, list(names.items()))
    peer.send_data(1, b"\0\0\0\0\x04\x0a\x02ab", end_stream=True)
    peer.ping(b"12345678")
    peer.reset_stream(1)
    peer.increment_flow_control_window(1000)
    yield b"\xff" + peer.data_to_send()


def _requests() -> Iterable[bytes]:
    line = b"GET /v1/evidence?nonce=" + b"0f" * 32 + b" HTTP/1.1\r\n"
    yield line + b"Host: node:30080\r\nAccept: */*\r\n\r\n"
    yield line + b"Host: node\r\nContent-Length: 0\r\n\r\n"


TARGETS = (
    Target(name="grpc-server", run=_Loop().run, seeds=_dialogs, max_bytes=4096),
    Target(
        name="verify-http",
        run=parse_request,
        seeds=_requests,
        long=repeated(b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"\r\n"),
        max_bytes=4096,
    ),
)
