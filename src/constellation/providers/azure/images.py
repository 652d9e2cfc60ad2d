"""Is a node image for the machines of a variant? By its definition in the user's gallery.

Source: Azure, Compute, "Gallery Images - Get" (2023-07-03): `features` has SecurityType; Hyper-V
generation 2 boots by UEFI; `osState`: the scale sets send a profile of the system, which Azure
refuses for a specialized image (ADR 139).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from constellation.attestation.model import Variant

if TYPE_CHECKING:
    from constellation.providers.answers import Fields

__all__ = ["image_lines", "image_parts"]

_IMAGE: Final = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f-]{36})/resourceGroups/(?P<resource_group>[\w.()-]{1,90})"
    r"/providers/Microsoft\.Compute/galleries/(?P<gallery>[\w.]{1,80})/images/(?P<image>[\w.-]{1,80})"
    r"/versions/[\w.]{1,40}",
    re.IGNORECASE,
)
_CONFIDENTIAL: Final = frozenset({"ConfidentialVmSupported", "ConfidentialVM"})
_TRUSTED: Final = frozenset({"TrustedLaunchSupported", "TrustedLaunch"})
# a definition for both
_EITHER: Final = "TrustedLaunchAndConfidentialVmSupported"


def image_parts(image: str) -> dict[str, str] | None:
    """Give the parts of an image version's resource id; None: it is another kind of image."""
    match = _IMAGE.fullmatch(image)
    return match.groupdict() if match is not None else None


def image_lines(definition: Fields, image: str, *, variant: Variant) -> tuple[str, ...]:
    """Say what keeps an image from booting as the variant's machines. Raises FormatError."""
    properties = definition.fields("properties")
    security = {
        feature.text_or("value", "")
        for feature in properties.items("features", most=64)
        if feature.text_or("name", "") == "SecurityType"
    }
    trusted = variant is Variant.AZURE_TRUSTEDLAUNCH
    wanted = (_TRUSTED if trusted else _CONFIDENTIAL) | {_EITHER}
    lines = []
    if not security & wanted:
        kind = "trusted launch" if trusted else "confidential machines"
        lines.append(f"image {image} is not for {kind} (SecurityType {', '.join(security) or '-'})")
    if properties.text_or("hyperVGeneration", "V1") != "V2":
        lines.append(f"image {image} is of Hyper-V generation 1, V2 is needed")
    if properties.text_or("osState", "") != "Generalized":
        lines.append(f"image {image} is not of the state Generalized (osState)")
    return tuple(lines)
