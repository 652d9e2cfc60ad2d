"""Who a service certificate speaks for: a node of one cluster, by one URI in its SAN.

`constellation://CLUSTERID/ROLE/NAME`, clusterID in lower-case hexadecimal. Issued by JoinServices
from the services' CA, for names that admission gave; read by KeyService and PeerService. The
authority of the certificate is checked by TLS before this module sees it (design, section 8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from constellation.base.errors import Untrusted
from constellation.kube.membership import NodeRole

__all__ = ["ServiceIdentity", "dump_identity", "parse_identity"]

_URI = re.compile(
    r"constellation://(?P<cluster>[0-9a-f]{64})/(?P<role>control-plane|worker)"
    r"/(?P<name>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceIdentity:
    """A node as services know it; `cluster_id` has 32 bytes."""

    cluster_id: bytes
    role: NodeRole
    name: str


def dump_identity(identity: ServiceIdentity) -> str:
    """Write the URI."""
    return f"constellation://{identity.cluster_id.hex()}/{identity.role}/{identity.name}"


def parse_identity(uris: tuple[str, ...], *, cluster_id: bytes) -> ServiceIdentity:
    """Read the URIs of a peer's certificate (`crypto.x509.uris`): exactly one, of this cluster.

    Raises:
        Untrusted: none, several, another form, or another cluster.
    """
    found = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if found is None:
        raise Untrusted(
            f"service certificate: found {len(uris)} URIs, expected one constellation://…"
        )
    if bytes.fromhex(found["cluster"]) != cluster_id:
        raise Untrusted("service certificate: it is another cluster's")
    return ServiceIdentity(cluster_id=cluster_id, role=NodeRole(found["role"]), name=found["name"])
