"""What a rejoined node has seen before, on its opened disk, against what it was shown.

A lower policy serial, another policy of the same serial, another join key: refused, as any change
of policy is. A worker keeps a newer one; on a control plane that is the part of its JoinService,
which judges the release as well and meets the others within 10 s. An older peer list is none to
fear (its JoinService may be cut off): the newer stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from constellation.base import decode
from constellation.base.files import write_atomic
from constellation.kube.peers import load_peers

if TYPE_CHECKING:
    from constellation.services.diskmapper.open_disk import Shown
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["compare_and_keep"]

_CONTROL_PLANE: Final = "keys/join.pem"
"""Only control planes have the join key."""


def compare_and_keep(shown: Shown, *, kept: KeptPolicy) -> None:
    """Refuse an older policy, keep what is newer of policy and peers.

    Raises:
        Untrusted: the shown policy is older than the kept one.
        Conflict: another one with the kept serial.
        Rejected: it names another join key.
        Unavailable: the disk has no policy: it is not as this node left it.
    """
    if (kept.state / _CONTROL_PLANE).exists():
        kept.check_shown(shown.policy)
    else:
        kept.take_shown(shown.policy)
    path = kept.state / "peers.json"
    if path.exists():
        known = load_peers(path.read_bytes(), what=str(path))
        if known.serial >= shown.peers.serial:
            return
    write_atomic(path, decode.dump(shown.peers), mode=0o600)
