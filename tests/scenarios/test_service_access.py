"""Each service may do in the Kubernetes API what its code does, and nothing else.

The services' own code runs against an API server that knows the roles of `kube.service_access`,
with the certificates that a control plane's programs make.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lightkube.resources.core_v1 import ConfigMap, Node, Secret

from constellation.base import clock
from constellation.base.errors import Conflict, Unavailable
from constellation.base.time_bounds import Said, TimeBounds
from constellation.crypto.x509 import CertificateAuthority, load_certificate
from constellation.kube.client import connect, raise_ours
from constellation.kube.join_record_definition import GROUP
from constellation.kube.membership import NodeRole
from constellation.kube.objects import first_objects
from constellation.kube.rollout import NodeGroup
from constellation.kube.service_access import SERVICES, access_objects, group_of
from constellation.services.api_identities import ApiIdentities, api_kubeconfig
from constellation.services.joinservice.outside import KubernetesLog, KubernetesWorld
from constellation.services.operator.kubernetes import Kubernetes
from constellation.services.operator.lease import KubernetesLease
from tests.fakes.join_world import Provider, SharedLog, ledger_of, write_control_plane
from tests.fakes.kube_api import Call, KubeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from lightkube import AsyncClient

    from constellation.kube.etcd import EtcdMember

OPERATOR_MANIFEST = (
    Path(__file__).parents[2] / "os/services/manifests/control-plane/constellation-operator.json"
)
JOINSERVICE_MANIFEST = OPERATOR_MANIFEST.with_name("constellation-joinservice.json")


class ControlPlane:
    """A control plane's disk beside an API server."""

    def __init__(self, root: Path) -> None:
        past = clock.now() - timedelta(days=30)
        self.ca = CertificateAuthority.create("kubernetes", now=past, lifetime=timedelta(days=99))
        self.state, self.pki = root / "state", root / "pki"
        self.pki.mkdir()
        (self.pki / "ca.crt").write_bytes(self.ca.certificate_pem)
        (self.pki / "ca.key").write_bytes(self.ca.key_pem.reveal())
        self.api = KubeApi(ca=self.ca, roles=access_objects())
        self.endpoint = ""

    def identities(self) -> ApiIdentities:
        return ApiIdentities(
            state=self.state, pki=self.pki, node_name="cp-0", endpoint=self.endpoint
        )

    def kubeconfig(self, service: str) -> Path:
        return api_kubeconfig(service, state=self.state)

    def node(self, name: str, address: str) -> None:
        status = {"addresses": [{"type": "InternalIP", "address": address}]}
        self.api.put("", "nodes", {"metadata": {"name": name}, "status": status})

    def certificate(self, service: str) -> int:
        pem = self.kubeconfig(service).with_name("client.crt").read_bytes()
        return load_certificate(pem).serial_number


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    one = ControlPlane(tmp_path)
    async with one.api.serving() as endpoint:
        one.endpoint = endpoint
        one.identities().ensure()
        yield one


class NoEtcd:
    """etcd is no part of this."""

    async def members(self) -> tuple[EtcdMember, ...]:
        return ()

    async def remove(self, member: EtcdMember) -> None:
        raise AssertionError(member)


@contextlib.asynccontextmanager
async def client_of(kubeconfig: Path) -> AsyncIterator[AsyncClient]:
    client = connect(kubeconfig)
    try:
        yield client
    finally:
        await client.close()


async def joinservice_works(plane: ControlPlane, root: Path) -> None:
    """Make every call that JoinService makes."""
    files, shared = write_control_plane(root), SharedLog()
    await ledger_of(files, shared).follow(now=1)
    record = shared.records[1]
    log = KubernetesLog(plane.kubeconfig("joinservice"))
    assert await log.get(1) is None
    assert await log.create(1, record)
    assert not await log.create(1, record)
    assert await log.get(1) == record
    assert (await log.after(0), await log.after(1)) == (1, None)
    await log.delete(1)
    assert await log.after(0) is None
    plane.node("worker-0", "10.42.2.10")
    world = KubernetesWorld(log, provider=Provider(instances=()), etcd=NoEtcd())  # type: ignore[arg-type]
    assert (await world.observe()).nodes == {"worker-0"}
    membership = ledger_of(files, shared).membership
    await world.publish(membership)
    later = membership.sequence + 1
    await world.publish(dataclasses.replace(membership, sequence=later, nodes=()))
    await log.client().close()


async def operator_works(plane: ControlPlane) -> None:
    """Make every call that the operator makes."""
    plane.node("worker-0", "10.42.2.10")
    space = "kube-system"
    config = {"ClusterConfiguration": "kubernetesVersion: v1.36.1\n"}
    meta = {"name": "kubeadm-config", "namespace": space}
    plane.api.put("", "configmaps", {"metadata": meta, "data": config})
    dns = {"metadata": {"name": "coredns", "namespace": space}}
    plane.api.put("apps", "deployments", {**dns, "spec": {"selector": {}, "template": {}}})
    plane.api.put("", "pods", {"metadata": {"name": "web", "namespace": "default"}})
    async with client_of(plane.kubeconfig("operator")) as client:
        kubernetes = Kubernetes(client)
        lease = KubernetesLease(client, me="cp-0", leaving=lambda: kubernetes.is_leaving("cp-0"))
        assert await lease.leads()
        assert await lease.leads(), "renewed"
        assert [n.name for n in await kubernetes.nodes()] == ["worker-0"]
        await kubernetes.mark_leaving("worker-0")
        assert await kubernetes.is_leaving("worker-0")
        (pod,) = await kubernetes.pods_to_leave("worker-0")
        assert await kubernetes.evict(pod)
        assert await kubernetes.pods_to_leave("worker-0") == ()
        assert await kubernetes.endpoints_on("worker-0") == 0
        await kubernetes.delete_node("worker-0")
        assert (await kubernetes.components()).config_maps == "v1.36.1"
        await kubernetes.set_config_maps("v1.36.2")
        await kubernetes.mark_rbac("v1.36.2")
        assert (await kubernetes.components()).rbac == "v1.36.2"
        group = NodeGroup(name="workers", role=NodeRole.WORKER, size=2, surge=1)
        await kubernetes.create_group(group)
        (read,) = await kubernetes.groups()
        assert read == group
        await kubernetes.change_group(dataclasses.replace(read, size=3, leaving=("i-1",)))
        with pytest.raises(Conflict, match="somebody else"):
            await kubernetes.change_group(dataclasses.replace(read, size=4))
        (changed,) = await kubernetes.groups()
        assert (changed.size, changed.leaving) == (3, ("i-1",))
        plane.node("worker-1", "10.42.2.11")
        await kubernetes.set_provider_id("worker-1", "constellation://i-1")
        assert [n.provider_id for n in await kubernetes.nodes()] == ["constellation://i-1"]
        assert await kubernetes.orders() == ({}, {})
        await kubernetes.order("cp-0", None)
        await kubernetes.write_status({"phase": "settled"})


async def test_the_rights_of_the_services_are_the_calls_of_their_code(
    plane: ControlPlane, tmp_path: Path
) -> None:
    await joinservice_works(plane, tmp_path / "disk")
    await operator_works(plane)
    assert plane.api.denied == []
    for service, rules in SERVICES.items():
        used = {call for group, call in plane.api.used if group == group_of(service)}
        for rule in rules:
            for verb in rule.verbs:
                assert any(
                    (call.verb, call.group, call.resource) == (verb, rule.group, rule.resource)
                    and (not rule.names or call.name in rule.names)
                    and rule.namespace in ("", call.namespace)
                    for call in used
                ), f"{service}: nothing needs {verb} of {rule}"


FORBIDDEN = {
    "joinservice": (
        Call(verb="get", group="", resource="secrets", namespace="kube-system", name="x"),
        Call(verb="delete", group="", resource="nodes", name="worker-0"),
        Call(verb="create", group="", resource="configmaps", namespace="default"),
        Call(verb="update", group=GROUP, resource="joinrecords", name="record-0000000001"),
        Call(verb="create", group="rbac.authorization.k8s.io", resource="clusterrolebindings"),
    ),
    "operator": (
        Call(verb="get", group="", resource="secrets", namespace="kube-system", name="x"),
        Call(verb="create", group=GROUP, resource="joinrecords"),
        Call(verb="delete", group=GROUP, resource="joinrecords", name="record-0000000001"),
        Call(verb="create", group="", resource="nodes"),
        Call(verb="create", group="", resource="pods", namespace="kube-system"),
        Call(verb="create", group="", resource="pods/exec", namespace="kube-system", name="x"),
        Call(verb="delete", group="", resource="pods", namespace="kube-system", name="x"),
        Call(verb="patch", group="", resource="nodes/status", name="worker-0"),
        Call(verb="delete", group=GROUP, resource="nodegroups", name="workers"),
        Call(verb="create", group="", resource="configmaps", namespace="kube-system"),
        Call(
            verb="patch",
            group="",
            resource="configmaps",
            namespace="kube-system",
            name="constellation-live-nodes",
        ),
        Call(verb="create", group="rbac.authorization.k8s.io", resource="clusterrolebindings"),
        Call(
            verb="update",
            group="coordination.k8s.io",
            resource="leases",
            namespace="kube-system",
            name="kube-scheduler",
        ),
        Call(
            verb="create",
            group="coordination.k8s.io",
            resource="leases",
            namespace="default",
        ),
    ),
}


@pytest.mark.parametrize("service", SERVICES)
async def test_everything_else_is_denied(plane: ControlPlane, service: str) -> None:
    who = f"constellation:{service}:cp-0"
    async with client_of(plane.kubeconfig(service)) as client:
        with pytest.raises(Unavailable, match=f"403 {who} cannot get secrets"), raise_ours():
            await client.get(Secret, name="x", namespace="kube-system")
        with pytest.raises(Unavailable, match="cannot get configmaps"), raise_ours():
            await client.get(ConfigMap, name="extension-apiserver", namespace="kube-system")
    for call in FORBIDDEN[service]:
        before = len(plane.api.denied)
        with pytest.raises(Exception, match="cannot"):
            plane.api._authorise(call, "test", (group_of(service),))
        assert len(plane.api.denied) == before + 1, call


async def test_a_clock_that_jumped_ahead_makes_no_identity_that_is_good_only_later(
    tmp_path: Path,
) -> None:
    real, one = clock.now(), ControlPlane(tmp_path)
    said = Said(seconds=int(real.timestamp()) - 3600, boot_s=int(clock.boot_s()))
    clock.bound(TimeBounds(floor_s=0, said=said))
    try:
        one.identities().ensure()
    finally:
        clock.bound(TimeBounds(floor_s=0, said=None))
    found = load_certificate(one.kubeconfig("operator").with_name("client.crt").read_bytes())
    assert found.not_valid_before_utc < real - timedelta(hours=1)
    assert found.not_valid_after_utc > real + timedelta(hours=23)


async def list_nodes(kubeconfig: Path) -> int:
    async with client_of(kubeconfig) as client:
        with raise_ours():
            return len([n async for n in client.list(Node)])


async def test_nobody_may_anything_without_a_certificate_of_the_cluster_ca(
    plane: ControlPlane, tmp_path: Path
) -> None:
    config = json.loads(plane.kubeconfig("operator").read_text())
    config["users"][0]["user"] = {"username": "operator", "password": "constellation:operator"}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    (tmp_path / "ca.crt").write_bytes(plane.ca.certificate_pem)
    with pytest.raises(Unavailable, match="system:anonymous cannot list nodes"):
        await list_nodes(tmp_path / "kubeconfig")
    other = CertificateAuthority.create("kubernetes", now=clock.now(), lifetime=timedelta(days=9))
    (plane.pki / "ca.key").write_bytes(other.key_pem.reveal())
    true = (plane.pki / "ca.crt").read_bytes()
    (plane.pki / "ca.crt").write_bytes(other.certificate_pem)
    thief = ApiIdentities(
        state=tmp_path / "thief", pki=plane.pki, node_name="cp-0", endpoint=plane.endpoint
    )
    thief.ensure()
    path = api_kubeconfig("operator", state=tmp_path / "thief")
    path.with_name("ca.crt").write_bytes(true)
    with pytest.raises(Unavailable):
        await list_nodes(path)
    assert plane.api.serials == []


async def test_a_renewed_certificate_is_used_by_a_client_that_lasts(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TLS judges by the machine's clock, so what is made here is made in the past
    start, later = clock.now(), timedelta(hours=-20)
    monkeypatch.setattr(clock, "now", lambda: start + later)
    for old in SERVICES:
        plane.kubeconfig(old).with_name("client.crt").unlink()
    plane.identities().ensure()
    async with client_of(plane.kubeconfig("operator")) as client:

        async def asks() -> int:
            with raise_ours():
                _ = [n async for n in client.list(Node)]
            return plane.api.serials[-1]

        first = plane.certificate("operator")
        assert await asks() == first
        later = timedelta(hours=-9)
        assert plane.identities().ensure() == ()
        later = timedelta(hours=-8)
        assert plane.identities().ensure() == tuple(SERVICES)
        second = plane.certificate("operator")
        assert await asks() == second != first
        later = timedelta(hours=16)
        with pytest.raises(Unavailable, match="401"):
            await asks()


async def test_a_file_that_cannot_be_used_leaves_the_client_as_it_was(
    plane: ControlPlane,
) -> None:
    first = plane.certificate("operator")
    async with client_of(plane.kubeconfig("operator")) as client:
        plane.kubeconfig("operator").with_name("client.crt").write_bytes(b"half a certifi")
        _ = [n async for n in client.list(Node)]
    assert plane.api.serials == [first]


def dates(pem: bytes) -> tuple[datetime, datetime]:
    certificate = load_certificate(pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def test_an_identity_lives_a_day_and_only_its_owner_can_read_its_key(tmp_path: Path) -> None:
    one = ControlPlane(tmp_path)
    one.endpoint = "10.42.0.1:6443"
    assert one.identities().ensure() == tuple(SERVICES)
    for service in SERVICES:
        folder = one.kubeconfig(service).parent
        assert (folder / "client.key").stat().st_mode & 0o777 == 0o600
        start, end = dates((folder / "client.crt").read_bytes())
        assert end - start == timedelta(hours=24)
        subject = load_certificate((folder / "client.crt").read_bytes()).subject
        assert subject.rfc4514_string() == f"CN={group_of(service)}:cp-0,O={group_of(service)}"
        key = (folder / "client.key").read_bytes()
        one.identities().ensure()
        assert (folder / "client.key").read_bytes() == key


def test_init_makes_the_roles_and_the_resource_of_the_join_log() -> None:
    listed = json.loads(first_objects(service_cidr="10.96.0.0/12", kubernetes="v1.36.2"))
    made = [(o["kind"], o["metadata"]["name"]) for o in listed["items"]]
    assert ("CustomResourceDefinition", f"joinrecords.{GROUP}") in made
    for expected in access_objects():
        assert expected in listed["items"]


@pytest.mark.parametrize("manifest", [JOINSERVICE_MANIFEST, OPERATOR_MANIFEST])
def test_no_pod_of_ours_sees_the_administrator_s_kubeconfig(manifest: Path) -> None:
    spec: dict[str, Any] = json.loads(manifest.read_text())["spec"]
    paths = {v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
    for admin in ("/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf"):
        assert not any(Path(admin).is_relative_to(p) for p in paths), admin
    if manifest == OPERATOR_MANIFEST:
        for secret in (
            "/etc/kubernetes/pki/ca.key",
            "/var/lib/constellation/keys/master-secret.json",
            "/var/lib/constellation/keys/join.pem",
            "/var/lib/constellation/keys/services-ca.key",
            "/var/lib/constellation/api/joinservice/client.key",
        ):
            assert not any(Path(secret).is_relative_to(p) for p in paths), secret
