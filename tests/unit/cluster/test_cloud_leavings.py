"""What Kubernetes made in a cloud: named before a removal, and load balancers go first."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base import clock
from constellation.base.errors import Unavailable
from constellation.cluster import cloud_leavings
from constellation.cluster.cloud_leavings import Disk, Leavings, look, remove_balancers
from constellation.crypto.signing import dump_private_key, generate_key, spki
from constellation.crypto.x509 import CertificateAuthority
from tests.fakes.kube_api import KubeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Progress

BALANCER = "service.kubernetes.io/load-balancer-cleanup"
EVERYTHING = [
    {
        "kind": "ClusterRole",
        "metadata": {"name": "cluster-admin"},
        "rules": [
            {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "delete"]},
            {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
        ],
    },
    {
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "admins"},
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": "system:masters"}],
    },
]


def service(name: str, *, kind: str = "LoadBalancer", address: str = "") -> dict[str, Any]:
    status = {"loadBalancer": {"ingress": [{"hostname": address}]}} if address else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "finalizers": [BALANCER]},
        "spec": {"type": kind, "ports": [{"port": 80}]},
        "status": status,
    }


def volume(name: str, *, handle: str, policy: str = "Delete", claim: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = {
        "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": handle},
        "persistentVolumeReclaimPolicy": policy,
    }
    if claim:
        spec["claimRef"] = {"namespace": "shop", "name": claim}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": spec,
    }


@dataclass(kw_only=True)
class Cluster:
    """An API server, an administrator's kubeconfig, and a controller that lets Services go."""

    api: KubeApi
    kubeconfig: Path
    said: list[str] = field(default_factory=list)

    def report(self, progress: Progress) -> None:
        self.said.append(progress.detail)

    def services(self) -> set[str]:
        return {name for (_, _, resource, name) in self.api.objects if resource == "services"}

    async def control(self, *, pause_s: float) -> None:
        """Remove load balancers one by one, as a controller manager does, for ever."""
        while True:
            await asyncio.sleep(pause_s)
            objects = self.api.objects.items()
            for key in [k for k, o in objects if "deletionTimestamp" in o["metadata"]][:1]:
                self.api.let_go(key)

    @contextlib.asynccontextmanager
    async def controlled(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.control(pause_s=0.05))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(cloud_leavings, "_LOOK_S", 0.05)
    ca = CertificateAuthority.create("kubernetes", now=clock.now(), lifetime=timedelta(days=1))
    api = KubeApi(ca=ca, roles=EVERYTHING)
    for one in (
        service("web", address="lb-1.example"),
        service("api"),
        service("inner", kind="ClusterIP"),
    ):
        api.put("", "services", one)
    api.put("", "persistentvolumes", volume("pvc-1", handle="vol-1", claim="data"))
    api.put("", "persistentvolumes", volume("kept", handle="vol-2", policy="Retain"))
    local = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "of-a-host"},
        "spec": {"hostPath": {"path": "/srv"}},
    }
    api.put("", "persistentvolumes", local)
    async with api.serving() as endpoint:
        path = tmp_path / "constellation-admin.conf"
        path.write_text(_kubeconfig(ca, endpoint))
        yield Cluster(api=api, kubeconfig=path)


def _kubeconfig(ca: CertificateAuthority, endpoint: str) -> str:
    key = generate_key()
    certificate = ca.issue(
        spki(key.public_key()),
        common_name="kubernetes-admin",
        organizations=("system:masters",),
        usage="client",
        now=clock.now(),
        lifetime=timedelta(hours=1),
    )
    one, two, three = (
        base64.b64encode(data).decode()
        for data in (ca.certificate_pem, certificate, dump_private_key(key).reveal())
    )
    return (
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        f'clusters: [{{name: c, cluster: {{server: "https://{endpoint}", '
        f"certificate-authority-data: {one}}}}}]\n"
        f"users: [{{name: u, user: {{client-certificate-data: {two}, "
        f"client-key-data: {three}}}}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
    )


async def test_services_and_disks_are_named_with_the_clouds_ids(cluster: Cluster) -> None:
    found = await look(cluster.kubeconfig)
    stays = "stays in the cloud, and is yours to remove"
    assert found.lines() == (
        "Service shop/api: deleted first, with its load balancer",
        "Service shop/web (lb-1.example): deleted first, with its load balancer",
        f"disk vol-2 of ebs.csi.aws.com (kept, Retain): {stays}",
        f"disk vol-1 of ebs.csi.aws.com (pvc-1, claim shop/data, Delete): {stays}",
    )


def test_what_a_volumes_maker_wrote_stays_on_its_line() -> None:
    handle = "vol-1\n\x1b[2JService shop/web: deleted first" + "x" * 10_000
    disk = Disk(name="pv", driver="d.example", handle=handle, policy="Delete", claim="")
    (line,) = Leavings(disks=(disk,)).lines()
    assert line.isprintable()
    assert len(line) < 500


async def test_services_go_and_their_controller_is_waited_for(cluster: Cluster) -> None:
    async with cluster.controlled():
        left = await remove_balancers(cluster.kubeconfig, wait_s=30, report=cluster.report)
    assert left == ()
    assert cluster.services() == {"inner"}
    assert "waiting for 2: shop/api, shop/web" in cluster.said
    assert cluster.said[-1] == "all are gone"


async def test_one_that_comes_meanwhile_goes_too(cluster: Cluster) -> None:
    async def somebody() -> None:
        await asyncio.sleep(0.1)
        cluster.api.put("", "services", service("late"))

    async with cluster.controlled():
        task = asyncio.create_task(somebody())
        left = await remove_balancers(cluster.kubeconfig, wait_s=30, report=cluster.report)
        await task
    assert (left, cluster.services()) == ((), {"inner"})


async def test_without_a_controller_the_removal_goes_on_and_says_what_may_be_left(
    cluster: Cluster,
) -> None:
    left = await remove_balancers(cluster.kubeconfig, wait_s=0.3, report=cluster.report)
    assert left == (
        "Service shop/api: its load balancer may be left in the cloud",
        "Service shop/web (lb-1.example): its load balancer may be left in the cloud",
    )
    assert "the removal goes on without them" in cluster.said[-1]


async def test_an_api_that_stops_to_answer_keeps_no_cluster_alive(cluster: Cluster) -> None:
    cluster.api.roles = []
    left = await remove_balancers(cluster.kubeconfig, wait_s=0.3, report=cluster.report)
    assert left == ("load balancers of Services: its load balancer may be left in the cloud",)
    with pytest.raises(Unavailable):
        await look(cluster.kubeconfig)
