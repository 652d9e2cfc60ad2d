"""The node document: one spelling, every field present, a digest of the very bytes."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError
from constellation.trust.node_document import (
    NodeDocument,
    dump_node_document,
    node_document_digest,
    parse_node_document,
)

DOCUMENT = NodeDocument(
    version=1,
    cluster_id=bytes(range(32)),
    owner_public_key=b"owner",
    release_root=b"root",
    minimum_release="0.1.0",
    variant=Variant.LOCAL_VTPM,
)


def test_what_is_dumped_is_parsed_again() -> None:
    assert parse_node_document(dump_node_document(DOCUMENT)) == DOCUMENT


def test_the_digest_is_of_the_very_bytes() -> None:
    data = dump_node_document(DOCUMENT)
    assert node_document_digest(data) == hashlib.sha256(data).digest()


def test_another_spelling_of_the_same_document_is_refused() -> None:
    with pytest.raises(FormatError, match="canonical"):
        parse_node_document(dump_node_document(DOCUMENT) + b"\n")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"cluster_id": bytes(31)},
        {"owner_public_key": b""},
        {"release_root": b""},
        {"minimum_release": ""},
    ],
    ids=str,
)
def test_a_document_that_says_too_little_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        dataclasses.replace(DOCUMENT, **change)


@given(st.binary(max_size=300))
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        parse_node_document(junk)
