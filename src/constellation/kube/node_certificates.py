"""A node's three certificates: for keys that it made itself, with the names admission gave it.

Kubelet client: CN system:node:NAME, O system:nodes (Kubernetes, "Using Node Authorization").
Kubelet serving: the node's name and own address. Service: one URI
(`kube.service_identity`) and the node's own address.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from constellation.kube.service_identity import ServiceIdentity, dump_identity

if TYPE_CHECKING:
    from constellation.crypto.x509 import CertificateAuthority
    from constellation.kube.membership import Member

__all__ = [
    "KUBELET_LIFETIME",
    "SERVICE_LIFETIME",
    "NodeCertificates",
    "certify",
    "certify_service",
]

KUBELET_LIFETIME = timedelta(days=7)
"""As long as kubelet's own renewals of its client certificate live."""

SERVICE_LIFETIME = timedelta(hours=24) - timedelta(minutes=5)
"""24 hours in all (design, section 8): a certificate is valid from 5 minutes before it is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCertificates:
    """Three PEM certificates."""

    kubelet_client: bytes
    kubelet_serving: bytes
    service: bytes


def certify(
    member: Member,
    *,
    cluster_ca: CertificateAuthority,
    services_ca: CertificateAuthority,
    cluster_id: bytes,
    now: datetime,
    since: datetime | None = None,
) -> NodeCertificates:
    """Certify a member's three public keys; `now` and `since` as `CertificateAuthority.issue`.

    Raises:
        FormatError: a key is not P-256.
    """
    name = f"system:node:{member.name}"
    return NodeCertificates(
        kubelet_client=cluster_ca.issue(
            member.kubelet_client_public_key,
            common_name=name,
            organizations=("system:nodes",),
            usage="client",
            now=now,
            since=since,
            lifetime=KUBELET_LIFETIME,
        ),
        kubelet_serving=cluster_ca.issue(
            member.kubelet_serving_public_key,
            common_name=name,
            organizations=("system:nodes",),
            dns=(member.name,),
            ips=(member.address,),
            usage="server",
            now=now,
            since=since,
            lifetime=KUBELET_LIFETIME,
        ),
        service=certify_service(
            member, services_ca=services_ca, cluster_id=cluster_id, now=now, since=since
        ),
    )


def certify_service(
    member: Member,
    *,
    services_ca: CertificateAuthority,
    cluster_id: bytes,
    now: datetime,
    since: datetime | None = None,
) -> bytes:
    """Certify a member's service key alone: KeyService runs before Kubernetes has a CA.

    Raises:
        FormatError: the key is not P-256.
    """
    identity = ServiceIdentity(cluster_id=cluster_id, role=member.role, name=member.name)
    return services_ca.issue(
        member.service_public_key,
        common_name=member.name,
        ips=(member.address,),
        uris=(dump_identity(identity),),
        usage="peer",
        now=now,
        since=since,
        lifetime=SERVICE_LIFETIME,
    )
