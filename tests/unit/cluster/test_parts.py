"""The engine's pure parts: kubeconfig, endpoints, waiting, the join log's successor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import errors
from constellation.base.errors import ConstellationError, FormatError
from constellation.base.told import from_exit_code
from constellation.cluster.context import KubernetesNode
from constellation.cluster.kubeconfig import with_endpoint
from constellation.cluster.log import parse_spec
from constellation.cluster.reach import split_endpoint
from constellation.cluster.steps.ready import missing


def _node(name: str, *, ready: bool, reason: str = "") -> KubernetesNode:
    return KubernetesNode(
        name=name, role="worker", ready=ready, version="v1.36.2", address="", reason=reason
    )


def test_the_kubeconfig_gets_the_users_endpoint() -> None:
    data = b"kind: Config\nclusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443'}}]\n"
    text = with_endpoint(data, endpoint="127.0.0.1:6443").decode()
    assert "server: https://127.0.0.1:6443" in text
    assert "10.0.0.1" not in text


@given(st.binary(max_size=200))
def test_what_is_no_kubeconfig_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        with_endpoint(junk, endpoint="127.0.0.1:6443")


def test_endpoints_are_taken_apart() -> None:
    assert split_endpoint("127.0.0.1:9000") == ("127.0.0.1", 9000)


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:\uff11"])
def test_what_is_no_endpoint_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        split_endpoint(text)


def test_waiting_says_for_whom_and_why() -> None:
    assert not missing((_node("a", ready=True),), wanted=1)
    found = missing((_node("a", ready=False, reason="no network"),), wanted=2)
    assert found == "a (no network), 1 more to join"


@pytest.mark.parametrize(
    "name", ["FormatError", "Untrusted", "Rejected", "Unavailable", "Conflict"]
)
def test_a_nodes_exit_code_becomes_our_error_again(name: str) -> None:
    kind: type[ConstellationError] = getattr(errors, name)
    error = from_exit_code(kind.exit_code, "text", hint="do this")
    assert type(error) is kind
    assert (str(error), error.hint) == ("text", "do this")


def test_an_unknown_exit_code_is_a_bug() -> None:
    assert from_exit_code(99, "text", hint="").exit_code == 1


@pytest.mark.parametrize("spec", [{}, {"record": "r"}, {"record": "r", "signature": "?"}])
def test_a_join_record_without_its_parts_is_a_format_error(spec: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        parse_spec(spec)
