"""Tests of constellation.kube.renewal: when to ask, and that what came is this node's own."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.errors import ConstellationError, FormatError, Rejected, Untrusted
from constellation.crypto.x509 import CertificateAuthority, generate_key, load_certificate, spki
from constellation.kube.membership import NodeRole
from constellation.kube.node_certificates import SERVICE_LIFETIME, certify
from constellation.kube.renewal import Mine, Renewed, due, expired, require_mine
from constellation.kube.service_identity import ServiceIdentity
from tests.fakes.members import CLUSTER_ID, founded

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.kube.membership import Member

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CLUSTER_CA, SERVICES_CA, OTHER_CA = (
    CertificateAuthority.create(name, now=NOW - timedelta(days=1), lifetime=timedelta(days=3650))
    for name in ("kubernetes", "services", "other")
)
KEYS = [spki(generate_key().public_key()) for _ in range(4)]
ME = dataclasses.replace(
    founded().nodes[0],
    name="worker-default-0",
    role=NodeRole.WORKER,
    address="10.42.2.10",
    service_public_key=KEYS[0],
    kubelet_serving_public_key=KEYS[1],
    kubelet_client_public_key=KEYS[2],
)
MINE = Mine(
    identity=ServiceIdentity(cluster_id=CLUSTER_ID, role=ME.role, name=ME.name),
    address=ME.address,
    service_public_key=KEYS[0],
    kubelet_serving_public_key=KEYS[1],
    kubelet_client_public_key=KEYS[2],
    services_ca=SERVICES_CA.certificate,
    cluster_ca=CLUSTER_CA.certificate,
)


def made(member: Member = ME, **changes: Any) -> Renewed:
    values: dict[str, Any] = {
        "cluster_ca": CLUSTER_CA,
        "services_ca": SERVICES_CA,
        "cluster_id": CLUSTER_ID,
        "now": NOW,
        **changes,
    }
    certificates = certify(member, **values)
    return Renewed(
        service=certificates.service,
        kubelet_serving=certificates.kubelet_serving,
        kubelet_client=certificates.kubelet_client,
    )


def test_a_service_certificate_lives_no_longer_than_a_day_and_is_due_at_half_of_it() -> None:
    certificate = load_certificate(made().service)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    assert end - start == timedelta(hours=24)
    assert not due(certificate, now=start + timedelta(hours=11, minutes=59))
    assert due(certificate, now=start + timedelta(hours=12))
    assert not expired(certificate, now=end - timedelta(seconds=1))
    assert expired(certificate, now=end)
    assert due(certificate, now=end + timedelta(days=30)), "a laptop that slept"


def test_what_was_made_for_this_node_is_taken_with_and_without_the_client_s() -> None:
    require_mine(made(), mine=MINE, now=NOW)
    require_mine(dataclasses.replace(made(), kubelet_client=None), mine=MINE, now=NOW)


OTHER_KEY = {
    f"{field}_public_key": KEYS[3] for field in ("service", "kubelet_serving", "kubelet_client")
}


@pytest.mark.parametrize(
    ("came", "error", "words"),
    [
        (lambda: made(services_ca=OTHER_CA), Untrusted, "service certificate: this cluster's CA"),
        (lambda: made(cluster_ca=OTHER_CA), Untrusted, "serving certificate: this cluster's CA"),
        *(
            (
                lambda field=field: made(dataclasses.replace(ME, **{field: KEYS[3]})),
                Rejected,
                "for another key",
            )
            for field in OTHER_KEY
        ),
        (lambda: made(cluster_id=bytes(32)), Rejected, "found names .*URI constellation://0000"),
        (
            lambda: made(dataclasses.replace(ME, role=NodeRole.CONTROL_PLANE)),
            Rejected,
            "found names .*URI constellation://.*/control-plane/",
        ),
        (
            lambda: made(dataclasses.replace(ME, name="worker-default-1")),
            Rejected,
            "subject 'CN=worker-default-1'",
        ),
        (
            lambda: made(dataclasses.replace(ME, address="10.42.1.10")),
            Rejected,
            "found names .*10.42.1.10",
        ),
        (lambda: made(now=NOW + timedelta(minutes=6)), Rejected, "expected one that is young"),
        (lambda: made(now=NOW - SERVICE_LIFETIME / 2), Rejected, "expected one that is young"),
        (lambda: dataclasses.replace(made(), service=b"no PEM"), FormatError, "not PEM"),
        (lambda: dataclasses.replace(made(), kubelet_serving=made().service), Untrusted, "serving"),
        (
            lambda: dataclasses.replace(made(), kubelet_client=made().kubelet_serving),
            Rejected,
            "client certificate: found names DNS name",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    came: Callable[[], Renewed], error: type[ConstellationError], words: str
) -> None:
    with pytest.raises(error, match=words):
        require_mine(came(), mine=MINE, now=NOW)
