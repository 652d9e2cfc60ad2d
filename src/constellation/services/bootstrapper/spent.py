"""A boot that was given to its cluster, without an open disk to show for it: only a reboot helps.

Nobody gives a ticket or a key to a node whose PCR 15 is extended. A run that ended between PCR 15
and the open disk (killed, a bug, an error of the disk) leaves such a machine. Source: design,
section 6 ("reboots itself").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from constellation.base.errors import Unavailable
from constellation.disk.superblock import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["leave_spent_boot"]


class _Agent(Protocol):
    """What is asked of the attestation agent here."""

    async def given_to_cluster(self) -> bool:
        """Say whether PCR 15 was extended since power-on. Raises Unavailable."""
        ...


async def leave_spent_boot(
    state: State, *, agent: _Agent, reboot: Callable[[], Awaitable[None]]
) -> None:
    """Reboot where PCR 15 is extended and the disk (`state`) is not open; else nothing.

    Raises:
        Unavailable: the reboot has been ordered; nothing else is to be begun.
    """
    if state is State.OPEN or not await agent.given_to_cluster():
        return
    await reboot()
    raise Unavailable("rebooting: PCR 15 is extended and the state disk is not open")
