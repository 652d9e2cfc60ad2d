"""The identities with which services of a control plane speak to the Kubernetes API, on its disk.

`/var/lib/constellation/api/SERVICE`: kubeconfig, CA, key, certificate; each pod is given its own
folder. The certificates come from the cluster CA, which lies on every control plane, so no other
machine is asked. They live 24 hours: made by the bootstrapper, renewed by the mesh program.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base import clock
from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto.signing import dump_private_key, generate_key, load_private_key, spki
from constellation.crypto.x509 import CertificateAuthority, load_certificate
from constellation.kube.renewal import due
from constellation.kube.service_access import SERVICES, certify_client, kubeconfig

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ApiIdentities", "api_kubeconfig"]

_STATE: Final = Path("/var/lib/constellation")
_LOOK_EVERY_S = 30.0
_log = logging.getLogger(__name__)


def api_kubeconfig(service: str, *, state: Path = _STATE) -> Path:
    """Give the kubeconfig of a service."""
    return state / "api" / service / "kubeconfig"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiIdentities:
    """Those of one control plane; `endpoint` is host:port of the API server."""

    state: Path  # /var/lib/constellation
    pki: Path  # /etc/kubernetes/pki
    node_name: str
    endpoint: str

    def ensure(self) -> tuple[str, ...]:
        """Make or renew what is due; gives the names of services with a new certificate.

        Raises:
            Unavailable: the cluster CA is not on this disk (yet).
            Untrusted, FormatError: it is not what it must be.
        """
        now = clock.now()
        wanted = tuple(s for s in SERVICES if self._is_due(s, now=now))
        if wanted:
            ca = CertificateAuthority.load(
                _read(self.pki / "ca.crt"), Secret(_read(self.pki / "ca.key"))
            )
            for service in wanted:
                self._write(service, ca=ca, now=now)
        return wanted

    async def keep(self) -> None:
        """Look every half minute, for ever."""
        while True:
            try:
                if renewed := self.ensure():
                    _log.info("API identities were renewed", extra={"services": " ".join(renewed)})
            except ConstellationError as error:
                _log.warning("API identities were not renewed", extra={"reason": str(error)})
            await asyncio.sleep(_LOOK_EVERY_S)

    def _is_due(self, service: str, *, now: datetime) -> bool:
        certificate = self._folder(service) / "client.crt"
        return not certificate.exists() or due(load_certificate(_read(certificate)), now=now)

    def _write(self, service: str, *, ca: CertificateAuthority, now: datetime) -> None:
        """Write the certificate last: a kubeconfig that has one works."""
        folder = self._folder(service)
        key = folder / "client.key"
        if not key.exists():
            write_atomic(key, dump_private_key(generate_key()).reveal(), mode=0o600)
        public = spki(load_private_key(Secret(_read(key))).public_key())
        certificate = certify_client(
            public,
            service=service,
            node_name=self.node_name,
            ca=ca,
            now=now,
            since=clock.now_for_windows(),
        )
        write_atomic(folder / "ca.crt", ca.certificate_pem)
        write_atomic(
            api_kubeconfig(service, state=self.state),
            kubeconfig(service=service, endpoint=self.endpoint),
        )
        write_atomic(folder / "client.crt", certificate)

    def _folder(self, service: str) -> Path:
        return api_kubeconfig(service, state=self.state).parent


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
