"""Whether every node runs what it should, right now: a fresh nonce, evidence, the signed policy.

The binding covers the nonce (in a batch, `atls.nonce_batch`) and the cluster's CA certificate, so
what is proven is a node of the cluster that this kubeconfig talks to. Source: design, sections 6
to 8; rpc/protos/verify.proto.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from constellation.atls.binding import NONCE_BYTES, verify_binding
from constellation.atls.grpc_bounds import BoundedChannel
from constellation.atls.nonce_batch import Place, root_of
from constellation.attestation.model import Evidence, Variant
from constellation.attestation.node_rules import cluster_claim
from constellation.base.errors import Conflict, ConstellationError, FormatError, Rejected, Untrusted
from constellation.base.progress import Progress
from constellation.base.retry import until_available
from constellation.cluster import reach
from constellation.cluster.present import with_present_machines
from constellation.cluster.secrets import read_secrets
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import verify_grpc, verify_pb2
from constellation.trust.appraisal import appraisal_policy, make_verifier, require_one_image
from constellation.trust.cluster_policy import verify_policy
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from constellation.attestation.model import AttestationResult
    from constellation.cluster.context import Context
    from constellation.config.state import State
    from constellation.providers.protocols import Instance

__all__ = ["Verified", "verify", "verify_machines", "verify_node"]

_CALL_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What one node proved, or `error` why not; `result` None then."""

    instance_id: str
    node_name: str
    result: AttestationResult | None
    error: ConstellationError | None


async def verify(
    context: Context, state: State, *, cluster_id: bytes | None, deadline_s: float
) -> tuple[Verified, ...]:
    """Verify every machine that the provider lists now; else as `verify_machines`."""
    now = await with_present_machines(context, state)
    return await verify_machines(context, now, cluster_id=cluster_id, deadline_s=deadline_s)


async def verify_machines(
    context: Context, state: State, *, cluster_id: bytes | None, deadline_s: float
) -> tuple[Verified, ...]:
    """Verify every machine that `state` names, at the same time.

    Args:
        context: the run.
        state: of this workspace's cluster.
        cluster_id: demand this one (32 bytes) in PCR 15, not the state file's.
        deadline_s: how long a node may take to answer.

    Raises:
        Conflict: the cluster was not initialised.
    """
    if state.infrastructure is None or state.policy is None or not state.cluster_ca:
        raise Conflict("the cluster was not initialised", hint="run `constellation init`")
    results = await asyncio.gather(
        *(
            _one(context, state, machine, cluster_id=cluster_id, deadline_s=deadline_s)
            for machine in state.infrastructure.instances
        )
    )
    return _each_its_own(tuple(sorted(results, key=lambda r: r.instance_id)))


def _each_its_own(results: tuple[Verified, ...]) -> tuple[Verified, ...]:
    """Refuse evidence of one machine that was given in the name of several."""
    names: dict[bytes, list[str]] = {}
    for r in results:
        if r.result is not None:
            names.setdefault(r.result.attester_id, []).append(r.instance_id)
    checked = []
    for r in results:
        who = names[r.result.attester_id] if r.result is not None else [r.instance_id]
        if len(who) > 1:
            same = Untrusted(
                f"{' and '.join(who)} showed evidence of one and the same machine",
                hint="somebody leads connections for several nodes to one of them",
            )
            checked.append(dataclasses.replace(r, result=None, error=same))
        else:
            checked.append(r)
    return tuple(checked)


async def _one(
    context: Context,
    state: State,
    instance: Instance,
    *,
    cluster_id: bytes | None,
    deadline_s: float,
) -> Verified:
    step = f"Verify {instance.instance_id}"
    context.report(Progress(step=step))
    try:
        name, result = await until_available(
            lambda: verify_node(context, state, instance, cluster_id=cluster_id),
            deadline_s=deadline_s,
        )
    except ConstellationError as error:
        context.report(Progress(step=step, detail="refused", finished=True))
        return Verified(instance_id=instance.instance_id, node_name="", result=None, error=error)
    context.report(Progress(step=step, finished=True))
    return Verified(instance_id=instance.instance_id, node_name=name, result=result, error=None)


async def verify_node(
    context: Context, state: State, instance: Instance, *, cluster_id: bytes | None
) -> tuple[str, AttestationResult]:
    """Ask one node for evidence over a fresh nonce and judge it; gives its name and the result.

    Raises:
        Unavailable: it does not answer.
        Untrusted: the evidence is not authentic, or not for this nonce and cluster CA.
        Rejected: it is, but the node is not acceptable.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    host, port = reach.split_endpoint(instance.verify_endpoint)
    channel = BoundedChannel(host, port)
    try:
        with raise_ours(f"node {instance.instance_id}"):
            stub = verify_grpc.VerificationServiceStub(channel)
            request = verify_pb2.GetEvidenceRequest(nonce=nonce)
            reply = await stub.GetEvidence(request, timeout=_CALL_S)
    finally:
        channel.close()
    return reply.node_name, _judge(context, state, reply, nonce=nonce, cluster_id=cluster_id)


def _judge(
    context: Context,
    state: State,
    reply: verify_pb2.GetEvidenceReply,
    *,
    nonce: bytes,
    cluster_id: bytes | None,
) -> AttestationResult:
    assert state.policy is not None  # noqa: S101 - `verify` looked
    assert state.infrastructure is not None  # noqa: S101 - `verify` looked
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    policy = verify_policy(
        state.policy,
        owner_public_key=owner.owner_public_key,
        cluster_id=state.cluster_id,
        minimum_serial=state.policy_serial,
    )
    document = parse_node_document(state.node_document)
    now = context.now()
    rules = dict(appraisal_policy(policy, document, joined=True, now=now))
    if cluster_id is not None and cluster_id != state.cluster_id:
        other = dataclasses.replace(document, cluster_id=cluster_id)
        others = dataclasses.replace(policy, cluster_id=cluster_id)
        claim = cluster_claim(document.variant)
        rules[claim] = appraisal_policy(others, other, joined=True, now=now)[claim]
    if reply.variant not in set(Variant) or Variant(reply.variant) is not document.variant:
        raise Rejected((f"variant: found {reply.variant[:40]!r}, expected {document.variant}",))
    if _der(reply.cluster_ca_certificate) != (expected := _der(state.cluster_ca)):
        raise Rejected(("cluster CA: the node shows another one than this cluster's",))
    place = Place(index=reply.batch.index, size=reply.batch.size, path=tuple(reply.batch.path))
    binding = verify_binding(
        nonces_root=root_of(nonce, place), cluster_ca_digest=hashlib.sha256(expected).digest()
    )
    verifier = make_verifier(
        document, rules=rules, trust_roots=policy.trust_roots, demands=policy.platform
    )
    evidence = Evidence(variant=document.variant, data=reply.evidence)
    result = verifier.appraise(evidence, binding=binding, now=now)
    require_one_image(result, policy.releases, now=now)
    return result


def _der(pem: bytes) -> bytes:
    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except ValueError:
        raise FormatError("cluster CA: not a PEM certificate") from None
