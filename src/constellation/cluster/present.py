"""Which machines are there now? The operator replaces and adds some while no command looks.

The state file names those of the last command. Who verifies or recovers a cluster asks the
provider, and falls back on the file where it says nothing. What it says is a claim, as ever: each
machine proves what it is. The roots that certify evidence stay the state file's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.config.state import State

__all__ = ["with_present_machines"]


async def with_present_machines(context: Context, state: State) -> State:
    """Give the state with the machines that the provider lists now."""
    if state.infrastructure is None:
        return state
    try:
        made = await context.infrastructure(state.uid).observe()
    except ConstellationError as error:
        detail = f"those of the state file: {error}"
        context.report(Progress(step="Machines", detail=detail, finished=True))
        return state
    if made is None:
        return state
    now = dataclasses.replace(state.infrastructure, instances=made.instances)
    return dataclasses.replace(state, infrastructure=now)
