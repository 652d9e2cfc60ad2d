"""How a cluster comes to be what the conf says: the steps in order, the state written after each.

`create` goes as far as machines, `init` adds the cluster, `apply` is both. Every step may be
repeated: a run that was interrupted goes on where it stopped. Source: design, section 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, Unavailable
from constellation.base.progress import Progress
from constellation.cluster import kubectl
from constellation.cluster.cloud_integration import integration_differs
from constellation.cluster.node_access import access_differs
from constellation.cluster.node_sources import sources_differ, warn_without
from constellation.cluster.plan import Observed, Planned, plan
from constellation.cluster.steps import init, machines, prepare, ready
from constellation.config.state import read_state, write_state

if TYPE_CHECKING:
    from constellation.cluster.context import Context, KubernetesNode
    from constellation.config.state import State

__all__ = ["create", "initialise", "make_plan", "observe", "require_state"]


async def create(context: Context) -> State:
    """Make secrets and node document, have artifacts and image, create the machines."""
    path = context.workspace.state
    state = read_state(path)
    if state is not None:
        prepare.check_same(context, state)
    warn_without(context)
    async with asyncio.TaskGroup() as tasks:
        listing = tasks.create_task(
            context.supplies.artifacts(context.config, report=context.report)
        )
        building = tasks.create_task(context.supplies.node_image(report=context.report))
    listed, image = listing.result(), building.result()
    prepare.check_integration(context, listed)
    state = await prepare.identity(context, state, image)
    state = prepare.artifacts(prepare.node_image(state, image), listed)
    write_state(path, state)
    context.report(Progress(step="Keys and node document", finished=True))
    state = await machines.run(context, state)
    write_state(path, state)
    return state


async def initialise(context: Context) -> tuple[State, tuple[KubernetesNode, ...]]:
    """Start the cluster on one control plane and wait until all nodes are Ready.

    Raises:
        Conflict: nothing was created.
    """
    path = context.workspace.state
    state = require_state(context)
    if state.infrastructure is None:
        raise Conflict("no machines yet", hint="run `constellation create`")
    if not state.cluster_ca or not context.workspace.kubeconfig.exists():
        state = await init.run(context, state)
        write_state(path, state)
    context.report(Progress(step="Start the cluster", finished=True))
    await kubectl.ensure(context, state)
    nodes = await ready.run(context, state)
    # a cloud closes the way to fresh nodes, now that nobody needs it; a load balancer that can
    # verify the API servers learns by whom
    state = await machines.run(context, state)
    write_state(path, state)
    return state, nodes


async def make_plan(context: Context) -> tuple[Planned, ...]:
    """Say what `apply` would do, and do nothing.

    Raises:
        Conflict: another run holds the cloud's resources. Unavailable: the cloud does not answer.
    """
    state = read_state(context.workspace.state)
    observed = await observe(context, state)
    if state is not None and observed.infrastructure is not None and context.resources is not None:
        found = await context.resources(state.uid, machines.desired(context, state))
        observed = dataclasses.replace(observed, resources=found)
    if state is not None and observed.infrastructure is not None:
        differs = await access_differs(context, state)
        observed = dataclasses.replace(
            observed,
            access_differs=differs,
            sources_differ=sources_differ(context, state),
            integration_differs=integration_differs(context, state),
        )
    return plan(context.config, state, observed)


async def observe(context: Context, state: State | None) -> Observed:
    """Look at machines and nodes; what does not answer is not there."""
    infrastructure = None
    nodes: tuple[KubernetesNode, ...] = ()
    has_kubeconfig = context.workspace.kubeconfig.exists()
    if state is not None:
        with contextlib.suppress(Unavailable):
            infrastructure = await context.infrastructure(state.uid).observe()
    if infrastructure is not None and has_kubeconfig:
        with contextlib.suppress(Unavailable):
            nodes = await context.list_nodes(context.workspace.kubeconfig)
    return Observed(infrastructure=infrastructure, has_kubeconfig=has_kubeconfig, nodes=nodes)


def require_state(context: Context) -> State:
    """Give the state of the cluster in this workspace.

    Raises:
        Conflict: there is none.
    """
    state = read_state(context.workspace.state)
    if state is None:
        raise Conflict(
            f"no cluster in {context.workspace.folder}: {context.workspace.state.name} is missing",
            hint="run `constellation create`, or name the workspace with -C",
        )
    return state
