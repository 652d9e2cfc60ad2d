"""The very bytes of the node document are measured before they are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError, Rejected
from constellation.services.diskmapper.measure import measure
from constellation.trust.node_document import NodeDocument, dump_node_document

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.providers.protocols import Instance

DOCUMENT = dump_node_document(
    NodeDocument(
        version=1,
        cluster_id=bytes(range(32)),
        owner_public_key=b"owner",
        release_root=b"root",
        minimum_release="0.1.0",
        variant=Variant.LOCAL_VTPM,
    )
)


class FakeCloud:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def self_(self) -> Instance:
        raise AssertionError

    async def peers(self) -> tuple[Instance, ...]:
        raise AssertionError

    async def user_data(self) -> bytes:
        return self.data


async def attempt(data: bytes, path: Path, *, variant: Variant = Variant.LOCAL_VTPM) -> list[bytes]:
    measured: list[bytes] = []

    async def extend(document: bytes) -> None:
        assert not path.exists(), "kept before it was measured"
        measured.append(document)

    await measure(FakeCloud(data), variant=variant, document_path=path, extend=extend)
    return measured


async def test_the_bytes_that_are_kept_are_the_bytes_that_were_measured(tmp_path: Path) -> None:
    path = tmp_path / "node-document.json"
    assert await attempt(DOCUMENT, path) == [DOCUMENT]
    assert path.read_bytes() == DOCUMENT


async def test_another_spelling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="canonical"):
        await attempt(DOCUMENT + b"\n", tmp_path / "document")
    assert not (tmp_path / "document").exists()


async def test_a_document_for_another_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="variant"):
        await attempt(DOCUMENT, tmp_path / "document", variant=Variant.GCP_SEV_SNP)
