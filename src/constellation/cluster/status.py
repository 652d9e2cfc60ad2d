"""How a cluster is doing: machines, nodes, which phase it is in, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable, UserError
from constellation.cluster.apply import observe, require_state
from constellation.cluster.cloud_integration import wanted_objects
from constellation.cluster.plan import wanted_machines
from constellation.cluster.steps.ready import missing
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from constellation.cluster.context import Context, KubernetesNode
    from constellation.cluster.plan import Observed
    from constellation.cluster.roll_out import ReadObjects
    from constellation.config.state import State
    from constellation.providers.protocols import Instance

__all__ = ["Judged", "Status", "judge", "status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """In which phase a cluster is, for people, and what comes next; empty where all is well."""

    phase: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `constellation status` shows.

    `wanted_objects`, `applied_objects`: SHA-256 of the objects of the cloud's components that the
    policy wants, and of those in the cluster; empty: none, None: the API does not say.
    """

    state: State
    machines: tuple[Instance, ...]
    nodes: tuple[KubernetesNode, ...]
    judged: Judged
    wanted_objects: str = ""
    applied_objects: str | None = None

    @property
    def ready(self) -> bool:
        """Say whether the cluster is whole: initialised, as many Ready nodes as machines."""
        return not self.judged.advice


async def status(context: Context, *, objects: ReadObjects) -> Status:
    """Look at machines and nodes, and, where the cloud's components run, at which.

    Raises:
        Conflict: there is no cluster in this workspace.
    """
    state = require_state(context)
    observed = await observe(context, state)
    machines = observed.infrastructure.instances if observed.infrastructure is not None else ()
    wanted = wanted_machines(context.config, machines)
    return Status(
        state=state,
        machines=machines,
        nodes=observed.nodes,
        judged=judge(state, observed, wanted=wanted),
        wanted_objects=(components := wanted_objects(context, state)),
        applied_objects=await _applied(context, objects) if components else None,
    )


async def _applied(context: Context, objects: ReadObjects) -> str | None:
    try:
        return await objects(context.workspace.kubeconfig)
    except (Unavailable, UserError):
        return None


def judge(state: State, observed: Observed, *, wanted: int) -> Judged:
    """Say how the cluster is; `wanted` is the number of machines in the conf."""
    initialised = bool(state.cluster_ca) and observed.has_kubeconfig
    machines = observed.infrastructure.instances if observed.infrastructure is not None else ()
    running = [m for m in machines if m.state in ("running", "starting")]
    if state.infrastructure is None:
        return Judged(phase="not created yet", advice="`constellation create` goes on")
    if observed.infrastructure is None:
        then = ", then `constellation recover`" if initialised else ""
        return Judged(
            phase="its machines are off, or the local cloud's daemon is",
            advice=f"`constellation create` starts the same machines with their disks{then}",
        )
    if len(running) < wanted:
        return Judged(
            phase=f"{len(running)} of {wanted} machines run",
            advice="`constellation create` starts the others",
        )
    return _with_machines(state, observed, initialised=initialised, wanted=wanted)


def _with_machines(state: State, observed: Observed, *, initialised: bool, wanted: int) -> Judged:
    if not initialised:
        began = state.init is not None
        return Judged(
            phase="its init is not finished" if began else "created, not initialised",
            advice="`constellation init` " + ("goes on" if began else "starts the cluster"),
        )
    if not observed.nodes:
        machines = observed.infrastructure.instances if observed.infrastructure is not None else ()
        return _silent(sum(m.role is Role.CONTROL_PLANE for m in machines))
    if left := missing(observed.nodes, wanted=wanted):
        ready = sum(node.ready for node in observed.nodes)
        return Judged(
            phase=f"{ready} of {wanted} nodes are Ready; waiting for {left}",
            advice="if it lasts, `constellation log` says who was refused and why",
        )
    return Judged(phase="running")


def _silent(planes: int) -> Judged:
    if planes == 1:
        why = "after a reboot of its only control plane a cluster needs it"
    else:
        why = "if most control planes were rebooted"
    return Judged(
        phase="the Kubernetes API does not answer", advice=f"`constellation recover`: {why}"
    )
