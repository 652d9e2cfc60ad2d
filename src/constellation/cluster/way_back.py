"""Where `upgrade rollback` goes, and whether Kubernetes can go there.

Back is what the policy before this one named, and only that; the way itself is a roll-out like any
other (`roll_out.apply_upgrade`). Source: design, sections 3 and 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, Unavailable
from constellation.cluster.apply import require_state
from constellation.cluster.current_policy import current_policy
from constellation.kube.rollout import version_order
from constellation.trust.cluster_policy import Versions, is_rolling
from constellation.trust.node_image import wanted_image
from constellation.trust.release import version_order as release_order

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.cluster.roll_out import ReadStatus
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["demand_way_back", "rollback_to"]


def rollback_to(policy: ClusterPolicy) -> Versions:
    """Give where `upgrade rollback` goes; one that was interrupted on its way goes on.

    Raises:
        Conflict: there is nothing to go back to.
    """
    if policy.release is None:
        raise Conflict("the cluster follows no release: there is none to go back to")
    if policy.release.before is None:
        raise Conflict(
            f"release {policy.release.version} is the first that the cluster follows: the images "
            "before it were of no release, and no release says that they are genuine",
        )
    here = Versions(release=policy.release.version, kubernetes=policy.kubernetes_version)
    before = policy.release.before
    return here if is_rolling(policy) and _order(before) > _order(here) else before


def _order(versions: Versions) -> tuple[object, ...]:
    return release_order(versions.release), version_order(versions.kubernetes)


async def demand_way_back(context: Context, to: Versions, *, status: ReadStatus) -> None:
    """Refuse to go back where Kubernetes cannot (API servers never get older), or nothing began.

    Raises:
        Conflict: an API server is newer; says which. Or the last upgrade was cut off before there
            was a policy for it: the release before is then the one before the cluster's own.
        Unavailable: the operator's report cannot be read now, or there is none.
    """
    state = require_state(context)
    policy = current_policy(state)
    image = state.image
    if (
        image is not None
        and not is_rolling(policy)
        and image.release.image_digest != wanted_image(policy)
    ):
        own = policy.release.version if policy.release is not None else "none"
        raise Conflict(
            f"an upgrade to {image.release.name} was cut off before any control plane heard of it: "
            f"the cluster has release {own} still",
            hint=f"`release: {own}` in the conf and `upgrade apply` take it back",
        )
    seen = await status(context.workspace.kubeconfig)
    if seen is None:
        raise Unavailable(
            f"whether Kubernetes can go back to {to.kubernetes} is not known: the operator has not "
            "reported which API servers run",
            hint="the same command again, once `constellation status --watch` shows its report",
        )
    try:
        newer = [
            node
            for node in seen.nodes
            if node.apiServer and version_order(node.apiServer) > version_order(to.kubernetes)
        ]
    except ValueError as error:  # anybody who may write the object may write anything
        raise Unavailable(f"the operator's report cannot be read: {error}") from None
    if newer:
        raise Conflict(
            f"the API server of {newer[0].name} has {newer[0].apiServer} already: Kubernetes and "
            f"etcd do not go back to {to.kubernetes}",
            hint="go on with `constellation upgrade apply`",
        )
