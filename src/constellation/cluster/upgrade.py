"""What could this cluster move to, what would that change, and what speaks against it?

The answer comes from verified chains alone, by the rules that the JoinServices apply once more
(`trust.release_rules`). Nothing is changed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, UserError
from constellation.cluster.apply import observe, require_state
from constellation.cluster.cloud_integration import (
    integration_findings,
    objects_digest,
    wanted_objects,
)
from constellation.cluster.current_policy import current_policy
from constellation.kube.membership import NodeRole
from constellation.kube.rollout import Desired, Health, NodeGroup, NodeView, Observed
from constellation.kube.rollout_model import steps_to_the_end
from constellation.providers.protocols import Role
from constellation.releases.site import fetch_chain
from constellation.trust import artifact_list
from constellation.trust.node_document import parse_node_document
from constellation.trust.release import version_order
from constellation.trust.release_chain import (
    NOTHING_SEEN,
    VerifiedRelease,
    dump_chain,
    verify_chain,
)
from constellation.trust.release_rules import Target, findings, minor_of, next_policy, seen_by

if TYPE_CHECKING:
    from constellation.cluster.context import Context, KubernetesNode
    from constellation.config.schema import Config
    from constellation.config.state import State
    from constellation.kube.rollout import Action
    from constellation.providers.protocols import Instance
    from constellation.releases.site import Site
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.release import ReleaseImage
    from constellation.trust.release_chain import SeenVersions

__all__ = [
    "Checked",
    "Found",
    "Move",
    "check",
    "find",
    "measurements",
    "plan_upgrade",
    "target",
    "wanted",
]

_MOST_RELEASES = 8
_USUAL_ROLLOUT_S = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One way on: a release with one of its Kubernetes versions.

    `changes` say what would become different, `refused` why it cannot be done; empty: it can.
    """

    release: str
    kubernetes: str
    changes: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the cluster has (`release` "": none was published of it) and where it could go."""

    release: str
    kubernetes: str
    moves: tuple[Move, ...]

    @property
    def best(self) -> Move | None:
        """Give the newest possible release, with the newest patch of the present Kubernetes."""
        possible = [
            m
            for m in self.moves
            if not m.refused and minor_of(m.kubernetes) == minor_of(self.kubernetes)
        ]
        return max(
            possible,
            key=lambda m: (version_order(m.release), _patch(m.kubernetes)),
            default=None,
        )


async def check(context: Context, site: Site, *, pinned_root: bytes) -> Checked:
    """List what the repository has for this cluster, the newest first.

    Raises:
        Conflict: there is no initialised cluster in the workspace.
        Untrusted: the repository's metadata does not hold; nothing of it is shown.
        Unavailable: it does not answer.
    """
    state = require_state(context)
    current = current_policy(state)
    now = context.now()
    newest = await _verified(context, site, pinned_root, seen_by(current), version=None)
    following = "" if current.release is None else current.release.version
    later = [
        v
        for v in newest.offered[:_MOST_RELEASES]
        if not following or version_order(v) >= version_order(following)
    ]
    moves = []
    for version in later:
        found = await _verified(context, site, pinned_root, seen_by(current), version=version)
        for kubernetes in sorted(found.release.kubernetes, key=_order, reverse=True):
            if _order(kubernetes) < _order(current.kubernetes_version):
                continue
            provider = context.config.provider.name
            changes = (
                *_changes(current, found, kubernetes, provider=provider),
                *_component_changes(state, found.release.kubernetes[kubernetes], provider=provider),
            )
            if not changes:
                continue
            goal = target(context.config, state, kubernetes, now_s=int(now.timestamp()))
            refused = (
                *findings(current, found, goal, now=int(now.timestamp())),
                *integration_findings(
                    state, found.release.kubernetes[kubernetes], provider=provider
                ),
            )
            moves.append(
                Move(release=version, kubernetes=kubernetes, changes=changes, refused=refused)
            )
    return Checked(release=following, kubernetes=current.kubernetes_version, moves=tuple(moves))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A verified release, and the chain (`dump_chain`) that control planes judge it by."""

    verified: VerifiedRelease
    chain: bytes


async def find(context: Context, site: Site, version: str, *, pinned_root: bytes) -> Found:
    """Give a release with its chain, verified from what the cluster's policy has seen on.

    Raises:
        UserError: the repository does not have it.
        Untrusted: the repository's metadata does not hold.
    """
    seen = seen_by(current_policy(require_state(context)))
    chain = await fetch_chain(site, pinned_root=pinned_root, version=version)
    verified = verify_chain(chain, pinned_root=pinned_root, seen=seen, now=context.now())
    return Found(verified=verified, chain=dump_chain(chain))


async def wanted(context: Context, site: Site, *, pinned_root: bytes) -> Found:
    """Give the release that the configuration names, verified.

    Raises:
        UserError: it names none, or the repository does not have it.
        Untrusted: the repository's metadata does not hold.
    """
    version = context.config.release
    if not version:
        raise UserError(
            "expected the version of a release, found none",
            where=f"{context.workspace.config.name}: release",
            hint="`constellation upgrade check --update-config` writes the newest possible one",
        )
    return await find(context, site, version, pinned_root=pinned_root)


async def measurements(
    context: Context, site: Site, *, pinned_root: bytes
) -> tuple[str, ReleaseImage]:
    """Give the version and image, with reference values, of the release that the conf names.

    The newest release, if it names none. There need not be a cluster.

    Raises:
        UserError: the release has no image for provider and variant, or no reference values.
        Untrusted: the repository's metadata does not hold.
    """
    config = context.config
    version = config.release or None
    found = await _verified(context, site, pinned_root, NOTHING_SEEN, version=version)
    variant = Variant(config.attestation.variant)
    image = found.release.image(provider=config.provider.name, variant=variant)
    if image is None or not image.reference:
        raise UserError(
            f"release {found.release.version} has no image with reference values for "
            f"{config.provider.name}, {variant}"
        )
    return found.release.version, image


async def plan_upgrade(context: Context, verified: VerifiedRelease) -> tuple[Action, ...]:
    """List every step of the roll-out to a release, as things are now; nothing is done.

    Raises:
        Conflict: machines or Kubernetes do not answer, or a group cannot be rolled out.
        Rejected: the release may not follow; all reasons.
    """
    state = require_state(context)
    current, now_s = current_policy(state), int(context.now().timestamp())
    goal = target(context.config, state, context.config.kubernetes_version, now_s=now_s)
    next_policy(current, verified, goal, now=now_s)
    image = verified.release.image(provider=context.config.provider.name, variant=goal.variant)
    seen = await observe(context, state)
    if seen.infrastructure is None or not seen.nodes or image is None or state.image is None:
        raise Conflict(
            "machines or Kubernetes do not answer: nothing can be planned",
            hint="`constellation status` says what is missing",
        )
    version = current.kubernetes_version
    # no upgrade is half-way: all nodes have the image that the cluster was made with
    has = f"{state.image.release.image_digest.hex()} {current.services_bundle.hex()}"
    observed = Observed(
        nodes=_views(seen.infrastructure.instances, seen.nodes, software=has),
        snapshot=False,
        config_maps=version,
        core_dns=version,
        rbac=version,
        cloud_objects=wanted_objects(context, state),
    )
    desired = Desired(
        image=f"{image.sha256} {verified.release.services_bundle}",
        kubernetes=goal.kubernetes,
        groups=_groups(context.config),
        cloud_objects=(
            objects_digest(verified.release.kubernetes[goal.kubernetes], goal.provider or "")
            if current.cloud_integration
            else ""
        ),
    )
    return steps_to_the_end(observed, desired)


def _views(
    machines: tuple[Instance, ...], nodes: tuple[KubernetesNode, ...], *, software: str
) -> tuple[NodeView, ...]:
    """Bring machines and Nodes together by their addresses; one without the other is not Ready."""
    by_address = {node.address: node for node in nodes}
    views = []
    for machine in machines:
        node = by_address.get(machine.address)
        if node is None:
            raise Conflict(
                f"machine {machine.instance_id} of {machine.group} is no node of the cluster yet",
                hint="`constellation status` says what is missing",
            )
        plane = machine.role is Role.CONTROL_PLANE
        views.append(
            NodeView(
                name=node.name,
                role=NodeRole(machine.role),
                group=machine.group,
                image=software,
                kubelet=node.version,
                api_server=node.version if plane else "",
                health=Health.READY if node.ready else Health.NOT_READY,
            )
        )
    return tuple(views)


def _groups(config: Config) -> tuple[NodeGroup, ...]:
    try:
        return tuple(
            NodeGroup(name=name, role=NodeRole(group.role), size=group.size)
            for name, group in config.node_groups.items()
        )
    except ValueError as error:
        raise Conflict(f"this cluster cannot be rolled out: {error}") from None


def target(config: Config, state: State, kubernetes: str, *, now_s: int) -> Target:
    """Say where an upgrade of this cluster to a Kubernetes version goes, and by when."""
    document = parse_node_document(state.node_document)
    return Target(
        provider=config.provider.name,
        variant=Variant(config.attestation.variant),
        kubernetes=kubernetes,
        minimum_release=document.minimum_release,
        ends_at=now_s + _USUAL_ROLLOUT_S,
    )


async def _verified(
    context: Context, site: Site, pinned_root: bytes, seen: SeenVersions, *, version: str | None
) -> VerifiedRelease:
    chain = await fetch_chain(site, pinned_root=pinned_root, version=version)
    return verify_chain(chain, pinned_root=pinned_root, seen=seen, now=context.now())


def _changes(
    current: ClusterPolicy, found: VerifiedRelease, kubernetes: str, *, provider: str
) -> tuple[str, ...]:
    release, changes = found.release, []
    digests = {entry.image_digest.hex() for entry in current.releases}
    images = {image.sha256 for image in release.images if image.provider == provider}
    if not images & digests:
        changes.append("node image: every node is replaced")
    if release.services_bundle != current.services_bundle.hex():
        changes.append("services: every node is replaced")
    if kubernetes != current.kubernetes_version:
        changes.append(
            f"Kubernetes {current.kubernetes_version} to {kubernetes}: control planes first, then "
            "every node is replaced"
        )
    return tuple(changes)


def _component_changes(state: State, listed: ArtifactList, *, provider: str) -> tuple[str, ...]:
    """Say whether the objects of the cloud's components change, where they run."""
    if not current_policy(state).cloud_integration:
        return ()
    before = objects_digest(artifact_list.parse(state.artifact_list), provider)
    after = objects_digest(listed, provider)
    if after in ("", before):
        return ()
    return (f"cloud integration: its objects are renewed, {before[:12]} to {after[:12]}",)


def _order(kubernetes: str) -> tuple[int, int, int]:
    return (*minor_of(kubernetes), _patch(kubernetes))


def _patch(kubernetes: str) -> int:
    return int(kubernetes.rpartition(".")[2])
