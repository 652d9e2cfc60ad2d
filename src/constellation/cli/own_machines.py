"""`--skip infrastructure`: machines are the user's, and the state file says what there is.

The first run makes keys and node document, and says what to do with them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.files import write_atomic
from constellation.config.state import read_state
from constellation.providers.given import GivenInfrastructure

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.providers.protocols import Infrastructure

__all__ = ["with_own_machines"]


def with_own_machines(context: Context) -> Context:
    """Give a context that takes machines from the state file and makes none."""
    workspace = context.workspace
    hint = (
        f"boot the machines with {workspace.node_document} as their user data, then write them "
        f"into {workspace.state.name} (docs/how-to/self-managed.md); the same command goes on"
    )

    def make(uid: str) -> Infrastructure:
        del uid
        state = read_state(workspace.state)
        if state is not None:
            write_atomic(workspace.node_document, state.node_document)
        return GivenInfrastructure(state.infrastructure if state is not None else None, hint=hint)

    # whoever makes the machines makes their access too
    return dataclasses.replace(context, infrastructure=make, node_access=None, keeps_machines=True)
