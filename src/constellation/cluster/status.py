"""How a cluster is doing: machines, nodes, what was initialised, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.cluster.apply import observe, require_state
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from constellation.cluster.context import Context, KubernetesNode
    from constellation.cluster.plan import Observed
    from constellation.config.state import State
    from constellation.providers.protocols import Instance

__all__ = ["Status", "advice", "status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `constellation status` shows."""

    state: State
    machines: tuple[Instance, ...]
    nodes: tuple[KubernetesNode, ...]
    advice: str

    @property
    def ready(self) -> bool:
        """Say whether the cluster is whole: initialised, as many Ready nodes as machines."""
        ready = sum(node.ready for node in self.nodes)
        return bool(self.machines) and ready >= len(self.machines)


async def status(context: Context) -> Status:
    """Look at machines and nodes.

    Raises:
        Conflict: there is no cluster in this workspace.
    """
    state = require_state(context)
    observed = await observe(context, state)
    machines = observed.infrastructure.instances if observed.infrastructure is not None else ()
    return Status(
        state=state,
        machines=machines,
        nodes=observed.nodes,
        advice=advice(context, state, observed),
    )


def advice(context: Context, state: State, observed: Observed) -> str:
    """Give the one command that comes next; empty where all is well."""
    machines = observed.infrastructure.instances if observed.infrastructure is not None else ()
    wanted = sum(group.size for group in context.config.node_groups.values())
    running = [m for m in machines if m.state in ("running", "starting")]
    if len(running) < wanted:
        return "`constellation create` starts the machines that do not run"
    if not state.cluster_ca or not observed.has_kubeconfig:
        return "`constellation init` starts the cluster"
    if observed.nodes:
        return ""
    planes = [m for m in running if m.role is Role.CONTROL_PLANE]
    if len(planes) == 1:
        return (
            "the API does not answer: after a reboot of its only control plane a cluster needs "
            "`constellation recover`"
        )
    return "the API does not answer: `constellation recover` if most control planes were rebooted"
