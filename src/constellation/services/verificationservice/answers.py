"""Fresh evidence for anybody's nonce, whichever port it came by: bounded, and many with one quote.

Evidence carries its own proof: it covers the caller's nonce (`atls.nonce_batch`) and the digest of
the cluster CA's certificate, and it is public. What is guarded is the TPM's time: while one quote
is made the nonces that come wait, and all of them are answered by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.atls.binding import NONCE_BYTES
from constellation.atls.limits import Gate, Limits
from constellation.atls.nonce_batch import MAX_NONCES, gather
from constellation.base import clock
from constellation.base.errors import FormatError, Unavailable
from constellation.crypto.x509 import certificate_digest

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.atls.nonce_batch import Place
    from constellation.attestation.model import Evidence

__all__ = ["CALLS", "CONNECTIONS", "Answer", "Answers", "VerifyAttester"]

CALLS = Limits(
    handshake_s=20.0,
    handshakes=MAX_NONCES,
    handshakes_per_address=64,
    connections=MAX_NONCES,
    per_minute=240,
)
"""Calls at the same time, per address, and per minute and address, on both ports together."""
CONNECTIONS = Limits(
    handshake_s=60.0, handshakes=128, handshakes_per_address=32, connections=128, per_minute=240
)
"""Connections of one port; the longest life of one is `handshake_s`."""
_log = logging.getLogger(__name__)


class VerifyAttester(Protocol):
    """Makes evidence for `verify` calls: the node's agent."""

    async def attest_verify(self, *, nonces_root: bytes, cluster_ca_digest: bytes) -> Evidence:
        """Make evidence that commits to `atls.binding.verify_binding` of these parts.

        Raises:
            Unavailable: the device did not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one caller gets; `cluster_ca` is PEM, `place` where its nonce is in the batch."""

    evidence: Evidence
    cluster_ca: bytes
    node_name: str
    place: Place


class Answers:
    """The evidence of one node; reads the CA for each quote, so it may appear late."""

    def __init__(
        self, attester: VerifyAttester, *, cluster_ca: Path, node_name: str, limits: Limits
    ) -> None:
        self._attester, self._cluster_ca, self._node_name = attester, cluster_ca, node_name
        self._gate = Gate(limits)
        self._waiting: list[tuple[bytes, asyncio.Future[Answer]]] = []
        self._quoting: asyncio.Task[None] | None = None

    async def answer(self, nonce: bytes, *, address: str) -> Answer:
        """Give evidence over the caller's nonce (32 bytes).

        Raises:
            FormatError: the nonce has another size.
            Unavailable: too many calls, the agent does not answer, or there is no CA yet.
        """
        if len(nonce) != NONCE_BYTES:
            raise FormatError(f"nonce: {len(nonce)} bytes, want {NONCE_BYTES}")
        place = self._gate.enter(address, now_s=clock.monotonic_s())
        if place is None:
            raise Unavailable("too many verify calls", hint="try again in a minute")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((nonce, answered))
        if self._quoting is None:
            self._quoting = asyncio.create_task(self._quote_all())
        try:
            return await answered
        finally:
            self._gate.left(place)

    async def _quote_all(self) -> None:
        """Quote for everybody who waits, until nobody does."""
        while self._waiting:
            taken, self._waiting = self._waiting[:MAX_NONCES], self._waiting[MAX_NONCES:]
            try:
                answers = await self._quote(tuple(nonce for nonce, _ in taken))
            except Exception as error:  # noqa: BLE001 - each caller gets it
                for _, answered in taken:
                    if not answered.done():
                        answered.set_exception(error)
            else:
                for (_, answered), answer in zip(taken, answers, strict=True):
                    if not answered.done():  # its caller has left
                        answered.set_result(answer)
        self._quoting = None

    async def _quote(self, nonces: tuple[bytes, ...]) -> tuple[Answer, ...]:
        try:
            pem = self._cluster_ca.read_bytes()
        except OSError as error:
            raise Unavailable(f"this node has no cluster CA yet: {error.strerror}") from error
        batch = gather(nonces)
        evidence = await self._attester.attest_verify(
            nonces_root=batch.root, cluster_ca_digest=certificate_digest(pem)
        )
        _log.info("evidence was given", extra={"nonces": len(nonces)})
        return tuple(
            Answer(evidence=evidence, cluster_ca=pem, node_name=self._node_name, place=place)
            for place in batch.places
        )
