"""A node's kubeconfig brings an identity to the workstation, and nothing that runs there."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError
from constellation.cluster.kubeconfig import with_endpoint, write

if TYPE_CHECKING:
    from pathlib import Path

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
        (b"{cluster: c, user", b"{namespace: kube-system, cluster: c, user"),
    ],
)
def test_what_would_run_or_lead_elsewhere_is_refused(where: bytes, strange: bytes) -> None:
    with pytest.raises(FormatError, match="is not taken from a node"):
        with_endpoint(PLAIN.replace(where, strange, 1), endpoint="127.0.0.1:6443")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"kind: Config", b"kind: Secret"),
        (b"clusters: [", b"clusters: [{name: d, cluster: {server: 'https://elsewhere'}}, "),
        (b"x\npreferences: {}", b"&a x\npreferences: &a {}"),
        (b"preferences: {}", b"preferences: {} #" + b"x" * 256 * 1024),
    ],
    ids=["another kind", "two clusters", "an anchor twice", "too long"],
)
def test_another_document_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(FormatError, match="kubeconfig: "):
        with_endpoint(PLAIN.replace(old, new, 1), endpoint="127.0.0.1:6443")


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    write(tmp_path / "admin.conf", PLAIN, endpoint="127.0.0.1:6443")
    assert stat.S_IMODE((tmp_path / "admin.conf").stat().st_mode) == 0o600


@pytest.mark.parametrize("junk", [b"users: [1]", b"users: [{name: u}]", b"users: {a: 1}"])
def test_other_shapes_are_no_kubeconfig(junk: bytes) -> None:
    data = PLAIN.replace(PLAIN.splitlines()[3], junk)
    with pytest.raises(FormatError):
        with_endpoint(data, endpoint="127.0.0.1:6443")
