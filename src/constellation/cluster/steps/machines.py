"""Machines as the conf wants them, from the provider; whatever exists already stays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.attestation.registry import published_roots
from constellation.base.errors import Conflict
from constellation.config.machines import wanted_groups
from constellation.providers.protocols import Desired

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.config.state import State

__all__ = ["desired", "run"]


async def run(context: Context, state: State) -> State:
    """Create what is missing and note what exists.

    Raises:
        Unavailable: the provider cannot do it now.
    """
    infrastructure = context.infrastructure(state.uid)
    found = await infrastructure.apply(desired(context, state), report=context.report)
    if not found.trust_roots:
        # a cloud has no authority of this cluster's own: the vendors' published ones
        roots = published_roots(Variant(context.config.attestation.variant))
        found = dataclasses.replace(found, trust_roots=roots)
    return dataclasses.replace(state, infrastructure=found)


def desired(context: Context, state: State) -> Desired:
    """Say what the provider is asked for.

    Raises:
        Conflict: the node image was not noted yet.
    """
    if state.image is None:
        raise Conflict("no node image yet", hint="run `constellation create`")
    local = context.config.provider.local
    return Desired(
        groups=wanted_groups(context.config),
        image_path=state.image.path,
        node_document=state.node_document,
        artifacts_path=str(context.supplies.cache),
        state_disk_bytes=local.state_disk_bytes if local is not None else 0,
        initialised=bool(state.cluster_ca),
        api_ca=state.cluster_ca,
    )
