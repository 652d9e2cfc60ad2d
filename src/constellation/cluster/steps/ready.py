"""When a cluster is there: as many nodes as the conf has are Ready.

A first node that lost its power as soon as it was finished has nobody but the owner to ask for its
disk's key, since no other control plane has joined: `init` gives it, as it does half-way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.errors import Unavailable
from constellation.base.progress import Progress
from constellation.cluster.recover import recover_node
from constellation.cluster.secrets import read_secrets

if TYPE_CHECKING:
    from constellation.cluster.context import Context, KubernetesNode
    from constellation.config.state import State

__all__ = ["missing", "run"]

_TITLE = "Nodes Ready"
_PAUSE_S = 0.5
_SILENT_S = 5.0
_CONNECT_S = 5.0


async def run(context: Context, state: State) -> tuple[KubernetesNode, ...]:
    """Wait until as many nodes as the conf has are Ready.

    Raises:
        Rejected: the first node lost its power, and is not acceptable: it got no key.
        Unavailable: not within the context's `wait_s`; says which are missing and why.
    """
    wanted = sum(group.least for group in context.config.node_groups.values())
    end = monotonic_s() + context.wait_s
    answered_s = monotonic_s()
    while True:
        try:
            nodes = await context.list_nodes(context.workspace.kubeconfig)
            left = missing(nodes, wanted=wanted)
            answered_s = monotonic_s()
        except Unavailable as error:
            nodes, left = (), str(error)
        if monotonic_s() - answered_s > _SILENT_S:
            await _recover_first(context, state)
            answered_s = monotonic_s()
        if not left:
            context.report(Progress(step=_TITLE, done=wanted, total=wanted, finished=True))
            return nodes
        ready = sum(node.ready for node in nodes)
        context.report(Progress(step=_TITLE, detail=left, done=ready, total=wanted, unit="nodes"))
        if monotonic_s() > end:
            raise Unavailable(
                f"not every node became Ready within {context.wait_s:g} s: {left}",
                hint="`constellation status` shows the nodes, `constellation log` who was refused",
            )
        await asyncio.sleep(_PAUSE_S)


async def _recover_first(context: Context, state: State) -> None:
    """Give the node that `init` chose its disk's key, if it waits for that; no other node.

    Without the master secret, which may lie elsewhere by now, it is for `constellation recover`.
    """
    machines = state.infrastructure.instances if state.infrastructure is not None else ()
    first = next(
        (m for m in machines if state.init and m.instance_id == state.init.instance_id), None
    )
    if first is None or not context.workspace.master_secret.exists():
        return
    secrets = read_secrets(context.workspace, cluster_id=state.cluster_id)
    await recover_node(context, state, first, secrets, deadline_s=_CONNECT_S)


def missing(nodes: tuple[KubernetesNode, ...], *, wanted: int) -> str:
    """Say what is still waited for; empty when nothing is."""
    waiting = [f"{n.name} ({n.reason or 'not Ready'})" for n in nodes if not n.ready]
    if len(nodes) < wanted:
        waiting.append(f"{wanted - len(nodes)} more to join")
    return ", ".join(waiting)
