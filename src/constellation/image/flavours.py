"""For which machines is a node image built, and what differs between them? One table (pure).

An image is for one provider and one variant: both stand in its measured command line. What is laid
into its root beside that is `os/machine/tree` and, if it is there, `os/machine/PROVIDER`; and the
attesters for development of other variants than its own are left out (design, section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.attestation.model import Variant
from constellation.attestation.platforms.node_events import bank_of
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.tpm.structures import Alg

__all__ = ["FLAVOURS", "MachineFlavour", "command_line", "flavour_of"]

_PLATFORMS: Final = "constellation.attestation.platforms"
_FOR_DEVELOPMENT: Final[Mapping[Variant, frozenset[str]]] = {
    Variant.LOCAL_VTPM: frozenset(
        f"{_PLATFORMS}.{name}" for name in ("local_vtpm", "local_vtpm_log", "local_vtpm_machine")
    ),
    Variant.QEMU_VTPM: frozenset(
        f"{_PLATFORMS}.{name}" for name in ("qemu_vtpm", "qemu_vtpm_attester")
    ),
}
"""Variants that nobody but a cluster for development believes: their attesters and verifiers."""

FLAVOURS: Final[Mapping[str, tuple[Variant, ...]]] = {
    "aws": (Variant.AWS_SEV_SNP, Variant.AWS_NITRO_TPM),
    "azure": (Variant.AZURE_SEV_SNP, Variant.AZURE_TDX, Variant.AZURE_TRUSTEDLAUNCH),
    "gcp": (Variant.GCP_SEV_SNP, Variant.GCP_SEV_ES),
    "openstack": (Variant.QEMU_VTPM,),
    "baremetal": (Variant.QEMU_VTPM,),
}
"""What is built, each provider's strongest first. Not `gcp-tdx` and `qemu-tdx`: their nodes extend
RTMR3, which Linux offers from 6.16 on, and Debian 13's kernel is 6.12. Not `qemu-sev-snp`: it has
no register for what happens after start."""

# what else could tell a node what to do, and is closed by the measured line: credentials from the
# machine's maker (systemd.import_credentials), EFI variables (efi=noruntime), partitions that
# systemd mounts for their type alone (systemd.gpt_auto)
_ALWAYS = (
    "console=ttyS0",
    "loglevel=4",
    "panic=10",
    "efi=noruntime",
    "systemd.import_credentials=no",
    "systemd.gpt_auto=no",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFlavour:
    """For which machines an image is: whom they ask about themselves, and how they attest."""

    provider: str
    variant: Variant

    @property
    def bank(self) -> Alg:
        """The bank of its reference values."""
        return bank_of(self.variant)

    @property
    def left_out(self) -> frozenset[str]:
        """Modules that its node programs do without: development's, but those of its own."""
        return frozenset(
            name
            for variant, names in _FOR_DEVELOPMENT.items()
            if variant is not self.variant
            for name in names
        )


def flavour_of(provider: str, variant: Variant | None = None) -> MachineFlavour:
    """Give a flavour that is built; without a variant the provider's strongest.

    Raises:
        UserError: no image is built for that; says for what.
    """
    built = FLAVOURS.get(provider, ())
    if not built or (variant is not None and variant not in built):
        pairs = ", ".join(f"{p}/{v}" for p, variants in FLAVOURS.items() for v in variants)
        asked = provider if variant is None else f"{provider} with {variant}"
        raise UserError(f"no image for VMs of {asked} is built: expected one of {pairs}")
    return MachineFlavour(provider=provider, variant=variant or built[0])


def command_line(flavour: MachineFlavour) -> tuple[str, ...]:
    """Give the words of the measured command line; the root's are added when it is known."""
    return (
        *_ALWAYS,
        f"constellation.provider={flavour.provider}",
        f"constellation.variant={flavour.variant}",
    )
