"""How a rebooted control plane gets its disk key when no JoinService is left to give it.

Attest it (fresh: PCR 15 zero, an image that the cluster policy accepts), prove the owner key over
this channel, send the master secret. Source: design, section 6; rpc/protos/recover.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, ConstellationError, Unavailable
from constellation.base.progress import Progress
from constellation.cluster import reach
from constellation.cluster.present import with_present_machines
from constellation.cluster.secrets import read_secrets
from constellation.providers.protocols import Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import recover_grpc, recover_pb2
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, prove_owner_channel

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.cluster.secrets import ClusterSecrets
    from constellation.config.state import State
    from constellation.providers.protocols import Instance

__all__ = ["Recovered", "recover", "recover_node"]

_CALL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """One node that has its disk key again."""

    instance_id: str
    node_name: str


async def recover(context: Context, state: State, *, deadline_s: float) -> tuple[Recovered, ...]:
    """Recover every control plane that waits for it; `deadline_s` bounds the look at each.

    One that is refused does not keep the others from being recovered.

    Raises:
        Conflict: there are no control planes.
        Rejected: a waiting node is not acceptable; those that are have been recovered.
    """
    secrets = read_secrets(context.workspace, cluster_id=state.cluster_id)
    state = await with_present_machines(context, state)
    machines = state.infrastructure.instances if state.infrastructure is not None else ()
    planes = [m for m in machines if m.role is Role.CONTROL_PLANE]
    if not planes:
        raise Conflict("no control plane exists", hint="run `constellation create`")
    recovered, refused = [], None
    for plane in planes:
        try:
            done = await recover_node(context, state, plane, secrets, deadline_s=deadline_s)
        except ConstellationError as error:
            context.report(Progress(step=f"Recover {plane.instance_id}", detail=str(error)))
            refused = refused or error
            continue
        if done is not None:
            recovered.append(done)
    if refused is not None:
        raise refused
    return tuple(recovered)


async def recover_node(
    context: Context,
    state: State,
    instance: Instance,
    secrets: ClusterSecrets,
    *,
    deadline_s: float,
) -> Recovered | None:
    """Recover one node; None where it does not wait for recovery."""
    step = f"Recover {instance.instance_id}"
    try:
        channel = await reach.connect(
            instance.recovery_endpoint,
            service="recover",
            appraise=reach.appraise_rebooted(
                state, owner_public_key=secrets.owner_public_key, now=context.now
            ),
            deadline_s=deadline_s,
        )
    except Unavailable:
        return None
    context.report(Progress(step=step, detail="attested"))
    try:
        request = recover_pb2.RecoverRequest(
            owner_signature=prove_owner_channel(
                secrets.owner_key,
                exporter=channel.exporter(OWNER_CHANNEL_LABEL),
                cluster_id=state.cluster_id,
                purpose="recover",
            ),
            master_key=secrets.master.key.reveal(),
            master_salt=secrets.master.salt.reveal(),
            time=int(context.now().timestamp()),
        )
        with raise_ours(f"node {instance.instance_id}"):
            stub = recover_grpc.RecoveryServiceStub(channel.grpc)
            reply = await stub.Recover(request, timeout=_CALL_S)
    finally:
        channel.close()
    context.report(Progress(step=step, finished=True))
    return Recovered(instance_id=instance.instance_id, node_name=reply.node_name)
