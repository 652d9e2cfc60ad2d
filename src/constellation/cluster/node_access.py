"""How control planes that run get another way to ask their cloud's API: in the owner's policy.

For clouds that give machines no identity (`Context.node_access`). What they are to have is compared
with what the policy has, sealed (`trust.sealed_access`); where it differs, a policy that says
nothing else new is signed and handed over, until every control plane uses it. A credential that was
replaced is the user's to revoke, after that. Source: ADR 99.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from constellation.base.errors import Untrusted
from constellation.cluster.current_policy import current_policy
from constellation.cluster.policy_follows import follow
from constellation.cluster.secrets import read_secrets
from constellation.cluster.steps.machines import desired
from constellation.trust.sealed_access import NONCE_BYTES, seal_access, unseal_access

if TYPE_CHECKING:
    from constellation.base.secret import Secret
    from constellation.cluster.context import Context
    from constellation.cluster.secrets import ClusterSecrets
    from constellation.config.state import State
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["access_differs", "follow_access", "with_access"]

_STEP = "Provider access"


async def follow_access(context: Context, state: State) -> State:
    """Let control planes use what the configuration names now; nothing new: nothing happens.

    Raises:
        UserError, Denied: the credential is not one that control planes may have, or is refused.
        Unavailable: not every control plane uses it yet; the same command goes on.
    """
    if context.node_access is None:
        return state
    return await follow(
        context,
        state,
        changed=with_access,
        step=_STEP,
        begun="control planes get another",
        done="every control plane uses it",
    )


async def with_access(context: Context, state: State, policy: ClusterPolicy) -> ClusterPolicy:
    """Give a policy that has what control planes need for the machines of this state.

    A roll-out's machines are made with another image, which the access names. Raises as
    `follow_access`.
    """
    if context.node_access is None:
        return policy
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    wanted = await context.node_access(state.uid, desired(context, state))
    return policy if _has(policy, wanted, owner) else _sealed(policy, wanted, owner)


async def access_differs(context: Context, state: State) -> bool:
    """Say whether `follow_access` would hand over another. Raises as it does."""
    if context.node_access is None or state.policy is None:
        return False
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    wanted = await context.node_access(state.uid, desired(context, state))
    return not _has(current_policy(state), wanted, owner)


def _has(policy: ClusterPolicy, wanted: Secret, owner: ClusterSecrets) -> bool:
    sealed = policy.provider_access
    if not sealed:
        return False
    try:
        had = unseal_access(sealed, master=owner.master, cluster_id=owner.cluster_id)
    except Untrusted:
        return False
    return had == wanted


def _sealed(policy: ClusterPolicy, wanted: Secret, owner: ClusterSecrets) -> ClusterPolicy:
    sealed = seal_access(
        wanted, master=owner.master, cluster_id=owner.cluster_id, nonce=os.urandom(NONCE_BYTES)
    )
    return dataclasses.replace(policy, provider_access=sealed)
