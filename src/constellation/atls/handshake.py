"""Who shows evidence to whom, and when a channel is open: bytes in, bytes and requests out.

    connecting side (client)                    serving side (server)
    hello: purpose, nonce, attests       ⇄      hello: purpose, nonce, attests
    evidence over the server's nonce     →      appraises it            (if the client attests)
    appraises it                         ←      evidence over the client's nonce
    accepted                             →
    ============ first byte of the application protocol, in either direction ============

The server makes evidence only after it has accepted the client's. Any side may send a refusal
instead of its next message. Source: design, section 8. `Handshake` has no clock, socket or key: it
asks its caller for evidence (`NeedEvidence`) and a judgement (`NeedJudgement`), then says `Open`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, assert_never

from constellation.atls.frames import (
    FrameBuffer,
    FrameType,
    Hello,
    Refusal,
    pack_accepted,
    pack_evidence,
    pack_hello,
    pack_refusal,
    parse_accepted,
    parse_evidence,
    parse_hello,
    parse_refusal,
)
from constellation.base.errors import ConstellationError, FormatError, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.attestation.model import Evidence

__all__ = ["Action", "Expected", "Handshake", "NeedEvidence", "NeedJudgement", "Open", "Send"]

Role = Literal["client", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """These bytes go to the peer."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedEvidence:
    """Make evidence over the peer's nonce, then call `attested`."""

    peer_nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedJudgement:
    """Judge the peer's evidence, made for `purpose` over our nonce, then call `accepted`."""

    evidence: Evidence
    purpose: str
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The channel is open; `rest` are the first bytes of the application protocol."""

    rest: bytes


Action = Send | NeedEvidence | NeedJudgement | Open


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Whom this side talks to: attesting peers of these purposes; others only if it says so."""

    purposes: frozenset[str]
    unattested: bool


class _State(Enum):
    HELLO = auto()
    EVIDENCE = auto()
    ACCEPTED = auto()
    ATTESTING = auto()  # the caller works; the peer has nothing to say
    APPRAISING = auto()
    OPEN = auto()
    ENDED = auto()


class Handshake:
    """One side of one handshake; see the module's figure.

    Each method gives what is to be done next. After any exception the handshake has ended; `refuse`
    then tells the peer why, unless it was the peer that refused.
    """

    def __init__(self, role: Role, *, hello: Hello, expected: Expected) -> None:
        self._role: Role = role
        self._hello = hello
        self._expected = expected
        self._frames = FrameBuffer()
        self._state = _State.HELLO
        self._told = False
        self.peer_refused = False
        self.peer: Hello | None = None

    @property
    def waits_for_caller(self) -> bool:
        """Whether the next move is the caller's: then nothing need be read from the peer."""
        return self._state in (_State.ATTESTING, _State.APPRAISING)

    def start(self) -> tuple[Action, ...]:
        """Begin; call once, when TLS is up."""
        return (Send(data=pack_hello(self._hello)),)

    def receive(self, data: bytes) -> tuple[Action, ...]:
        """Take bytes from the peer.

        Raises:
            FormatError: they are not the next message of this protocol.
            Rejected: the peer is none of those expected.
            ConstellationError: the peer refused; its kind of error.
        """
        self._frames.feed(data)
        return self._continue()

    def attested(self, evidence: Evidence) -> tuple[Action, ...]:
        """Hand over the evidence that `NeedEvidence` asked for."""
        assert self._state is _State.ATTESTING  # noqa: S101 - a caller's bug
        with self._ending():
            send = Send(data=pack_evidence(evidence))
        self._state = _State.EVIDENCE if self._role == "client" else _State.ACCEPTED
        return send, *self._continue()

    def accepted(self) -> tuple[Action, ...]:
        """Say that the evidence in `NeedJudgement` was authentic and acceptable."""
        assert self._state is _State.APPRAISING  # noqa: S101 - a caller's bug
        if self._role == "server":
            return (self._attest(),)
        with self._ending():
            if self._frames.rest():
                raise FormatError("aTLS: the server sent more before it was accepted")
        self._state = _State.OPEN
        return Send(data=pack_accepted()), Open(rest=b"")

    def refuse(self, error: ConstellationError) -> tuple[Send, ...]:
        """End the handshake because of `error`; tells the peer unless the peer ended it."""
        self._state = _State.ENDED
        if self._told or self.peer_refused:
            return ()
        self._told = True
        return (Send(data=pack_refusal(Refusal.of(error))),)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except ConstellationError:
            self._state = _State.ENDED
            raise

    def _continue(self) -> tuple[Action, ...]:
        with self._ending():
            return tuple(self._read())

    def _read(self) -> Iterator[Action]:
        while self._state in (_State.HELLO, _State.EVIDENCE, _State.ACCEPTED):
            frame = self._frames.next()
            if frame is None:
                return
            yield from self._take(*frame)
        if self._state is _State.ENDED:
            raise FormatError("aTLS: the handshake has ended already")

    def _take(self, kind: FrameType, body: bytes) -> Iterator[Action]:
        if kind is FrameType.REFUSAL:
            refusal = parse_refusal(body)
            self.peer_refused = True
            raise refusal.error("the server" if self._role == "client" else "the client")
        if kind is not _WANTED[self._state]:
            raise FormatError(
                f"aTLS: {kind.name.lower()} arrived, expected {_WANTED[self._state].name.lower()}"
            )
        match kind:
            case FrameType.HELLO:
                yield from self._greet(parse_hello(body))
            case FrameType.EVIDENCE:
                assert self.peer is not None  # noqa: S101 - the state says so
                self._state = _State.APPRAISING
                yield NeedJudgement(
                    evidence=parse_evidence(body),
                    purpose=self.peer.purpose,
                    nonce=self._hello.nonce,
                )
            case FrameType.ACCEPTED:
                parse_accepted(body)
                self._state = _State.OPEN
                yield Open(rest=self._frames.rest())
            case _:
                assert_never(kind)

    def _greet(self, peer: Hello) -> Iterator[Action]:
        self.peer = peer
        wanted = self._expected
        if peer.attests and peer.purpose not in wanted.purposes:
            names = ", ".join(sorted(wanted.purposes)) or "a peer without evidence"
            raise Rejected((f"purpose: found {peer.purpose}, expected {names}",))
        if not peer.attests and not wanted.unattested:
            raise Rejected((f"evidence: none, expected some for {_names(wanted)}",))
        if self._role == "client" and self._hello.attests:
            yield self._attest()
        elif peer.attests:
            self._state = _State.EVIDENCE
        else:
            yield self._attest()

    def _attest(self) -> NeedEvidence:
        assert self.peer is not None  # noqa: S101 - hellos come first
        self._state = _State.ATTESTING
        return NeedEvidence(peer_nonce=self.peer.nonce)


_WANTED = {
    _State.HELLO: FrameType.HELLO,
    _State.EVIDENCE: FrameType.EVIDENCE,
    _State.ACCEPTED: FrameType.ACCEPTED,
}


def _names(expected: Expected) -> str:
    return ", ".join(sorted(expected.purposes))
