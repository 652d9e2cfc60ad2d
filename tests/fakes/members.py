"""A small cluster's membership, and nodes that ask to join it."""

from __future__ import annotations

import dataclasses
import hashlib

from constellation.attestation.model import AttestationResult, Variant
from constellation.attestation.tdx import rtmr
from constellation.crypto import signing
from constellation.kube.membership import (
    GroupSlots,
    Member,
    Membership,
    NodeRole,
    Settings,
    found,
)
from constellation.kube.node_record import NodeRecord
from constellation.kube.placement import place_first
from constellation.providers.protocols import Instance, Role
from constellation.services.joinservice.admit import JoinFacts

CLUSTER_ID = bytes(range(32))
CONTROL_PLANES = "control-plane-default"
WORKERS = "worker-default"
KEYS = tuple(signing.spki(signing.generate_key().public_key()) for _ in range(3))

ARTIFACT_LIST = b"{}"
DOCUMENT = b"node document"


def settings(*, control_planes: int = 3, workers: int = 2) -> Settings:
    return Settings(
        name="test",
        cluster_id=CLUSTER_ID,
        endpoint="10.42.0.1:6443",
        user_endpoint="127.0.0.1:6443",
        api_sans=("127.0.0.1",),
        service_cidr="10.96.0.0/12",
        pod_cidr="10.244.0.0/16",
        mesh_cidr="10.43.0.0/16",
        kubernetes_version="v1.36.2",
        artifact_list=ARTIFACT_LIST,
        groups=(
            GroupSlots(name=CONTROL_PLANES, role=NodeRole.CONTROL_PLANE, size=control_planes),
            GroupSlots(name=WORKERS, role=NodeRole.WORKER, size=workers),
        ),
    )


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def founded(*, control_planes: int = 3, workers: int = 2) -> Membership:
    plan = settings(control_planes=control_planes, workers=workers)
    free = place_first(plan, plan.groups[0])
    first = Member(
        name=free.name,
        instance_id="cp-0",
        role=NodeRole.CONTROL_PLANE,
        group=CONTROL_PLANES,
        attester_id=digest("ak cp-0"),
        address="10.42.1.10",
        mesh_address=free.mesh_address,
        pod_cidr=free.pod_cidr,
        disk_uuid=digest("disk cp-0")[:16],
        kubelet_client_public_key=KEYS[0],
        kubelet_serving_public_key=KEYS[1],
        service_public_key=digest("service cp-0"),
        mesh_public_key=digest("mesh cp-0"),
        joined=0,
    )
    return found(plan, first)


def machine(index: int, *, role: Role = Role.WORKER) -> Instance:
    control_plane = role is Role.CONTROL_PLANE
    return Instance(
        instance_id=f"{'cp' if control_plane else 'w'}-{index}",
        group=CONTROL_PLANES if control_plane else WORKERS,
        role=role,
        address=f"10.42.{1 if control_plane else 2}.{10 + index}",
        state="running",
    )


def asks(instance: Instance, *, life: int = 0) -> JoinFacts:
    """What this machine says when it joins; another `life` has another disk and other keys."""
    who = f"{instance.instance_id}/{life}"
    return JoinFacts(
        instance_id=instance.instance_id,
        role=str(instance.role),
        address=instance.address,
        disk_uuid=digest(f"disk {who}")[:16],
        kubelet_client_public_key=KEYS[0],
        kubelet_serving_public_key=KEYS[1],
        service_public_key=_service_key(who),
        mesh_public_key=digest(f"mesh {who}"),
    )


def attested(instance: Instance, *, pcr15: bytes = bytes(32), ak: str = "") -> AttestationResult:
    return AttestationResult(
        variant=Variant.LOCAL_VTPM,
        attester_id=digest(f"ak {ak or instance.instance_id}"),
        claims={"pcr4": digest("image"), "pcr15": pcr15},
        unchecked=(),
        warnings=(),
    )


def td_of_google(instance: Instance, *, given: bool) -> AttestationResult:
    """Give evidence of a TD whose one register holds node document and cluster (`gcp-tdx`)."""
    measured = [hashlib.sha384(DOCUMENT).digest()]
    if given:
        measured.append(hashlib.sha384(CLUSTER_ID).digest())
    return dataclasses.replace(
        attested(instance),
        variant=Variant.GCP_TDX,
        claims={"rtmr3": rtmr.predict(tuple(measured))},
    )


_SERVICE_KEYS: dict[str, bytes] = {}


def _service_key(who: str) -> bytes:
    if who not in _SERVICE_KEYS:
        _SERVICE_KEYS[who] = signing.spki(signing.generate_key().public_key())
    return _SERVICE_KEYS[who]


def node_record(member: Member, *, cluster_id: bytes, provider: str = "local") -> NodeRecord:
    """Give what the bootstrapper of a member writes into its `node.json`."""
    return NodeRecord(
        name=member.name,
        instance_id=member.instance_id,
        role=member.role,
        group=member.group,
        address=member.address,
        mesh_address=member.mesh_address,
        pod_cidr=member.pod_cidr,
        pod_network="10.244.0.0/16",
        mesh_cidr="10.43.0.0/16",
        service_cidr="10.96.0.0/12",
        cluster_id=cluster_id,
        disk_uuid=member.disk_uuid,
        endpoint="10.42.0.1:6443",
        kubernetes_version="v1.36.2",
        artifact_list=b"{}",
        time=1,
        provider=provider,
    )
