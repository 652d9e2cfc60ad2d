"""The VerificationService as HTTP: port 30080 of every node, one JSON answer a connection.

For whoever has no gRPC at hand. Nothing is kept open: a connection is one request of at most 4 KiB
within 10 s, and one answer. Who may connect is bounded as on the gRPC port (`answers.CONNECTIONS`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from constellation.atls.limits import Gate
from constellation.base import clock
from constellation.base.errors import ConstellationError, Unavailable
from constellation.services.verificationservice.answers import CONNECTIONS
from constellation.services.verificationservice.http_request import (
    MAX_HEAD_BYTES,
    HttpRefusal,
    parse_request,
)

if TYPE_CHECKING:
    from constellation.services.verificationservice.answers import Answer, Answers

__all__ = ["HTTP_PORT", "HttpVerification", "answer_document"]

HTTP_PORT = 30080
_HEAD_WITHIN_S = 10.0
_ANSWER_WITHIN_S = 20.0
_SENT_WITHIN_S = 10.0
_log = logging.getLogger(__name__)


def answer_document(answer: Answer) -> dict[str, Any]:
    """Give an answer as JSON has it: evidence in base64, digests in hexadecimal."""
    place = answer.place
    return {
        "variant": str(answer.evidence.variant),
        "evidence": base64.b64encode(answer.evidence.data).decode(),
        "cluster_ca_certificate": answer.cluster_ca.decode(),
        "node_name": answer.node_name,
        "batch": {
            "index": place.index,
            "size": place.size,
            "path": [digest.hex() for digest in place.path],
        },
    }


class HttpVerification:
    """One listening port; `start` it, then `wait_closed`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._gate = Gate(CONNECTIONS)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.WriteTransport] = set()

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        assert self._server is not None  # noqa: S101 - `start` made it
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Begin to listen.

        Raises:
            Unavailable: the address is taken or not this machine's.
        """
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=MAX_HEAD_BYTES
            )
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error

    def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for transport in self._open:
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until `close` has taken effect."""
        if self._server is not None:
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peername")
        address = str(name[0]) if isinstance(name, tuple) else ""
        transport = writer.transport
        place = self._gate.enter(address, now_s=clock.monotonic_s(), give_up=transport.abort)
        if place is None:
            transport.abort()
            return
        self._open.add(transport)
        try:
            status, document = await self._answered(reader, address)
            async with asyncio.timeout(_SENT_WITHIN_S):
                writer.write(_message(status, document))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            transport.abort()  # it left, or takes too long to send or to read
        except Exception:  # noqa: BLE001 - a task's top
            _log.exception("an HTTP request failed by a bug", extra={"address": address})
            transport.abort()
        finally:
            self._open.discard(transport)
            self._gate.left(place)

    async def _answered(
        self, reader: asyncio.StreamReader, address: str
    ) -> tuple[HTTPStatus, dict[str, Any]]:
        try:
            async with asyncio.timeout(_HEAD_WITHIN_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return too_large, {"error": f"request: more than {MAX_HEAD_BYTES} bytes"}
        try:
            nonce = parse_request(head)
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                answer = await self._answers.answer(nonce, address=address)
        except HttpRefusal as error:
            return HTTPStatus(error.status), {"error": str(error)}
        except (ConstellationError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": reason}
        return HTTPStatus.OK, answer_document(answer)


def _message(status: HTTPStatus, document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode() + b"\n"
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        fields["Allow"] = "GET"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        fields["Retry-After"] = "60"
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + body
