"""How a cluster comes from one release to another: policy, files, hand-over, and a look until done.

1. the release is verified and may follow; the cluster can take it     else nothing is changed
2. node image and artifacts lie where the provider takes them from
3. the provider boots the new image from now on
4. the policy of the roll-out, signed, goes to all control planes with the release chain
5. the operator replaces nodes; this program only looks
6. every node is of the new version and image, by its own evidence     `is_done`
   (and the objects of the cloud's components are the new release's, where they run)
7. the policy after the roll-out: only the new; the user's kubectl follows

Each step may be repeated, and the same command goes on after an interruption: what was signed lies
in the state file. What the operator reports is shown and decides nothing. Source: design, 11.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, ConstellationError, Rejected, Unavailable
from constellation.base.progress import Progress
from constellation.cluster import kubectl
from constellation.cluster.apply import observe, require_state
from constellation.cluster.cloud_integration import integration_findings, wanted_objects
from constellation.cluster.current_policy import current_policy, next_serial
from constellation.cluster.node_access import with_access
from constellation.cluster.plan import wanted_machines
from constellation.cluster.policy_hand_over import demand_own, hand_over
from constellation.cluster.secrets import read_secrets
from constellation.cluster.steps.machines import desired
from constellation.cluster.upgrade import target
from constellation.config.state import Image, write_state
from constellation.kube.cluster_release import Phase
from constellation.trust import artifact_list
from constellation.trust.cluster_policy import is_rolling, sign_policy
from constellation.trust.node_image import wanted_image
from constellation.trust.release_rules import finish_policy, next_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.cluster.context import Context, KubernetesNode
    from constellation.cluster.upgrade import Found
    from constellation.cluster.verify import Verified
    from constellation.config.schema import Config
    from constellation.config.state import State
    from constellation.kube.cluster_release import ReleaseStatus
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = [
    "Eyes",
    "Goal",
    "Prove",
    "ReadObjects",
    "ReadStatus",
    "apply_upgrade",
    "watch",
]

_TITLE = "Roll-out"
_LOOK_S = 2.0
_VERIFY_S = 20.0
_SURGE = 1


class ReadStatus(Protocol):
    """What the operator reports of a roll-out, for people; None: nothing yet."""

    async def __call__(self, kubeconfig: Path) -> ReleaseStatus | None:
        """Read it from the API that the kubeconfig names. Raises Unavailable."""
        ...


class ReadObjects(Protocol):
    """Which objects of the cloud's components were applied (SHA-256); empty: none."""

    async def __call__(self, kubeconfig: Path) -> str:
        """Read it from the API that the kubeconfig names. Raises Unavailable."""
        ...


class Prove(Protocol):
    """Fresh evidence of every machine, judged by the policy in the state."""

    async def __call__(
        self, context: Context, state: State, *, cluster_id: bytes | None, deadline_s: float
    ) -> tuple[Verified, ...]:
        """See `cluster.verify.verify_machines`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """How a roll-out is looked at: the operator's report, what nodes prove, what was applied."""

    status: ReadStatus
    prove: Prove
    objects: ReadObjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Where to, in the words of the configuration; `ends_at` in seconds since 1970, None: usual."""

    release: str
    kubernetes: str
    ends_at: int | None = None


async def apply_upgrade(
    context: Context,
    found: Found,
    goal: Goal,
    *,
    eyes: Eyes,
    back: bool = False,
    begun: Callable[[], None] = lambda: None,
) -> State:
    """Bring the cluster to the goal, and stay until every node proves that it is there.

    `back`: the cluster need not be whole, since what is left may be what does not work. `begun` is
    called once the control planes obey the policy that leads there.

    Raises:
        Conflict: the cluster's state does not allow it, or the operator has stopped; says why.
        Rejected: the release may not follow; all reasons.
        Unavailable: nothing went on for the context's `wait_s`; the same command goes on.
    """
    state = require_state(context)
    policy = current_policy(state)
    if is_rolling(policy):
        state = await _looked_at(context, state)
    if state.policy_before is not None:  # handed over, and interrupted before all obeyed it
        assert state.policy is not None  # noqa: S101 - there is one before it
        state = await hand_over(context, state, state.policy)
    if (_release(policy), policy.kubernetes_version) != (goal.release, goal.kubernetes):
        if not back:
            await _demand_whole(context, state)
        state = await _begin(context, state, found, goal)
        policy = current_policy(state)
    elif is_rolling(policy):
        await _name_image(context, await _with_own_files(context, state, found, goal))
    else:
        own = await _with_own_files(context, state, found, goal)
        if own != state:
            state = await _name_image(context, own)
        context.report(Progress(step=_TITLE, detail="nothing to do", finished=True))
        await kubectl.ensure(context, state)
        return state
    begun()
    await watch(context, eyes=eyes)
    state = await _finish(context, require_state(context), policy)
    await kubectl.ensure(context, state)
    return state


async def watch(context: Context, *, eyes: Eyes) -> None:
    """Show what goes on until every node is what the policy wants; changes nothing.

    Raises:
        Conflict: the operator has stopped, with its reason.
        Unavailable: nothing changed for the context's `wait_s`.
    """
    state = require_state(context)
    policy = current_policy(state)
    last, since = "", monotonic_s()
    while True:
        seen = await _look(context, eyes.status)
        now = _show(context, seen)
        if await _is_done(context, state, policy, eyes=eyes):
            context.report(Progress(step=_TITLE, detail="every node is new", finished=True))
            return
        if seen is not None and seen.phase is Phase.STOPPED and seen.policySerial == policy.serial:
            raise Conflict(
                f"the roll-out has stopped: {seen.message}",
                hint="mend it and it goes on, or `constellation upgrade rollback`",
            )
        if now != last:
            last, since = now, monotonic_s()
        if monotonic_s() - since > context.wait_s:
            raise Unavailable(
                f"nothing went on for {context.wait_s:g} s: {last or 'no report of the operator'}",
                hint="the operator goes on by itself; the same command looks again",
            )
        await asyncio.sleep(_LOOK_S)


def _show(context: Context, seen: ReleaseStatus | None) -> str:
    """Show what the operator reports, a line for each node; gives the whole of it as one text."""
    if seen is None:
        context.report(Progress(step=_TITLE, detail="no report of the operator yet"))
        return ""
    words = []
    for node in seen.nodes:
        shown = ", ".join(w for w in (node.health, node.step, node.reason) if w)
        versions = " ".join(w for w in (node.kubelet, node.image[:12]) if w)
        words.append(f"{node.name}: {versions} {shown}")
        context.report(Progress(step=f"Node {node.name}", detail=f"{versions} {shown}"))
    message = seen.message or str(seen.phase)
    context.report(Progress(step=_TITLE, detail=message))
    return "\n".join((message, *words))


async def _looked_at(context: Context, state: State) -> State:
    """Note which machines there are now: an interrupted roll-out has replaced some."""
    made = await context.infrastructure(state.uid).observe()
    state = dataclasses.replace(state, infrastructure=made or state.infrastructure)
    write_state(context.workspace.state, state)
    return state


async def _look(context: Context, status: ReadStatus) -> ReleaseStatus | None:
    try:
        return await status(context.workspace.kubeconfig)
    except Unavailable:
        return None


async def _begin(context: Context, state: State, found: Found, goal: Goal) -> State:
    """Sign the policy of the roll-out, make everything ready for it, hand it over.

    Whoever follows another workstation's policy by mistake must not tell the provider of an image.
    """
    current, now_s = current_policy(state), int(context.now().timestamp())
    aim = target(context.config, state, goal.kubernetes, now_s=now_s)
    if goal.ends_at is not None:
        aim = dataclasses.replace(aim, ends_at=goal.ends_at)
    listed = found.verified.release.kubernetes.get(goal.kubernetes)
    if reasons := integration_findings(state, listed, provider=context.config.provider.name):
        raise Rejected(reasons)
    policy = dataclasses.replace(
        next_policy(current, found.verified, aim, now=now_s),
        serial=next_serial(state, current),
        slots={name: group.most + _SURGE for name, group in context.config.node_groups.items()},
        artifact_sources=context.config.artifacts.sources,
    )
    await demand_own(context, state, following=policy)
    following = await _following(context, state, policy, found, goal)
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    # before the provider hears of it: whoever is cut off and turns back has to tell it again
    write_state(context.workspace.state, following)
    following = await _name_image(context, following)
    signed = sign_policy(await with_access(context, following, policy), owner.owner_key)
    try:
        return await hand_over(context, following, signed, chain=found.chain)
    except ConstellationError:
        left = require_state(context)
        if left.policy != signed:  # every control plane has refused it
            await _name_image(context, _with_files_of(left, state))
        raise


def _with_files_of(state: State, before: State) -> State:
    return dataclasses.replace(
        state,
        image=before.image,
        kubernetes_version=before.kubernetes_version,
        artifact_list=before.artifact_list,
        services_bundle=before.services_bundle,
    )


async def _with_own_files(context: Context, state: State, found: Found, goal: Goal) -> State:
    """Give the state with the files of the release that the policy follows.

    An earlier run may have told the provider of another one, and ended before it signed a policy.
    """
    policy = current_policy(state)
    if state.image is not None and state.image.release.image_digest == wanted_image(policy):
        return state
    return await _following(context, state, policy, found, goal)


async def _following(
    context: Context, state: State, policy: ClusterPolicy, found: Found, goal: Goal
) -> State:
    """Fetch the release's files, and note what machines boot and run from now on."""
    release, kubernetes = found.verified.release, goal.kubernetes
    context.report(Progress(step="Files of the release", detail=release.version))
    path = await context.supplies.release_files(
        release, context.config, kubernetes=kubernetes, report=context.report
    )
    context.report(Progress(step="Files of the release", finished=True))
    image = next(e for e in policy.releases if e.name == release.version)
    listed = release.kubernetes[kubernetes]
    return dataclasses.replace(
        state,
        image=Image(path=str(path), release=image),
        kubernetes_version=kubernetes,
        artifact_list=artifact_list.dump(listed),
        services_bundle=bytes.fromhex(release.services_bundle),
    )


async def _name_image(context: Context, state: State) -> State:
    """Tell the provider which image machines boot from now on; those that exist keep theirs."""
    made = await context.infrastructure(state.uid).apply(
        desired(context, state), report=context.report
    )
    state = dataclasses.replace(state, infrastructure=made)
    write_state(context.workspace.state, state)
    return state


async def _finish(context: Context, state: State, policy: ClusterPolicy) -> State:
    """Accept only the new from now on."""
    signed = sign_policy(
        _after(policy, state, context.config),
        read_secrets(context.workspace, cluster_id=state.cluster_id).owner_key,
    )
    return await hand_over(context, await _looked_at(context, state), signed)


def _after(policy: ClusterPolicy, state: State, config: Config) -> ClusterPolicy:
    return dataclasses.replace(
        finish_policy(policy),
        serial=next_serial(state, policy),
        slots={name: group.most for name, group in config.node_groups.items()},
    )


async def _is_done(context: Context, state: State, policy: ClusterPolicy, *, eyes: Eyes) -> bool:
    """Ask Kubernetes for versions and components, and each node for its evidence.

    By the policy after this one.
    """
    try:
        if policy.cloud_integration:
            applied = await eyes.objects(context.workspace.kubeconfig)
            if applied != wanted_objects(context, state):
                return False
        nodes = await context.list_nodes(context.workspace.kubeconfig)
        made = await context.infrastructure(state.uid).observe()
    except Unavailable:
        return False
    if made is None:
        return False
    wanted = wanted_machines(context.config, made.instances)
    if len(made.instances) != wanted or not _all_new(nodes, policy, wanted=wanted):
        return False
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    after = _after(policy, state, context.config)
    strict = dataclasses.replace(
        state,
        infrastructure=made,
        policy=sign_policy(after, owner.owner_key),
        policy_serial=after.serial,
    )
    quiet = dataclasses.replace(context, report=lambda _: None)
    found = await eyes.prove(quiet, strict, cluster_id=None, deadline_s=_VERIFY_S)
    return all(node.error is None for node in found)


def _all_new(nodes: tuple[KubernetesNode, ...], policy: ClusterPolicy, *, wanted: int) -> bool:
    return len(nodes) == wanted and all(
        node.ready and node.version == policy.kubernetes_version for node in nodes
    )


async def _demand_whole(context: Context, state: State) -> None:
    """Refuse to begin where something is missing already. Raises Conflict."""
    seen = await observe(context, state)
    machines = seen.infrastructure.instances if seen.infrastructure is not None else ()
    wanted = wanted_machines(context.config, machines)
    ready = sum(node.ready for node in seen.nodes)
    if not (len(machines) == len(seen.nodes) == ready == wanted):
        raise Conflict(
            f"no roll-out begins while the cluster is not whole: {len(machines)} machines and "
            f"{ready} Ready nodes, {wanted} wanted",
            hint="`constellation status` says what is missing",
        )


def _release(policy: ClusterPolicy) -> str:
    return "" if policy.release is None else policy.release.version
