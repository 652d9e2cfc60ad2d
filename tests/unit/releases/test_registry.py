from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.base.registry_session import parse_challenge
from constellation.releases.registry import parse_descriptors


def test_a_challenge_gives_realm_service_and_scope() -> None:
    header = 'Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull",x="y"'
    assert parse_challenge(header) == {
        "realm": "https://auth.example/token",
        "service": "r",
        "scope": "repository:a:pull",
    }


@pytest.mark.parametrize("header", ["", "Basic realm=x", 'Bearer service="r"'])
def test_another_challenge_is_refused(header: str) -> None:
    with pytest.raises(FormatError, match="want Bearer"):
        parse_challenge(header)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        7,
        {"digest": "sha512:" + "a" * 64, "size": 1, "mediaType": "x"},
        {"digest": "sha256:" + "A" * 64, "size": 1, "mediaType": "x"},
        {"digest": "sha256:../../../etc/passwd", "size": 1, "mediaType": "x"},
        {"digest": "sha256:" + "a" * 64, "size": -1, "mediaType": "x"},
        {"digest": "sha256:" + "a" * 64, "size": True, "mediaType": "x"},
    ],
)
def test_a_descriptor_that_is_not_in_form_is_refused(entry: object) -> None:
    with pytest.raises(FormatError):
        parse_descriptors(json.dumps({"layers": [entry]}).encode(), "layers")


@given(st.binary(max_size=100) | st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_junk_is_a_format_error(junk: object) -> None:
    data = junk if isinstance(junk, bytes) else json.dumps({"layers": [junk]}).encode()
    with pytest.raises(FormatError):
        parse_descriptors(data, "layers")
