"""The first node takes the first name, and only a policy that is about this very run."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, FormatError, Rejected
from constellation.crypto.signing import generate_key, spki
from constellation.kube.membership import found
from constellation.providers.protocols import Instance, Role
from constellation.rpc.stubs import init_pb2
from constellation.services.bootstrapper import first_node
from constellation.services.bootstrapper.node_keys import fresh_keys
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy
from constellation.trust.node_document import NodeDocument

CLUSTER_ID = bytes(range(32))
BUNDLE = hashlib.sha256(b"services").digest()
JOIN_KEY = spki(generate_key().public_key())
LISTED = ArtifactList(kubernetes_version="v1.36.2", artifacts=()).with_artifacts(
    Artifact(
        name="constellation-services",
        kind=ArtifactKind.ARCHIVE,
        sha256=BUNDLE.hex(),
        size_bytes=8,
    )
)
OWN = Instance(
    instance_id="i-0",
    group="control_plane_default",
    role=Role.CONTROL_PLANE,
    address="10.42.1.10",
    state="running",
)
DOCUMENT = NodeDocument(
    version=1,
    cluster_id=CLUSTER_ID,
    owner_public_key=b"owner",
    release_root=b"root",
    minimum_release="0.1.0",
    variant=Variant.LOCAL_VTPM,
)
POLICY = ClusterPolicy(
    cluster_id=CLUSTER_ID,
    serial=1,
    releases=(
        AcceptedRelease(
            name="0.1.0",
            not_before=0,
            not_after=None,
            image_digest=bytes(32),
            reference={4: (bytes(32),)},
        ),
    ),
    trust_roots=(b"root",),
    artifact_lists={"v1.36.2": hashlib.sha256(artifact_list.dump(LISTED)).digest()},
    services_bundle=BUNDLE,
    kubernetes_version="v1.36.2",
    join_public_key=JOIN_KEY,
)


def plan(*, instance_id: str = "i-0", role: str = "control-plane") -> init_pb2.ClusterPlan:
    return init_pb2.ClusterPlan(
        name="mini",
        kubernetes_version="v1.36.2",
        artifact_list=artifact_list.dump(LISTED),
        endpoint="10.42.0.1:6443",
        user_endpoint="127.0.0.1:6443",
        api_sans=["127.0.0.1", "mini.example"],
        service_cidr="10.96.0.0/12",
        pod_cidr="10.244.0.0/16",
        mesh_cidr="10.43.0.0/16",
        node_groups=[init_pb2.NodeGroup(name="control_plane_default", role=role, size=1)],
        instance_id=instance_id,
    )


def check(policy: ClusterPolicy) -> None:
    first_node.check_policy(policy, join_public_key=JOIN_KEY, plan=plan(), artifacts=LISTED)


def test_the_first_node_has_a_place_that_admission_accepts() -> None:
    settings = first_node.settings(plan(), document=DOCUMENT)
    keys = fresh_keys().public
    member = first_node.member(
        settings, own=OWN, attester_id=bytes(32), disk_uuid=bytes(16), keys=keys
    )
    assert found(settings, member).nodes == (member,)
    assert member.address == "10.42.1.10"
    record = first_node.record(settings, member, time=5, provider="aws")
    assert (record.name, record.pod_cidr) == (member.name, member.pod_cidr)


@pytest.mark.parametrize(
    ("role", "size", "least", "most"),
    [
        ("worker", 2, 3, 1),
        ("worker", 2, 0, 3),
        ("worker", 2, 3, 4),
        ("worker", 5, 1, 4),
        ("worker", 2, 2, 0),
        ("control-plane", 3, 1, 3),
        ("owner", 2, 1, 3),
    ],
)
def test_bounds_that_no_group_may_have_are_refused(
    role: str, size: int, least: int, most: int
) -> None:
    good = init_pb2.NodeGroup(name="w", role="worker", size=2, min=1, max=3)
    assert [g.bounds for g in first_node.scaled_groups(init_pb2.ClusterPlan(node_groups=[good]))]
    bad = init_pb2.NodeGroup(name="w", role=role, size=size, min=least, max=most)
    with pytest.raises(FormatError, match="plan: group 'w'"):
        first_node.scaled_groups(init_pb2.ClusterPlan(node_groups=[good, bad]))


def test_the_certificate_of_the_api_names_both_endpoints_once() -> None:
    assert first_node.api_sans(plan()) == ("127.0.0.1", "mini.example", "10.42.0.1")


def test_only_the_chosen_node_begins() -> None:
    first_node.require_me(plan(), OWN)
    with pytest.raises(Conflict, match="not me"):
        first_node.require_me(plan(instance_id="i-7"), OWN)
    with pytest.raises(FormatError, match="no group of control planes"):
        first_node.require_me(plan(role="worker"), OWN)


def test_a_policy_about_this_run_is_taken() -> None:
    check(POLICY)


@pytest.mark.parametrize(
    ("policy", "finding"),
    [
        (replace(POLICY, join_public_key=b"other"), "another join key"),
        (replace(POLICY, services_bundle=bytes(32)), "services bundle"),
        (replace(POLICY, cloud_integration=True), "the cloud's components"),
        (replace(POLICY, artifact_lists={"v1.36.2": bytes(32)}), "artifact list"),
        (
            replace(
                POLICY,
                kubernetes_version="v1.36.1",
                artifact_lists={**POLICY.artifact_lists, "v1.36.1": bytes(32)},
            ),
            "Kubernetes v1.36.1",
        ),
    ],
)
def test_a_policy_about_something_else_is_refused(policy: ClusterPolicy, finding: str) -> None:
    with pytest.raises(Rejected, match=finding):
        check(policy)
