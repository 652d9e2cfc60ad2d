"""Which steps lead from what is to what the conf wants: a plain function, shown by `--plan`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from constellation.cluster.current_policy import current_policy
from constellation.trust.cluster_policy import is_rolling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.cluster.context import KubernetesNode
    from constellation.config.schema import Config
    from constellation.config.state import State
    from constellation.providers.protocols import InfrastructureState, Instance

__all__ = ["Observed", "Planned", "Step", "plan", "resized", "wanted_machines"]


class Step(StrEnum):
    """The steps, in their order."""

    ARTIFACTS = "artifacts"
    IMAGE = "image"
    IDENTITY = "identity"
    SIZES = "sizes"
    MACHINES = "machines"
    INIT = "init"
    READY = "ready"
    ACCESS = "access"
    SOURCES = "sources"
    INTEGRATION = "cloud integration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What there is: machines as the provider shows them, nodes as Kubernetes does.

    `resources`: what of a cloud's resources differs from the conf, a line each; `access_differs`:
    control planes are to ask the provider with something else than the policy has;
    `sources_differ`: nodes are to fetch artifacts from elsewhere; `integration_differs`: the
    cloud's components are to run, or to run no more.
    """

    infrastructure: InfrastructureState | None
    has_kubeconfig: bool
    nodes: tuple[KubernetesNode, ...]
    resources: tuple[str, ...] = ()
    access_differs: bool = False
    sources_differ: bool = False
    integration_differs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One step that will act, and why; `details` are for who wants to see all of it."""

    step: Step
    why: str
    details: tuple[str, ...] = ()


def plan(config: Config, state: State | None, observed: Observed) -> tuple[Planned, ...]:
    """List the steps that have something to do; empty where the cluster is as the conf says."""
    steps: list[Planned] = []
    if state is None or state.infrastructure is None or observed.infrastructure is None:
        steps += [
            Planned(step=Step.ARTIFACTS, why=f"Kubernetes {config.kubernetes_version}"),
            Planned(step=Step.IMAGE, why="node image and services"),
        ]
    if state is None:
        steps.append(Planned(step=Step.IDENTITY, why="no master secret and node document yet"))
    others = resized(config, state)
    steps += [
        Planned(step=Step.SIZES, why=f"{name}: size {config.node_groups[name].size} is wanted")
        for name in others
    ]
    why = _machines(config, observed.infrastructure, without=others)
    if observed.resources:
        why = ", ".join(filter(None, (why, f"{len(observed.resources)} resources differ")))
    if why:
        steps.append(Planned(step=Step.MACHINES, why=why, details=observed.resources))
    if state is None or not state.cluster_ca or not observed.has_kubeconfig:
        started = state is not None and state.init is not None
        why = "an earlier init goes on" if started else "the cluster was not initialised"
        steps.append(Planned(step=Step.INIT, why=why))
    machines = observed.infrastructure.instances if observed.infrastructure is not None else ()
    wanted = wanted_machines(config, machines)
    ready = sum(node.ready for node in observed.nodes)
    if ready < wanted:
        steps.append(Planned(step=Step.READY, why=f"{ready} of {wanted} nodes are Ready"))
    if observed.access_differs:
        why = "control planes get another credential or other templates for the provider"
        steps.append(Planned(step=Step.ACCESS, why=why))
    if observed.sources_differ:
        why = "nodes are to fetch artifacts from other sources"
        steps.append(Planned(step=Step.SOURCES, why=why))
    if observed.integration_differs:
        wants = config.provider.wants_integration
        why = "the release's components of the cloud are " + ("started" if wants else "taken away")
        steps.append(Planned(step=Step.INTEGRATION, why=why))
    return tuple(steps)


def wanted_machines(config: Config, there: Iterable[Instance]) -> int:
    """Say how many machines there should be: where an autoscaler may decide, as many as it did."""
    groups = [machine.group for machine in there]
    return sum(
        min(max(groups.count(name), group.least), group.most)
        for name, group in config.node_groups.items()
    )


def resized(config: Config, state: State | None) -> tuple[str, ...]:
    """Name the groups of a cluster that runs whose size in the configuration is another now.

    By what the workstation knows: a machine that is missing for another reason is the operator's to
    replace. A group without machines is new: it is made first. None in a roll-out, and none of
    hosts: those keep their size.
    """
    if state is None or not state.cluster_ca or state.infrastructure is None:
        return ()
    policy = current_policy(state)
    if is_rolling(policy) or config.provider.baremetal is not None:
        return ()
    there = Counter(machine.group for machine in state.infrastructure.instances)
    return tuple(
        name
        for name, group in config.node_groups.items()
        if there[name]
        and (
            policy.slots.get(name, group.most) != group.most
            or (group.autoscaling is None and there[name] != group.size)
        )
    )


def _machines(
    config: Config, infrastructure: InfrastructureState | None, *, without: tuple[str, ...]
) -> str:
    reasons = []
    for name, group in config.node_groups.items():
        if name in without:
            continue
        machines = [
            m
            for m in (infrastructure.instances if infrastructure is not None else ())
            if m.group == name
        ]
        running = sum(m.state in ("running", "starting") for m in machines)
        if running < group.least:
            reasons.append(f"{name}: {running} of {group.least} run")
    return ", ".join(reasons)
