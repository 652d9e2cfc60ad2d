"""From power-on to an open state disk: new is only said, known opens with the first good key.

Order: key, then PCR 15, then the first byte of the disk, then a look at what the disk has seen: a
JoinService that showed an older policy than that is none to follow. After PCR 15 there is no way
back but a reboot, since nobody gives a key to a node that was given to its cluster before: whatever
ends the opening then (an error of the disk, this program killed) leads to one, and who brought the
key and hangs up ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.base.errors import ConstellationError, Unavailable
from constellation.disk.state_disk import DiskRecord
from constellation.disk.superblock import DiskState, State
from constellation.services.diskmapper.unlock import Unlock, plan
from constellation.services.join_addresses import join_servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from constellation.base.secret import Secret
    from constellation.kube.peers import SignedPeers
    from constellation.providers.protocols import Instance, Metadata
    from constellation.trust.cluster_policy import SignedPolicy

__all__ = ["Agent", "Door", "NeedsReboot", "Opener", "Rejoined", "Shown", "open_disk"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_LAST_ANSWER_S = 3.0


class NeedsReboot(Unavailable):
    """PCR 15 holds the cluster and the disk is not open: only a reboot helps."""


class Agent(Protocol):
    """What is asked of the attestation agent here."""

    async def given_to_cluster(self) -> bool:
        """Say whether PCR 15 was extended since power-on."""
        ...

    async def give_to_cluster(self, cluster_id: bytes) -> None:
        """Extend PCR 15."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a JoinService showed with its ticket: the policy that it obeys, its peer list."""

    policy: SignedPolicy
    peers: SignedPeers


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejoined:
    """What a JoinService gave: the key, and what it showed."""

    unlock: Unlock
    shown: Shown


class Door(Protocol):
    """The disk itself: everything that touches the machine."""

    async def inspect(self) -> DiskState:
        """Say whether the disk is new or known."""
        ...

    def new_uuid(self) -> bytes:
        """Give 16 random bytes for a new disk."""
        ...

    def record(self, record: DiskRecord) -> None:
        """Tell the others."""
        ...

    async def open(self, uuid: bytes, key: Secret) -> str:
        """Open and bind the known disk; gives the node's name as the disk has it."""
        ...

    def compare(self, shown: Shown) -> None:
        """Compare with what the opened disk has, and keep what is newer.

        Raises:
            ConstellationError: a policy that is older than the kept one, or no successor of it.
        """
        ...

    def told_time(self, seconds: int) -> None:
        """Note the time (seconds since 1970) that whoever gave the key said."""
        ...


class Opener:
    """Opens the known disk `uuid` with the first good key, once."""

    def __init__(self, *, agent: Agent, door: Door, cluster_id: bytes, uuid: bytes) -> None:
        self._agent, self._door = agent, door
        self._cluster_id, self._uuid = cluster_id, uuid
        self._once = asyncio.Lock()
        self._running: set[asyncio.Task[str]] = set()
        self.opened = asyncio.Event()
        self.failed: NeedsReboot | None = None

    async def open(self, unlock: Unlock, *, shown: Shown | None = None) -> str:
        """Extend PCR 15, open, compare `shown` with what is kept; gives the node's name.

        Raises:
            NeedsReboot: the disk did not open with this key, or has seen a newer policy: then
                nothing is started from it, and another JoinService is asked after the reboot.
        """
        # a caller that hangs up cancels its call: the disk would stay as far as it came
        task = asyncio.create_task(self._open(unlock, shown))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[str]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # `failed` has it, also where nobody waits for it any more

    async def _open(self, unlock: Unlock, shown: Shown | None) -> str:
        async with self._once:
            if self.opened.is_set():
                raise Unavailable("the state disk has been opened already")
            await self._give()
            try:
                name = await self._door.open(self._uuid, unlock.key)
                if shown is not None:
                    self._door.compare(shown)
            except (ConstellationError, OSError) as error:
                raise self._fail(f"the state disk did not open: {error}") from error
            self._door.told_time(unlock.time)
            self._door.record(DiskRecord(state=State.OPEN, uuid=self._uuid.hex()))
            self.opened.set()
            return name

    async def _give(self) -> None:
        try:
            await self._agent.give_to_cluster(self._cluster_id)
        except ConstellationError as error:
            if await self._agent.given_to_cluster():  # by a call whose answer was lost
                raise self._fail(f"PCR 15 was extended, but: {error}") from error
            raise

    def _fail(self, why: str) -> NeedsReboot:
        self.failed = NeedsReboot(why)
        self.opened.set()
        return self.failed


async def open_disk(
    *,
    metadata: Metadata,
    agent: Agent,
    door: Door,
    cluster_id: bytes,
    ask: Callable[[str, Instance, bytes], Awaitable[Rejoined]],
    listen: Callable[[bytes, Opener], Coroutine[None, None, None]],
) -> State:
    """Do what `unlock.plan` says; returns when the disk is new or open.

    Args:
        metadata: the provider's.
        agent: this node's.
        door: the disk.
        cluster_id: 32 bytes, of the measured node document.
        ask: asks the JoinService at an address for this instance and disk uuid.
        listen: serves recovery for a disk uuid until the disk is open and its answer is sent.

    Raises:
        NeedsReboot: PCR 15 was extended, by this run or an earlier one, and the disk is not open.
        Rejected: the disk is neither new nor ours.
    """
    disk = await door.inspect()
    if disk.state is not State.NEW and await agent.given_to_cluster():
        raise NeedsReboot("an earlier run extended PCR 15 and did not open the state disk")
    own = await metadata.self_()
    todo = plan(disk, role=own.role)
    if disk.state is State.NEW:
        door.record(DiskRecord(state=State.NEW, uuid=door.new_uuid().hex()))
        return State.NEW
    door.record(DiskRecord(state=State.KNOWN, uuid=disk.uuid.hex()))
    opener = Opener(agent=agent, door=door, cluster_id=cluster_id, uuid=disk.uuid)
    tasks = [asyncio.create_task(_rejoin(metadata, own, disk.uuid, opener, ask))]
    if todo.listen:
        tasks.append(asyncio.create_task(listen(disk.uuid, opener)))
    try:
        await _first_failure_or(opener.opened, tasks)
        await asyncio.wait(tasks[1:] or tasks, timeout=_LAST_ANSWER_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if opener.failed is not None:
        raise opener.failed
    return State.OPEN


async def _first_failure_or(opened: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    waiter = asyncio.create_task(opened.wait())
    try:
        done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
    if not opened.is_set():
        for task in done:
            task.result()


async def _rejoin(
    metadata: Metadata,
    own: Instance,
    uuid: bytes,
    opener: Opener,
    ask: Callable[[str, Instance, bytes], Awaitable[Rejoined]],
) -> None:
    pause = _FIRST_PAUSE_S
    while True:
        for address in await _addresses(metadata, own):
            try:
                ticket = await ask(address, own, uuid)
            except ConstellationError as error:
                _log.warning("no rejoin ticket", extra={"endpoint": address, "reason": str(error)})
                continue
            await opener.open(ticket.unlock, shown=ticket.shown)
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


async def _addresses(metadata: Metadata, own: Instance) -> tuple[str, ...]:
    try:
        found = join_servers(await metadata.peers(), own_address=own.address)
    except ConstellationError as error:
        _log.warning("no peers from the metadata API", extra={"reason": str(error)})
        return ()
    # by chance: one that shows an old policy must not be the first after every reboot
    return tuple(random.SystemRandom().sample(found, len(found)))
