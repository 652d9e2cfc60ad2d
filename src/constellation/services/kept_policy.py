"""The newest cluster policy that a node has seen, on its encrypted disk: read, verified, replaced.

It has a folder of its own, since that is what JoinService may write of the state disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.trust.cluster_policy import (
    ClusterPolicy,
    SignedPolicy,
    dump_signed_policy,
    parse_signed_policy,
    verify_policy,
)
from constellation.trust.policy_succession import successor

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.node_document import NodeDocument

__all__ = ["KeptPolicy"]

_FILE: Final = "policy/policy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPolicy:
    """The policy in a node's state folder, checked against this node's own document."""

    state: Path  # /var/lib/constellation
    document: NodeDocument

    def signed(self) -> SignedPolicy:
        """Give it as it was signed.

        Raises:
            Unavailable: there is none yet.
            FormatError: the file is something else.
        """
        path = self.state / _FILE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from error
        return parse_signed_policy(data)

    def verified(self) -> ClusterPolicy:
        """Give it, signed by this cluster's owner. Raises Untrusted, and as `signed` does."""
        return verify_policy(
            self.signed(),
            owner_public_key=self.document.owner_public_key,
            cluster_id=self.document.cluster_id,
            minimum_serial=1,
        )

    def keep_first(self, signed: SignedPolicy) -> None:
        """Keep the first policy of a new disk; the caller has verified it."""
        self._write(signed)

    def take(self, offered: SignedPolicy) -> ClusterPolicy | None:
        """Keep a newer policy, on the disk before this returns; None if it is kept already.

        Raises:
            ConstellationError: as `trust.policy_succession.successor` does.
            Unavailable: there is none to compare it with.
        """
        policy = successor(self.verified(), offered, document=self.document)
        if policy is not None:
            self._write(offered)
        return policy

    def _write(self, signed: SignedPolicy) -> None:
        write_atomic(self.state / _FILE, dump_signed_policy(signed), mode=0o600)
