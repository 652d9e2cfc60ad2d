"""Default policies of the clouds are files that somebody read (`make golden`, then the diff)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.platforms.defaults import VARIANTS, dump_default_policy

if TYPE_CHECKING:
    from constellation.attestation.model import Variant

GOLDEN = Path(__file__).resolve().parents[3] / "golden"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_default_policy_is_the_one_that_was_read(variant: Variant) -> None:
    assert (GOLDEN / f"policy-{variant}.txt").read_text() == dump_default_policy(variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_default_pins_image_document_and_cluster(variant: Variant) -> None:
    lines = dict(line.split(": ", 1) for line in dump_default_policy(variant).splitlines())
    for number in (4, 8, 9, 11, 12, 13, 15):
        assert not lines[f"pcr{number}"].startswith("anything")
    if "sev-snp" in variant:
        assert lines["crl.present"] == lines["crl.current"] == "1"
        assert lines["policy.debug"] == "0"
