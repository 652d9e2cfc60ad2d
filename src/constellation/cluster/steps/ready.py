"""When a cluster is there: every node of the conf is Ready and answers for its own evidence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.errors import Unavailable
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from constellation.cluster.context import Context, KubernetesNode

__all__ = ["missing", "run"]

_TITLE = "Nodes Ready"
_PAUSE_S = 0.5


async def run(context: Context) -> tuple[KubernetesNode, ...]:
    """Wait until as many nodes as the conf has are Ready.

    Raises:
        Unavailable: not within the context's `wait_s`; says which are missing and why.
    """
    wanted = sum(group.least for group in context.config.node_groups.values())
    end = monotonic_s() + context.wait_s
    while True:
        try:
            nodes = await context.list_nodes(context.workspace.kubeconfig)
            left = missing(nodes, wanted=wanted)
        except Unavailable as error:
            nodes, left = (), str(error)
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


def missing(nodes: tuple[KubernetesNode, ...], *, wanted: int) -> str:
    """Say what is still waited for; empty when nothing is."""
    waiting = [f"{n.name} ({n.reason or 'not Ready'})" for n in nodes if not n.ready]
    if len(nodes) < wanted:
        waiting.append(f"{wanted - len(nodes)} more to join")
    return ", ".join(waiting)
