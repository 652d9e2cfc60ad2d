"""The one way in for a cluster-autoscaler: loopback of a control plane, mutual TLS, if it is on.

It is on while a NodeGroup object has bounds. The authority of this one pair of certificates lives
in this process' memory and certifies nobody else: what the autoscaler holds opens no other door of
the cluster, and the operator needs no key of the cluster's for it (ADR 88).

FOLDER/server/      tls.crt tls.key ca.crt       read by this process alone
FOLDER/client/      tls.crt tls.key ca.crt cloud-config      mounted by the autoscaler's pod
"""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from constellation.base import clock
from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.crypto.signing import dump_private_key, generate_key, spki
from constellation.crypto.x509 import CertificateAuthority
from constellation.rpc import mutual_tls
from constellation.services.operator.autoscaler_service import (
    CLIENT_URI,
    AutoscalerService,
    Sight,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from constellation.crypto.x509 import Usage
    from constellation.kube.rollout import NodeGroup

__all__ = ["AUTOSCALER_PORT", "FOLDER", "AutoscalerDoor", "Door"]

FOLDER: Final = Path("/run/constellation/autoscaler")
AUTOSCALER_PORT: Final = 30092
_HOST = "127.0.0.1"
_LIFETIME = timedelta(hours=24) - timedelta(minutes=5)
_RENEWED_AFTER = timedelta(hours=12)
_AUTHORITY_LIFETIME = timedelta(days=365)
_CLIENT_FILES = ("tls.crt", "tls.key", "ca.crt", "cloud-config")
_log = logging.getLogger(__name__)


class Door(Protocol):
    """Something that opens and shuts by what is configured."""

    async def once(self) -> None:
        """Look, and do what is due. Raises Unavailable, FormatError."""
        ...

    async def close(self) -> None:
        """Shut it."""
        ...


class AutoscalerDoor:
    """Serves `AutoscalerService` while a group has bounds; `port` 0 takes a free one."""

    def __init__(
        self,
        sight: Sight,
        *,
        groups: Callable[[], Awaitable[tuple[NodeGroup, ...]]],
        folder: Path = FOLDER,
        port: int = AUTOSCALER_PORT,
    ) -> None:
        self._sight, self._groups, self._folder, self._port = sight, groups, folder, port
        self._authority: CertificateAuthority | None = None
        self._certified: datetime | None = None
        self._server: mutual_tls.TlsServer | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; 0: it is shut."""
        return self._server.port if self._server is not None else 0

    async def once(self) -> None:
        """Open or shut, and renew certificates twice a day. Raises Unavailable, FormatError."""
        if not any(group.bounds is not None for group in await self._groups()):
            await self.close()
            return
        try:
            await self._open()
        except OSError as error:
            raise Unavailable(f"{self._folder}: {error.strerror}") from error

    async def close(self) -> None:
        """Stop listening, end connections, and take the client's files away."""
        if self._server is None:
            return
        server, self._server, self._certified = self._server, None, None
        server.close()
        await server.wait_closed()
        for name in _CLIENT_FILES:
            (self._folder / "client" / name).unlink(missing_ok=True)
        _log.info("autoscaling is off")

    async def _open(self) -> None:
        now = clock.now_for_windows()
        if self._certified is None or abs(now - self._certified) >= _RENEWED_AFTER:
            await asyncio.to_thread(self._certify, now)
            self._certified = now
        if self._server is not None:
            return
        server = self._folder / "server"
        self._server = await mutual_tls.serve(
            (AutoscalerService(self._sight),),
            host=_HOST,
            port=self._port,
            tls=mutual_tls.ServiceTls(
                certificate=server / "tls.crt",
                private_key=server / "tls.key",
                ca=server / "ca.crt",
            ),
        )
        address = json.dumps({"address": f"{_HOST}:{self.port}", **_paths(self._folder / "client")})
        # YAML, of which JSON is a part
        write_atomic(self._folder / "client/cloud-config", address.encode() + b"\n", mode=0o600)
        _log.info("autoscaling is on", extra={"port": self.port})

    def _certify(self, now: datetime) -> None:
        """Write both ends' certificates; the key of who signs them is in no file."""
        if self._authority is None:
            self._authority = CertificateAuthority.create(
                "constellation autoscaler", now=now, lifetime=_AUTHORITY_LIFETIME
            )
        for end in ("server", "client"):
            folder, key = self._folder / end, generate_key()
            usage: Usage = "server" if end == "server" else "client"
            certificate = self._authority.issue(
                spki(key.public_key()),
                common_name=f"autoscaler {end}",
                ips=(_HOST,) if end == "server" else (),
                uris=(CLIENT_URI,) if end == "client" else (),
                usage=usage,
                now=now,
                lifetime=_LIFETIME,
            )
            write_atomic(folder / "ca.crt", self._authority.certificate_pem, mode=0o600)
            write_atomic(folder / "tls.key", dump_private_key(key).reveal(), mode=0o600)
            write_atomic(folder / "tls.crt", certificate, mode=0o600)


def _paths(folder: Path) -> dict[str, str]:
    """Give what the autoscaler's cloud-config calls its files."""
    return {
        "key": str(folder / "tls.key"),
        "cert": str(folder / "tls.crt"),
        "cacert": str(folder / "ca.crt"),
    }
