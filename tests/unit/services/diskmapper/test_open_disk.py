"""A new disk is only said; a known one opens with the first good key, after PCR 15."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Rejected, Unavailable, Untrusted
from constellation.base.secret import Secret
from constellation.disk.superblock import DiskState, State
from constellation.kube.peers import SignedPeers
from constellation.providers.protocols import Instance, Role
from constellation.services.diskmapper import open_disk as module
from constellation.services.diskmapper.open_disk import (
    NeedsReboot,
    Opener,
    Rejoined,
    Shown,
    open_disk,
)
from constellation.services.diskmapper.unlock import Unlock
from constellation.trust.cluster_policy import SignedPolicy

if TYPE_CHECKING:
    from constellation.disk.state_disk import DiskRecord

UUID = bytes(range(16))
CLUSTER_ID = bytes(range(32))
KEY = Secret(bytes(64))
SHOWN = Shown(
    policy=SignedPolicy(policy=b"", signature=b""),
    peers=SignedPeers(serial=1, peers=(), signature=b""),
)
OLD = dataclasses.replace(SHOWN, policy=SignedPolicy(policy=b"old", signature=b""))
NEW = DiskState(state=State.NEW, uuid=b"")
KNOWN = DiskState(state=State.KNOWN, uuid=UUID)


def instance(name: str, role: Role, address: str) -> Instance:
    return Instance(instance_id=name, group=str(role), role=role, address=address, state="running")


class FakeCloud:
    def __init__(self, own: Instance, *others: Instance) -> None:
        self.own, self.others = own, others

    async def self_(self) -> Instance:
        return self.own

    async def peers(self) -> tuple[Instance, ...]:
        return (self.own, *self.others)

    async def user_data(self) -> bytes:
        return b""


class FakeMachine:
    """Agent and disk in one, so that the order of what happens to both is on record."""

    def __init__(self, disk: DiskState, *, given: bool = False, good_key: Secret = KEY) -> None:
        self.disk, self.given, self.good_key = disk, given, good_key
        self.events: list[str] = []
        self.records: list[DiskRecord] = []
        self.slow: asyncio.Event | None = None
        self.fault: OSError | None = None
        self.lost = self.given_if_lost = False

    async def given_to_cluster(self) -> bool:
        return self.given

    async def give_to_cluster(self, cluster_id: bytes) -> None:
        assert cluster_id == CLUSTER_ID
        if self.lost:
            self.given = self.given_if_lost
            raise Unavailable("no answer")
        self.events.append("given")

    async def inspect(self) -> DiskState:
        return self.disk

    def new_uuid(self) -> bytes:
        return UUID

    def record(self, record: DiskRecord) -> None:
        self.records.append(record)

    async def open(self, uuid: bytes, key: Secret) -> str:
        assert uuid == UUID
        if key != self.good_key:
            raise Rejected(("wrong key",))
        if self.slow is not None:
            await self.slow.wait()
        if self.fault is not None:
            raise self.fault
        self.events.append("opened")
        return "control-plane-0"

    def compare(self, shown: Shown) -> None:
        self.events.append("compared")
        if shown is OLD:
            raise Untrusted("found serial 2, expected at least 3")

    def told_time(self, seconds: int) -> None:
        self.events.append(f"told {seconds}")


WORKER = instance("w", Role.WORKER, "10.42.2.10")
PLANE = instance("c", Role.CONTROL_PLANE, "10.42.1.10")
OTHER_PLANE = instance("d", Role.CONTROL_PLANE, "10.42.1.11")


async def never(uuid: bytes, opener: Opener) -> None:
    del uuid, opener
    raise AssertionError("a worker listens for nobody")


async def run(
    machine: FakeMachine,
    cloud: FakeCloud,
    *,
    ask: object = None,
    listen: object = never,
) -> State:
    return await open_disk(
        metadata=cloud,
        agent=machine,
        door=machine,
        cluster_id=CLUSTER_ID,
        ask=ask,  # type: ignore[arg-type]
        listen=listen,  # type: ignore[arg-type]
    )


async def ticket(address: str, own: Instance, uuid: bytes) -> Rejoined:
    del address, own, uuid
    return Rejoined(unlock=Unlock(key=KEY, time=9), shown=SHOWN)


async def test_a_new_disk_is_only_said() -> None:
    machine = FakeMachine(NEW)
    assert await run(machine, FakeCloud(WORKER, PLANE)) is State.NEW
    assert machine.events == []
    assert [(r.state, r.uuid) for r in machine.records] == [(State.NEW, UUID.hex())]


async def test_a_known_disk_opens_after_pcr_15_was_extended() -> None:
    machine = FakeMachine(KNOWN)
    assert await run(machine, FakeCloud(WORKER, PLANE), ask=ticket) is State.OPEN
    assert machine.events == ["given", "opened", "compared", "told 9"]
    assert machine.records[-1].state is State.OPEN


async def test_a_node_asks_every_control_plane_in_turn_but_not_itself() -> None:
    asked = []

    async def ask(address: str, own: Instance, uuid: bytes) -> Rejoined:
        asked.append(address)
        if address == "10.42.1.11":
            raise Untrusted("somebody else's JoinService")
        return await ticket(address, own, uuid)

    third = instance("e", Role.CONTROL_PLANE, "10.42.1.12")

    async def listen(uuid: bytes, opener: Opener) -> None:
        del uuid
        await opener.opened.wait()

    cloud = FakeCloud(PLANE, OTHER_PLANE, WORKER, third)
    assert await run(FakeMachine(KNOWN), cloud, ask=ask, listen=listen) is State.OPEN
    assert asked[-1] == "10.42.1.12"
    assert {*asked} <= {"10.42.1.11", "10.42.1.12"}


async def test_no_join_service_is_always_the_first_that_is_asked() -> None:
    firsts = set()
    others = [instance(f"p{i}", Role.CONTROL_PLANE, f"10.42.1.{11 + i}") for i in range(3)]

    async def ask(address: str, own: Instance, uuid: bytes) -> Rejoined:
        firsts.add(address)
        return await ticket(address, own, uuid)

    for _ in range(60):
        await run(FakeMachine(KNOWN), FakeCloud(WORKER, *others), ask=ask)
    assert firsts == {o.address for o in others}


async def test_an_older_policy_than_the_disk_has_seen_starts_nothing_and_reboots() -> None:
    machine = FakeMachine(KNOWN)

    async def old(address: str, own: Instance, uuid: bytes) -> Rejoined:
        return dataclasses.replace(await ticket(address, own, uuid), shown=OLD)

    with pytest.raises(NeedsReboot, match="found serial 2"):
        await run(machine, FakeCloud(WORKER, PLANE), ask=old)
    assert machine.events == ["given", "opened", "compared"]
    assert all(r.state is not State.OPEN for r in machine.records)


async def nobody(address: str, own: Instance, uuid: bytes) -> Rejoined:
    del address, own, uuid
    raise Unavailable("nobody")


async def test_the_owner_opens_the_last_control_plane() -> None:
    machine = FakeMachine(KNOWN)

    async def listen(uuid: bytes, opener: Opener) -> None:
        assert uuid == UUID
        assert await opener.open(Unlock(key=KEY, time=0)) == "control-plane-0"

    found = await asyncio.wait_for(
        run(machine, FakeCloud(PLANE, OTHER_PLANE), ask=nobody, listen=listen), 5
    )
    assert found is State.OPEN
    assert machine.events == ["given", "opened", "told 0"]


async def test_a_wrong_key_after_pcr_15_asks_for_a_reboot() -> None:
    machine = FakeMachine(KNOWN, good_key=Secret(bytes(63) + b"x"))
    with pytest.raises(NeedsReboot, match="wrong key"):
        await run(machine, FakeCloud(WORKER, PLANE), ask=ticket)
    assert machine.events == ["given"]


async def test_a_boot_that_is_spent_asks_nobody() -> None:
    with pytest.raises(NeedsReboot, match="PCR 15"):
        await run(FakeMachine(KNOWN, given=True), FakeCloud(WORKER, PLANE))
    assert await run(FakeMachine(NEW, given=True), FakeCloud(WORKER, PLANE)) is State.NEW


async def test_an_owner_who_hangs_up_leaves_no_disk_half_open() -> None:
    machine = FakeMachine(KNOWN)
    machine.slow = asyncio.Event()

    async def listen(uuid: bytes, opener: Opener) -> None:
        del uuid
        call = asyncio.create_task(opener.open(Unlock(key=KEY, time=0)))
        await asyncio.sleep(0.01)
        assert machine.events == ["given"]
        call.cancel()  # as grpclib does with a handler whose peer has gone
        await asyncio.sleep(0)
        assert machine.slow is not None
        machine.slow.set()

    found = await asyncio.wait_for(
        run(machine, FakeCloud(PLANE, OTHER_PLANE), ask=nobody, listen=listen), 5
    )
    assert found is State.OPEN
    assert machine.events == ["given", "opened", "told 0"]


async def test_a_fault_of_the_disk_reboots_too() -> None:
    machine = FakeMachine(KNOWN)
    machine.fault = OSError(5, "Input/output error")
    with pytest.raises(NeedsReboot, match="Input/output"):
        await run(machine, FakeCloud(WORKER, PLANE), ask=ticket)


@pytest.mark.parametrize("given", [True, False])
async def test_whether_pcr_15_was_extended_is_asked_where_the_answer_was_lost(given: bool) -> None:
    machine = FakeMachine(KNOWN)
    machine.lost, machine.given_if_lost = True, given
    with pytest.raises(NeedsReboot if given else Unavailable) as raised:
        await run(machine, FakeCloud(WORKER, PLANE), ask=ticket)
    assert isinstance(raised.value, NeedsReboot) is given
    assert machine.events == []


async def test_refusals_are_tried_again_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    answers = iter([Unavailable("starting"), Rejected(("not yet",)), None])

    async def ask(address: str, own: Instance, uuid: bytes) -> Rejoined:
        if (error := next(answers)) is not None:
            raise error
        return await ticket(address, own, uuid)

    assert await run(FakeMachine(KNOWN), FakeCloud(WORKER, PLANE), ask=ask) is State.OPEN
