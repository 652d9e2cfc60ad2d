"""What is left of a ticket on the disk."""

from __future__ import annotations

from constellation.rpc.stubs import join_pb2
from constellation.services.bootstrapper.join_run import without_secrets


def test_the_kept_ticket_has_no_secret_and_still_says_what_the_node_is() -> None:
    ticket = join_pb2.JoinTicket(node_name="n", disk_key=b"disk key", service_certificate=b"public")
    assert without_secrets(ticket) == join_pb2.JoinTicket(
        node_name="n", service_certificate=b"public"
    )
    plane = join_pb2.ControlPlaneTicket(
        pki={"ca.key": b"a CA key"}, services_ca_key=b"a CA key", grant=b"a grant"
    )
    ticket.control_plane.CopyFrom(plane)
    kept = join_pb2.JoinTicket.FromString(without_secrets(ticket).SerializeToString())
    assert kept.HasField("control_plane")
    assert kept.control_plane == join_pb2.ControlPlaneTicket()
    assert ticket.control_plane == plane
