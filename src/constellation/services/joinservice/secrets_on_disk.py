"""What a JoinService signs with and hands on, read from this control plane's encrypted disk.

The bootstrapper put it there; nothing of it is ever written or logged here (design, section 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.secret import Secret
from constellation.crypto.signing import load_private_key
from constellation.crypto.x509 import CertificateAuthority, load_certificate, uris
from constellation.kube.node_record import load_node_record
from constellation.kube.service_identity import ServiceIdentity, parse_identity
from constellation.rpc.mutual_tls import ServiceTls
from constellation.services.kept_policy import KeptPolicy
from constellation.trust.node_document import NodeDocument, parse_node_document

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["NodeFiles"]

_PKI = (
    "ca.crt",
    "ca.key",
    "sa.key",
    "sa.pub",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
)
"""What `kubeadm join --control-plane` expects below /etc/kubernetes/pki (kubeadm, "certs")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """Where a control plane keeps what its JoinService needs; every method reads anew.

    All methods raise Unavailable where a file is not there (yet), FormatError where it is not what
    it must be.
    """

    state: Path  # /var/lib/constellation
    pki: Path  # /etc/kubernetes/pki
    node_document: Path  # /run/constellation/node-document.json

    def document(self) -> NodeDocument:
        """Give this node's own, measured node document."""
        return parse_node_document(_read(self.node_document))

    def kept_policy(self) -> KeptPolicy:
        """Give the place of the cluster policy."""
        return KeptPolicy(state=self.state, document=self.document())

    def join_key(self) -> EllipticCurvePrivateKey:
        """Give the join key."""
        return load_private_key(Secret(_read(self._key("join.pem"))))

    def cluster_ca(self) -> CertificateAuthority:
        """Give Kubernetes' CA."""
        return _authority(self.pki / "ca.crt", self.pki / "ca.key")

    def services_ca(self) -> CertificateAuthority:
        """Give the services' CA."""
        return _authority(self._key("services-ca.crt"), self._key("services-ca.key"))

    def pki_files(self) -> dict[str, Secret]:
        """Give what a joining control plane puts below its own /etc/kubernetes/pki."""
        return {name: Secret(_read(self.pki / name)) for name in _PKI}

    def file(self, name: str) -> Secret:
        """Give one file of the keys folder."""
        return Secret(_read(self._key(name)))

    def service_tls(self) -> ServiceTls:
        """Name the files of this node's service identity."""
        return ServiceTls(
            certificate=self._key("service.crt"),
            private_key=self._key("service.pem"),
            ca=self._key("services-ca.crt"),
        )

    def identity(self, document: NodeDocument) -> ServiceIdentity:
        """Say who this node is, by its own service certificate."""
        certificate = load_certificate(_read(self._key("service.crt")))
        return parse_identity(uris(certificate), cluster_id=document.cluster_id)

    def provider(self) -> str:
        """Say where this machine is from, as its measured command line said."""
        return load_node_record(_read(self.state / "node.json")).provider

    def _key(self, name: str) -> Path:
        return self.state / "keys" / name


def _authority(certificate: Path, key: Path) -> CertificateAuthority:
    return CertificateAuthority.load(_read(certificate), Secret(_read(key)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
