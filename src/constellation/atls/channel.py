"""One attested connection on asyncio: TLS, then the handshake, and only then the application.

`Connection` is the protocol on the TCP socket. Until its `run` has returned there is no application
object and nothing of the peer reaches one. Afterwards it is the transport beneath the application's
protocol (grpclib's), and gives what was found out about the peer as extra info `EXTRA_INFO`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never, cast

from constellation.atls.binding import BINDING_EXPORTER_LABEL, channel_binding
from constellation.atls.handshake import (
    Action,
    Handshake,
    NeedEvidence,
    NeedJudgement,
    Open,
    Send,
)
from constellation.atls.tls import Closed, Tls
from constellation.attestation.model import AttestationResult, Binding, Evidence
from constellation.base import clock
from constellation.base.errors import ConstellationError, FormatError, Rejected, Unavailable

if TYPE_CHECKING:
    from OpenSSL import SSL

    from constellation.attestation.model import Variant

__all__ = ["EVIDENCE_S", "EXTRA_INFO", "Appraise", "ChannelAttester", "Connection", "Peer"]

EXTRA_INFO = "constellation.atls.peer"
EVIDENCE_S: Final = 60.0
"""Seconds for which accepted evidence is good for a ticket, certificates, a grant (ADR 112)."""
_LINGER_S = 1.0
_MAX_LINGER_BYTES = 1024 * 1024

Appraise = Callable[[Evidence, Binding], AttestationResult]
"""Verifies and appraises; raises FormatError, Untrusted or Rejected. Runs in a thread."""


class ChannelAttester(Protocol):
    """Makes evidence for channels: the node's agent, or a device."""

    @property
    def variant(self) -> Variant:
        """The variant of the evidence; bindings contain it."""
        ...

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        """Make evidence that commits to `atls.binding.channel_binding` of these parts.

        Raises:
            Unavailable: the device did not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What this side knows about the other: `result` is None only for a peer that need not attest.

    `remote_address` is the IP address that the connection came from or went to; `since_s` (seconds
    since boot, sleep included) is when its evidence was accepted.
    """

    result: AttestationResult | None
    purpose: str
    remote_address: str
    tls: Tls
    since_s: float

    def attested(self, *, purpose: str, within_s: float, now_s: float) -> AttestationResult:
        """Give what its evidence showed, if it is of this purpose and not older than `within_s`.

        Evidence speaks for the moment in which it was made. A channel can be held open for longer
        than its peer is what it was: given to a cluster, or of an image that is still accepted.

        Raises:
            Rejected: no evidence, or for another purpose.
            Unavailable: it is too old; a new channel brings new evidence.
        """
        if self.result is None or self.purpose != purpose:
            raise Rejected((f"channel's purpose: found {self.purpose!r}, expected {purpose!r}",))
        if now_s - self.since_s > within_s:
            raise Unavailable(
                f"evidence of {now_s - self.since_s:.0f} s ago, expected {within_s:.0f} s at most",
                hint="connect anew",
            )
        return self.result

    def exporter(self, label: str) -> bytes:
        """Give 32 bytes of this channel for a signature; each use has a label of its own.

        Raises:
            ValueError: the label is the one that bindings use.
        """
        if label == BINDING_EXPORTER_LABEL:
            raise ValueError("the binding's exporter label is not for signatures")
        return self.tls.exporter(label)


class Connection(asyncio.Protocol, asyncio.Transport):
    """See the module. `role` and `handshake` belong to this side."""

    def __init__(
        self,
        tls_context: SSL.Context,
        handshake: Handshake,
        *,
        server: bool,
        purpose: str,
        attester: ChannelAttester | None,
        appraisers: Mapping[str, Appraise],
    ) -> None:
        self._tls = Tls(tls_context, server=server)
        self._handshake = handshake
        self._purpose, self._attester, self._appraisers = purpose, attester, appraisers
        self._raw: asyncio.Transport | None = None
        self._app: asyncio.Protocol | None = None
        self._arrived = asyncio.Event()
        self._fresh = False
        self._secured = False
        self._lost = asyncio.Event()
        self._lingering = -1
        self._peer: Peer | None = None
        self._result: AttestationResult | None = None
        self._closing = False
        self._plain = bytearray()
        self._flush_is_planned = False

    # -- the socket's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the TCP transport; reading starts when `run` does."""
        self._raw = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Decrypt, and hand on: to the handshake, or to the application."""
        if self._lingering >= 0:
            self._lingering += len(data)
            if self._lingering > _MAX_LINGER_BYTES:
                self._transport.abort()
            return
        self._tls.feed(data)
        if self._app is None:
            # one read at a time until the peer is known: what it may make us keep is bounded
            self._transport.pause_reading()
            self._fresh = True
            self._arrived.set()
        else:
            self._deliver()

    def eof_received(self) -> bool:
        """Treat an end without close_notify as the end."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the handshake, or tell the application."""
        self._closing = True
        self._lost.set()
        self._arrived.set()
        if self._app is not None:
            app, self._app = self._app, None
            app.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand the socket's back-pressure on."""
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        """Hand the socket's back-pressure on."""
        if self._app is not None:
            self._app.resume_writing()

    # -- the handshake ----------------------------------------------------------------------

    async def run(self, application: Callable[[], asyncio.Protocol]) -> Peer:
        """Do TLS and attestation, then create the application; the caller sets the deadline.

        Raises:
            FormatError, Untrusted, Rejected: what either side found; the peer has been told.
            Unavailable: the connection ended, or a device did not answer.
        """
        try:
            while not self._tls.handshake():
                self._flush()
                await self._more()
            self._secured = True
            self._flush()
            rest = await self._attested()
        except ConstellationError as error:
            if self._secured:
                for action in self._handshake.refuse(error):
                    self._tls.write(action.data)
            self._flush()
            raise
        peer = Peer(
            result=self._result,
            purpose=self.claimed_purpose,
            remote_address=self.remote_address,
            tls=self._tls,
            since_s=clock.boot_s(),
        )
        self._peer = peer
        app = application()
        self._app = app
        app.connection_made(self)
        if rest:
            app.data_received(rest)
        self._deliver()
        self._transport.resume_reading()
        return peer

    async def linger(self) -> None:
        """End a refused connection so that the refusal arrives: a reset would overtake it."""
        if self._raw is None or self._raw.is_closing():
            return
        self._tls.shutdown()
        self._flush()
        if self._secured and not self._handshake.peer_refused:
            self._lingering = 0
            self._raw.resume_reading()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _LINGER_S)
        if self._secured:
            self.abort()
        else:
            self._raw.close()  # after the TLS alert

    async def _attested(self) -> bytes:
        pending: list[Action] = list(self._handshake.start())
        while True:
            while pending:
                match pending.pop(0):
                    case Send(data=data):
                        self._tls.write(data)
                        if not any(isinstance(action, Open) for action in pending):
                            self._flush()  # else it goes with the application's first bytes
                    case NeedEvidence(peer_nonce=nonce):
                        evidence = await self._attest(nonce)
                        pending += self._handshake.attested(evidence)
                    case NeedJudgement() as request:
                        self._result = await self._appraise(request)
                        pending += self._handshake.accepted()
                    case Open(rest=rest):
                        return rest
                    case other:
                        assert_never(other)
            if data := self._tls.read():
                pending += self._handshake.receive(data)
            else:
                await self._more()

    async def _attest(self, peer_nonce: bytes) -> Evidence:
        assert self._attester is not None  # noqa: S101 - the hello said that this side attests
        evidence = await self._attester.attest(
            purpose=self._purpose,
            exporter=self._tls.exporter(BINDING_EXPORTER_LABEL),
            spki_digest=self._tls.own_spki_digest,
            peer_nonce=peer_nonce,
        )
        if evidence.variant != self._attester.variant:
            raise FormatError(
                f"attester: evidence of {evidence.variant}, expected {self._attester.variant}"
            )
        return evidence

    async def _appraise(self, request: NeedJudgement) -> AttestationResult:
        binding = channel_binding(
            purpose=request.purpose,
            variant=request.evidence.variant,
            exporter=self._tls.exporter(BINDING_EXPORTER_LABEL),
            spki_digest=self._tls.peer_spki_digest,
            peer_nonce=request.nonce,
        )
        # chains and event logs take milliseconds: other connections go on meanwhile
        return await asyncio.to_thread(self._appraisers[request.purpose], request.evidence, binding)

    async def _more(self) -> None:
        if not self._lost.is_set():
            self._arrived.clear()
            self._transport.resume_reading()
            await self._arrived.wait()
        # what arrived before the end may be the reason of the end
        if not self._fresh:
            raise Closed("aTLS: the peer ended the connection")
        self._fresh = False

    # -- the application's side: asyncio.Transport ------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give the peer (`EXTRA_INFO`), else what the TCP transport knows."""
        return self._peer if name == EXTRA_INFO else self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send, together with what else is written before the loop goes on.

        An HTTP/2 message is several writes: so it is one record and one packet.
        """
        if not data or self._closing:
            return
        self._plain += data
        if not self._flush_is_planned:
            self._flush_is_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def can_write_eof(self) -> bool:
        """TLS has no half-closed state that we use."""
        return False

    def is_closing(self) -> bool:
        """Whether `close` was called or the connection ended."""
        return self._closing

    def close(self) -> None:
        """Send close_notify and what is buffered, then end."""
        if not self._closing:
            self._closing = True
            self._flush()
            self._tls.shutdown()
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    def pause_reading(self) -> None:
        """Stop delivering to the application."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver to the application again."""
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Give how many bytes the other end has not taken yet."""
        return len(self._plain) + self._transport.get_write_buffer_size()

    @property
    def attested(self) -> bool:
        """Whether the peer's evidence was accepted."""
        return self._result is not None

    @property
    def remote_address(self) -> str:
        """IP address of the other end."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    @property
    def claimed_purpose(self) -> str:
        """The purpose in the peer's hello, true or not; empty before it came."""
        return self._handshake.peer.purpose if self._handshake.peer else ""

    @property
    def _transport(self) -> asyncio.Transport:
        if self._raw is None:
            raise Unavailable("aTLS: there is no connection yet")
        return self._raw

    def _deliver(self) -> None:
        try:
            while self._app is not None and (data := self._tls.read()):
                self._app.data_received(data)
        except ConstellationError:
            self.close()
        self._flush()

    def _flush(self) -> None:
        self._flush_is_planned = False
        if self._plain:
            plain, self._plain = bytes(self._plain), bytearray()
            with contextlib.suppress(Closed):  # the application hears of it by connection_lost
                self._tls.write(plain)
        data = self._tls.outgoing()
        if data and self._raw is not None and not self._raw.is_closing():
            self._raw.write(data)
