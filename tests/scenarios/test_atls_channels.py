"""Scenarios of attested channels: who gets in, who does not, over real sockets on loopback.

Every attack stands beside its control case: the same steps by an honest peer are accepted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from constellation.atls import client, server
from constellation.atls.binding import BINDING_EXPORTER_LABEL
from constellation.atls.frames import (
    Hello,
    pack_evidence,
    pack_hello,
    parse_evidence,
    parse_hello,
    parse_refusal,
)
from constellation.atls.limits import USUAL, Limits
from constellation.atls.tls import ALPN, context
from constellation.attestation.model import Evidence
from constellation.attestation.policy import Exactly
from constellation.base import clock
from constellation.base.errors import (
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)
from constellation.crypto.signing import spki
from constellation.rpc.stubs.key_grpc import KeyServiceBase, KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyReply, GetDataKeyRequest
from tests.fakes.machines import VARIANT, Machine, Maker
from tests.fakes.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from grpclib.server import Stream

    from constellation.atls.server import AtlsServer, Refused, ServerPeer
    from constellation.attestation.model import AttestationResult, Binding

GOOD, BAD = bytes([1]) * 32, bytes([2]) * 32
POLICY = {"pcr4": Exactly(GOOD)}


class Application(KeyServiceBase):
    """Answers with the caller's PCR 4; remembers who called."""

    def __init__(self) -> None:
        self.peers: list[ServerPeer] = []

    async def GetDataKey(  # noqa: N802 - the name in key.proto
        self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
    ) -> None:
        await stream.recv_message()
        peer = server.peer_of(stream)
        self.peers.append(peer)
        claims = peer.result.claims if peer.result else {}
        found = claims.get("pcr4", b"nobody")
        assert isinstance(found, bytes)
        await stream.send_message(GetDataKeyReply(key=found))


class World:
    """One maker, a JoinService-like server on a genuine machine, and everybody it refused."""

    def __init__(self) -> None:
        self.maker = Maker()
        self.node, self.other = self.maker.machine(pcr4=GOOD), self.maker.machine(pcr4=GOOD)
        self.appraise = self.maker.appraiser(POLICY)
        self.application = Application()
        self.refused: list[Refused] = []
        self.server: AtlsServer

    async def serve(
        self,
        *,
        limits: Limits = USUAL,
        attester: server.ChannelAttester | None = None,
        **changes: object,
    ) -> AtlsServer:
        appraisers = {"join-client": self.appraise, "renew-client": self.appraise}
        return await server.serve(
            [self.application],
            host="127.0.0.1",
            port=0,
            purpose="join-server",
            attester=attester or self.node,
            appraisers=changes.get("appraisers", appraisers),  # type: ignore[arg-type]
            limits=limits,
            on_refused=self.refused.append,
        )

    async def connect(
        self,
        attester: client.ChannelAttester | None,
        *,
        port: int = 0,
        purpose: str = "join-client",
        server_purpose: str = "join-server",
        deadline_s: float = 5.0,
    ) -> client.AtlsChannel:
        return await client.connect(
            "127.0.0.1",
            port or self.server.port,
            purpose=purpose,
            server_purpose=server_purpose,
            attester=attester,
            appraise=self.appraise,
            deadline_s=deadline_s,
        )


async def call(channel: client.AtlsChannel) -> bytes:
    reply = await KeyServiceStub(channel.grpc).GetDataKey(GetDataKeyRequest(id="x"), timeout=5)
    return reply.key


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another task does, two seconds at most."""
    async with asyncio.timeout(2):
        while not holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.server = await world.serve()
    yield world
    world.server.close()
    await world.server.wait_closed()


async def test_two_genuine_machines_talk_and_know_each_other(world: World) -> None:
    async with await world.connect(world.other) as channel:
        assert await call(channel) == GOOD
        peer = world.application.peers[0]
        assert channel.peer.attester_id != peer.result.attester_id  # type: ignore[union-attr]
        assert peer.purpose == "join-client"
        assert peer.remote_address == "127.0.0.1"
        assert channel.exporter("a-label") == peer.exporter("a-label")
        assert channel.exporter("a-label") != channel.exporter("another-label")
    assert (world.node.asked, world.other.asked) == (["join-server"], ["join-client"])


async def test_the_binding_s_exporter_is_not_given_away(world: World) -> None:
    async with await world.connect(world.other) as channel:
        with pytest.raises(ValueError, match="not for signatures"):
            channel.exporter("EXPORTER-Constellation-aTLS-Binding")


async def test_a_peer_need_not_attest_where_the_server_says_so(world: World) -> None:
    open_server = await world.serve(appraisers={"": world.appraise})
    async with await world.connect(None, port=open_server.port, purpose="init-client") as channel:
        assert await call(channel) == b"nobody"
    open_server.close()
    await open_server.wait_closed()


async def test_a_peer_without_evidence_is_refused_and_no_quote_is_made_for_it(world: World) -> None:
    with pytest.raises(Rejected, match="the server refused this side: evidence: none"):
        await world.connect(None)
    assert world.application.peers == []
    assert world.node.asked == []


async def test_a_tampered_machine_is_refused_with_every_finding_on_both_ends(world: World) -> None:
    tampered = world.maker.machine(pcr4=BAD)
    with pytest.raises(Rejected, match=f"pcr4: found {BAD.hex()}, expected {GOOD.hex()}"):
        await world.connect(tampered)
    (refused,) = world.refused
    assert isinstance(refused.error, Rejected)
    assert (refused.purpose, refused.remote_address) == ("join-client", "127.0.0.1")
    assert world.node.asked == []
    assert world.application.peers == []


async def test_a_machine_of_another_maker_is_untrusted(world: World) -> None:
    with pytest.raises(Untrusted, match="the server refused this side"):
        await world.connect(Maker().machine(pcr4=GOOD))
    assert world.application.peers == []


async def test_a_tampered_server_gets_no_call(world: World) -> None:
    tampered = await world.serve(attester=world.maker.machine(pcr4=BAD))
    with pytest.raises(Rejected, match="pcr4: found"):
        await world.connect(world.other, port=tampered.port)
    await until(lambda: bool(world.refused))
    assert isinstance(world.refused[0].error, Rejected)
    assert world.application.peers == []
    tampered.close()
    await tampered.wait_closed()


class Thief:
    """Shows evidence that another machine made, with parts of that channel replaced."""

    def __init__(self, machine: Machine, **changes: object) -> None:
        self.variant = machine.variant
        self._machine, self._changes = machine, changes
        self.kept: Evidence | None = None

    async def attest(self, **parts: object) -> Evidence:
        if self.kept is None or self._changes.get("fresh", True):
            parts |= {k: v for k, v in self._changes.items() if k != "fresh"}
            self.kept = await self._machine.attest(**parts)  # type: ignore[arg-type]
        return self.kept


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "rejoin-client"},
        {"purpose": "join-server"},
        {"exporter": bytes(32)},
        {"spki_digest": bytes(32)},
        {"peer_nonce": bytes(32)},
    ],
)
async def test_genuine_evidence_for_anything_else_is_untrusted(
    world: World, changes: dict[str, object]
) -> None:
    with pytest.raises(Untrusted, match="another channel or purpose"):
        await world.connect(Thief(world.other, **changes))
    assert world.application.peers == []
    async with await world.connect(Thief(world.other)) as channel:  # control: nothing replaced
        assert await call(channel) == GOOD


async def test_evidence_for_one_purpose_does_not_serve_another(world: World) -> None:
    with pytest.raises(Untrusted, match="another channel or purpose"):
        await world.connect(Thief(world.other, purpose="join-client"), purpose="renew-client")
    async with await world.connect(world.other, purpose="renew-client") as channel:
        assert await call(channel) == GOOD


async def test_replayed_evidence_is_untrusted(world: World) -> None:
    thief = Thief(world.other, fresh=False)
    async with await world.connect(thief) as channel:  # control: its own channel
        assert await call(channel) == GOOD
    with pytest.raises(Untrusted, match="another channel"):
        await world.connect(thief)


async def test_a_server_that_replays_evidence_is_untrusted(world: World) -> None:
    replaying = await world.serve(attester=Thief(world.node, fresh=False))
    (await world.connect(world.other, port=replaying.port)).close()
    with pytest.raises(Untrusted, match="another channel"):
        await world.connect(world.other, port=replaying.port)
    replaying.close()
    await replaying.wait_closed()


class Relay:
    """An attacker in the middle: ends TLS on both sides and relays genuine evidence."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.variant = world.other.variant

    async def attest(self, *, peer_nonce: bytes, **_: object) -> Evidence:
        """Ask the genuine server for evidence over the nonce of the victim."""
        wire = await Wire.open(self._world.server.port)
        wire.send(pack_hello(Hello(purpose="join-client", nonce=peer_nonce, attests=True)))
        hello = parse_hello(await wire.frame())
        evidence = await self._world.other.attest(
            purpose="join-client",
            exporter=wire.tls.exporter(BINDING_EXPORTER_LABEL),
            spki_digest=wire.tls.own_spki_digest,
            peer_nonce=hello.nonce,
        )
        wire.send(pack_evidence(evidence))
        stolen = parse_evidence(await wire.frame())
        wire.close()
        return stolen


async def test_a_relay_that_shows_a_genuine_server_s_evidence_gets_nothing(world: World) -> None:
    relay = await world.serve(attester=Relay(world))
    with pytest.raises(Untrusted, match="another channel"):
        await world.connect(world.maker.machine(pcr4=GOOD), port=relay.port)
    # the attacker really had fresh, genuine evidence over the victim's nonce
    assert world.node.asked == ["join-server"]
    assert world.application.peers == []
    relay.close()
    await relay.wait_closed()
    async with await world.connect(world.other) as channel:  # control: without the relay
        assert await call(channel) == GOOD


async def test_oversized_frames_end_the_handshake_before_they_are_read(world: World) -> None:
    for kind, size in ((1, 513), (2, 512 * 1024 + 1), (4, 2**32 - 1)):
        wire = await Wire.open(world.server.port)
        wire.send(bytes([kind]) + size.to_bytes(4, "big"))
        await wire.frame()  # the server's hello
        refusal = parse_refusal(await wire.frame())
        assert f"of {size} bytes" in refusal.message
        assert await wire.ended()
    assert all(isinstance(r.error, FormatError) for r in world.refused)
    assert world.node.asked == []


async def test_a_slow_peer_is_cut_off_at_the_deadline_and_others_go_on(world: World) -> None:
    hasty = await world.serve(limits=dataclasses.replace(USUAL, handshake_s=0.4))
    silent = await asyncio.open_connection("127.0.0.1", hasty.port)
    wire = await Wire.open(hasty.port)
    hello = pack_hello(Hello(purpose="join-client", nonce=bytes(32), attests=True))
    started = clock.monotonic_s()
    wire.send(hello[:1])
    async with await world.connect(world.other, port=hasty.port) as channel:  # control
        assert await call(channel) == GOOD
    for byte in hello[1:]:
        if await wire.ended(within_s=0.05):
            break
        wire.send(bytes([byte]))
    assert await silent[0].read() == b""
    assert clock.monotonic_s() - started < 2
    assert [str(r.error)[:13] for r in world.refused] == ["the handshake"] * 2
    silent[1].close()
    hasty.close()
    await hasty.wait_closed()


async def test_a_server_that_never_answers_is_given_up_at_the_deadline(world: World) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        await world.connect(world.other, port=port, deadline_s=0.2)
    await gone.wait()
    listener.close()
    await listener.wait_closed()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await world.connect(world.other, port=port)


@pytest.mark.parametrize("secured", [False, True])
async def test_junk_is_refused_with_a_typed_error_and_makes_no_application(
    world: World, *, secured: bool
) -> None:
    made: list[object] = []
    world.server._application = lambda: made.append(1)  # type: ignore[assignment,method-assign,return-value,func-returns-value]

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(junk=st.binary(min_size=60, max_size=400))
    def shower(junk: bytes) -> None:
        todo.append(junk)

    todo: list[bytes] = []
    shower()
    for number, junk in enumerate(todo, 1):
        if secured:
            wire = await Wire.open(world.server.port)
            wire.send(junk)
            wire.close()
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
            writer.write(junk)
            writer.close()
        await until(lambda: len(world.refused) == number)  # noqa: B023 - awaited here
    assert all(isinstance(r.error, FormatError | Rejected | Unavailable) for r in world.refused)
    assert made == []
    assert world.node.asked == []


async def test_older_tls_and_other_protocols_are_refused(world: World) -> None:
    old = context(server=False, now=clock.now())
    old.set_min_proto_version(SSL.TLS1_2_VERSION)
    old.set_max_proto_version(SSL.TLS1_2_VERSION)
    other = context(server=False, now=clock.now())
    other.set_alpn_protos([b"h2"])
    for made in (old, other):
        wire = await Wire.open(world.server.port, tls_context=made, check=False)
        assert await wire.ended()
    await until(lambda: len(world.refused) == 2)
    assert [type(r.error) for r in world.refused] == [FormatError] * 2


async def test_a_client_without_a_certificate_is_refused(world: World) -> None:
    bare = SSL.Context(SSL.TLS_METHOD)
    bare.set_alpn_protos([ALPN])
    wire = await Wire.open(world.server.port, tls_context=bare, check=False)
    assert await wire.ended()
    assert "certificate" in str(world.refused[0].error)


async def test_no_session_can_be_resumed(world: World) -> None:
    made = context(server=False, now=clock.now())
    first = await Wire.open(world.server.port, tls_context=made)
    await first.frame()
    session = first.tls._connection.get_session()
    assert session is not None
    second = Wire(*await asyncio.open_connection("127.0.0.1", world.server.port), tls_context=made)
    second.tls._connection.set_session(session)
    await second.handshake()
    assert SSL._lib.SSL_session_reused(second.tls._connection._ssl) == 0
    first.close()
    second.close()


async def test_connections_above_the_limit_are_closed_and_places_come_back(world: World) -> None:
    limits = Limits(
        handshake_s=5.0, handshakes=2, handshakes_per_address=2, connections=3, per_minute=1000
    )
    small = await world.serve(limits=limits)
    waiting = [await Wire.open(small.port) for _ in range(2)]
    with pytest.raises(Unavailable):
        await world.connect(world.other, port=small.port)
    for wire in waiting:
        wire.close()
    await asyncio.sleep(0.05)
    async with await world.connect(world.other, port=small.port) as channel:
        assert await call(channel) == GOOD
    small.close()
    await small.wait_closed()


async def test_the_channel_never_connects_again_by_itself(world: World) -> None:
    channel = await world.connect(world.other)
    assert await call(channel) == GOOD
    world.server.close()
    await world.server.wait_closed()
    await asyncio.sleep(0.05)
    again = await world.serve()
    with pytest.raises(Unavailable, match="ended"):
        await call(channel)
    channel.close()
    again.close()
    await again.wait_closed()


async def test_large_messages_pass_in_both_directions(world: World) -> None:
    async with await world.connect(world.other) as channel:
        big = GetDataKeyRequest(id="x" * 3_000_000)
        assert (await KeyServiceStub(channel.grpc).GetDataKey(big, timeout=20)).key == GOOD


async def test_evidence_may_be_as_large_as_the_bound_says(world: World) -> None:
    def lenient(_evidence: Evidence, binding: Binding) -> AttestationResult:
        return world.appraise(world.other.quote(binding), binding)

    class Verbose(Machine):
        async def attest(self, **_: object) -> Evidence:
            return Evidence(variant=self.variant, data=bytes(size))

    verbose = Verbose(pcr4=GOOD, certificate=b"", key=world.other.key)
    open_server = await world.serve(appraisers={"join-client": lenient})
    size = 512 * 1024 - 1 - len(VARIANT)
    (await world.connect(verbose, port=open_server.port)).close()
    size += 1
    with pytest.raises(FormatError, match="evidence of"):
        await world.connect(verbose, port=open_server.port)
    open_server.close()
    await open_server.wait_closed()


async def test_a_certificate_s_key_is_what_the_binding_covers(world: World) -> None:
    wire = await Wire.open(world.server.port)
    own = wire.tls._connection.get_certificate(as_cryptography=True)
    assert own is not None
    key = own.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert wire.tls.own_spki_digest == hashlib.sha256(spki(key)).digest()
    assert wire.tls.own_spki_digest != wire.tls.peer_spki_digest
    wire.close()
