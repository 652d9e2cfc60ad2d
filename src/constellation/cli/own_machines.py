"""`--skip infrastructure`: machines are the user's, and the state file says what there is.

The first run makes keys and node document, and says what to do with them. A removal leaves the
machines, and asks no cloud.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.files import write_atomic
from constellation.cli.clouds import CloudSupplies
from constellation.cluster.context import Context
from constellation.cluster.kubernetes import list_nodes
from constellation.config.state import read_state
from constellation.providers.given import GivenInfrastructure

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.config.schema import Config
    from constellation.config.workspace import Workspace
    from constellation.providers.protocols import Infrastructure

__all__ = ["left_machines_context", "with_own_machines"]


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


def left_machines_context(workspace: Workspace, config: Config, *, report: Report) -> Context:
    """Give the context of a removal of a cluster on machines that nobody here has made."""
    return Context(
        workspace=workspace,
        config=config,
        supplies=CloudSupplies(cache=workspace.folder, workspace=workspace, config=config),
        infrastructure=lambda _: GivenInfrastructure(None, hint=""),
        owned=tuple,
        list_nodes=list_nodes,
        now=clock.now,
        report=report,
        wait_s=0.0,
        keeps_machines=True,
    )
