"""Attacks from inside a running cluster: root on a worker, its kubelet's credentials, a pod.

Each refusal stands beside what the same attacker may do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, derive_key
from constellation.disk.native import inspect
from constellation.providers.local.daemon.layout import RUN_ROOT, STATE_ROOT
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.machines import disk_of, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.conftest import Workspace

pytestmark = pytest.mark.cluster

CONTROL_PLANE = "10.42.1.10"
WORKER_KUBELET = "/var/lib/kubelet/pki/kubelet-client-current.pem"

ASK = """
import asyncio, json, sys
sys.path[:0] = ["/usr/lib/constellation/python"]
from pathlib import Path
from constellation.base.errors import ConstellationError
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.rpc.stubs import join_pb2
from constellation.services.join_channel import judged_channel
from constellation.trust.node_document import parse_node_document

async def main(door, purpose):
    document = parse_node_document(Path("/run/constellation/node-document.json").read_bytes())
    agent = await AgentClient.connect(agent_socket(door))
    try:
        async with judged_channel(
            "10.42.1.10", purpose=purpose, attester=agent, document=document, minimum_serial=1
        ) as service:
            print("let in")
    except ConstellationError as error:
        print(type(error).__name__, error)
    try:
        await agent.give_to_cluster(bytes(32))
        print("given")
    except ConstellationError as error:
        print(type(error).__name__, error)
    agent.close()

asyncio.run(main(*sys.argv[1:]))
"""

CONNECT = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def state(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1.5).close()
        return target + " open"
    except OSError:
        return target + " closed"

with ThreadPoolExecutor(32) as threads:
    print(*threads.map(state, sys.argv[1:]), sep="\\n")
"""


def init_pid(mini: Workspace, group: str) -> int:
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    return next(int(n.pid) for n in nodes if group in n.instance_id)


def inside(pid: int, *argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-a", *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("door", "purpose", "why"),
    [
        ("diskmapper", "rejoin-client", "pcr15"),
        ("bootstrapper", "join-client", "pcr15"),
        ("verification", "join-client", "expected no channel"),
        ("joinservice", "rejoin-client", "expected join-server"),
    ],
)
def test_root_on_a_running_worker_gets_no_ticket(
    mini: Workspace, door: str, purpose: str, why: str
) -> None:
    worker = init_pid(mini, "worker")
    said = inside(worker, "python3", "-I", "-", door, purpose, stdin=ASK).splitlines()
    assert len(said) == 2, said
    assert said[0].startswith("Rejected"), said
    assert why in said[0]
    assert said[1].split()[0] in ("Conflict", "Rejected"), "nor is the node given once more"


def request(common_name: str, organization: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
    ]
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return base64.b64encode(pem).decode()


@pytest.fixture
def kubelet(mini: Workspace, tmp_path: Path) -> Iterator[tuple[Workspace, list[str]]]:
    """Give kubectl's arguments to speak as the worker's kubelet."""
    credentials = tmp_path / "kubelet.pem"
    credentials.touch(mode=0o600)
    credentials.write_text(inside(init_pid(mini, "worker"), "cat", WORKER_KUBELET))
    flags = [f"--client-certificate={credentials}", f"--client-key={credentials}", "--user="]
    yield mini, flags
    credentials.unlink()


@pytest.mark.parametrize(
    ("name", "signer", "common_name", "organization"),
    [
        (
            "other",
            "kube-apiserver-client-kubelet",
            "system:node:control-plane-default-0",
            "system:nodes",
        ),
        ("serving", "kubelet-serving", "system:node:control-plane-default-0", "system:nodes"),
        ("admin", "kube-apiserver-client", "admin", "system:masters"),
    ],
)
def test_a_kubelets_credentials_get_no_other_nodes_certificate(
    kubelet: tuple[Workspace, list[str]],
    name: str,
    signer: str,
    common_name: str,
    organization: str,
) -> None:
    mini, flags = kubelet
    usage = "server auth" if name == "serving" else "client auth"
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": request(common_name, organization),
            "signerName": f"kubernetes.io/{signer}",
            "usages": ["digital signature", usage],
        },
    }
    done = mini.kubectl(*flags, "create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode != 0
    assert "forbidden" in done.stderr.lower(), done.stderr
    assert mini.kubectl("get", "csr", name).returncode != 0


def test_a_kubelet_renews_its_own_certificate_and_reads_no_secrets(
    kubelet: tuple[Workspace, list[str]],
) -> None:
    mini, flags = kubelet
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "own"},
        "spec": {
            "request": request("system:node:worker-default-0", "system:nodes"),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }
    done = mini.kubectl(*flags, "create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    ready = mini.kubectl("wait", "csr/own", "--for=condition=Approved", "--timeout=30s")
    assert ready.returncode == 0, "the control case: its own, and only that"
    assert "forbidden" in mini.kubectl(*flags, "get", "secrets", "-A").stderr
    assert "forbidden" in mini.kubectl(*flags, "get", "joinrecords").stderr


OPEN = {f"{CONTROL_PLANE}:6443", f"{CONTROL_PLANE}:10250", "{worker}:10250", "169.254.169.254:53"}
CLOSED_PORTS = (2379, 2380, 9000, 9090, 9091, 9092, 9999, 10249, 10256, 30080, 30081, 30090, 30091)
CLOUD_PORTS = (80, 5000)


def test_a_pod_reaches_no_port_of_ours(mini: Workspace) -> None:
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    worker = next(n.address for n in nodes if "worker" in n.instance_id)
    reachable = {target.format(worker=worker) for target in OPEN}
    closed = {f"{address}:{p}" for address in (CONTROL_PLANE, worker) for p in CLOSED_PORTS}
    closed |= {f"169.254.169.254:{p}" for p in CLOUD_PORTS}
    pod = _process(mini, b"coredns")
    shown = subprocess.run(
        ["nsenter", "-t", str(pod), "-n", sys.executable, "-c", CONNECT, *(reachable | closed)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = dict(line.split() for line in shown.stdout.splitlines())
    assert {t for t, state in found.items() if state == "open"} == reachable


def _process(mini: Workspace, word: bytes) -> int:
    """Find a process of this cloud by a word of its command line."""
    spaces = {
        Path(f"/proc/{init_pid(mini, g)}/ns/cgroup").readlink() for g in ("control", "worker")
    }
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            ours = mini.uid.encode() in (folder / "cgroup").read_bytes()
            if line.split(b"\0")[0].endswith(word) and (
                ours or (folder / "ns/cgroup").readlink() in spaces
            ):
                return int(folder.name)
    raise AssertionError(f"no process {word!r}")


def _forms(secret: bytes) -> tuple[bytes, ...]:
    return secret, secret.hex().encode(), base64.b64encode(secret)


def _hits(secrets: list[bytes], mini: Workspace, extra: tuple[Path, ...]) -> set[str]:
    """Name every process, journal and file in which a secret is found."""
    words = [form for secret in secrets for form in _forms(secret)]
    hits = set()
    for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
        with contextlib.suppress(OSError):
            if any(w in path.read_bytes() for w in words):
                hits.add(str(path))
    for group in ("control", "worker"):
        journal = inside(init_pid(mini, group), "journalctl", "--no-pager", "-o", "cat").encode()
        if any(w in journal for w in words):
            hits.add(f"journal of {group}")
    for root in (STATE_ROOT / mini.uid, RUN_ROOT / mini.uid, mini.folder, *extra):
        for path in root.rglob("*"):
            with contextlib.suppress(OSError):
                if not path.is_symlink() and path.is_file() and _holds(path, words):
                    hits.add(str(path))
    return hits


def _holds(path: Path, words: list[bytes]) -> bool:
    tail, position = b"", 0
    with path.open("rb") as file:
        while True:
            try:
                # disk images are sparse
                position = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                return False
            chunk = os.pread(file.fileno(), 1 << 22, position)
            if any(w in tail + chunk for w in words):
                return True
            tail, position = chunk[-512:], position + len(chunk)


def _owners(file: Path) -> list[bytes]:
    """Give the owner key, and key and salt of each master secret."""
    content = json.loads(file.read_bytes())
    secrets = [base64.b64decode(content["owner_key"])]
    for generation in content["master_secrets"]:
        secrets += [base64.b64decode(generation[name]) for name in ("key", "salt")]
    return secrets


def _derived(mini: Workspace, file: Path) -> list[bytes]:
    """Derive every key that this cluster can have: one for each id of the grammar in use."""
    (generation,) = json.loads(file.read_bytes())["master_secrets"]
    key, salt = (Secret(base64.b64decode(generation[name])) for name in ("key", "salt"))
    master = MasterSecret(key=key, salt=salt)
    disks = (
        inspect(disk_of(mini, machine(mini, role).instance_id)).uuid.hex()
        for role in ("control-plane", "worker")
    )
    keys = [derive_key(master, f"state-disk/{uuid}", size_bytes=64).reveal() for uuid in disks]
    others = ("measurementSecret", "ssh-ca", *(f"etcd/{n}" for n in range(3)))
    keys += [derive_key(master, name, size_bytes=32).reveal() for name in others]
    # the first half is what a cipher of 32 bytes would get
    return [*keys, *(key[:32] for key in keys if len(key) == 64)]


def _of_control_planes(mini: Workspace) -> list[bytes]:
    """Give the private keys that control planes alone have: P-256 numbers, big-endian."""
    root = Path(f"/proc/{init_pid(mini, 'control')}/root")
    files = (
        *(root / "var/lib/constellation/keys" / name for name in ("join.pem", "services-ca.key")),
        *(root / "etc/kubernetes/pki" / name for name in ("ca.key", "etcd/ca.key", "sa.key")),
    )
    return [_number(path.read_bytes()) for path in files]


def _number(pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32, "big")


def test_the_owners_secrets_and_all_derived_keys_lie_in_one_file_alone(
    mini: Workspace, tmp_path: Path
) -> None:
    file = mini.folder / "constellation-mastersecret.json"
    owners, derived = _owners(file), _derived(mini, file)
    etcd = Path(f"/proc/{init_pid(mini, 'control')}/root/var/lib/etcd")
    # the scanner must find what was planted: in a file, in arguments, in etcd, on a host's disk
    planted = tmp_path / "planted"
    planted.write_bytes(b"x" * 1000 + base64.b64encode(derived[0]))
    code = ("import time; time.sleep(600)", derived[1].hex())
    word = os.urandom(32)
    made = mini.kubectl("create", "configmap", "planted", f"--from-literal=word={word.hex()}")
    assert made.returncode == 0, made.stderr
    with subprocess.Popen([sys.executable, "-c", *code]) as canary:
        try:
            secrets = [*owners, *derived, *_of_control_planes(mini), word]
            hits = _hits(secrets, mini, (tmp_path, etcd))
        finally:
            canary.kill()
    mini.kubectl("delete", "configmap", "planted")
    in_etcd = {h for h in hits if h.startswith(str(etcd))}
    assert in_etcd, "etcd's files are scanned"
    assert not any(_holds(Path(h), [f for s in secrets[:-1] for f in _forms(s)]) for h in in_etcd)
    assert hits - in_etcd == {str(file), str(planted), f"/proc/{canary.pid}/cmdline"}


def test_no_program_of_ours_may_dump_its_memory(mini: Workspace) -> None:
    seen = set()
    for group in ("control", "worker"):
        init = init_pid(mini, group)
        cgroups = {Path(f"/proc/{init}/ns/cgroup").readlink()}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                ours = any(b"/constellation/" in w and b"/bin/" in w for w in words[:4])
                if not ours or (folder / "ns/cgroup").readlink() not in cgroups:
                    continue
                name = next(w for w in words if b"/bin/" in w and b"constellation" in w)
                limits = (folder / "limits").read_text().splitlines()
                core = next(line for line in limits if line.startswith("Max core file size"))
                assert core.split()[4:6] == ["0", "0"], f"{name!r}: {core}"
                seen.add(name.rpartition(b"/")[2].decode())
    assert {"agent", "mesh", "keyservice", "bootstrapper"} <= seen, seen


ASK_KEYS = """
import asyncio, sys
sys.path[:0] = ["/usr/lib/constellation/python"]
from pathlib import Path
from grpclib.exceptions import GRPCError
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs.key_grpc import KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyRequest

async def main(ids):
    keys = Path("/var/lib/constellation/keys")
    tls = ServiceTls(certificate=keys / "service.crt", private_key=keys / "service.pem",
                     ca=keys / "services-ca.crt")
    for id_ in ids:
        connection = channel("10.42.1.10", 9090, tls=tls)
        try:
            request = GetDataKeyRequest(id=id_, size_bytes=64)
            reply = await KeyServiceStub(connection).GetDataKey(request, timeout=10)
            print(id_, "given", len(reply.key))
        except GRPCError as error:
            print(id_, "refused", error.status.name)
        connection.close()

asyncio.run(main(sys.argv[1:]))
"""


def test_one_service_gets_no_other_ones_key(mini: Workspace) -> None:
    disks = [
        f"state-disk/{inspect(disk_of(mini, machine(mini, role).instance_id)).uuid.hex()}"
        for role in ("control-plane", "worker")
    ]
    others = ["measurementSecret", "etcd/0", "ssh-ca", "volume/a", f"state-disk/{'0' * 32}"]

    def asked(group: str) -> dict[str, str]:
        argv = ("python3", "-I", "-", *disks, *others)
        said = inside(init_pid(mini, group), *argv, stdin=ASK_KEYS)
        return dict(line.split(" ", 1) for line in said.splitlines())

    # root on a worker has its service's certificate and key
    worker = asked("worker")
    assert set(worker) == {*disks, *others}, worker
    assert all(answer.startswith("refused") for answer in worker.values()), worker
    control = asked("control")
    assert {i for i, a in control.items() if a == "given 64"} == set(disks), control
