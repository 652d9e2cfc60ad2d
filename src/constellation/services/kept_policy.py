"""The newest cluster policy that a node has seen, on its encrypted disk: read, verified, replaced.

It has a folder of its own, since that is what JoinService may write of the state disk. On control
planes what it was accepted with lies beside it: the release chain, and a control plane's word for
it (`trust.policy_judgement`), which JoinServices hand on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base import decode
from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.trust.cluster_policy import (
    ClusterPolicy,
    SignedPolicy,
    dump_signed_policy,
    parse_signed_policy,
    verify_policy,
)
from constellation.trust.policy_acceptance import OfferedPolicy, SignedAcceptance
from constellation.trust.policy_succession import successor

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.node_document import NodeDocument

__all__ = ["KeptPolicy"]

_FOLDER: Final = "policy"
_FILE: Final = "policy.json"
_MAX_TAKEN_BYTES = 8 * 1024 * 1024
"""A chain has 4 MiB at most, a third more as base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What a policy was taken with; the file is named by the digest of the policy."""

    chain: bytes
    accepted: SignedAcceptance | None


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
        path = self._folder / _FILE
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

    def offered(self) -> OfferedPolicy:
        """Give it with all that its next judge needs. Raises as `signed` does."""
        signed = self.signed()
        path = self._beside(signed)
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # the first policy, or the node is a worker
            return OfferedPolicy(signed=signed)
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from error
        taken = decode.load(_Taken, data, what=str(path), max_bytes=_MAX_TAKEN_BYTES)
        return OfferedPolicy(signed=signed, chain=taken.chain, accepted=taken.accepted)

    def keep_first(self, signed: SignedPolicy) -> None:
        """Keep the first policy of a new disk; the caller has verified it."""
        self._write(signed)

    def keep(self, judged: OfferedPolicy) -> None:
        """Keep a policy that a control plane has judged, on the disk before this returns.

        Chain and acceptance first: a crash leaves the old policy with its own or the new one.
        """
        path = self._beside(judged.signed)
        taken = _Taken(chain=judged.chain, accepted=judged.accepted)
        write_atomic(path, decode.dump(taken), mode=0o600)
        self._write(judged.signed)
        for old in self._folder.glob("taken-*.json"):
            if old != path:
                old.unlink(missing_ok=True)

    def take_shown(self, shown: SignedPolicy) -> ClusterPolicy | None:
        """Keep a newer policy that a judged JoinService showed; None if it is kept already.

        For workers: they admit nobody, and the JoinService has judged the release.

        Raises:
            ConstellationError: as `trust.policy_succession.successor` does.
            Unavailable: there is none to compare it with.
        """
        policy = self.check_shown(shown)
        if policy is not None:
            self._write(shown)
        return policy

    def check_shown(self, shown: SignedPolicy) -> ClusterPolicy | None:
        """Compare only: for control planes, whose JoinService judges the release. See above."""
        return successor(self.verified(), shown, document=self.document)

    @property
    def _folder(self) -> Path:
        return self.state / _FOLDER

    def _beside(self, signed: SignedPolicy) -> Path:
        return self._folder / f"taken-{hashlib.sha256(signed.policy).hexdigest()}.json"

    def _write(self, signed: SignedPolicy) -> None:
        write_atomic(self._folder / _FILE, dump_signed_policy(signed), mode=0o600)
