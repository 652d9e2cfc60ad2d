"""Tests of constellation.atls.limits."""

from __future__ import annotations

from constellation.atls.limits import Gate, Limits, Place, Rate

LIMITS = Limits(handshake_s=1, handshakes=3, handshakes_per_address=2, connections=4, per_minute=60)


def entered(gate: Gate, address: str, *, now_s: float = 0) -> bool:
    return gate.enter(address, now_s=now_s) is not None


def place(gate: Gate, address: str, *, now_s: float = 0, evicted: list[str] | None = None) -> Place:
    def give_up() -> None:
        assert evicted is not None
        evicted.append(f"{address}@{now_s}")

    found = gate.enter(address, now_s=now_s, give_up=None if evicted is None else give_up)
    assert found is not None
    return found


def test_one_address_may_not_have_more_handshakes_than_its_share() -> None:
    gate = Gate(LIMITS)
    first = place(gate, "a")
    assert entered(gate, "a")
    assert not entered(gate, "a")
    gate.settled(first)
    assert not entered(gate, "a")  # it is still connected
    gate.left(first)
    assert entered(gate, "a")


def test_all_addresses_together_are_bounded() -> None:
    gate = Gate(LIMITS)
    assert [entered(gate, a) for a in "abcd"] == [True, True, True, False]


def test_open_connections_count_after_their_handshake() -> None:
    gate = Gate(LIMITS)
    places = [place(gate, address) for address in "abc"]
    for one in places:
        gate.settled(one)
    last = place(gate, "d")
    gate.settled(last)
    assert not entered(gate, "e")
    gate.left(last)
    gate.left(last)
    assert entered(gate, "e")
    assert not entered(gate, "f")


def test_the_address_with_most_handshakes_gives_up_its_oldest() -> None:
    gate, evicted = Gate(LIMITS), list[str]()
    gone = place(gate, "greedy", now_s=1, evicted=evicted)
    place(gate, "greedy", now_s=2, evicted=evicted)
    place(gate, "other", now_s=0, evicted=evicted)
    assert entered(gate, "honest", now_s=3)
    assert evicted == ["greedy@1"]
    gate.settled(gone)
    gate.left(gone)
    assert gate._handshake_count == 3
    assert sum(gate._connections.values()) == 3


def test_among_equals_the_oldest_goes_and_nobody_evicts_for_a_second_place() -> None:
    gate, evicted = Gate(LIMITS), list[str]()
    for number, address in enumerate("abc"):
        place(gate, address, now_s=number, evicted=evicted)
    assert not entered(gate, "b", now_s=3)
    assert evicted == []
    assert entered(gate, "d", now_s=4)
    assert evicted == ["a@0"]


def test_what_has_passed_its_handshake_is_not_evicted() -> None:
    gate, evicted = Gate(LIMITS), list[str]()
    for address in "abcd":
        gate.settled(place(gate, address, evicted=evicted))
    assert not entered(gate, "e")
    assert evicted == []


def test_an_address_that_connects_too_often_waits() -> None:
    gate = Gate(LIMITS)
    for _ in range(60):
        gate.left(place(gate, "a"))
    assert not entered(gate, "a")
    assert entered(gate, "b")
    assert not entered(gate, "a", now_s=0.5)
    assert entered(gate, "a", now_s=1.6)


def test_the_memory_for_addresses_is_bounded() -> None:
    gate = Gate(LIMITS)
    for number in range(10_000):
        gate.left(place(gate, str(number)))
    assert len(gate._recent) <= 4096
    assert not gate._connections
    assert not gate._handshakes


def test_a_rate_is_a_burst_and_then_so_many_a_second() -> None:
    rate = Rate(burst=3, per_second=2, now_s=0)
    assert [rate.take(1, now_s=0) for _ in range(4)] == [True, True, True, False]
    assert not rate.take(2, now_s=0.9)
    assert rate.take(2, now_s=1.0)
    assert not rate.take(1, now_s=1.0)
