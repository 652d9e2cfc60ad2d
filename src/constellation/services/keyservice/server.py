"""KeyService as it runs: the plugin's socket first (the API server waits for it), then port 9090.

The plugin needs the master secret alone. The network side waits for this node's certificate, and
reads it again every few minutes, since it is renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from constellation.atls.grpc_bounds import LocalServer
from constellation.base.errors import FormatError, Unavailable
from constellation.base.retry import until_available
from constellation.base.secret import Secret
from constellation.crypto.x509 import load_certificate
from constellation.kms.master_secret import FILE_NAME, load_master_secret, of_cluster
from constellation.rpc.mutual_tls import ServiceTls, TlsServer, serve, server_context
from constellation.services.keyservice.data_keys import PORT, DataKeys
from constellation.services.keyservice.kms_plugin import KmsPlugin
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from constellation.crypto.derive import MasterSecret

__all__ = ["KeyServer"]

_RELOAD_EVERY_S = 300.0
_CERTIFICATE_WITHIN_S = 3600.0
_MAX_PLUGIN_BYTES = 64 * 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyServer:
    """Paths and port of one KeyService; `port` 0 takes a free one (tests)."""

    keys: Path  # /var/lib/constellation/keys
    node_document: Path  # /run/constellation/node-document.json
    socket: Path  # /run/constellation/kms/kms.sock
    port: int = PORT

    async def run(
        self, *, plugin_ready: Callable[[], None], listening: Callable[[str], None]
    ) -> None:
        """Serve until cancelled; `listening` gets the endpoint of the network side.

        Raises:
            Unavailable: the master secret is not there yet, or an address is taken.
            Conflict: it is another cluster's.
        """
        cluster_id = parse_node_document(_read(self.node_document)).cluster_id
        path = self.keys / FILE_NAME
        master = load_master_secret(Secret(_read(path)))
        of_cluster(master, expected=cluster_id, where=path)
        plugin = LocalServer([KmsPlugin(master)], max_message_bytes=_MAX_PLUGIN_BYTES)
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()  # of a process that was killed
        await plugin.start(path=str(self.socket))
        self.socket.chmod(0o600)
        plugin_ready()
        try:
            await self._network(master, cluster_id, listening)
        finally:
            plugin.close()
            await plugin.wait_closed()

    async def _network(
        self, master: MasterSecret, cluster_id: bytes, listening: Callable[[str], None]
    ) -> None:
        tls = ServiceTls(
            certificate=self.keys / "service.crt",
            private_key=self.keys / "service.pem",
            ca=self.keys / "services-ca.crt",
        )

        async def attempt() -> tuple[ssl.SSLContext, TlsServer, str]:
            context = server_context(tls)
            host = _own_address(tls)
            handlers = [DataKeys(master, cluster_id=cluster_id)]
            server = await serve(handlers, host=host, port=self.port, context=context)
            return context, server, f"{host}:{server.port}"

        context, server, endpoint = await until_available(attempt, deadline_s=_CERTIFICATE_WITHIN_S)
        listening(endpoint)
        try:
            while True:
                await asyncio.sleep(_RELOAD_EVERY_S)
                try:
                    context.load_cert_chain(tls.certificate, tls.private_key)
                except OSError as error:  # an SSLError too; the old one goes on until it expires
                    _log.warning("certificate was not reloaded", extra={"reason": str(error)})
        finally:
            server.close()
            await server.wait_closed()


def _own_address(tls: ServiceTls) -> str:
    """Give the address that this node's certificate speaks for: callers demand it there."""
    try:
        names = load_certificate(_read(tls.certificate)).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (x509.ExtensionNotFound, ValueError):
        raise FormatError("service certificate: no subject alternative name") from None
    addresses: list[ipaddress.IPv4Address] = [
        a
        for a in names.value.get_values_for_type(x509.IPAddress)
        if isinstance(a, ipaddress.IPv4Address)
    ]
    if len(addresses) != 1:
        raise FormatError(f"service certificate: {len(addresses)} IPv4 addresses, want 1")
    return str(addresses[0])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
