"""Every kept input and every finding goes through its target again; nothing but typed errors."""

from __future__ import annotations

import pytest

from tests.fuzz import kept
from tests.fuzz.table import TARGETS

MOST_BYTES = 2 * 1024 * 1024


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_give_a_value_or_a_typed_error(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    for data in (*seeds, *kept.read(name), *kept.findings(name), b"", b"\0", b"\xff" * 64):
        target.try_(data)


def test_every_corpus_belongs_to_a_target_and_all_fit() -> None:
    folder = kept.FINDINGS.parent / "corpus"
    archives = list(folder.iterdir())
    assert {path.stem for path in archives} <= set(TARGETS)
    assert sum(path.stat().st_size for path in archives) <= MOST_BYTES
    assert {path.name for path in kept.FINDINGS.iterdir()} <= set(TARGETS)
