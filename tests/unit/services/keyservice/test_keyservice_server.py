"""Tests of constellation.services.keyservice.server over a real socket and real mutual TLS."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from grpclib.client import Channel

from constellation.attestation.model import Variant
from constellation.base import clock
from constellation.base.errors import Conflict, FormatError, Rejected, Unavailable, Untrusted
from constellation.base.ready import tell_service_manager
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, cluster_id, derive_key
from constellation.crypto.signing import dump_private_key
from constellation.crypto.x509 import CertificateAuthority, generate_key, spki
from constellation.kms.master_secret import dump_master_secret, load_master_secret
from constellation.kube.membership import NodeRole
from constellation.kube.service_identity import ServiceIdentity, dump_identity
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs.key_grpc import KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyRequest
from constellation.rpc.stubs.kmsv2_grpc import KeyManagementServiceStub
from constellation.rpc.stubs.kmsv2_pb2 import DecryptRequest, EncryptRequest, StatusRequest
from constellation.services.keyservice.server import KeyServer
from constellation.trust.node_document import NodeDocument, dump_node_document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MASTER = MasterSecret(key=Secret(bytes(range(32))), salt=Secret(bytes(range(32, 64))))
CLUSTER = cluster_id(MASTER)
CA = CertificateAuthority.create("services", now=clock.now(), lifetime=timedelta(days=1))
DISK = "state-disk/0123456789abcdef0123456789abcdef"


def identity_files(
    folder: Path,
    *,
    ca: CertificateAuthority = CA,
    cluster: bytes = CLUSTER,
    role: str = "control-plane",
) -> ServiceTls:
    folder.mkdir(parents=True, exist_ok=True)
    key = generate_key()
    who = ServiceIdentity(cluster_id=cluster, role=NodeRole(role), name="cp-0")
    certificate = ca.issue(
        spki(key.public_key()),
        common_name="cp-0",
        ips=("127.0.0.1",),
        uris=(dump_identity(who),),
        usage="peer",
        now=clock.now(),
        lifetime=timedelta(hours=1),
    )
    (folder / "service.pem").write_bytes(dump_private_key(key).reveal())
    (folder / "service.crt").write_bytes(certificate)
    (folder / "services-ca.crt").write_bytes(CA.certificate_pem)
    return ServiceTls(
        certificate=folder / "service.crt",
        private_key=folder / "service.pem",
        ca=folder / "services-ca.crt",
    )


def lay_out(folder: Path) -> KeyServer:
    keys = folder / "keys"
    identity_files(keys)
    (keys / "master-secret.json").write_bytes(dump_master_secret(MASTER).reveal())
    document = NodeDocument(
        version=1,
        cluster_id=CLUSTER,
        owner_public_key=spki(generate_key().public_key()),
        release_root=spki(generate_key().public_key()),
        minimum_release="0.1.0",
        variant=Variant.LOCAL_VTPM,
    )
    (folder / "node-document.json").write_bytes(dump_node_document(document))
    return KeyServer(
        keys=keys,
        node_document=folder / "node-document.json",
        socket=folder / "kms" / "kms.sock",
        port=0,
    )


class Running:
    def __init__(self, server: KeyServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.plugin_ready, self.endpoint = asyncio.Event(), asyncio.Queue[str]()
        self.port = 0

    async def ask(self, tls: ServiceTls, key_id: str = DISK) -> bytes:
        keys = channel("127.0.0.1", self.port, tls=tls)
        try:
            with raise_ours("KeyService"):
                request = GetDataKeyRequest(id=key_id, size_bytes=64)
                return (await KeyServiceStub(keys).GetDataKey(request, timeout=5)).key
        finally:
            keys.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    one = Running(lay_out(tmp_path), tmp_path)
    task = asyncio.create_task(
        one.server.run(plugin_ready=one.plugin_ready.set, listening=one.endpoint.put_nowait)
    )
    async with asyncio.timeout(5):
        await one.plugin_ready.wait()
        one.port = int((await one.endpoint.get()).rpartition(":")[2])
    yield one
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_control_plane_gets_the_key_of_a_disk(running: Running, tmp_path: Path) -> None:
    key = await running.ask(identity_files(tmp_path / "caller"))
    assert key == derive_key(MASTER, DISK, size_bytes=64).reveal()


async def test_a_key_outside_the_namespace_is_refused(running: Running, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="measurementSecret"):
        await running.ask(identity_files(tmp_path / "caller"), "measurementSecret")


async def test_a_worker_is_refused(running: Running, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="a worker"):
        await running.ask(identity_files(tmp_path / "caller", role="worker"))


async def test_a_certificate_of_another_cluster_is_untrusted(
    running: Running, tmp_path: Path
) -> None:
    with pytest.raises(Untrusted, match="another cluster"):
        await running.ask(identity_files(tmp_path / "caller", cluster=bytes(32)))


async def test_a_certificate_of_another_authority_gets_no_connection(
    running: Running, tmp_path: Path
) -> None:
    other = CertificateAuthority.create("x", now=clock.now(), lifetime=timedelta(days=1))
    with pytest.raises(Unavailable):
        await running.ask(identity_files(tmp_path / "caller", ca=other))


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
    server = lay_out(tmp_path)
    (tmp_path / "keys" / "service.crt").rename(tmp_path / "later.crt")
    ready, endpoint = asyncio.Event(), asyncio.Queue[str]()
    task = asyncio.create_task(server.run(plugin_ready=ready.set, listening=endpoint.put_nowait))
    async with asyncio.timeout(5):
        await ready.wait()
        assert endpoint.empty()
        (tmp_path / "later.crt").rename(tmp_path / "keys" / "service.crt")
        assert (await endpoint.get()).startswith("127.0.0.1:")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_master_secret_of_another_cluster_is_refused(tmp_path: Path) -> None:
    server = lay_out(tmp_path)
    other = dataclasses.replace(MASTER, key=Secret(bytes(32)))
    (tmp_path / "keys" / "master-secret.json").write_bytes(dump_master_secret(other).reveal())
    with pytest.raises(Conflict, match="clusterID"):
        await server.run(plugin_ready=lambda: None, listening=lambda _: None)
    (tmp_path / "keys" / "master-secret.json").unlink()
    with pytest.raises(Unavailable, match="master-secret"):
        await server.run(plugin_ready=lambda: None, listening=lambda _: None)


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
