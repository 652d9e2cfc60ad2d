"""Which Kubernetes a joining node gets: the oldest API server's, as each says itself.

No kubelet may be newer than an API server that it may reach, and no control plane joins before all
API servers are new (design, section 11). What decides must be nothing that somebody can write to
the cluster's harm, so no object of the Kubernetes API is asked: each control plane of the join log
is, at its own address, over TLS with the cluster's CA. One that does not answer counts with the
oldest version that the signed policy names: it may come back with it. Outside a roll-out the policy
names one version, and nobody is asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from constellation.base.errors import FormatError, Unavailable
from constellation.kube import api_server
from constellation.kube.membership import NodeRole
from constellation.kube.rollout import version_order

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.kube.membership import Member, Membership
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["ApiVersions", "AskApiServer", "joining_version", "kubernetes_for"]

_ASK_S = 2.0


class ApiVersions(Protocol):
    """The version that an API server says."""

    async def __call__(self, address: str) -> str:
        """Ask the API server at a control plane's own address. Raises Unavailable, FormatError."""
        ...


class AskApiServer:
    """`ApiVersions` over TLS; `ca_file` is the cluster's CA on this node's disk."""

    def __init__(self, ca_file: Path) -> None:
        self._ca_file = ca_file

    async def __call__(self, address: str) -> str:
        """See `ApiVersions`."""
        return await api_server.version(address, ca_file=self._ca_file, timeout_s=_ASK_S)


async def kubernetes_for(
    role: NodeRole, membership: Membership, policy: ClusterPolicy, *, ask: ApiVersions
) -> str:
    """Give the version for a node that joins now.

    Raises:
        Unavailable: not yet; see `joining_version`.
    """
    if set(policy.artifact_lists) == {policy.kubernetes_version}:
        return policy.kubernetes_version
    planes = [m for m in membership.nodes if m.role is NodeRole.CONTROL_PLANE]
    said = await asyncio.gather(*(_said(m, ask) for m in planes))
    answers = dict(zip((m.name for m in planes), said, strict=True))
    return joining_version(role, answers, policy)


def joining_version(role: NodeRole, answers: dict[str, str | None], policy: ClusterPolicy) -> str:
    """Give the version by what each live control plane's API server said; None: no answer. Pure.

    Raises:
        Unavailable: a control plane has to wait until all API servers are new, or the oldest is of
            a version that the policy has no artifact list of.
    """
    oldest_named = min(policy.artifact_lists, key=version_order)
    versions = {name: said or oldest_named for name, said in answers.items()}
    oldest = min(versions.values(), key=version_order, default=policy.kubernetes_version)
    behind = [n for n, version in versions.items() if version != policy.kubernetes_version]
    if role is NodeRole.CONTROL_PLANE and behind:
        raise Unavailable(
            f"the API server of {min(behind)} is not known to be of "
            f"{policy.kubernetes_version} yet: no control plane joins before all are"
        )
    if oldest not in policy.artifact_lists:
        raise Unavailable(
            f"an API server is of {oldest}, and the cluster policy has no artifact list of it: no "
            "node joins before it is upgraded"
        )
    return oldest


async def _said(member: Member, ask: ApiVersions) -> str | None:
    try:
        return await ask(member.address)
    except (Unavailable, FormatError):
        return None
