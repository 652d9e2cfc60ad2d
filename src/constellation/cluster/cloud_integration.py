"""Whether a cloud's own components run: the conf's word, in the owner's policy; which: the list's.

The word alone is handed over here; the operator then has an upgrade agent bring the objects of the
signed list to the cluster, or take them away. What was applied is what an annotation in the cluster
says: for waiting and for people. Source: ADR 118.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, Unavailable
from constellation.base.progress import Progress
from constellation.cluster.current_policy import current_policy
from constellation.cluster.policy_follows import follow
from constellation.cluster.steps.prepare import check_integration
from constellation.kube.cloud_objects import artifact_name
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from constellation.cluster.cloud_leavings import Leavings
    from constellation.cluster.context import Context
    from constellation.config.state import State
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.cluster_policy import ClusterPolicy

    ReadObjects = Callable[[Path], Awaitable[str]]
    LookAround = Callable[[Path], Awaitable[Leavings]]

__all__ = [
    "follow_integration",
    "integration_differs",
    "integration_findings",
    "objects_digest",
    "wanted_objects",
]

_STEP = "Cloud integration"
_LOOK_S = 2.0


def integration_differs(context: Context, state: State) -> bool:
    """Say whether the conf wants the cloud's components otherwise than the policy does."""
    if state.policy is None:
        return False
    return current_policy(state).cloud_integration != context.config.provider.wants_integration


def wanted_objects(context: Context, state: State) -> str:
    """Give the SHA-256 of the objects that the policy wants; empty: none.

    Raises:
        FormatError: it wants some, and the list of the state names none.
    """
    if state.policy is None or not current_policy(state).cloud_integration:
        return ""
    listed = artifact_list.parse(state.artifact_list)
    return listed.objects(artifact_name(context.config.provider.name)).sha256


def objects_digest(listed: ArtifactList, provider: str) -> str:
    """Give the SHA-256 of the objects that a list has for a cloud; empty: none."""
    name = artifact_name(provider)
    return next((a.sha256 for a in listed.of_kind(ArtifactKind.OBJECTS) if a.name == name), "")


def integration_findings(
    state: State, listed: ArtifactList | None, *, provider: str
) -> tuple[str, ...]:
    """Say what speaks against moving to a list: a cluster with components would lose theirs."""
    if listed is None or not current_policy(state).cloud_integration:
        return ()
    if objects_digest(listed, provider):
        return ()
    name, version = artifact_name(provider), listed.kubernetes_version
    missing = f"no {name} for Kubernetes {version} in the release"
    return (f"{missing}, and this cluster runs its cloud's components",)


async def follow_integration(
    context: Context, state: State, *, applied: ReadObjects, look: LookAround
) -> State:
    """Let the cloud's components run, or run no more; nothing new: nothing happens.

    Raises:
        UserError: they are wanted, and the release names none.
        Conflict: something in the cluster needs them; names it.
        Unavailable: not every control plane obeys yet, or the objects are not there in the
            context's `wait_s`; the same command goes on.
    """
    wants = context.config.provider.wants_integration
    if not (wants or integration_differs(context, state)):
        return state

    async def changed(context: Context, state: State, policy: ClusterPolicy) -> ClusterPolicy:
        if policy.cloud_integration == wants:
            return policy
        if wants:
            check_integration(context, artifact_list.parse(state.artifact_list))
        else:
            _demand_unused(await look(context.workspace.kubeconfig))
        return dataclasses.replace(policy, cloud_integration=wants)

    state = await follow(
        context, state, changed=changed, step=_STEP, begun="on" if wants else "off", done=""
    )
    await _wait(context, wanted_objects(context, state), applied=applied)
    return state


def _demand_unused(there: Leavings) -> None:
    """Refuse to take away what balancers and disks in use need. Raises Conflict."""
    if found := there.names():
        raise Conflict(
            f"the cloud's components are in use: {', '.join(found)}",
            hint="delete these first: without the components nobody removes what they stand for",
        )


async def _wait(context: Context, wanted: str, *, applied: ReadObjects) -> None:
    end = monotonic_s() + context.wait_s
    while True:
        try:
            found = await applied(context.workspace.kubeconfig)
        except Unavailable as error:  # of one control plane it may be away for a while
            detail = str(error)
        else:
            if found == wanted:
                break
            detail = f"found {found[:12] or 'none'}, expected {wanted[:12] or 'none'}"
        context.report(Progress(step=_STEP, detail=detail))
        if monotonic_s() > end:
            raise Unavailable(
                f"the cloud's components are not there within {context.wait_s:g} s: {detail}",
                hint="`kubectl get clusterrelease cluster` says why; the same command goes on",
            )
        await asyncio.sleep(_LOOK_S)
    context.report(Progress(step=_STEP, detail=wanted[:12] or "none", finished=True))
