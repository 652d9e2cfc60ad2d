"""What does a release state of a node image for machines elsewhere? File and values (pure).

Registers come from the image's own bytes. What a cloud's firmware leaves in a chip's report is not
the image's to know: whoever publishes it takes those launch values from the cloud.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from constellation.attestation.node_rules import launch_claims
from constellation.base.errors import UserError
from constellation.trust.release import ReferenceSet, ReleaseImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from constellation.attestation.model import Variant
    from constellation.image.flavours import MachineFlavour
    from constellation.image.store import NodeImage

__all__ = ["launch_note", "parse_launch", "state_image"]

_VALUE: Final = re.compile(r"[0-9a-f]{96}")


def parse_launch(words: Iterable[str], flavour: MachineFlavour) -> dict[str, tuple[str, ...]]:
    """Read launch values as a person gives them (`measurement=HEX`), those of a variant alone.

    Raises:
        UserError: another claim, or not 48 bytes in lower-case hexadecimal.
    """
    known, found = launch_claims(flavour.variant), dict[str, tuple[str, ...]]()
    for word in words:
        claim, _, value = word.partition("=")
        if claim not in known or _VALUE.fullmatch(value) is None:
            wanted = f"one of {', '.join(known)}" if known else f"none: {flavour.variant} has none"
            raise UserError(
                f"expected CLAIM=96 hexadecimal digits, found {word[:120]!r}",
                where="--launch",
                hint=f"a claim is {wanted}",
            )
        found[claim] = (*found.get(claim, ()), value)
    return found


def launch_note(flavour: MachineFlavour, launch: dict[str, tuple[str, ...]]) -> str:
    """Say what a release of an image without launch values is worth; empty where it needs none."""
    known = launch_claims(flavour.variant)
    if launch or not known:
        return ""
    return (
        f"No launch value is stated ({' or '.join(known)}): no cluster accepts {flavour.variant} "
        "by such a release; --launch gives what the cloud's firmware leaves in a chip's report."
    )


def state_image(
    image: NodeImage,
    *,
    provider: str,
    variant: Variant,
    launch: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> ReleaseImage:
    """State an image: its raw disk by SHA-256, registers, launch values, good from its build on."""
    manifest = image.manifest
    registers = {n: tuple(v.hex() for v in found) for n, found in image.reference_values.items()}
    return ReleaseImage(
        provider=provider,
        variant=variant,
        name=manifest.name,
        sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
        urls=(),
        reference=(
            ReferenceSet(
                not_before=manifest.build_time,
                not_after=None,
                registers=registers,
                launch=dict(launch),
            ),
        ),
    )
