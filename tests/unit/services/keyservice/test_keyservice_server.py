"""Tests of constellation.services.keyservice.server over a real socket and real mutual TLS."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from grpclib.client import Channel

from constellation.base import clock
from constellation.base.errors import Conflict, FormatError, Rejected, Unavailable, Untrusted
from constellation.base.ready import tell_service_manager
from constellation.base.secret import Secret
from constellation.crypto.derive import derive_key
from constellation.crypto.signing import dump_private_key
from constellation.crypto.x509 import CertificateAuthority, generate_key, spki
from constellation.kms.master_secret import dump_master_secret, load_master_secret
from constellation.kube.join_log import Entry, Kind
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import dump_node_record
from constellation.kube.service_identity import ServiceIdentity, dump_identity
from constellation.providers.openstack.access import dump_access
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs.key_grpc import KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyRequest
from constellation.rpc.stubs.kmsv2_grpc import KeyManagementServiceStub
from constellation.rpc.stubs.kmsv2_pb2 import DecryptRequest, EncryptRequest, StatusRequest
from constellation.services.joinservice.admit import admit
from constellation.services.kept_access import KeptAccess
from constellation.services.keyservice.server import KeyServer
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.sealed_access import seal_access
from tests.fakes.cluster_machines import OURS
from tests.fakes.join_world import Chip, SharedLog, ledger_of, write_control_plane
from tests.fakes.members import DOCUMENT, asks, attested, machine, node_record
from tests.fakes.openstack import FakeOpenStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.services.joinservice.secrets_on_disk import NodeFiles

MASTER = OURS.master
CLUSTER = OURS.document.cluster_id
OWN_DISK = f"state-disk/{hashlib.sha256(b'disk cp-0').hexdigest()[:32]}"


def identity_files(
    folder: Path,
    files: NodeFiles,
    *,
    ca: CertificateAuthority | None = None,
    cluster: bytes = CLUSTER,
    role: str = "control-plane",
    name: str = "control-plane-default-0",
) -> ServiceTls:
    """Certify a key of its own; the control plane has `files.service_tls()`."""
    folder.mkdir(parents=True, exist_ok=True)
    key = generate_key()
    who = ServiceIdentity(cluster_id=cluster, role=NodeRole(role), name=name)
    certificate = (ca or files.services_ca()).issue(
        spki(key.public_key()),
        common_name=name,
        ips=("127.0.0.1",),
        uris=(dump_identity(who),),
        usage="peer",
        now=clock.now(),
        lifetime=timedelta(hours=1),
    )
    (folder / "service.pem").write_bytes(dump_private_key(key).reveal())
    (folder / "service.crt").write_bytes(certificate)
    return ServiceTls(
        certificate=folder / "service.crt",
        private_key=folder / "service.pem",
        ca=files.service_tls().ca,
    )


def lay_out(folder: Path) -> tuple[KeyServer, NodeFiles]:
    files = write_control_plane(folder, cluster=OURS)

    async def no_agent() -> Chip:
        raise Unavailable("no agent here")

    server = KeyServer(
        state=files.state,
        node_document=files.node_document,
        socket=folder / "kms" / "kms.sock",
        attester=no_agent,
        port=0,
    )
    return server, files


class Running:
    def __init__(self, server: KeyServer, files: NodeFiles) -> None:
        self.server, self.files = server, files
        self.plugin_ready, self.endpoint = asyncio.Event(), asyncio.Queue[str]()
        self.port = 0

    async def ask(self, tls: ServiceTls, key_id: str = OWN_DISK) -> bytes:
        keys = channel("127.0.0.1", self.port, tls=tls)
        try:
            with raise_ours("KeyService"):
                request = GetDataKeyRequest(id=key_id, size_bytes=64)
                return (await KeyServiceStub(keys).GetDataKey(request, timeout=5)).key
        finally:
            keys.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    one = Running(*lay_out(tmp_path))
    task = asyncio.create_task(
        one.server.run(
            plugin_ready=one.plugin_ready.set,
            listening=lambda _, where: one.endpoint.put_nowait(where),
        )
    )
    async with asyncio.timeout(5):
        await one.plugin_ready.wait()
        one.port = int((await one.endpoint.get()).rpartition(":")[2])
    yield one
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_control_plane_gets_the_key_of_a_member_s_disk(running: Running) -> None:
    key = await running.ask(running.files.service_tls())
    assert key == derive_key(MASTER, OWN_DISK, size_bytes=64).reveal()


async def test_a_disk_that_no_live_member_has_gets_no_key(running: Running) -> None:
    tls, ledger = running.files.service_tls(), ledger_of(running.files, SharedLog())
    worker = machine(0)
    disk = f"state-disk/{asks(worker).disk_uuid.hex()}"
    with pytest.raises(Rejected, match="no live member record has this disk"):
        await running.ask(tls, disk)
    admission = admit(
        ledger.membership,
        asks(worker),
        document=DOCUMENT,
        result=attested(worker),
        instances=(worker,),
        now=1,
    )
    joined = dataclasses.replace(admission.member, joined=2)
    entry = Entry(kind=Kind.RESERVED, time=1, member=joined, expires_at=301)
    await ledger.write(lambda _: entry, now=1)
    assert len(await running.ask(tls, disk)) == 64
    for kind in (Kind.SETTLED, Kind.REMOVED):
        last = Entry(kind=kind, time=2, name=joined.name)
        await ledger.write(lambda _, last=last: last, now=2)  # type: ignore[misc]
        if kind is Kind.SETTLED:
            assert len(await running.ask(tls, disk)) == 64
    with pytest.raises(Rejected, match="no live member record has this disk"):
        await running.ask(tls, disk)
    assert len(await running.ask(tls)) == 64


async def test_a_caller_without_a_live_member_record_is_refused(
    running: Running, tmp_path: Path
) -> None:
    stranger = identity_files(tmp_path / "a", running.files, name="control-plane-default-7")
    with pytest.raises(Rejected, match="no live member record"):
        await running.ask(stranger)
    before = identity_files(tmp_path / "b", running.files)
    with pytest.raises(Rejected, match="another life of this name"):
        await running.ask(before)
    assert len(await running.ask(running.files.service_tls())) == 64


async def test_the_provider_access_of_a_new_policy_is_taken(running: Running) -> None:
    kept = running.files.kept_policy()
    (member,) = ledger_of(running.files, SharedLog()).membership.nodes
    record = node_record(member, cluster_id=CLUSTER, provider="openstack")
    (running.files.state / "node.json").write_bytes(dump_node_record(record))
    wanted = dump_access(FakeOpenStack().access())
    sealed = seal_access(wanted, master=MASTER, cluster_id=CLUSTER, nonce=bytes(12))
    policy = dataclasses.replace(parse_policy(OURS.policy(serial=2).policy), provider_access=sealed)
    kept.keep_first(sign_policy(policy, OURS.owner))
    for _ in range(250):
        if KeptAccess(state=running.files.state).access() == wanted:
            break
        await asyncio.sleep(0.02)
    assert KeptAccess(state=running.files.state).access() == wanted
    assert len(await running.ask(running.files.service_tls())) == 64


async def test_a_key_outside_the_namespace_is_refused(running: Running) -> None:
    with pytest.raises(Rejected, match="measurementSecret"):
        await running.ask(running.files.service_tls(), "measurementSecret")


async def test_a_worker_is_refused(running: Running, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="a worker"):
        await running.ask(identity_files(tmp_path / "caller", running.files, role="worker"))


async def test_a_certificate_of_another_cluster_is_untrusted(
    running: Running, tmp_path: Path
) -> None:
    with pytest.raises(Untrusted, match="another cluster"):
        await running.ask(identity_files(tmp_path / "caller", running.files, cluster=bytes(32)))


async def test_a_certificate_of_another_authority_gets_no_connection(
    running: Running, tmp_path: Path
) -> None:
    other = CertificateAuthority.create("x", now=clock.now(), lifetime=timedelta(days=1))
    with pytest.raises(Unavailable):
        await running.ask(identity_files(tmp_path / "caller", running.files, ca=other))


async def test_the_plugin_wraps_and_unwraps_for_the_api_server(running: Running) -> None:
    async with Channel(path=str(running.server.socket)) as plugin:
        stub = KeyManagementServiceStub(plugin)
        status = await stub.Status(StatusRequest(), timeout=5)
        assert (status.version, status.healthz, status.key_id) == ("v2", "ok", "etcd/1")
        sealed = await stub.Encrypt(EncryptRequest(plaintext=b"seed", uid="1"), timeout=5)
        again = await stub.Encrypt(EncryptRequest(plaintext=b"seed", uid="2"), timeout=5)
        assert sealed.key_id == status.key_id
        assert b"seed" not in sealed.ciphertext
        assert sealed.ciphertext != again.ciphertext
        opened = await stub.Decrypt(
            DecryptRequest(ciphertext=sealed.ciphertext, key_id=sealed.key_id), timeout=5
        )
        assert opened.plaintext == b"seed"
        with raise_our_error(Untrusted), raise_ours("plugin"):
            await stub.Decrypt(
                DecryptRequest(ciphertext=sealed.ciphertext, key_id="etcd/2"), timeout=5
            )


def raise_our_error(kind: type[Exception]) -> pytest.RaisesExc[Exception]:
    return pytest.raises(kind)


def test_the_plugin_s_socket_is_for_root_alone(running: Running) -> None:
    assert running.server.socket.stat().st_mode & 0o777 == 0o600
    assert running.server.socket.parent.stat().st_mode & 0o777 == 0o700


async def test_the_plugin_is_ready_before_the_node_has_a_certificate(tmp_path: Path) -> None:
    server, files = lay_out(tmp_path)
    certificate = files.service_tls().certificate
    certificate.rename(tmp_path / "later.crt")
    ready, endpoint = asyncio.Event(), asyncio.Queue[str]()
    task = asyncio.create_task(
        server.run(plugin_ready=ready.set, listening=lambda _, where: endpoint.put_nowait(where))
    )
    async with asyncio.timeout(5):
        await ready.wait()
        assert endpoint.empty()
        (tmp_path / "later.crt").rename(certificate)
        assert (await endpoint.get()).startswith("127.0.0.1:")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_master_secret_of_another_cluster_is_refused(tmp_path: Path) -> None:
    server, files = lay_out(tmp_path)
    other = dataclasses.replace(MASTER, key=Secret(bytes(32)))
    path = files.state / "keys" / "master-secret.json"
    path.write_bytes(dump_master_secret(other).reveal())
    with pytest.raises(Conflict, match="clusterID"):
        await server.run(plugin_ready=lambda: None, listening=lambda *_: None)
    path.unlink()
    with pytest.raises(Unavailable, match="master-secret"):
        await server.run(plugin_ready=lambda: None, listening=lambda *_: None)


def test_a_master_secret_survives_dump_and_load() -> None:
    assert load_master_secret(dump_master_secret(MASTER)) == MASTER
    with pytest.raises(FormatError):
        load_master_secret(Secret(b'{"key":"AA==","salt":"AA==","generation":1}'))


def test_readiness_is_told_to_the_socket_that_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        tell_service_manager()
        assert manager.recv(100) == b"READY=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_service_manager()
    assert "NOTIFY_SOCKET" not in os.environ
