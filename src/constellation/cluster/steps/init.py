"""How the first control plane becomes a cluster: attest it, prove the owner key, give the secret.

Before any secret moves the state file names the chosen node and its attestation key. A repeated
init goes to that node only. The node makes the join key and returns its public half; policy serial
1 names it and goes back signed. Source: design, sections 4 and 6; rpc/protos/init.proto.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, FormatError, Unavailable
from constellation.base.progress import Progress
from constellation.base.retry import until_available
from constellation.base.told import from_exit_code
from constellation.cluster import kubeconfig, reach
from constellation.cluster.node_sources import demand_source
from constellation.cluster.recover import recover_node
from constellation.cluster.secrets import read_secrets
from constellation.cluster.steps.machines import desired
from constellation.config.state import ChosenNode, write_state
from constellation.providers.protocols import Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import init_grpc, init_pb2
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, prove_owner_channel
from constellation.trust.cluster_policy import ClusterPolicy, sign_policy

if TYPE_CHECKING:
    from grpclib.client import Stream

    from constellation.atls.client import AtlsChannel
    from constellation.cluster.context import Context
    from constellation.cluster.secrets import ClusterSecrets
    from constellation.config.schema import NodeGroup
    from constellation.config.state import State
    from constellation.providers.protocols import InfrastructureState, Instance

__all__ = ["POD_CIDR", "choose", "run"]

POD_CIDR = "10.244.0.0/16"
MESH_CIDR = "10.43.0.0/16"

_TITLE = "Start the cluster"
_CONNECT_S = 10.0


async def run(context: Context, state: State) -> State:
    """Initialise the cluster, or go on where an earlier run stopped.

    Raises:
        Conflict: another node than the chosen one answers.
        Rejected: the node is not acceptable; nothing secret has left this machine.
        UserError: the conf names nothing that nodes could fetch artifacts from.
        Unavailable: the node does not answer.
    """
    demand_source(context)
    secrets = read_secrets(context.workspace, cluster_id=state.cluster_id)
    if context.abandon:
        state = dataclasses.replace(state, init=None)
    instance = choose(state)
    channel = await _reach(context, state, instance, secrets)
    try:
        return await _talk(context, state, instance, channel, secrets)
    finally:
        channel.close()


def choose(state: State) -> Instance:
    """Pick the node to initialise: the one chosen before, else the first control plane by id.

    Raises:
        Conflict: there is none, or the chosen one is gone. Where the cluster runs already, its
            administrator's kubeconfig is what is missing: no other node has it.
    """
    machines = state.infrastructure.instances if state.infrastructure is not None else ()
    planes = sorted(
        (m for m in machines if m.role is Role.CONTROL_PLANE), key=lambda m: m.instance_id
    )
    if state.init is not None:
        planes = [m for m in planes if m.instance_id == state.init.instance_id]
        if not planes and state.cluster_ca:
            raise Conflict(
                "the cluster was initialised, and the node that made its administrator's "
                f"kubeconfig, {state.init.instance_id}, is gone",
                hint="put your copy of constellation-admin.conf back",
            )
        if not planes:
            raise Conflict(
                f"node {state.init.instance_id}, which an earlier init chose, is gone",
                hint="`constellation init --abandon` starts with another; "
                "what the lost node's disk holds stays locked",
            )
    if not planes:
        raise Conflict("no control plane exists", hint="run `constellation create`")
    return planes[0]


async def _reach(
    context: Context, state: State, instance: Instance, secrets: ClusterSecrets
) -> AtlsChannel:
    end = monotonic_s() + context.wait_s
    appraise = reach.appraise_for_init(state, now=context.now)

    async def attempt() -> AtlsChannel:
        left = f"{max(0, int(end - monotonic_s()))} s left"
        context.report(
            Progress(step=_TITLE, detail=f"waiting for node {instance.instance_id}, {left}")
        )
        try:
            return await reach.connect(
                instance.init_endpoint,
                service="init",
                appraise=appraise,
                deadline_s=_CONNECT_S,
            )
        except Unavailable:
            if state.init is not None:
                # power-cycled half-way: it asks for its disk key before it can go on
                await recover_node(context, state, instance, secrets, deadline_s=_CONNECT_S)
            raise

    return await until_available(attempt, deadline_s=context.wait_s)


async def _talk(
    context: Context,
    state: State,
    instance: Instance,
    channel: AtlsChannel,
    secrets: ClusterSecrets,
) -> State:
    peer = channel.peer
    if state.init is not None and peer.attester_id != state.init.attester_id:
        raise Conflict(
            f"node {instance.instance_id} has attestation key {peer.attester_id.hex()}, "
            f"the chosen one had {state.init.attester_id.hex()}: it is another machine",
            hint="`constellation init --abandon` gives the secret to this one",
        )
    chosen = ChosenNode(instance_id=instance.instance_id, attester_id=peer.attester_id)
    state = dataclasses.replace(state, init=chosen)
    write_state(context.workspace.state, state)
    context.report(Progress(step=_TITLE, detail="the node is attested; its steps follow"))
    start = await _start(context, state, channel, secrets)
    stub = init_grpc.InitServiceStub(channel.grpc)
    with raise_ours(f"node {instance.instance_id}"):
        async with stub.Init.open() as stream:
            await stream.send_message(init_pb2.InitRequest(start=start))
            while (event := await stream.recv_message()) is not None:
                match event.WhichOneof("kind"):
                    case "policy_needed":
                        state = _with_policy(
                            context, state, event.policy_needed.join_public_key, secrets
                        )
                        write_state(context.workspace.state, state)
                        await _send_policy(stream, state)
                    case "finished":
                        await stream.end()
                        return _finish(context, state, event.finished)
                    case "failed":
                        raise _failure(context, event.failed)
                    case kind:
                        context.report(_progress(kind, getattr(event, kind or "started")))
    raise Unavailable(
        f"node {instance.instance_id} ended the conversation before the cluster was there",
        hint="the same command again goes on",
    )


async def _start(
    context: Context, state: State, channel: AtlsChannel, secrets: ClusterSecrets
) -> init_pb2.Start:
    signature = prove_owner_channel(
        secrets.owner_key,
        exporter=channel.exporter(OWNER_CHANNEL_LABEL),
        cluster_id=state.cluster_id,
        purpose="init",
    )
    start = init_pb2.Start(
        owner_signature=signature,
        plan=_plan(context, state),
        time=int(context.now().timestamp()),
        artifact_sources=context.config.artifacts.sources,
    )
    if not reach.is_given_to_cluster(state, channel.peer):
        start.master_key = secrets.master.key.reveal()
        start.master_salt = secrets.master.salt.reveal()
        if context.node_access is not None:
            access = await context.node_access(state.uid, desired(context, state))
            start.provider_access = access.reveal()
    return start


def _plan(context: Context, state: State) -> init_pb2.ClusterPlan:
    machines, chosen = _machines(state), state.init
    assert chosen is not None  # noqa: S101 - written just before
    return init_pb2.ClusterPlan(
        name=state.name,
        kubernetes_version=state.kubernetes_version,
        artifact_list=state.artifact_list,
        endpoint=machines.endpoint,
        user_endpoint=machines.user_endpoint,
        api_sans=machines.api_sans,
        service_cidr=context.config.service_cidr,
        pod_cidr=POD_CIDR,
        mesh_cidr=MESH_CIDR,
        node_groups=[
            _node_group(name, group) for name, group in context.config.node_groups.items()
        ],
        instance_id=chosen.instance_id,
        cloud_integration=context.config.provider.wants_integration,
    )


def _node_group(name: str, group: NodeGroup) -> init_pb2.NodeGroup:
    bounds = group.autoscaling
    return init_pb2.NodeGroup(
        name=name,
        role=group.role,
        size=group.size,
        min=bounds.min if bounds is not None else 0,
        max=bounds.max if bounds is not None else 0,
    )


def _machines(state: State) -> InfrastructureState:
    if state.infrastructure is None or state.image is None:
        raise Conflict("no machines yet", hint="run `constellation create`")
    return state.infrastructure


def _with_policy(
    context: Context, state: State, join_public_key: bytes, secrets: ClusterSecrets
) -> State:
    """Sign serial 1; a repeated init signs it again for the same join key."""
    machines = _machines(state)
    assert state.image is not None  # noqa: S101 - _machines looked
    policy = ClusterPolicy(
        cluster_id=state.cluster_id,
        serial=1,
        releases=(state.image.release,),
        trust_roots=machines.trust_roots,
        artifact_lists={state.kubernetes_version: state.artifact_list_digest},
        services_bundle=state.services_bundle,
        kubernetes_version=state.kubernetes_version,
        join_public_key=join_public_key,
        platform=state.platform,
        slots={name: group.most for name, group in context.config.node_groups.items()},
        artifact_sources=context.config.artifacts.sources,
        cloud_integration=context.config.provider.wants_integration,
    )
    return dataclasses.replace(
        state, policy=sign_policy(policy, secrets.owner_key), policy_serial=policy.serial
    )


async def _send_policy(
    stream: Stream[init_pb2.InitRequest, init_pb2.InitEvent], state: State
) -> None:
    assert state.policy is not None  # noqa: S101 - signed just before
    policy = init_pb2.Policy(policy=state.policy.policy, signature=state.policy.signature)
    await stream.send_message(init_pb2.InitRequest(policy=policy))


def _progress(kind: str | None, step: init_pb2.Step) -> Progress:
    return Progress(
        step=f"{_TITLE}: {step.name}",
        detail=step.detail,
        done=step.done,
        total=step.total,
        finished=kind == "done",
    )


def _failure(context: Context, failed: init_pb2.Failed) -> Exception:
    hint = failed.hint
    if failed.journal:
        context.workspace.cluster_log.write_bytes(failed.journal)
        hint = f"{hint}; the node's journal: {context.workspace.cluster_log}".removeprefix("; ")
    return from_exit_code(failed.exit_code, failed.message, hint=hint)


def _finish(context: Context, state: State, finished: init_pb2.Finished) -> State:
    if state.policy is None:
        raise FormatError("the node finished without asking for the cluster policy")
    kubeconfig.write(
        context.workspace.kubeconfig,
        finished.kubeconfig,
        endpoint=_machines(state).user_endpoint,
    )
    return dataclasses.replace(state, cluster_ca=finished.cluster_ca_certificate)
