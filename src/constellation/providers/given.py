"""Machines that somebody else makes: the state file says what there is, nothing is made or removed.

For self-managed infrastructure (`apply --skip infrastructure`): a user's own Terraform, or hands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Conflict
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.providers.protocols import Desired, Infrastructure, InfrastructureState

__all__ = ["GivenInfrastructure"]


class GivenInfrastructure:
    """`providers.protocols.Infrastructure` of what a state file names; None: it names nothing."""

    def __init__(self, given: InfrastructureState | None, *, hint: str) -> None:
        self._given, self._hint = given, hint

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Take what is given.

        Raises:
            Conflict: nothing is, or a group has another number of machines than wanted.
        """
        given = self._given
        if given is None:
            raise Conflict("the state file names no machines", hint=self._hint)
        for group in desired.groups:
            machines = [m for m in given.instances if m.group == group.name]
            if len(machines) != group.size or any(m.role is not group.role for m in machines):
                raise Conflict(
                    f"group {group.name}: the state file names {len(machines)} machines, the "
                    f"configuration wants {group.size} with role {group.role}",
                    hint=self._hint,
                )
        report(Progress(step="Machines", detail="as the state file names them", finished=True))
        return given

    async def observe(self) -> InfrastructureState | None:
        """Give what is given."""
        return self._given

    async def destroy(self, *, report: Report) -> None:
        """Leave everything: whoever made it removes it."""
        report(Progress(step="Machines", detail="yours: they stay", finished=True))

    async def console(self, instance_id: str) -> bytes:
        """Refuse: nobody says how to reach the console of a machine."""
        raise Conflict(f"{instance_id}: the console is at its provider's")


if TYPE_CHECKING:
    _: type[Infrastructure] = GivenInfrastructure
