"""What a VM's image is for, and what its measured command line closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import UserError
from constellation.base.progress import silent
from constellation.image.machine import VARIANTS, MachineFlavour, command_line, ensure_machine_image
from constellation.services.machine import parse_settings

if TYPE_CHECKING:
    from pathlib import Path

OURS = MachineFlavour(provider="baremetal", variant=Variant.QEMU_VTPM)


def test_the_line_says_whose_machine_it_is_and_how_it_attests() -> None:
    found = parse_settings(command_line(OURS))
    assert (found.provider, found.variant) == ("baremetal", Variant.QEMU_VTPM)


@pytest.mark.parametrize(
    "word", ["efi=noruntime", "systemd.import_credentials=no", "systemd.gpt_auto=no"]
)
def test_the_line_closes_the_other_ways_to_tell_systemd_what_to_do(word: str) -> None:
    assert word in command_line(OURS)


@pytest.mark.parametrize("variant", sorted(set(Variant) - set(VARIANTS)))
async def test_no_image_is_built_for_a_variant_that_none_was_started_with(
    variant: Variant, tmp_path: Path
) -> None:
    flavour = MachineFlavour(provider="azure", variant=variant)
    with pytest.raises(UserError, match="no image for VMs"):
        await ensure_machine_image(tmp_path, flavour, silent)
    assert not list(tmp_path.iterdir())
