"""`verify` says of state disks what holds for the machines that proved what they run."""

from __future__ import annotations

import pytest

from constellation.attestation.model import AttestationResult, Variant
from constellation.base.errors import Unavailable
from constellation.cli.commands.inspect import describe_verified
from constellation.cluster.verify import Verified


def _proved(variant: Variant) -> Verified:
    result = AttestationResult(
        variant=variant, attester_id=bytes(32), claims={}, unchecked=(), warnings=()
    )
    return Verified(instance_id="i", node_name="n", result=result, error=None)


@pytest.mark.parametrize(
    ("variant", "begins"),
    [
        (Variant.LOCAL_VTPM, "confidential, not authentic"),
        (Variant.QEMU_VTPM, "confidential and authentic"),
        (Variant.AWS_SEV_SNP, "confidential and authentic"),
    ],
)
def test_state_disks_are_those_of_the_nodes_variant(variant: Variant, begins: str) -> None:
    assert describe_verified((_proved(variant),))["state_disks"].startswith(begins)


def test_the_weaker_disk_is_named_where_there_are_both() -> None:
    both = (_proved(Variant.QEMU_VTPM), _proved(Variant.LOCAL_VTPM))
    assert describe_verified(both)["state_disks"].startswith("confidential, not authentic")


def test_nothing_is_said_of_disks_of_nodes_that_proved_nothing() -> None:
    silent = Verified(instance_id="i", node_name="", result=None, error=Unavailable("off"))
    assert describe_verified((silent,))["state_disks"].startswith("unknown")
