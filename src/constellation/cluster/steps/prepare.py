"""What a cluster needs before its first machine: artifacts, node image, secrets, node document."""

from __future__ import annotations

import dataclasses
import secrets as randomness
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, UserError
from constellation.cluster.secrets import make_secrets
from constellation.config.demands import platform_demands
from constellation.config.state import STATE_VERSION, Image, State
from constellation.kube.cloud_objects import artifact_name
from constellation.trust import artifact_list
from constellation.trust.node_document import NodeDocument, dump_node_document

if TYPE_CHECKING:
    from constellation.cluster.context import Context, NodeImage

__all__ = [
    "SERVICES_ARTIFACT",
    "artifacts",
    "check_integration",
    "check_same",
    "identity",
    "node_image",
]

SERVICES_ARTIFACT = "services"

_UID_BYTES = 3


async def identity(context: Context, state: State | None, image: NodeImage) -> State:
    """Make master secret, owner key, clusterID, node document and the name of all resources.

    Raises:
        Conflict: the state file is of a cluster with another name.
    """
    config = context.config
    if state is not None:
        check_same(context, state)
        return state
    owner = make_secrets(context.workspace)
    document = NodeDocument(
        version=1,
        cluster_id=owner.cluster_id,
        owner_public_key=owner.owner_public_key,
        release_root=image.release_root,
        minimum_release=config.attestation.minimum_release,
        variant=Variant(config.attestation.variant),
    )
    return State(
        version=STATE_VERSION,
        name=config.name,
        uid=f"{config.name}-{randomness.token_hex(_UID_BYTES)}",
        cluster_id=owner.cluster_id,
        node_document=dump_node_document(document),
        kubernetes_version=config.kubernetes_version,
        platform=platform_demands(config),
    )


def check_same(context: Context, state: State) -> None:
    """Demand that the state file is of the cluster that the conf names.

    Raises:
        Conflict: it is of another one.
    """
    name, workspace = context.config.name, context.workspace
    if state.name != name:
        raise Conflict(
            f"{workspace.config.name} names the cluster {name!r}, {workspace.state.name} is of "
            f"{state.name!r}",
            hint=f"set name: {state.name}; or `constellation terminate` first; "
            "or use another workspace (-C)",
        )


def node_image(state: State, image: NodeImage) -> State:
    """Note which image the machines boot; machines that exist keep theirs."""
    if state.infrastructure is not None and state.image is not None:
        return state
    return dataclasses.replace(state, image=Image(path=str(image.path), release=image.release))


def check_integration(context: Context, listed: artifact_list.ArtifactList) -> None:
    """Demand the digest of the cloud's components, if they are wanted, before anything is made.

    Raises:
        UserError: the release does not name them.
    """
    provider = context.config.provider
    if not provider.wants_integration:
        return
    name = artifact_name(provider.name)
    if not any(a.name == name for a in listed.of_kind(artifact_list.ArtifactKind.OBJECTS)):
        raise UserError(
            f"the release names no {name} by digest for Kubernetes {listed.kubernetes_version}",
            where=f"provider.{provider.name}.cloudIntegration",
            hint="take a release that does, or leave it out: nothing runs without a digest",
        )


def artifacts(state: State, listed: artifact_list.ArtifactList) -> State:
    """Note the files of this Kubernetes version; an initialised cluster keeps its list."""
    if state.policy is not None:
        return state
    return dataclasses.replace(
        state,
        kubernetes_version=listed.kubernetes_version,
        artifact_list=artifact_list.dump(listed),
        services_bundle=bytes.fromhex(listed.get(SERVICES_ARTIFACT).sha256),
    )
