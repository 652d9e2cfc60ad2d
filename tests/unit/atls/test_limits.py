"""Tests of constellation.atls.limits."""

from constellation.atls.limits import Gate, Limits

LIMITS = Limits(handshake_s=1, handshakes=3, handshakes_per_address=2, connections=4, per_minute=60)


def test_one_address_may_not_have_more_handshakes_than_its_share() -> None:
    gate = Gate(LIMITS)
    assert [gate.enter("a", now_s=0) for _ in range(3)] == [True, True, False]
    gate.settled("a")
    assert gate.enter("a", now_s=0)


def test_all_addresses_together_are_bounded() -> None:
    gate = Gate(LIMITS)
    assert [gate.enter(a, now_s=0) for a in "abcd"] == [True, True, True, False]


def test_open_connections_count_after_their_handshake() -> None:
    gate = Gate(LIMITS)
    for address in "abcd":
        assert gate.enter(address, now_s=0)
        gate.settled(address)
    assert not gate.enter("e", now_s=0)
    gate.left()
    assert gate.enter("e", now_s=0)


def test_an_address_that_connects_too_often_waits() -> None:
    gate = Gate(LIMITS)
    for _ in range(60):
        assert gate.enter("a", now_s=0)
        gate.settled("a")
        gate.left()
    assert not gate.enter("a", now_s=0)
    assert gate.enter("b", now_s=0)
    assert not gate.enter("a", now_s=0.5)
    assert gate.enter("a", now_s=1.6)


def test_the_memory_for_addresses_is_bounded() -> None:
    gate = Gate(LIMITS)
    for number in range(10_000):
        gate.enter(str(number), now_s=0)
        gate.settled(str(number))
        gate.left()
    assert len(gate._recent) <= 4096
