"""Which keys a caller may have: the caller's identity decides, everything else is refused. Pure.

JoinServices run on control planes and hand disk keys to nodes that they admitted; nobody else asks
over the network. The KMS v2 plugin has its own door (`kms_plugin`). Source: design, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import FormatError, Rejected
from constellation.crypto.derive import canonical_key_id
from constellation.kube.membership import NodeRole

if TYPE_CHECKING:
    from constellation.kube.service_identity import ServiceIdentity

__all__ = ["LARGEST_KEY_BYTES", "SMALLEST_KEY_BYTES", "allow"]

SMALLEST_KEY_BYTES = 16
LARGEST_KEY_BYTES = 64
_NAMESPACES: dict[NodeRole, tuple[str, ...]] = {
    NodeRole.CONTROL_PLANE: ("state-disk/",),
    NodeRole.WORKER: (),
}


def allow(caller: ServiceIdentity, *, key_id: str, size_bytes: int) -> str:
    """Give the canonical id of a key that the caller may have.

    Raises:
        FormatError: not an id of the grammar, or a size that no use has.
        Rejected: the id is outside the caller's namespace.
    """
    canonical = canonical_key_id(key_id)
    if not SMALLEST_KEY_BYTES <= size_bytes <= LARGEST_KEY_BYTES:
        raise FormatError(
            f"key of {size_bytes} bytes: expected {SMALLEST_KEY_BYTES} to {LARGEST_KEY_BYTES}"
        )
    allowed = _NAMESPACES[caller.role]
    if not canonical.startswith(allowed):
        names = ", ".join(f"{a}…" for a in allowed) or "no keys"
        raise Rejected((f"key {canonical}: a {caller.role} may ask for {names}",))
    return canonical
