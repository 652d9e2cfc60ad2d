"""Init and join are cut off at each step of the code's own lists, and complete: no cluster needed.

The machine is `fakes.node_rim`; certificates, policy, peer lists and the join key are real.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base import clock
from constellation.base.errors import FormatError, Rejected
from constellation.base.secret import Secret
from constellation.crypto.signing import dump_private_key
from constellation.crypto.x509 import CertificateAuthority
from constellation.disk import luks, native
from constellation.disk.superblock import State
from constellation.kube import cluster_release, kubeadm
from constellation.kube.node_record import load_node_record
from constellation.kube.peers import sign_peers
from constellation.kube.rollout import Bounds
from constellation.kube.service_access import SERVICES as SERVICES_OF_API
from constellation.providers.openstack.access import dump_access, read_access
from constellation.providers.placement import Placement
from constellation.providers.protocols import Instance, Role
from constellation.releases.delivery import ArtifactMissing, FalseArtifact
from constellation.rpc.stubs import init_pb2, join_pb2
from constellation.services.api_identities import api_kubeconfig
from constellation.services.artifact_shelf import FetchedShelf, GivenShelf
from constellation.services.bootstrapper import join_run
from constellation.services.bootstrapper.init_run import InitRun
from constellation.services.bootstrapper.join_run import JoinRun, NewPlace
from constellation.services.bootstrapper.kubernetes import node_settings
from constellation.services.bootstrapper.node_keys import fresh_keys
from constellation.services.bootstrapper.redeem import ControlPlaneSecrets
from constellation.services.joinservice.tickets import peer_message
from constellation.services.steps import Step, StepBook, run_steps
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from constellation.trust.artifact_sources import parse_sources
from constellation.trust.cluster_policy import SignedPolicy, parse_policy, sign_policy
from constellation.trust.policy_acceptance import OfferedPolicy
from tests.fakes import cloud_objects
from tests.fakes.cluster_machines import OURS
from tests.fakes.file_servers import FileServer, door_to, file_server, gives
from tests.fakes.members import founded
from tests.fakes.node_rim import NodeRim, PowerCut, cut_at
from tests.fakes.openstack import FakeOpenStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from constellation.services.artifact_shelf import Shelf

VERSION = "v1.36.2"
SERVICES = hashlib.sha256(b"services").digest()
ARTIFACTS = artifact_list.dump(
    ArtifactList(kubernetes_version=VERSION, artifacts=()).with_artifacts(
        Artifact(name="services", kind=ArtifactKind.ARCHIVE, sha256=SERVICES.hex(), size_bytes=8)
    )
)
CLUSTER_ID = OURS.document.cluster_id
SETTINGS = dataclasses.replace(founded().settings, cluster_id=CLUSTER_ID, artifact_list=ARTIFACTS)
PLACEMENT = Placement(
    provider_id="aws:///eu-west-1a/i-1",
    region="eu-west-1",
    zone="eu-west-1a",
    machine_type="m6a.xlarge",
)
SECRETS = ControlPlaneSecrets(master=OURS.master, join_key=dump_private_key(OURS.join))
PKI = ("sa.key", "sa.pub", "etcd/ca.crt", "etcd/ca.key")
CA = CertificateAuthority.create("kubernetes", now=clock.now(), lifetime=timedelta(days=365))


def policy(join_public_key: bytes = b"", *, artifacts: bytes = ARTIFACTS) -> SignedPolicy:
    before = parse_policy(OURS.policy(serial=1).policy)
    fit = dataclasses.replace(
        before,
        artifact_lists={VERSION: hashlib.sha256(artifacts).digest()},
        services_bundle=SERVICES,
        join_public_key=join_public_key or before.join_public_key,
        cloud_integration=artifacts != ARTIFACTS,
    )
    return sign_policy(fit, OURS.owner)


def own(role: Role) -> Instance:
    group = "control-plane-default" if role is Role.CONTROL_PLANE else "worker-default"
    return Instance(
        instance_id="i-1", group=group, role=role, address="10.42.1.11", state="running"
    )


async def silent(name: str, done: bool) -> None:
    del name, done


def ticket(role: Role) -> join_pb2.JoinTicket:
    membership = dataclasses.replace(founded(), settings=SETTINGS, peers_serial=3)
    made = join_pb2.JoinTicket(
        node_name="node-1",
        group=own(role).group,
        disk_key=bytes(64),
        kubelet_client_certificate=b"client\n",
        kubelet_serving_certificate=b"serving\n",
        service_certificate=b"service\n",
        cluster_ca_certificate=CA.certificate_pem,
        services_ca_certificate=b"services CA\n",
        pod_cidr="10.244.1.0/24",
        mesh_address="10.43.0.2",
        mesh_cidr="10.43.0.0/16",
        peers=peer_message(sign_peers(membership, join_private_key=OURS.join)),
        artifact_list=ARTIFACTS,
        endpoint="10.42.0.1:6443",
        kubernetes_version=VERSION,
        service_cidr="10.96.0.0/12",
        pod_network="10.244.0.0/16",
        time=1,
    )
    if role is Role.CONTROL_PLANE:
        made.control_plane.CopyFrom(
            join_pb2.ControlPlaneTicket(
                pki={
                    **{name: f"secret {name}".encode() for name in PKI},
                    "ca.crt": CA.certificate_pem,
                    "ca.key": CA.key_pem.reveal(),
                },
                services_ca_key=b"secret services CA key",
                membership=b"{}",
            )
        )
    return made


class Joining:
    """Runs of join on one machine, each as `join_loop` begins them."""

    def __init__(self, rim: NodeRim, role: Role) -> None:
        self.rim, self.role = rim, role
        self.document = OURS.document
        self.tickets = 0

    def steps(self) -> tuple[Step, ...]:
        rim = self.rim
        kept = rim.paths.kept_policy(OURS.document)
        if rim.paths.ticket.exists():
            data = rim.paths.ticket.read_bytes()
            given, new, signed = join_pb2.JoinTicket.FromString(data), None, kept.signed()
        else:
            assert rim.record.state is State.NEW, "no ticket is given for a known disk"
            self.tickets += 1
            given, signed = ticket(self.role), policy()
            new = NewPlace(
                keys=fresh_keys(), policy=OfferedPolicy(signed=signed), giver="10.42.1.10"
            )
        return JoinRun(
            paths=rim.paths,
            agent=rim,  # type: ignore[arg-type] # what JoinRun asks of an agent
            document=self.document,
            own=own(self.role),
            ticket=given,
            new=new,
            policy=parse_policy(signed.policy),
            placement=PLACEMENT,
            shelf=GivenShelf(rim.paths.host),
        ).steps()

    async def go(self, steps: tuple[Step, ...]) -> None:
        book = StepBook(self.rim.paths.steps, kind="join")
        await run_steps(steps, book=book, notify=silent)


@pytest.fixture
def rim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeRim:
    one = NodeRim(folder=tmp_path / "node")
    one.install(monkeypatch)

    async def redeemed(*_: object, **__: object) -> ControlPlaneSecrets:
        assert one.given, "PCR 15 comes before the grant"
        assert one.formatted == 0 or not one.known
        return SECRETS

    monkeypatch.setattr(join_run, "redeem", redeemed)
    return one


@pytest.mark.parametrize("role", list(Role))
async def test_a_join_that_was_cut_off_at_any_step_completes(
    role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    index = 0
    while True:
        for after in (False, True):
            with monkeypatch.context() as patch:
                node = NodeRim(folder=tmp_path / f"{index}-{after}")
                node.install(patch)

                async def redeemed(
                    *_: object, node: NodeRim = node, **__: object
                ) -> ControlPlaneSecrets:
                    assert node.given
                    return SECRETS

                patch.setattr(join_run, "redeem", redeemed)
                joining = Joining(node, role)
                steps = joining.steps()
                count = len(steps)
                with pytest.raises(PowerCut):
                    await joining.go(cut_at(steps, index, after=after))
                node.power_cycle()
                if not (node.paths.state / "node.json").exists():
                    await joining.go(joining.steps())
                    _joined(node, role)
                assert joining.tickets == (1 if index or after else 2)
                assert node.formatted == 1, "a disk is formatted once"
                _nothing_twice(node)
        index += 1
        if index == count:
            break
    assert count > 10


def _joined(node: NodeRim, role: Role) -> None:
    record = load_node_record((node.paths.state / "node.json").read_bytes())
    assert (record.name, record.role) == ("node-1", role)
    assert not node.paths.ticket.exists()
    _kubelet_is_the_images(node)
    phases = kubeadm.JOIN_PHASES
    if role is Role.CONTROL_PLANE:
        phases = kubeadm.JOIN_CONTROL_PLANE_PHASES
        assert (node.paths.keys / "join.pem").read_bytes() == SECRETS.join_key.reveal()
        assert (node.paths.pki / "etcd/ca.key").read_bytes() == b"secret etcd/ca.key"
        for service in SERVICES_OF_API:
            assert api_kubeconfig(service, state=node.paths.state).exists()
        assert {"start_keyservice", "API server"} <= node.on | {"API server"}
    wanted = ["kubeadm join " + " ".join(p) for p in phases]
    assert list(dict.fromkeys(node.diary())) == wanted
    assert {"check_programs", "start_containerd", "start_mesh", "static pods"} <= node.on


def _kubelet_is_the_images(node: NodeRim) -> None:
    """Look at what kubeadm was given in place of the cluster's configuration of kubelet."""
    folder = node.paths.kubernetes / "constellation" / kubeadm.PATCHES
    record = load_node_record((node.paths.state / "node.json").read_bytes())
    settings = node_settings(record, None)
    for name, patch in kubeadm.kubelet_patch(settings).items():
        assert (folder / name).read_bytes() == patch


def _nothing_twice(node: NodeRim) -> None:
    twice = {w for w in node.diary() if node.diary().count(w) > 1}
    assert len(twice) <= 1, f"a recorded phase ran again: {twice}"


async def test_the_disk_of_an_interrupted_join_holds_no_ticket_s_keys(rim: NodeRim) -> None:
    joining = Joining(rim, Role.CONTROL_PLANE)
    with pytest.raises(PowerCut):
        await joining.go(cut_at(joining.steps(), 3, after=False))
    kept = rim.paths.ticket.read_bytes()
    assert b"secret" not in kept
    assert b"PRIVATE KEY" not in kept
    assert b"service\n" in kept, "the control case: certificates stay"


class Founding:
    """Runs of init on one machine; the owner answers for the policy each time."""

    def __init__(
        self,
        rim: NodeRim,
        access: Secret | None = None,
        *,
        artifacts: bytes = b"",
        shelf: Shelf | None = None,
    ) -> None:
        self.rim, self.access = rim, access
        self.shelf = shelf or GivenShelf(rim.paths.host)
        self.integration, self.artifacts = bool(artifacts), artifacts or ARTIFACTS
        self.groups = [init_pb2.NodeGroup(name=g.name, role=g.role, size=g.size) for g in GROUPS]
        self.policies, self.document = 0, OURS.document
        (rim.folder / "given/ca.crt").write_bytes(CA.certificate_pem)
        (rim.folder / "given/ca.key").write_bytes(CA.key_pem.reveal())

    def run(self) -> InitRun:
        plan = init_pb2.ClusterPlan(
            name="test",
            kubernetes_version=VERSION,
            artifact_list=self.artifacts,
            cloud_integration=self.integration,
            endpoint="10.42.0.1:6443",
            user_endpoint="127.0.0.1:6443",
            service_cidr="10.96.0.0/12",
            pod_cidr="10.244.0.0/16",
            mesh_cidr="10.43.0.0/16",
            node_groups=self.groups,
            instance_id="i-1",
        )
        return InitRun(
            paths=self.rim.paths,
            agent=self.rim,  # type: ignore[arg-type] # what InitRun asks of an agent
            document=self.document,
            own=own(Role.CONTROL_PLANE),
            plan=plan,
            master=None if self.rim.given else OURS.master,
            access=None if self.rim.given else self.access,
            placement=PLACEMENT,
            shelf=self.shelf,
            ask_policy=self._sign,
        )

    async def _sign(self, join_public_key: bytes) -> SignedPolicy:
        self.policies += 1
        return policy(join_public_key, artifacts=self.artifacts)

    async def go(self, steps: tuple[Step, ...]) -> None:
        book = StepBook(self.rim.paths.steps, kind="init")
        await run_steps(steps, book=book, notify=silent)


GROUPS = SETTINGS.groups


@pytest.mark.parametrize("kind", ["init", "join"])
@pytest.mark.parametrize("variant", Variant)
async def test_a_machine_outside_the_local_cloud_gets_a_disk_that_is_authentic(
    rim: NodeRim, kind: str, variant: Variant
) -> None:
    run = Founding(rim) if kind == "init" else Joining(rim, Role.WORKER)
    run.document = dataclasses.replace(OURS.document, variant=variant)
    steps = run.steps() if isinstance(run, Joining) else run.run().steps()
    disk = next(i for i, step in enumerate(steps) if step.name == "state disk")
    with pytest.raises(PowerCut):
        await run.go(cut_at(steps, disk, after=True))
    assert rim.way is (native if variant is Variant.LOCAL_VTPM else luks)


async def test_kubelet_registers_a_node_with_its_place(rim: NodeRim) -> None:
    await Founding(rim).go(Founding(rim).run().steps())
    init = (rim.paths.kubernetes / "kubeadm-init.yaml").read_text()
    for said in (
        PLACEMENT.provider_id,
        "node.kubernetes.io/instance-type=m6a.xlarge,topology.kubernetes.io/region=eu-west-1",
    ):
        assert said in init


async def test_the_first_node_keeps_what_the_owner_gave_it_for_the_clouds_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = dump_access(FakeOpenStack().access())
    node = NodeRim(folder=tmp_path / "node", provider="openstack")
    node.install(monkeypatch)
    founding = Founding(node, access)
    with pytest.raises(PowerCut):
        await founding.go(cut_at(founding.run().steps(), 3, after=False))
    node.power_cycle()
    # nobody sends it again: it came with the master secret, and lies where that lies
    again = founding.run()
    await founding.go(again.steps())
    kept = node.paths.access
    assert read_access(kept) == FakeOpenStack().access()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_a_group_s_bounds_stand_in_its_object_from_init_on(rim: NodeRim) -> None:
    plain = Founding(rim)
    assert "bounds of node groups" not in {step.name for step in plain.run().steps()}
    founding = Founding(rim)
    (workers,) = (g for g in founding.groups if g.role == "worker")
    workers.min, workers.max = 1, workers.size + 3
    await founding.go(founding.run().steps())
    assert rim.diary().count("kubectl apply") == 2
    applied = (rim.folder / "applied").read_text()
    last = applied[applied.rindex('{\n "apiVersion": "v1",\n "kind": "List"') :]
    (item,) = json.loads(last)["items"]
    assert (item["apiVersion"], item["kind"]) == ("constellation.internal/v1alpha1", "NodeGroup")
    group = cluster_release.parse_group(item["spec"], what="applied")
    assert (group.name, group.size) == (workers.name, workers.size)
    assert group.bounds == Bounds(least=1, most=workers.size + 3)
    assert item["metadata"]["name"] == cluster_release.group_object_name(group.name)


def with_cloud_objects(data: bytes, *, kind: ArtifactKind = ArtifactKind.OBJECTS) -> bytes:
    artifact = Artifact(
        name="cloud/aws", kind=kind, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
    )
    return artifact_list.dump(artifact_list.parse(ARTIFACTS).with_artifacts(artifact))


@pytest.fixture
def on_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeRim:
    node = NodeRim(folder=tmp_path / "node", provider="aws")
    node.install(monkeypatch)
    return node


@pytest.fixture
async def source() -> AsyncIterator[FileServer]:
    async with file_server() as made:
        yield made


def fetched(node: NodeRim, source: FileServer) -> FetchedShelf:
    return FetchedShelf(
        node.folder / "public", mounts=node.folder / "mounted",
        sources=parse_sources((source.url,)), door=door_to(),
    )  # fmt: skip


async def test_a_clouds_components_are_created_if_the_owner_wants_them(
    on_aws: NodeRim, source: FileServer
) -> None:
    data = cloud_objects.dump(cloud_objects.objects())
    source.add(data)
    founding = Founding(on_aws, artifacts=with_cloud_objects(data), shelf=fetched(on_aws, source))
    await founding.go(founding.run().steps())
    # DNS and roles, then a dry run and the components
    assert on_aws.diary().count("kubectl apply") == 3


async def test_without_the_owners_wish_no_components_are_created(on_aws: NodeRim) -> None:
    founding = Founding(on_aws)
    assert "cloud integration" not in {step.name for step in founding.run().steps()}


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (lambda data: data.replace(b"ab" * 32, b"ba" * 32), FalseArtifact),
        (lambda data: data + b" " * (512 * 1024), ArtifactMissing),
    ],
)
async def test_another_file_than_the_release_names_is_not_applied(
    found: Callable[[bytes], bytes],
    error: type[Exception],
    on_aws: NodeRim,
    source: FileServer,
) -> None:
    data = cloud_objects.dump(cloud_objects.objects())
    source.add(data)
    source.lie = gives(found)
    founding = Founding(on_aws, artifacts=with_cloud_objects(data), shelf=fetched(on_aws, source))
    with pytest.raises(error, match="artifact cloud/aws"):
        await founding.go(founding.run().steps())
    assert on_aws.diary().count("kubectl apply") == 1, "DNS and roles alone"


async def test_a_release_with_an_image_without_digest_is_not_applied(
    on_aws: NodeRim, source: FileServer
) -> None:
    items = cloud_objects.objects()
    items[-1]["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.k8s.io/csi:v1"
    data = cloud_objects.dump(items)
    source.add(data)
    founding = Founding(on_aws, artifacts=with_cloud_objects(data), shelf=fetched(on_aws, source))
    with pytest.raises(Rejected, match="expected NAME@sha256:DIGEST"):
        await founding.go(founding.run().steps())
    assert on_aws.diary().count("kubectl apply") == 1


@pytest.mark.parametrize(
    "artifacts", [ARTIFACTS, with_cloud_objects(b"x", kind=ArtifactKind.IMAGE)]
)
def test_components_that_the_release_does_not_name_stop_init_before_it_begins(
    artifacts: bytes, on_aws: NodeRim
) -> None:
    with pytest.raises(FormatError, match="cloud/aws"):
        Founding(on_aws, artifacts=artifacts).run()
    assert on_aws.formatted == 0


@pytest.mark.parametrize(
    ("provider", "access", "said"),
    [
        ("local", dump_access(FakeOpenStack().access()), "take no access"),
        ("openstack", Secret(b"{}"), "OpenStack access"),
        ("openstack", Secret(b"x" * (256 * 1024 + 1)), "OpenStack access"),
    ],
)
async def test_access_that_the_provider_does_not_know_is_refused_before_anything_is_done(
    provider: str, access: Secret, said: str, tmp_path: Path
) -> None:
    node = NodeRim(folder=tmp_path, provider=provider)
    (tmp_path / "given").mkdir()
    with pytest.raises(FormatError, match=said):
        Founding(node, access).run()
    assert node.formatted == 0


async def test_an_init_that_was_cut_off_at_any_step_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, count = 0, 1
    while index < count:
        for after in (False, True):
            with monkeypatch.context() as patch:
                node = NodeRim(folder=tmp_path / f"{index}-{after}")
                node.install(patch)
                founding = Founding(node)
                steps = founding.run().steps()
                count = len(steps)
                with pytest.raises(PowerCut):
                    await founding.go(cut_at(steps, index, after=after))
                node.power_cycle()
                again = founding.run()
                await founding.go(again.steps())
                assert again.result()[0] == b"kubeconfig\n"
                assert (node.paths.keys / "master-secret.json").exists()
                assert node.paths.kept_policy(OURS.document).verified().serial == 1
                wanted = [*kubeadm.INIT_PHASES, *kubeadm.PHASES_AFTER_API]
                phases = [w for w in dict.fromkeys(node.diary()) if w.startswith("kubeadm")]
                assert phases == ["kubeadm init " + " ".join(p) for p in wanted]
                assert founding.policies <= 2
                assert node.formatted == 1, "a disk is formatted once"
                _kubelet_is_the_images(node)
        index += 1
    assert count > 20
