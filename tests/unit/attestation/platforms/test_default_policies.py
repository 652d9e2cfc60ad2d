"""Default policies of all variants are files that somebody read (`make golden`, then the diff)."""

from __future__ import annotations

from pathlib import Path

import pytest

from constellation.attestation.model import Variant
from constellation.attestation.platforms.defaults import VARIANTS, dump_default_policy

GOLDEN = Path(__file__).resolve().parents[3] / "golden"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_default_policy_is_the_one_that_was_read(variant: Variant) -> None:
    assert (GOLDEN / f"policy-{variant}.txt").read_text() == dump_default_policy(variant)


def test_every_variant_has_a_default_policy() -> None:
    assert set(VARIANTS) == set(Variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_default_pins_image_document_and_cluster(variant: Variant) -> None:
    lines = dict(line.split(": ", 1) for line in dump_default_policy(variant).splitlines())
    pinned = {
        Variant.GCP_TDX: ("mr_td", "rtmr1", "rtmr2", "rtmr3", "mr_config_id"),
        Variant.QEMU_TDX: ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_config_id"),
        Variant.QEMU_SEV_SNP: ("measurement", "host_data"),
    }.get(variant, tuple(f"pcr{n}" for n in (4, 8, 9, 11, 12, 13, 15)))
    for claim in pinned:
        assert not lines[claim].startswith("anything")
    if "sev-snp" in variant:
        assert lines["crl.present"] == lines["crl.current"] == "1"
        assert lines["policy.debug"] == "0"
