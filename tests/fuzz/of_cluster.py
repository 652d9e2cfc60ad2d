"""Targets: what nodes, JoinServices, owners and the Kubernetes API say to each other."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError, Message

from constellation.atls.frames import (
    FrameBuffer,
    Hello,
    Refusal,
    pack_accepted,
    pack_evidence,
    pack_hello,
    pack_refusal,
)
from constellation.atls.handshake import Expected, Handshake, NeedEvidence, NeedJudgement
from constellation.attestation.model import Evidence, Variant
from constellation.base import decode
from constellation.base.errors import (
    Conflict,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)
from constellation.base.secret import Secret
from constellation.cluster.log import parse_spec
from constellation.crypto import signing
from constellation.crypto.derive import MasterSecret, cluster_id
from constellation.kube import join_log, membership, node_record, peers
from constellation.kube.etcd import parse_members
from constellation.kube.service_identity import ServiceIdentity, dump_identity, parse_identity
from constellation.rpc.stubs import (
    init_pb2,
    join_pb2,
    key_pb2,
    kmsv2_pb2,
    recover_pb2,
    verify_pb2,
)
from constellation.services.bootstrapper import first_node
from constellation.services.bootstrapper.join_run import check_ticket
from constellation.services.joinservice import admit
from constellation.services.keyservice import envelope
from constellation.services.peer_lists import verified_peer_list
from constellation.trust import artifact_list, cluster_policy, node_document
from constellation.trust.disk_key import own_master_secret
from tests.fakes import members
from tests.fakes.join_world import request_of
from tests.fuzz.target import Target, repeated

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]

_OWNER, _JOIN = signing.generate_key(), signing.generate_key()
_POLICY = cluster_policy.ClusterPolicy(
    cluster_id=members.CLUSTER_ID,
    serial=3,
    releases=(
        cluster_policy.AcceptedRelease(
            name="0.1.0",
            not_before=100,
            not_after=None,
            image_digest=bytes(32),
            reference={4: (bytes(32),), 9: (bytes(32), bytes([1]) * 32)},
        ),
    ),
    trust_roots=(b"root",),
    artifact_lists={"v1.36.2": bytes(32)},
    services_bundle=bytes(32),
    kubernetes_version="v1.36.2",
    join_public_key=signing.spki(_JOIN.public_key()),
)
_MASTER = MasterSecret(key=Secret(bytes(32)), salt=Secret(bytes(32)))
_DOCUMENT = node_document.NodeDocument(
    version=1,
    cluster_id=cluster_id(_MASTER),
    owner_public_key=signing.spki(_OWNER.public_key()),
    release_root=b"root",
    minimum_release="0.1.0",
    variant=Variant.LOCAL_VTPM,
)
_LIST = artifact_list.ArtifactList(
    kubernetes_version="v1.36.2",
    artifacts=(
        artifact_list.Artifact(
            name="kubelet",
            kind=artifact_list.ArtifactKind.BINARY,
            sha256="ab" * 32,
            size_bytes=1,
        ),
    ),
)
_SIDES = {True: "join-server", False: "join-client"}
_HELLO = Hello(purpose="join-client", nonce=bytes(32), attests=True)
_JUDGED = (FormatError, Untrusted, Rejected, Conflict)
_MACHINE = members.machine(1)
_MEMBERSHIP = members.founded()
_OTHERS: tuple[type[Message], ...] = (
    join_pb2.RejoinRequest,
    join_pb2.PeersRequest,
    recover_pb2.RecoverRequest,
    verify_pb2.GetEvidenceRequest,
    kmsv2_pb2.DecryptRequest,
    key_pb2.GetDataKeyRequest,
)


def _frames(data: bytes) -> object:
    buffer, found = FrameBuffer(), 0
    for start in range(0, len(data), 4096):
        buffer.feed(data[start : start + 4096])
        while buffer.next() is not None:
            found += 1
    return found, buffer.rest()


def _handshake(data: bytes) -> object:
    """Play one side, answering every request of it; the first byte says which, and how to cut."""
    server = bool(data[:1]) and data[0] & 1 == 0
    step = 1 + (data[0] >> 1 if data else 0)
    side = Handshake(
        "server" if server else "client",
        hello=dataclasses.replace(_HELLO, purpose=_SIDES[server]),
        expected=Expected(purposes=frozenset({_SIDES[not server]}), unattested=server),
    )
    pending, said = list(side.start()), 0
    for start in range(1, len(data), step):
        pending += side.receive(data[start : start + step])
        while pending:
            action = pending.pop(0)
            said += 1
            if isinstance(action, NeedEvidence):
                pending += side.attested(Evidence(variant=Variant.QEMU_VTPM, data=b"{}"))
            elif isinstance(action, NeedJudgement):
                pending += side.accepted()
    return said


def _dialogs() -> Iterable[bytes]:
    evidence = pack_evidence(Evidence(variant=Variant.QEMU_VTPM, data=b"{}"))
    refusal = pack_refusal(Refusal.of(Rejected(("pcr4: found 00", "pcr9: found 01"), hint="look")))
    for kind in b"\x20\x21\xff\xfe":
        hello = pack_hello(dataclasses.replace(_HELLO, purpose=_SIDES[bool(kind & 1)]))
        yield bytes([kind]) + hello + evidence + pack_accepted() + b"PRI * HTTP/2.0"
        yield bytes([kind]) + hello + refusal


def _join(data: bytes) -> object:
    """Admit whatever request a fresh machine sends."""
    request = join_pb2.JoinRequest.FromString(data)
    facts = admit.JoinFacts(
        instance_id=request.instance_id,
        role=request.role,
        address=request.address,
        disk_uuid=request.disk_uuid,
        kubelet_client_public_key=request.kubelet_client_public_key,
        kubelet_serving_public_key=request.kubelet_serving_public_key,
        service_public_key=request.service_public_key,
        mesh_public_key=request.mesh_public_key,
    )
    result = members.attested(_MACHINE)
    return admit.admit(
        _MEMBERSHIP,
        facts,
        document=members.DOCUMENT,
        result=result,
        instances=(_MACHINE,),
        now=1_800_000_000,
    )


def _ticket(data: bytes) -> object:
    """Check a ticket whose artifact list the policy has: what stands in it is then looked at."""
    ticket = join_pb2.JoinTicket.FromString(data)
    digest = hashlib.sha256(ticket.artifact_list).digest()
    policy = dataclasses.replace(_POLICY, artifact_lists={"v1.36.2": digest})
    check_ticket(ticket, policy=policy)
    return verified_peer_list(ticket.peers, policy=policy, minimum_serial=0)


def _start(data: bytes) -> object:
    start = init_pb2.InitRequest.FromString(data).start
    first_node.settings(start.plan, document=_DOCUMENT)
    first_node.api_sans(start.plan)
    first_node.scaled_groups(start.plan)
    return own_master_secret(start.master_key, start.master_salt, document=_DOCUMENT)


def _starts() -> Iterable[bytes]:
    groups = [init_pb2.NodeGroup(name="cp", role="control-plane", size=1)]
    plan = init_pb2.ClusterPlan(endpoint="10.42.0.1:6443", api_sans=["a"], node_groups=groups)
    start = init_pb2.Start(plan=plan, master_key=bytes(32), master_salt=bytes(32))
    yield init_pb2.InitRequest(start=start).SerializeToString()


def _tickets() -> Iterable[bytes]:
    signed = peers.sign_peers(_MEMBERSHIP, join_private_key=_JOIN)
    listed = join_pb2.PeerList(serial=signed.serial, signature=signed.signature)
    listed.peers.extend(join_pb2.Peer(**dataclasses.asdict(p)) for p in signed.peers)
    ticket = join_pb2.JoinTicket(
        node_name="worker-0",
        kubernetes_version="v1.36.2",
        artifact_list=artifact_list.dump(_LIST),
        peers=listed,
    )
    ticket.control_plane.pki["ca.crt"] = b"x"
    yield ticket.SerializeToString()


def _other(data: bytes) -> object:
    """Decode as each of the other requests; the first byte picks one."""
    kind = (data or b"\0")[0] % len(_OTHERS)
    return _OTHERS[kind].FromString(data[1:])


def _record(data: bytes) -> object:
    """Read a record of the API and apply it."""
    value = decode.load(dict[str, str], data, what="fuzz", max_bytes=1 << 20)
    signed = parse_spec(value)
    record = join_log.load_record(signed)
    return join_log.advance(_MEMBERSHIP, signed, join_public_key=_POLICY.join_public_key), record


def _records() -> Iterable[bytes]:
    for entry in (
        join_log.Entry(kind=join_log.Kind.REMOVED, time=5, name=_MEMBERSHIP.nodes[0].name),
        join_log.Entry(kind=join_log.Kind.REFUSED, time=5, reasons=("pcr4",), address="10.0.0.1"),
    ):
        signed, _ = join_log.append(_MEMBERSHIP, entry, writer="cp-0", join_private_key=_JOIN)
        signature = base64.b64encode(signed.signature).decode()
        yield json.dumps({"record": signed.data.decode(), "signature": signature}).encode()


def _members(data: bytes) -> object:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # what httpx2 raises is caught by its caller
        return None
    return parse_members(value)


def _identity(data: bytes) -> object:
    uris = tuple(data.decode("utf-8", "replace").split("\0"))
    return parse_identity(uris, cluster_id=members.CLUSTER_ID)


def _identities() -> Iterable[bytes]:
    role = membership.NodeRole.WORKER
    yield dump_identity(
        ServiceIdentity(cluster_id=members.CLUSTER_ID, role=role, name="w-0")
    ).encode()


def _names(count: int) -> bytes:
    """Make a JSON object of many keys whose last stands there twice."""
    keys = [f'"{n:06}":"x"' for n in range(max(1, count // 13))]
    return ("{" + ",".join([*keys, keys[-1]]) + "}").encode()


_PROTO = (FormatError, DecodeError)

TARGETS = (
    Target(
        name="atls-frames",
        run=_frames,
        seeds=lambda: [d[1:] for d in _dialogs()],
        long=repeated(b"", pack_accepted()),
    ),
    Target(name="atls-handshake", run=_handshake, seeds=_dialogs, allowed=(*_JUDGED, Unavailable)),
    Target(
        name="json-values",
        run=lambda data: decode.load(dict[str, str], data, what="fuzz", max_bytes=1 << 22),
        seeds=lambda: [b'{"a":"b","c":"\\ud800"}'],
        long=_names,
    ),
    Target(
        name="cluster-policy",
        run=cluster_policy.parse_policy,
        seeds=lambda: [cluster_policy.dump_policy(_POLICY)],
    ),
    Target(
        name="signed-policy",
        run=cluster_policy.parse_signed_policy,
        seeds=lambda: [
            cluster_policy.dump_signed_policy(cluster_policy.sign_policy(_POLICY, _OWNER))
        ],
    ),
    Target(
        name="node-document",
        run=node_document.parse_node_document,
        seeds=lambda: [node_document.dump_node_document(_DOCUMENT)],
    ),
    Target(
        name="artifact-list", run=artifact_list.parse, seeds=lambda: [artifact_list.dump(_LIST)]
    ),
    Target(
        name="join-request",
        run=_join,
        seeds=lambda: [request_of(members.asks(_MACHINE)).SerializeToString()],
        allowed=(*_PROTO, Rejected, Conflict, Unavailable),
    ),
    Target(name="join-ticket", run=_ticket, seeds=_tickets, allowed=(*_PROTO, Rejected, Untrusted)),
    Target(name="init-start", run=_start, seeds=_starts, allowed=(*_PROTO, Rejected, Conflict)),
    Target(
        name="other-requests",
        run=_other,
        seeds=lambda: [bytes([n]) + b"\x0a\x04abcd" for n in range(len(_OTHERS))],
        allowed=_PROTO,
    ),
    Target(
        name="kms-envelope",
        run=lambda data: envelope.unwrap(data, master=_MASTER, key_id=envelope.CURRENT_KEY_ID),
        seeds=lambda: [
            envelope.wrap(b"seed", master=_MASTER, key_id=envelope.CURRENT_KEY_ID, nonce=bytes(12))
        ],
        allowed=(FormatError, Untrusted),
    ),
    Target(
        name="peers",
        run=lambda data: peers.load_peers(data, what="fuzz"),
        seeds=lambda: [decode.dump(peers.sign_peers(_MEMBERSHIP, join_private_key=_JOIN))],
    ),
    Target(
        name="membership",
        run=lambda data: membership.load_membership(data, what="fuzz"),
        seeds=lambda: [decode.dump(_MEMBERSHIP)],
    ),
    Target(name="join-record", run=_record, seeds=_records, allowed=(FormatError, Untrusted)),
    Target(
        name="node-record",
        run=node_record.load_node_record,
        seeds=lambda: [
            node_record.dump_node_record(
                first_node.record(
                    _MEMBERSHIP.settings, _MEMBERSHIP.nodes[0], time=5, provider="local"
                )
            )
        ],
    ),
    Target(
        name="etcd-members",
        run=_members,
        seeds=lambda: [
            b'{"members":[{"ID":"1","peerURLs":["https://10.42.1.10:2380"],"isLearner":true}]}'
        ],
    ),
    Target(name="service-identity", run=_identity, seeds=_identities, allowed=(Untrusted,)),
)
