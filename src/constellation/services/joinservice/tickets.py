"""What a node takes home: the messages that carry its place, its certificates and its disk key.

A control plane's ticket carries the CA keys, and not master secret and join key: for these it has a
grant, which it redeems with its KeyService once PCR 15 says whose node it is (design, section 9).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.kube.membership import Member, Membership, NodeRole
from constellation.kube.node_certificates import certify
from constellation.kube.peers import SignedPeers, sign_peers
from constellation.rpc.stubs import join_pb2
from constellation.services.kept_lists import kept_artifact_list
from constellation.services.offered_policy import write_offer

if TYPE_CHECKING:
    from constellation.base.secret import Secret
    from constellation.kube.join_log import SignedRecord
    from constellation.services.joinservice.secrets_on_disk import NodeFiles

__all__ = ["Tickets", "peer_message"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tickets:
    """Makes tickets from what lies on this control plane's disk."""

    files: NodeFiles

    def join(
        self,
        member: Member,
        membership: Membership,
        *,
        kubernetes: str,
        disk_key: Secret,
        grant: SignedRecord,
        now: datetime,
        time: int,
    ) -> join_pb2.JoinTicket:
        """Make the ticket of a node that was admitted; `grant` is the record of its reservation.

        `kubernetes` is the version that it gets; `now` is this machine's clock, by which
        certificates end; they begin at `time` (seconds since 1970) if that is earlier, and the node
        takes it for said.

        Raises:
            Unavailable: a key, or the artifact list of this version, is not on the disk.
            FormatError: a key of the node is not P-256.
        """
        settings = membership.settings
        cluster_ca, services_ca = self.files.cluster_ca(), self.files.services_ca()
        certificates = certify(
            member,
            cluster_ca=cluster_ca,
            services_ca=services_ca,
            cluster_id=settings.cluster_id,
            now=now,
            since=datetime.fromtimestamp(time, UTC),
        )
        ticket = join_pb2.JoinTicket(
            node_name=member.name,
            group=member.group,
            disk_key=disk_key.reveal(),
            kubelet_client_certificate=certificates.kubelet_client,
            kubelet_serving_certificate=certificates.kubelet_serving,
            service_certificate=certificates.service,
            cluster_ca_certificate=cluster_ca.certificate_pem,
            services_ca_certificate=services_ca.certificate_pem,
            pod_cidr=member.pod_cidr,
            mesh_address=member.mesh_address,
            mesh_cidr=settings.mesh_cidr,
            peers=self.peers(membership),
            artifact_list=self._artifact_list(kubernetes, of_init=settings.artifact_list),
            endpoint=settings.endpoint,
            kubernetes_version=kubernetes,
            service_cidr=settings.service_cidr,
            pod_network=settings.pod_cidr,
            time=time,
        )
        if member.role is NodeRole.CONTROL_PLANE:
            ticket.control_plane.CopyFrom(self._control_plane(membership, grant))
        return ticket

    def _artifact_list(self, version: str, *, of_init: bytes) -> bytes:
        """Give the list whose digest the policy names: the one of init, or the release's."""
        kept = self.files.kept_policy()
        if hashlib.sha256(of_init).digest() == kept.verified().artifact_lists.get(version):
            return of_init
        return kept_artifact_list(kept, version)

    def rejoin(
        self, membership: Membership, *, disk_key: Secret, time: int
    ) -> join_pb2.RejoinTicket:
        """Make the ticket of a node that comes back."""
        return join_pb2.RejoinTicket(
            disk_key=disk_key.reveal(), peers=self.peers(membership), time=time
        )

    def renew(
        self,
        member: Member,
        *,
        cluster_id: bytes,
        kubelet_client: bool,
        now: datetime,
        time: int,
    ) -> join_pb2.RenewTicket:
        """Certify the keys of a live member anew; `now` and `time` as in `join`."""
        made = certify(
            member,
            cluster_ca=self.files.cluster_ca(),
            services_ca=self.files.services_ca(),
            cluster_id=cluster_id,
            now=now,
            since=datetime.fromtimestamp(time, UTC),
        )
        return join_pb2.RenewTicket(
            service_certificate=made.service,
            kubelet_serving_certificate=made.kubelet_serving,
            kubelet_client_certificate=made.kubelet_client if kubelet_client else b"",
            time=time,
        )

    def peers(self, membership: Membership) -> join_pb2.PeerList:
        """Make the signed peer list of this moment."""
        return peer_message(sign_peers(membership, join_private_key=self.files.join_key()))

    def _control_plane(
        self, membership: Membership, grant: SignedRecord
    ) -> join_pb2.ControlPlaneTicket:
        settings = membership.settings
        ticket = join_pb2.ControlPlaneTicket(
            pki={name: secret.reveal() for name, secret in self.files.pki_files().items()},
            services_ca_key=self.files.file("services-ca.key").reveal(),
            api_sans=settings.api_sans,
            user_endpoint=settings.user_endpoint,
            mesh_cidr=settings.mesh_cidr,
            membership=decode.dump(membership),
            grant=grant.data,
            grant_signature=grant.signature,
        )
        write_offer(ticket, self.files.kept_policy().offered())
        return ticket


def peer_message(signed: SignedPeers) -> join_pb2.PeerList:
    """Give a peer list as `join.proto` has it."""
    return join_pb2.PeerList(
        serial=signed.serial,
        signature=signed.signature,
        peers=[
            join_pb2.Peer(
                node_name=p.node_name,
                address=p.address,
                mesh_public_key=p.mesh_public_key,
                mesh_address=p.mesh_address,
                pod_cidr=p.pod_cidr,
                role=p.role,
            )
            for p in signed.peers
        ],
    )
