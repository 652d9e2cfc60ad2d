"""Steps are recorded, repeatable, and go on where a run stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, Unavailable
from constellation.services.bootstrapper.node_lock import NodeLock
from constellation.services.steps import Step, StepBook, kind_of, run_steps

if TYPE_CHECKING:
    from pathlib import Path


class Trace:
    """Steps that write down when they ran; `broken` ones fail."""

    def __init__(self, *, broken: frozenset[str] = frozenset()) -> None:
        self.broken = broken
        self.ran: list[str] = []
        self.told: list[tuple[str, bool]] = []

    def step(self, name: str, *, volatile: bool = False) -> Step:
        async def do() -> None:
            if name in self.broken:
                raise Unavailable(f"{name} broke")
            self.ran.append(name)

        return Step(name=name, do=do, volatile=volatile)

    async def notify(self, name: str, done: bool) -> None:
        self.told.append((name, done))


async def test_a_run_goes_on_after_the_step_that_failed(tmp_path: Path) -> None:
    book = StepBook(tmp_path / "steps.json", kind="init")
    first = Trace(broken=frozenset({"certs"}))
    with pytest.raises(Unavailable, match="certs broke"):
        await run_steps((first.step("disk"), first.step("certs")), book=book, notify=first.notify)
    second = Trace()
    await run_steps((second.step("disk"), second.step("certs")), book=book, notify=second.notify)
    assert (first.ran, second.ran) == (["disk"], ["certs"])
    assert second.told == [("certs", False), ("certs", True)]


async def test_what_holds_for_one_boot_is_done_again(tmp_path: Path) -> None:
    book = StepBook(tmp_path / "steps.json", kind="join")
    for _ in range(2):
        trace = Trace()
        await run_steps(
            (trace.step("mount", volatile=True), trace.step("keys")),
            book=book,
            notify=trace.notify,
        )
    assert trace.ran == ["mount"]
    assert book.done() == ("keys",)


async def test_a_node_that_began_to_join_cannot_be_initialised(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    StepBook(path, kind="join").record("keys")
    assert kind_of(path) == "join"
    trace = Trace()
    with pytest.raises(Conflict, match="began to join"):
        await run_steps(
            (trace.step("disk"),), book=StepBook(path, kind="init"), notify=trace.notify
        )
    assert trace.ran == []


async def test_nothing_is_recorded_before_there_is_a_disk(tmp_path: Path) -> None:
    book = StepBook(tmp_path / "not-open" / "steps.json", kind="init")
    book.record("disk")
    assert book.done() == ()
    assert kind_of(tmp_path / "not-open" / "steps.json") == ""


async def test_whoever_comes_first_has_the_node() -> None:
    lock = NodeLock()
    lock.take("init")
    lock.take("init")
    with pytest.raises(Conflict, match="cannot join"):
        lock.take("join")
    assert lock.held_by == "init"
