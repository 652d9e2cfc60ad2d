"""KeyService as it runs: the plugin's socket first (the API server waits for it), then two ports.

The plugin needs the master secret alone. Beside them, the provider's access is kept as the policy
has it (`provider_access`). The network sides (disk keys on 9090, grants on 9092) wait
for this node's certificate; 9090 uses a renewed one from its next connection on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from constellation.atls import server as atls_server
from constellation.atls.grpc_bounds import LocalServer
from constellation.atls.limits import USUAL
from constellation.base.errors import ConstellationError, FormatError, Unavailable
from constellation.base.retry import until_available
from constellation.base.secret import Secret
from constellation.crypto.x509 import load_certificate, uris
from constellation.kms.master_secret import FILE_NAME, load_master_secret, of_cluster
from constellation.kube.log_copy import LogCopy
from constellation.kube.service_identity import parse_identity
from constellation.rpc.mutual_tls import ServiceTls, TlsServer, serve
from constellation.services.kept_access import KeptAccess
from constellation.services.kept_policy import KeptPolicy
from constellation.services.keyservice.data_keys import PORT, DataKeys
from constellation.services.keyservice.grant_service import (
    GRANT_CLIENT,
    GRANT_PORT,
    GRANT_SERVER,
    GrantHandlers,
    KnownGrants,
    joined_node,
)
from constellation.services.keyservice.kms_plugin import KmsPlugin
from constellation.services.keyservice.members import Members
from constellation.services.keyservice.provider_access import AccessKeeper
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from constellation.atls.channel import ChannelAttester
    from constellation.crypto.derive import MasterSecret
    from constellation.kube.membership import Membership

__all__ = ["KeyServer"]

_CERTIFICATE_WITHIN_S = 3600.0
_LOOK_EVERY_S = 5.0
_MAX_PLUGIN_BYTES = 64 * 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyServer:
    """Paths and ports of one KeyService; port 0 takes a free one (tests)."""

    state: Path  # /var/lib/constellation
    node_document: Path  # /run/constellation/node-document.json
    socket: Path  # /run/constellation/kms/kms.sock
    attester: Callable[[], Awaitable[ChannelAttester]]
    port: int = PORT
    grant_port: int = GRANT_PORT

    async def run(
        self, *, plugin_ready: Callable[[], None], listening: Callable[[str, str], None]
    ) -> None:
        """Serve until cancelled; `listening` gets name and endpoint of each of the network sides.

        Raises:
            Unavailable: the master secret is not there yet, or an address is taken.
            Conflict: it is another cluster's.
        """
        document = parse_node_document(_read(self.node_document))
        path = self._keys / FILE_NAME
        master = load_master_secret(Secret(_read(path)))
        of_cluster(master, expected=document.cluster_id, where=path)
        plugin = LocalServer([KmsPlugin(master)], max_message_bytes=_MAX_PLUGIN_BYTES)
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()  # of a process that was killed
        await plugin.start(path=str(self.socket))
        self.socket.chmod(0o600)
        plugin_ready()
        kept, known = KeptPolicy(state=self.state, document=document), KnownGrants()
        membership = self._membership(kept, known)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_look_on(membership))
                tasks.create_task(self._data_keys(master, kept, membership, listening))
                tasks.create_task(self._grants(master, kept, membership, known, listening))
                tasks.create_task(AccessKeeper(master=master, kept=kept).run())
        finally:
            plugin.close()
            await plugin.wait_closed()

    async def _data_keys(
        self,
        master: MasterSecret,
        kept: KeptPolicy,
        membership: Callable[[], Membership],
        listening: Callable[[str, str], None],
    ) -> None:
        tls, cluster_id = self._tls, kept.document.cluster_id
        keys = DataKeys(master, cluster_id=cluster_id, membership=membership)

        async def attempt() -> tuple[TlsServer, str]:
            host = _own_address(tls)
            server = await serve([keys], host=host, port=self.port, tls=tls)
            return server, f"{host}:{server.port}"

        server, endpoint = await until_available(attempt, deadline_s=_CERTIFICATE_WITHIN_S)
        listening("disk keys", endpoint)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await server.wait_closed()

    async def _grants(
        self,
        master: MasterSecret,
        kept: KeptPolicy,
        membership: Callable[[], Membership],
        known: KnownGrants,
        listening: Callable[[str, str], None],
    ) -> None:
        async def attempt() -> tuple[atls_server.AtlsServer, str]:
            identity = parse_identity(
                uris(load_certificate(_read(self._tls.certificate))),
                cluster_id=kept.document.cluster_id,
            )
            handlers = GrantHandlers(
                master,
                own_name=identity.name,
                kept=kept,
                join_key=lambda: Secret(_read(self._keys / "join.pem")),
                access=KeptAccess(state=self.state).access,
                membership=membership,
                known=known,
            )
            host = _own_address(self._tls)
            server = await atls_server.serve(
                [handlers],
                host=host,
                port=self.grant_port,
                purpose=GRANT_SERVER,
                attester=await self.attester(),
                appraisers={GRANT_CLIENT: joined_node(kept)},
                limits=USUAL,
            )
            return server, f"{host}:{server.port}"

        server, endpoint = await until_available(attempt, deadline_s=_CERTIFICATE_WITHIN_S)
        listening("grants", endpoint)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await server.wait_closed()

    def _membership(self, kept: KeptPolicy, known: KnownGrants) -> Callable[[], Membership]:
        """Make what both sides ask: whoever looks at the log, the age of grants counts from it."""
        seed = self._keys / "membership.json"
        members = Members(LogCopy(self.state / "join-log", seed=seed))

        def now() -> Membership:
            membership = members.now(join_public_key=kept.verified().join_public_key)
            known.look(membership)
            return membership

        return now

    @property
    def _keys(self) -> Path:
        return self.state / "keys"

    @property
    def _tls(self) -> ServiceTls:
        return ServiceTls(
            certificate=self._keys / "service.crt",
            private_key=self._keys / "service.pem",
            ca=self._keys / "services-ca.crt",
        )


async def _look_on(membership: Callable[[], Membership]) -> None:
    """See reservations when they are made, also those whose ticket nobody came to make."""
    while True:
        with contextlib.suppress(ConstellationError):  # who asks for a key is told
            membership()
        await asyncio.sleep(_LOOK_EVERY_S)


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
