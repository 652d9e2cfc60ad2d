"""Tests of constellation.atls.handshake: both sides in one process, no sockets, no TLS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.atls.frames import Hello, pack_accepted, pack_evidence, pack_hello
from constellation.atls.handshake import (
    Action,
    Expected,
    Handshake,
    NeedEvidence,
    NeedJudgement,
    Open,
    Role,
    Send,
)
from constellation.attestation.model import Evidence, Variant
from constellation.base.errors import ConstellationError, FormatError, Rejected, Untrusted

SERVER_NONCE, CLIENT_NONCE = bytes([1]) * 32, bytes([2]) * 32
FROM_CLIENT = Evidence(variant=Variant.LOCAL_VTPM, data=b"client")
FROM_SERVER = Evidence(variant=Variant.LOCAL_VTPM, data=b"server")


def side(
    role: Role,
    *,
    purpose: str = "",
    attests: bool = True,
    expects: str = "",
    unattested: bool = False,
) -> Handshake:
    nonce = SERVER_NONCE if role == "server" else CLIENT_NONCE
    return Handshake(
        role,
        hello=Hello(purpose=purpose or f"join-{role}", nonce=nonce, attests=attests),
        expected=Expected(
            purposes=frozenset({expects or ("join-client" if role == "server" else "join-server")}),
            unattested=unattested,
        ),
    )


def converse(client: Handshake, server: Handshake) -> list[str]:
    """Let both sides act until neither has anything to do; gives what happened, in order."""
    log: list[str] = []
    evidence = {"client": FROM_CLIENT, "server": FROM_SERVER}
    sides = {"client": client, "server": server}
    todo: list[tuple[str, Action]] = [
        (name, action) for name, one in sides.items() for action in one.start()
    ]
    while todo:
        name, action = todo.pop(0)
        other = "server" if name == "client" else "client"
        more: tuple[Action, ...] = ()
        match action:
            case Send(data=data):
                todo += [(other, a) for a in sides[other].receive(data)]
            case NeedEvidence():
                log.append(f"{name} attests")
                more = sides[name].attested(evidence[name])
            case NeedJudgement(evidence=shown):
                assert shown == evidence[other]
                log.append(f"{name} appraises")
                more = sides[name].accepted()
            case Open(rest=rest):
                assert rest == b""
                log.append(f"{name} opens")
        todo += [(name, a) for a in more]
    return log


def test_the_server_attests_only_after_it_has_accepted_the_client() -> None:
    assert converse(side("client"), side("server")) == [
        "client attests",
        "server appraises",
        "server attests",
        "client appraises",
        "client opens",
        "server opens",
    ]


def test_a_client_that_need_not_attest_still_appraises_the_server() -> None:
    client = side("client", purpose="init-client", attests=False, expects="init-server")
    server = side("server", purpose="init-server", unattested=True)
    assert converse(client, server) == [
        "server attests",
        "client appraises",
        "client opens",
        "server opens",
    ]


def test_evidence_is_asked_over_the_peer_s_nonce_and_judged_over_ones_own() -> None:
    server = side("server")
    server.start()
    server.receive(pack_hello(Hello(purpose="join-client", nonce=CLIENT_NONCE, attests=True)))
    (judge,) = server.receive(pack_evidence(FROM_CLIENT))
    assert judge == NeedJudgement(evidence=FROM_CLIENT, purpose="join-client", nonce=SERVER_NONCE)
    assert server.accepted() == (NeedEvidence(peer_nonce=CLIENT_NONCE),)


def test_a_client_without_evidence_is_refused_where_evidence_is_asked() -> None:
    with pytest.raises(Rejected, match="evidence: none"):
        converse(side("client", attests=False), side("server"))


def test_a_server_without_evidence_is_refused_even_where_unattested_clients_are_let_in() -> None:
    with pytest.raises(Rejected, match="evidence: none"):
        side("client").receive(
            pack_hello(Hello(purpose="join-server", nonce=SERVER_NONCE, attests=False))
        )


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_peer_of_another_purpose_is_refused(role: Role) -> None:
    hello = Hello(purpose="recover-server", nonce=SERVER_NONCE, attests=True)
    with pytest.raises(Rejected, match="purpose: found recover-server, expected join-"):
        side(role).receive(pack_hello(hello))


@pytest.mark.parametrize(
    "frames",
    [
        pack_evidence(FROM_CLIENT),
        pack_accepted(),
        pack_hello(Hello(purpose="join-client", nonce=CLIENT_NONCE, attests=True)) * 2,
        pack_hello(Hello(purpose="join-client", nonce=CLIENT_NONCE, attests=True))
        + pack_accepted(),
    ],
)
def test_a_message_out_of_turn_ends_the_handshake(frames: bytes) -> None:
    server = side("server")
    with pytest.raises(FormatError, match="expected"):
        server.receive(frames)
    with pytest.raises(FormatError, match="ended"):
        server.receive(pack_evidence(FROM_CLIENT))


def test_bytes_of_an_application_before_the_client_accepted_are_refused() -> None:
    client = side("client", attests=False)
    hello = pack_hello(Hello(purpose="join-server", nonce=SERVER_NONCE, attests=True))
    client.receive(hello + pack_evidence(FROM_SERVER) + b"PRI * HTTP/2.0")
    with pytest.raises(FormatError, match="before it was accepted"):
        client.accepted()


def test_the_first_bytes_of_the_application_are_handed_on() -> None:
    server = side("server", unattested=True)
    (ask,) = server.receive(pack_hello(Hello(purpose="", nonce=CLIENT_NONCE, attests=False)))
    assert isinstance(ask, NeedEvidence)
    server.attested(FROM_SERVER)
    assert server.receive(pack_accepted() + b"PRI") == (Open(rest=b"PRI"),)


def test_a_refusal_reaches_the_peer_with_its_kind_and_is_not_answered() -> None:
    client, server = side("client"), side("server")
    (refusal,) = server.refuse(Untrusted("the chain does not hold"))
    with pytest.raises(Untrusted, match="the server refused this side: the chain") as told:
        client.receive(refusal.data)
    assert client.refuse(told.value) == ()
    assert server.refuse(Untrusted("again")) == ()


@given(junk=st.binary(max_size=300), role=st.sampled_from(["client", "server"]))
def test_junk_ends_in_a_typed_error_or_waits_but_never_opens(junk: bytes, role: Role) -> None:
    one = side(role)
    try:
        actions = one.receive(junk)
    except ConstellationError:
        return
    assert not any(isinstance(a, Open | NeedJudgement) for a in actions)
