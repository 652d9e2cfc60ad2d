"""What a VM's image is for, and what its measured command line closes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import UserError
from constellation.base.progress import silent
from constellation.image.flavours import FLAVOURS, MachineFlavour, command_line, flavour_of
from constellation.image.machine import ensure_machine_image
from constellation.image.programs import NODE_PROGRAMS, copy_sources
from constellation.image.sources import package_folder
from constellation.providers.aws.catalogue import AWS
from constellation.providers.azure.catalogue import AZURE
from constellation.providers.baremetal.catalogue import BAREMETAL
from constellation.providers.gcp.catalogue import GCP
from constellation.providers.openstack.catalogue import OPENSTACK
from constellation.services.machine import parse_settings

if TYPE_CHECKING:
    from pathlib import Path

_CATALOGUES = {
    "aws": AWS,
    "azure": AZURE,
    "baremetal": BAREMETAL,
    "gcp": GCP,
    "openstack": OPENSTACK,
}
OURS = MachineFlavour(provider="baremetal", variant=Variant.QEMU_VTPM)


def test_the_line_says_whose_machine_it_is_and_how_it_attests() -> None:
    found = parse_settings(command_line(OURS))
    assert (found.provider, found.variant) == ("baremetal", Variant.QEMU_VTPM)


@pytest.mark.parametrize(
    "word", ["efi=noruntime", "systemd.import_credentials=no", "systemd.gpt_auto=no"]
)
def test_the_line_closes_the_other_ways_to_tell_systemd_what_to_do(word: str) -> None:
    assert word in command_line(OURS)


@pytest.mark.parametrize(
    ("provider", "variant"),
    [
        (provider, variant)
        for provider in (*FLAVOURS, "qemu")
        for variant in sorted(Variant)
        if variant not in FLAVOURS.get(provider, ())
    ],
)
async def test_no_image_is_built_for_a_pair_that_is_not_in_the_table(
    provider: str, variant: Variant, tmp_path: Path
) -> None:
    flavour = MachineFlavour(provider=provider, variant=variant)
    with pytest.raises(UserError, match="no image for VMs"):
        await ensure_machine_image(tmp_path, flavour, silent)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("provider", sorted(FLAVOURS))
def test_each_image_is_for_a_variant_that_the_provider_offers(provider: str) -> None:
    offered = {offer.variant for offer in _CATALOGUES[provider].offers}
    assert set(FLAVOURS[provider]) <= offered
    assert flavour_of(provider).variant is FLAVOURS[provider][0]


@pytest.mark.parametrize("provider", sorted(FLAVOURS))
def test_an_image_has_no_development_attester_but_its_own(provider: str, tmp_path: Path) -> None:
    """Its programs start without them all the same: what is left out is imported in functions."""
    for variant in FLAVOURS[provider]:
        flavour = MachineFlavour(provider=provider, variant=variant)
        target = tmp_path / variant
        copy_sources(package_folder(), NODE_PROGRAMS, target=target, without=flavour.left_out)
        names = {path.name for path in (target / "constellation/attestation/platforms").iterdir()}
        assert not any(name.startswith("local_vtpm") for name in names)
        own = variant is Variant.QEMU_VTPM
        assert ("qemu_vtpm.py" in names, "qemu_vtpm_attester.py" in names) == (own, own)
    mains = "".join(f"import constellation.services.{name}.main\n" for name in NODE_PROGRAMS)
    asked = f"import sys\nsys.path.insert(0, {str(target)!r})\n{mains}print(constellation.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", asked], check=True, capture_output=True, timeout=60
    )
    assert done.stdout.decode().startswith(str(target))
