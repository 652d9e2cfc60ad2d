"""A cloud's API under its real name, with TLS of an authority of the run, in a network of its own.

    with serving(folder, api={"management.azure.com": app}, metadata=app) as authority: …

`authority` is the file that programs are to believe (SSL_CERT_FILE). The metadata service answers
on 169.254.169.254, port 80, without TLS, as on every cloud.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["METADATA", "serving"]

METADATA = "169.254.169.254"
_START_S = 20.0


@contextlib.contextmanager
def serving(
    folder: Path, *, names: tuple[str, ...], api: web.Application, metadata: web.Application
) -> Iterator[Path]:
    """Serve until the block ends; give the authority's file."""
    authority = _certificate(folder, names)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, folder / "server.key")
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> None:
        for app, address, port, tls in (
            (api, "127.0.0.1", 443, context),
            (metadata, METADATA, 80, None),
        ):
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, address, port, ssl_context=tls).start()
            runners.append(runner)
        ready.set()

    async def stop() -> None:
        for runner in runners:
            await runner.cleanup()

    runners: list[web.AppRunner] = []

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(stop())
        loop.close()

    thread = threading.Thread(target=run, name="false cloud", daemon=True)
    thread.start()
    try:
        assert ready.wait(_START_S), "the false cloud does not listen"
        yield authority
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START_S)


def _certificate(folder: Path, names: tuple[str, ...]) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "false cloud")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path = folder / "authority.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path
