"""Certificates of a running 1+1 cluster, all expired at once as after a long sleep, are renewed."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.base.secret import Secret
from constellation.crypto.signing import load_private_key, spki
from constellation.crypto.x509 import CertificateAuthority, load_certificate
from constellation.kube.membership import Member, NodeRole
from constellation.kube.node_certificates import certify
from constellation.kube.node_record import NodeRecord, load_node_record
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import eventually

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

STATE, KUBELET = Path("var/lib/constellation"), Path("var/lib/kubelet/pki")
CLIENT = KUBELET / "kubelet-client-current.pem"
NAMES = (STATE / "keys/service.crt", KUBELET / "serving.crt", CLIENT)
CONTROL_PLANE, WORKER = "control-plane-default-0", "worker-default-0"


@dataclass(frozen=True, kw_only=True)
class OnNode:
    """A node's files, as root of this machine sees them."""

    pid: int

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    @property
    def record(self) -> NodeRecord:
        return load_node_record((self.root / STATE / "node.json").read_bytes())

    def serials(self) -> list[int]:
        return [load_certificate(self.read(n)).serial_number for n in NAMES]

    def read(self, name: Path) -> bytes:
        path = self.root / name
        if path.is_symlink():  # its target is a path of the node
            path = self.root / path.readlink().relative_to("/")
        return path.read_bytes()

    def public(self, name: str) -> bytes:
        return spki(load_private_key(Secret(self.read(STATE / "keys" / name))).public_key())

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-a", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    def member(self) -> Member:
        record = self.record
        return Member(
            name=record.name,
            instance_id=record.instance_id,
            role=NodeRole(record.role),
            group=record.group,
            attester_id=bytes(32),
            address=record.address,
            mesh_address=record.mesh_address,
            pod_cidr=record.pod_cidr,
            disk_uuid=record.disk_uuid,
            kubelet_client_public_key=self.public("kubelet-client.pem"),
            kubelet_serving_public_key=self.public("kubelet-serving.pem"),
            service_public_key=self.public("service.pem"),
            mesh_public_key=bytes(32),
            joined=0,
        )

    def expire(self, first: OnNode) -> list[int]:
        """Give the node what it would have after eight days of sleep; gives the serial numbers."""
        pki, keys = first.root / "etc/kubernetes/pki", first.root / STATE / "keys"
        made = certify(
            self.member(),
            cluster_ca=_long_ago(pki / "ca.crt", pki / "ca.key"),
            services_ca=_long_ago(keys / "services-ca.crt", keys / "services-ca.key"),
            cluster_id=self.record.cluster_id,
            now=datetime.now(UTC) - timedelta(days=8),
        )
        client = made.kubelet_client + self.read(STATE / "keys/kubelet-client.pem")
        for name, data in zip(NAMES, (made.service, made.kubelet_serving, client), strict=True):
            path = self.root / name
            if path.is_symlink():
                path = self.root / path.readlink().relative_to("/")
            path.write_bytes(data)
        serials = self.serials()
        assert self.run("systemctl", "restart", "kubelet.service") == ""
        return serials


def _long_ago(certificate: Path, key: Path) -> CertificateAuthority:
    """Give an authority with this key that was there before: ours dates nothing before itself."""
    true = CertificateAuthority.load(certificate.read_bytes(), Secret(key.read_bytes()))
    name = true.certificate.subject.rfc4514_string().removeprefix("CN=")
    older = CertificateAuthority.create(
        name, now=datetime.now(UTC) - timedelta(days=30), lifetime=timedelta(days=365)
    )
    return CertificateAuthority(certificate=older.certificate, private_key=true.private_key)


def on_nodes(mini: Workspace) -> tuple[OnNode, OnNode]:
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    first, worker = (
        next(int(n.pid) for n in nodes if group in n.instance_id) for group in ("control", "worker")
    )
    return OnNode(pid=first), OnNode(pid=worker)


def pods_by_node() -> dict[str, str]:
    """Give one static pod of ours for each node: its logs come from that node's kubelet."""
    service = "constellation-verificationservice"
    return {node: f"{service}-{node}" for node in (CONTROL_PLANE, WORKER)}


def logs(mini: Workspace, pod: str) -> str:
    done = mini.kubectl("-n", "kube-system", "logs", pod, "--tail=5", timeout_s=60)
    return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"


def executed(mini: Workspace, pod: str) -> str:
    words = ("-n", "kube-system", "exec", pod, "--", "/usr/bin/python3", "-c", "print(6 * 7)")
    done = mini.kubectl(*words, timeout_s=60)
    return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"


def renewed_in_log(mini: Workspace) -> set[str]:
    log = mini.constellation("log", "-o", "json")
    assert log.returncode == 0, log.stderr
    return {r["name"] for r in json.loads(log.stdout)["records"] if r["kind"] == "renewed"}


def ready(mini: Workspace) -> set[str]:
    found = set()
    for node in mini.objects("nodes"):
        conditions = node["status"]["conditions"]  # type: ignore[index]
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            found.add(node["metadata"]["name"])  # type: ignore[index]
    return found


def test_expired_certificates_of_both_nodes_are_renewed_and_everything_works_on(
    mini: Workspace,
) -> None:
    first, worker = on_nodes(mini)
    pods = pods_by_node()
    for pod in pods.values():
        assert executed(mini, pod) == "42\n"
    for node in (first, worker):
        lasting = load_certificate(node.read(NAMES[0]))
        life = lasting.not_valid_after_utc - lasting.not_valid_before_utc
        assert life <= timedelta(hours=24)
    old = {WORKER: worker.expire(first), CONTROL_PLANE: first.expire(first)}
    assert eventually(lambda: "certificate has expired" in logs(mini, pods[WORKER]), seconds=20)
    now = datetime.now(UTC)

    def young(node: OnNode) -> bool:
        found = (load_certificate(node.read(n)) for n in NAMES)
        return all(c.not_valid_after_utc > now for c in found)

    assert eventually(lambda: young(first) and young(worker), seconds=120), worker.run(
        "journalctl", "--no-pager", "-u", "constellation-mesh.service", "--lines=30"
    )
    for node, before in ((first, old[CONTROL_PLANE]), (worker, old[WORKER])):
        assert not {*before} & {*node.serials()}
    assert eventually(lambda: ready(mini) == {CONTROL_PLANE, WORKER}, seconds=90)
    for pod in pods.values():
        assert eventually(lambda pod=pod: executed(mini, pod) == "42\n", seconds=90), executed(  # type: ignore[misc]
            mini, pod
        )
        assert "failed" not in logs(mini, pod)
    assert eventually(lambda: renewed_in_log(mini) >= {CONTROL_PLANE, WORKER}, seconds=30)
