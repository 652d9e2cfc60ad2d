"""Who is a member, as this control plane's own, verified copy of the join log says.

JoinService on the same node writes the copy before it gives a ticket, so what it admitted is here
when it asks. Nobody else is asked: KeyService works without the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Rejected
from constellation.kube.membership import member_by_name

if TYPE_CHECKING:
    from constellation.kube.log_copy import LogCopy
    from constellation.kube.membership import Membership
    from constellation.kube.service_identity import ServiceIdentity

__all__ = ["Members", "require_live_disk", "require_member"]

_DISK = "state-disk/"


class Members:
    """The membership of this moment."""

    def __init__(self, copy: LogCopy) -> None:
        self._copy = copy
        self._known: Membership | None = None

    def now(self, *, join_public_key: bytes) -> Membership:
        """Fold what was written since the last look.

        Raises:
            Unavailable: there is no copy yet.
            Untrusted: the copy does not hold.
        """
        self._known = self._copy.load(join_public_key=join_public_key, known=self._known)
        return self._known


def require_member(membership: Membership, caller: ServiceIdentity, *, public_key: bytes) -> None:
    """Check that the caller is a member now, with the role and key (DER) of its record.

    Raises:
        Rejected: it is not: it was removed, or somebody else has its name.
    """
    member = member_by_name(membership, caller.name)
    if member is None:
        raise Rejected((f"caller {caller.name}: no live member record",))
    if member.role is not caller.role or member.service_public_key != public_key:
        raise Rejected((f"caller {caller.name}: its certificate is of another life of this name",))


def require_live_disk(membership: Membership, key_id: str) -> None:
    """Check that a state disk's key (canonical id) is of a member's disk.

    Raises:
        Rejected: no live member has this disk: none ever had it, or it was removed or fenced.
    """
    members = (*membership.nodes, *(r.member for r in membership.reservations))
    if key_id.removeprefix(_DISK) not in {m.disk_uuid.hex() for m in members}:
        raise Rejected((f"key {key_id}: no live member record has this disk",))
