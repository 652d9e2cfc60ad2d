"""Artifact lists of the release that the kept policy follows: the bytes that it names."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.trust import artifact_list
from constellation.trust.release import parse_release
from constellation.trust.release_chain import parse_chain

if TYPE_CHECKING:
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["kept_artifact_list"]


def kept_artifact_list(kept: KeptPolicy, version: str, *, own: bytes = b"") -> bytes:
    """Give the artifact list of a Kubernetes version, canonical, as the kept policy names it.

    `own`: the list that this node joined with; another release may have another of that version.

    Raises:
        Unavailable: the policy names none, or the release beside it has another one (the list of
            the version that the cluster was made with came with init and tickets).
        FormatError: a file is something else.
    """
    wanted = kept.verified().artifact_lists.get(version)
    if wanted is not None and hashlib.sha256(own).digest() == wanted:
        return own
    chain = kept.offered().chain
    for statement in parse_chain(chain).statements if chain else ():
        listed = parse_release(statement.release).kubernetes.get(version)
        data = b"" if listed is None else artifact_list.dump(listed)
        if hashlib.sha256(data).digest() == wanted:
            return data
    raise Unavailable(f"no artifact list of Kubernetes {version} lies beside the policy")
