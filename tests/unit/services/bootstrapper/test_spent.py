"""A machine that was given to its cluster and has no open disk starts again by itself."""

from __future__ import annotations

import pytest

from constellation.base.errors import Unavailable
from constellation.disk.superblock import State
from constellation.services.bootstrapper.spent import leave_spent_boot


class Machine:
    def __init__(self, *, given: bool) -> None:
        self.given, self.reboots = given, 0

    async def given_to_cluster(self) -> bool:
        return self.given

    async def reboot(self) -> None:
        self.reboots += 1


async def test_a_program_that_was_killed_between_pcr_15_and_the_disk_reboots_its_machine() -> None:
    for state in (State.NEW, State.KNOWN):
        machine = Machine(given=True)
        with pytest.raises(Unavailable, match="rebooting"):
            await leave_spent_boot(state, agent=machine, reboot=machine.reboot)
        assert machine.reboots == 1


async def test_a_fresh_boot_and_an_open_disk_go_on() -> None:
    for state, given in ((State.NEW, False), (State.KNOWN, False), (State.OPEN, True)):
        machine = Machine(given=given)
        await leave_spent_boot(state, agent=machine, reboot=machine.reboot)
        assert machine.reboots == 0
