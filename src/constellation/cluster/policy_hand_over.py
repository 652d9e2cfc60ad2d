"""How a cluster comes to obey a new policy: given to one control plane, counted when all report it.

The state file names the policy before it leaves this machine, so that no other is ever signed with
its serial, and the release chain lies beside it; the same call again goes on. If every control
plane refuses it, the one before stays. Reports are believed from a channel that the join key has
signed. Source: design, section 6; rpc/protos/policy.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import files
from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, ConstellationError, Rejected, Unavailable
from constellation.base.progress import Progress
from constellation.cluster import reach
from constellation.cluster.present import with_present_machines
from constellation.cluster.secrets import read_secrets
from constellation.config.state import write_state
from constellation.providers.protocols import Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import policy_pb2
from constellation.rpc.stubs.policy_grpc import PolicyServiceStub
from constellation.trust.appraisal import node_verifier
from constellation.trust.channel_proof import (
    JOIN_CHANNEL_LABEL,
    OWNER_CHANNEL_LABEL,
    prove_owner_channel,
    verify_join_channel,
)
from constellation.trust.cluster_policy import parse_policy, verify_policy
from constellation.trust.node_document import parse_node_document
from constellation.trust.policy_succession import successor

if TYPE_CHECKING:
    from constellation.atls.client import Appraise, AtlsChannel
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.cluster.context import Context
    from constellation.cluster.secrets import ClusterSecrets
    from constellation.config.state import State
    from constellation.providers.protocols import Instance
    from constellation.trust.cluster_policy import ClusterPolicy, SignedPolicy

__all__ = ["Obeyed", "demand_own", "hand_over", "obeyed_policies"]

_TITLE = "Cluster policy"
_CONNECT_S = 10.0
_CALL_S = 30.0
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed:
    """What one live control plane obeys: `digest` is the SHA-256 (32 bytes) of the policy's bytes.

    `serial` 0: it is not known, `problem` says why. `access_digest`: of the sealed provider access
    that it has taken.
    """

    node_name: str
    serial: int
    digest: bytes
    problem: str
    access_digest: bytes = b""


async def hand_over(
    context: Context, state: State, signed: SignedPolicy, *, chain: bytes = b""
) -> State:
    """Make every live control plane obey `signed`; gives the state that names it.

    `chain` (`release_chain.dump_chain`) is what the control planes judge a new release by; empty:
    the policy only takes away, or it was given when this policy was handed over first.

    Raises:
        Conflict: the cluster was not initialised, or another policy has this serial.
        Untrusted: the owner did not sign it, or its serial is lower than one that was handed over.
        Rejected: it names another join key, or refuses the control planes that are to obey it.
        Unavailable: not all control planes report it in time; the same call again goes on.
    """
    owner, kept = _known(context, state)
    state = await with_present_machines(context, state)
    policy = successor(kept, signed, document=parse_node_document(state.node_document)) or kept
    with contextlib.suppress(Unavailable):  # then nobody is there to take it yet
        await _demand_own(context, state, policy, owner, kept)
    state = _noted(context, state, signed, policy, chain=chain)
    wanted = hashlib.sha256(signed.policy).digest()
    end = monotonic_s() + context.wait_s
    while True:
        try:
            obeyed = await _ask_one(context, state, policy, owner, new=signed)
        except _RefusedByAll as refused:
            _forget(context, state)
            raise refused.error from None
        except Conflict as conflict:  # since the look above: nobody will ever obey this one
            _forget(context, state)
            raise _of_another(str(conflict)) from None
        behind = [o for o in obeyed if o.digest != wanted or not _uses(o, policy)]
        if not behind:
            context.report(Progress(step=_TITLE, detail=f"serial {policy.serial}", finished=True))
            state = dataclasses.replace(state, policy_before=None)
            write_state(context.workspace.state, state)
            return state
        names = ", ".join(o.node_name for o in behind)
        context.report(Progress(step=_TITLE, detail=f"waiting for {names}"))
        if monotonic_s() > end:
            raise Unavailable(
                f"cluster policy {policy.serial} is not obeyed yet by {names}: "
                f"{_short_of(behind[0], policy)}",
                hint="the same command again goes on",
            )
        await asyncio.sleep(_AGAIN_S)


async def demand_own(context: Context, state: State, *, following: ClusterPolicy) -> None:
    """Refuse to go on from a policy that is not the cluster's any more.

    Control planes are asked that `following` accepts, which is to come next: by the present one the
    time of their image may be over, as after a roll-out that stopped.

    Raises:
        Conflict: a control plane obeys one that this workspace does not know: another workstation
            has handed it over. Nothing is changed.
        Unavailable: no control plane answers.
        Rejected: `following` refuses all of them.
    """
    owner, kept = _known(context, state)
    state = await with_present_machines(context, state)
    await _demand_own(context, state, following, owner, kept)


async def _demand_own(
    context: Context,
    state: State,
    following: ClusterPolicy,
    owner: ClusterSecrets,
    kept: ClusterPolicy,
) -> None:
    mine = [s for s in (state.policy, state.policy_before) if s is not None]
    digests = {hashlib.sha256(s.policy).digest() for s in mine}
    try:
        reports = await _ask_one(context, state, following, owner, new=None)
    except _RefusedByAll as refused:
        raise refused.error from None
    for obeyed in reports:
        if obeyed.serial >= kept.serial and obeyed.digest not in digests:
            raise _of_another(
                f"{obeyed.node_name} obeys cluster policy {obeyed.serial}, which this workspace "
                "does not know"
            )


def _of_another(why: str) -> Conflict:
    return Conflict(
        f"{why}: another workstation has gone on",
        hint="go on there, or copy its constellation-state.yaml into this workspace",
    )


async def obeyed_policies(context: Context, state: State) -> tuple[Obeyed, ...]:
    """Ask which policy each live control plane obeys.

    Raises:
        Conflict: the cluster was not initialised.
        Unavailable: no control plane answers.
    """
    owner, kept = _known(context, state)
    state = await with_present_machines(context, state)
    try:
        return await _ask_one(context, state, kept, owner, new=None)
    except _RefusedByAll as refused:
        raise refused.error from None


def _uses(obeyed: Obeyed, policy: ClusterPolicy) -> bool:
    """Say whether a control plane asks the provider with what this policy has."""
    sealed = policy.provider_access
    return not sealed or obeyed.access_digest == hashlib.sha256(sealed).digest()


def _short_of(obeyed: Obeyed, policy: ClusterPolicy) -> str:
    if obeyed.serial == policy.serial and not obeyed.problem:
        return "its KeyService has not taken the provider access (its journal says why)"
    return obeyed.problem or f"serial {obeyed.serial} there"


class _RefusedByAll(Exception):
    """Every control plane answered, and none takes the policy."""

    def __init__(self, error: ConstellationError) -> None:
        super().__init__(str(error))
        self.error = error


def _noted(
    context: Context, state: State, signed: SignedPolicy, policy: ClusterPolicy, *, chain: bytes
) -> State:
    """Write down what is about to leave this machine."""
    if chain:
        files.write_atomic(context.workspace.release_chain(policy.serial), chain)
    if state.policy != signed:
        state = dataclasses.replace(
            state,
            policy=signed,
            policy_serial=policy.serial,
            policy_before=state.policy,
            signed_serial=policy.serial,
        )
    write_state(context.workspace.state, state)
    return state


def _forget(context: Context, state: State) -> None:
    """Go back to the policy before: nobody took the new one. Its serial is never used again."""
    if state.policy_before is None:
        return
    serial = parse_policy(state.policy_before.policy).serial
    write_state(
        context.workspace.state,
        dataclasses.replace(
            state, policy=state.policy_before, policy_serial=serial, policy_before=None
        ),
    )


def _chain(context: Context, policy: ClusterPolicy) -> bytes:
    try:
        return context.workspace.release_chain(policy.serial).read_bytes()
    except FileNotFoundError:
        return b""


def _known(context: Context, state: State) -> tuple[ClusterSecrets, ClusterPolicy]:
    if state.policy is None:
        raise Conflict("the cluster was not initialised", hint="run `constellation init`")
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    policy = verify_policy(
        state.policy,
        owner_public_key=owner.owner_public_key,
        cluster_id=state.cluster_id,
        minimum_serial=state.policy_serial,
    )
    return owner, policy


async def _ask_one(
    context: Context,
    state: State,
    policy: ClusterPolicy,
    owner: ClusterSecrets,
    *,
    new: SignedPolicy | None,
) -> tuple[Obeyed, ...]:
    """Ask the control planes in turn until one answers as a JoinService of this cluster."""
    machines = state.infrastructure.instances if state.infrastructure is not None else ()
    failed: list[ConstellationError] = [
        Unavailable("no control plane exists", hint="run `constellation create`")
    ]
    for machine in machines:
        if machine.role is not Role.CONTROL_PLANE:
            continue
        try:
            return await _ask(context, state, policy, owner, machine, new=new)
        except Conflict:
            raise
        except ConstellationError as error:
            failed.append(error)
    refusals = [e for e in failed if not isinstance(e, Unavailable)]
    if refusals and len(refusals) == len(failed) - 1:
        raise _RefusedByAll(refusals[0])
    raise refusals[0] if refusals else failed[-1]


async def _ask(
    context: Context,
    state: State,
    policy: ClusterPolicy,
    owner: ClusterSecrets,
    machine: Instance,
    *,
    new: SignedPolicy | None,
) -> tuple[Obeyed, ...]:
    channel = await reach.connect(
        machine.policy_endpoint,
        service="policy",
        appraise=_appraise(context, state, policy),
        deadline_s=_CONNECT_S,
    )
    try:
        chain = _chain(context, policy) if new is not None else b""
        who = f"node {machine.instance_id}"
        reply = await _call(channel, owner, who=who, new=new, chain=chain)
        verify_join_channel(
            policy.join_public_key,
            reply.channel_signature,
            exporter=channel.exporter(JOIN_CHANNEL_LABEL),
            cluster_id=state.cluster_id,
        )
    finally:
        channel.close()
    return tuple(
        Obeyed(
            node_name=o.node_name,
            serial=o.serial,
            digest=o.digest,
            problem=o.problem,
            access_digest=o.access_digest,
        )
        for o in reply.control_planes
    )


async def _call(
    channel: AtlsChannel,
    owner: ClusterSecrets,
    *,
    who: str,
    new: SignedPolicy | None,
    chain: bytes,
) -> policy_pb2.PolicyReport:
    proof = prove_owner_channel(
        owner.owner_key,
        exporter=channel.exporter(OWNER_CHANNEL_LABEL),
        cluster_id=owner.cluster_id,
        purpose="policy",
    )
    stub = PolicyServiceStub(channel.grpc)
    with raise_ours(who):
        if new is None:
            return await stub.Report(
                policy_pb2.ReportRequest(owner_signature=proof), timeout=_CALL_S
            )
        request = policy_pb2.HandOverRequest(
            owner_signature=proof,
            policy=new.policy,
            policy_signature=new.signature,
            release_chain=chain,
        )
        return await stub.HandOver(request, timeout=_CALL_S)


def _appraise(context: Context, state: State, policy: ClusterPolicy) -> Appraise:
    """Accept control planes that the policy itself accepts: none else could obey it for long."""
    document = parse_node_document(state.node_document)

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        if evidence.variant is not document.variant:
            raise Rejected((f"variant: found {evidence.variant}, expected {document.variant}",))
        now = context.now()
        verifier = node_verifier(policy, document, joined=True, now=now)
        return verifier.appraise(evidence, binding=binding, now=now)

    return appraise
