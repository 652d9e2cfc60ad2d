"""The reference pages say what the program does now; `make docs` writes them anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.cli.reference import dump_cli_reference
from constellation.config.writer import dump_reference, dump_schema
from tools.api_reference import dump_api_reference

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "dump"),
    [
        ("attestation-api.md", dump_api_reference),
        ("cli.md", dump_cli_reference),
        ("configuration.md", dump_reference),
        ("configuration.schema.json", dump_schema),
    ],
)
def test_a_generated_page_is_fresh(name: str, dump: Callable[[], str]) -> None:
    assert (ROOT / "docs/reference" / name).read_text() == dump()
