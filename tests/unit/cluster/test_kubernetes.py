"""What a damaged or refused kubeconfig is called: the user's file, not a bug."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from constellation.base import clock
from constellation.base.errors import Unavailable, UserError
from constellation.cluster.kubernetes import list_nodes, read_status
from constellation.crypto.x509 import CertificateAuthority
from constellation.kube.service_access import access_objects
from tests.fakes.kube_api import KubeApi

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = b"""apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://SERVER", certificate-authority-data: "CA"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff\x00", WHOLE[:40], WHOLE.replace(b"-context: x", b"-context: y")],
)
async def test_a_damaged_kubeconfig_is_the_users_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "constellation-admin.conf"
    path.write_bytes(data)
    for ask in (list_nodes, read_status):
        with pytest.raises(UserError, match="cannot be used") as told:
            await ask(path)
        assert (told.value.exit_code, told.value.where) == (3, str(path))
        assert "put your copy" in told.value.hint


async def test_an_identity_that_the_api_refuses_is_named(tmp_path: Path) -> None:
    past = clock.now() - timedelta(days=1)
    ca = CertificateAuthority.create("kubernetes", now=past, lifetime=timedelta(days=9))
    path = tmp_path / "constellation-admin.conf"
    async with KubeApi(ca=ca, roles=access_objects()).serving() as endpoint:
        (tmp_path / "ca.crt").write_bytes(ca.certificate_pem)
        of_file = WHOLE.replace(
            b'certificate-authority-data: "CA"', b"certificate-authority: ca.crt"
        )
        path.write_bytes(of_file.replace(b"SERVER", endpoint.encode()))
        for ask in (list_nodes, read_status):
            with pytest.raises(Unavailable, match=r"refuses constellation-admin\.conf") as told:
                await ask(path)
            assert "expired" in told.value.hint
    with pytest.raises(Unavailable, match="does not answer"):
        await list_nodes(path)
