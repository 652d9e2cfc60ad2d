"""Tests of constellation.rpc.mutual_tls: a renewed certificate is used, an expired one is not."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from constellation.base import clock
from constellation.base.errors import Untrusted
from constellation.base.files import write_atomic
from constellation.base.time_bounds import TimeBounds
from constellation.crypto.signing import dump_private_key
from constellation.crypto.x509 import CertificateAuthority, generate_key, load_certificate, spki
from constellation.rpc import mutual_tls
from constellation.rpc.errors import raise_ours, raise_status
from constellation.rpc.stubs.key_grpc import KeyServiceBase, KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyReply, GetDataKeyRequest

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from grpclib.client import Channel
    from grpclib.server import Stream

CA = CertificateAuthority.create("services", now=clock.now(), lifetime=timedelta(days=10))
KEY = generate_key()


class Uris(KeyServiceBase):
    """Answers with the URIs of the caller's certificate."""

    async def GetDataKey(  # noqa: N802 - the name in key.proto
        self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
    ) -> None:
        with raise_status():
            await stream.recv_message()
            uris = " ".join(mutual_tls.peer_uris(stream))
            await stream.send_message(GetDataKeyReply(key=uris.encode()))


def certify(folder: Path, *, lifetime: timedelta = timedelta(hours=1)) -> int:
    """Replace the node's certificate; gives its serial number."""
    pem = CA.issue(
        spki(KEY.public_key()),
        common_name="cp-0",
        ips=("127.0.0.1",),
        uris=("constellation://one",),
        usage="peer",
        now=clock.now(),
        lifetime=lifetime,
    )
    write_atomic(folder / "service.crt", pem)
    return load_certificate(pem).serial_number


@pytest.fixture
def tls(tmp_path: Path) -> mutual_tls.ServiceTls:
    (tmp_path / "service.pem").write_bytes(dump_private_key(KEY).reveal())
    (tmp_path / "services-ca.crt").write_bytes(CA.certificate_pem)
    certify(tmp_path)
    return mutual_tls.ServiceTls(
        certificate=tmp_path / "service.crt",
        private_key=tmp_path / "service.pem",
        ca=tmp_path / "services-ca.crt",
    )


@pytest.fixture
async def port(tls: mutual_tls.ServiceTls) -> AsyncIterator[int]:
    server = await mutual_tls.serve([Uris()], host="127.0.0.1", port=0, tls=tls)
    yield server.port
    server.close()
    await server.wait_closed()


@pytest.fixture
def believed_clock() -> Iterator[None]:
    yield
    clock.bound(TimeBounds(floor_s=0, said=None))


async def ask(channel: Channel) -> str:
    with raise_ours("service"):
        reply = await KeyServiceStub(channel).GetDataKey(GetDataKeyRequest(), timeout=5)
    return reply.key.decode()


async def shown(channel: Channel) -> int:
    """Ask, and give the serial number of the certificate that the server showed."""
    assert await ask(channel) == "constellation://one"
    connected = channel._protocol
    assert connected is not None
    tls_object: ssl.SSLObject = connected.connection._transport.get_extra_info("ssl_object")
    der = tls_object.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_renewed_certificate_is_used_at_once_and_no_connection_is_dropped(
    tls: mutual_tls.ServiceTls, port: int
) -> None:
    first = load_certificate(tls.certificate.read_bytes()).serial_number
    with contextlib.closing(mutual_tls.channel("127.0.0.1", port, tls=tls)) as old:
        assert await shown(old) == first
        second = certify(tls.certificate.parent)
        with contextlib.closing(mutual_tls.channel("127.0.0.1", port, tls=tls)) as new:
            assert await shown(new) == second != first
        assert await shown(old) == first, "who was connected stays connected"


async def test_a_file_that_cannot_be_used_changes_nothing(
    tls: mutual_tls.ServiceTls, port: int, tmp_path: Path
) -> None:
    pem = tls.certificate.read_bytes()
    caller = mutual_tls.ServiceTls(
        certificate=tmp_path / "caller.crt", private_key=tls.private_key, ca=tls.ca
    )
    caller.certificate.write_bytes(pem)
    other = CA.issue(
        spki(generate_key().public_key()),
        common_name="cp-0",
        usage="peer",
        now=clock.now(),
        lifetime=timedelta(hours=1),
    )
    for useless in (b"half a certifi", other):
        write_atomic(tls.certificate, useless)
        with contextlib.closing(mutual_tls.channel("127.0.0.1", port, tls=caller)) as channel:
            assert await shown(channel) == load_certificate(pem).serial_number
    second = certify(tmp_path)
    with contextlib.closing(mutual_tls.channel("127.0.0.1", port, tls=caller)) as channel:
        assert await shown(channel) == second


@pytest.mark.usefixtures("believed_clock")
async def test_a_caller_is_refused_once_its_certificate_has_expired_whatever_the_clock_says(
    tls: mutual_tls.ServiceTls, port: int
) -> None:
    with contextlib.closing(mutual_tls.channel("127.0.0.1", port, tls=tls)) as channel:
        assert await ask(channel) == "constellation://one"
        # the machine's clock stays; what has passed for sure is later than the certificate
        later = clock.now() + timedelta(hours=1, seconds=1)
        clock.bound(TimeBounds(floor_s=int(later.timestamp()), said=None))
        with pytest.raises(Untrusted, match="expired"):
            await ask(channel)
