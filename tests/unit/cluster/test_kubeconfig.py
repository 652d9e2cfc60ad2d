"""A node's kubeconfig brings an identity to the workstation, and nothing that runs there."""

from __future__ import annotations

import pytest

from constellation.base.errors import FormatError
from constellation.cluster.kubeconfig import with_endpoint

PLAIN = b"""apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://10.42.0.1:6443", certificate-authority-data: QQ==}}]
users: [{name: u, user: {client-certificate-data: QQ==, client-key-data: QQ==}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
preferences: {}
"""


def test_the_endpoint_is_the_users() -> None:
    text = with_endpoint(PLAIN, endpoint="127.0.0.1:6443")
    assert b"https://127.0.0.1:6443" in text
    assert b"10.42.0.1" not in text
    assert with_endpoint(text, endpoint="127.0.0.1:6443") == text


@pytest.mark.parametrize(
    ("where", "strange"),
    [
        (b"client-key-data", b"exec: {command: sh}, client-key-data"),
        (b"client-key-data", b"auth-provider: {name: x}, client-key-data"),
        (b"client-key-data", b"tokenFile: /root/.ssh/id, client-key-data"),
        (b"certificate-authority-data", b"proxy-url: 'http://x', certificate-authority-data"),
        (b"certificate-authority-data", b"insecure-skip-tls-verify: true, tls-server-name"),
        (b"certificate-authority-data", b"certificate-authority"),
        (b"preferences", b"extensions: []\npreferences"),
        (b"{name: u, user", b"{name: u, exec: {}, user"),
    ],
)
def test_what_would_run_or_lead_elsewhere_is_refused(where: bytes, strange: bytes) -> None:
    with pytest.raises(FormatError, match="is not taken from a node"):
        with_endpoint(PLAIN.replace(where, strange, 1), endpoint="127.0.0.1:6443")


@pytest.mark.parametrize("junk", [b"users: [1]", b"users: [{name: u}]", b"users: {a: 1}"])
def test_other_shapes_are_no_kubeconfig(junk: bytes) -> None:
    data = PLAIN.replace(PLAIN.splitlines()[3], junk)
    with pytest.raises(FormatError):
        with_endpoint(data, endpoint="127.0.0.1:6443")
