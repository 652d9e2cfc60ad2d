"""`upgrade apply --plan`: every step to a release, from the machines and nodes there are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, Rejected, Unavailable, UserError
from constellation.cluster.context import Context, KubernetesNode
from constellation.cluster.roll_out import Eyes, watch
from constellation.cluster.upgrade import Move, check, plan_upgrade, wanted
from constellation.config.schema import Config, NodeGroup
from constellation.config.state import STATE_VERSION, Image, State, read_state, write_state
from constellation.config.workspace import Workspace
from constellation.crypto.signing import generate_key, spki
from constellation.kube.rollout import (
    ApplyCloudObjects,
    CreateNode,
    RemoveNode,
    Snapshot,
    UpgradeControlPlane,
    Wait,
)
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.releases.site import Site
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from constellation.trust.cluster_policy import sign_policy
from constellation.trust.node_document import NodeDocument, dump_node_document
from tests.fakes.release_world import NOW, Maker, policy, release

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.cluster.verify import Verified
    from constellation.kube.rollout import Action

PLANES, WORKERS = "control_plane_default", "worker_default"


@dataclasses.dataclass
class World:
    """A cluster of one control plane and one worker, and a maker of releases."""

    folder: Path
    maker: Maker
    config: Config
    owner: EllipticCurvePrivateKey
    ready: bool = True
    machines: tuple[str, ...] = (PLANES, WORKERS)

    async def observe(self) -> InfrastructureState:
        return InfrastructureState(
            uid="u",
            endpoint="10.42.0.1:6443",
            user_endpoint="127.0.0.1:6443",
            api_sans=(),
            trust_roots=(),
            instances=tuple(
                Instance(
                    instance_id=f"i-{group}",
                    group=group,
                    role=Role.WORKER if group == WORKERS else Role.CONTROL_PLANE,
                    address=f"10.42.1.{number}",
                    state="running",
                )
                for number, group in enumerate(self.machines)
            ),
        )

    async def nodes(self, _: Path) -> tuple[KubernetesNode, ...]:
        return tuple(
            KubernetesNode(
                name=f"{group}-0",
                role=group,
                ready=self.ready,
                version="v1.36.1",
                address=f"10.42.1.{number}",
                reason="",
            )
            for number, group in enumerate((PLANES, WORKERS))
        )

    def with_components(self, *, next_has_none: bool = False) -> None:
        """Let the cluster run its cloud's components, and publish a release with others."""
        path = Workspace(folder=self.folder).state
        state = read_state(path)
        assert state is not None
        ours = ArtifactList(kubernetes_version="v1.36.1", artifacts=()).with_artifacts(
            _objects("a")
        )
        current = policy(cloud_integration=True)
        signed = sign_policy(current, self.owner)
        write_state(
            path,
            dataclasses.replace(state, policy=signed, artifact_list=artifact_list.dump(ours)),
        )
        made = release("0.3.0")
        if not next_has_none:
            lists = {
                v: listed.with_artifacts(_objects("b")) for v, listed in made.kubernetes.items()
            }
            made = dataclasses.replace(made, kubernetes=lists)
        self.maker.publish(made)

    async def moves(self) -> list[Move]:
        """Give the ways on to the newest release, with the Kubernetes that there is."""
        site = Site(place=str(self.maker.folder))
        found = await check(self.context("0.3.0"), site, pinned_root=self.maker.pinned_root)
        return [m for m in found.moves if (m.release, m.kubernetes) == ("0.3.0", "v1.36.1")]

    async def plan(self, version: str, kubernetes: str = "v1.36.1") -> tuple[Action, ...]:
        context = self.context(version, kubernetes)
        site = Site(place=str(self.maker.folder))
        found = await wanted(context, site, pinned_root=self.maker.pinned_root)
        return await plan_upgrade(context, found.verified)

    def context(self, version: str, kubernetes: str = "v1.36.1") -> Context:
        config = self.config.model_copy(
            update={"release": version, "kubernetes_version": kubernetes}
        )
        return Context(
            workspace=Workspace(folder=self.folder),
            config=config,
            supplies=None,  # type: ignore[arg-type] # nothing is made
            infrastructure=lambda _: self,  # type: ignore[arg-type,return-value] # only observed
            owned=tuple,
            list_nodes=self.nodes,
            now=lambda: NOW,
            report=lambda _: None,
            wait_s=1.0,
        )


def _objects(letter: str) -> Artifact:
    return Artifact(
        name="cloud/local", kind=ArtifactKind.OBJECTS, sha256=letter * 64, size_bytes=10
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    maker = Maker(folder=tmp_path / "site").create()
    maker.publish(release("0.2.0"))
    current, owner = policy(), generate_key()
    document = NodeDocument(
        version=1,
        cluster_id=current.cluster_id,
        owner_public_key=spki(owner.public_key()),
        release_root=b"root",
        minimum_release="0.1.0",
        variant=Variant.LOCAL_VTPM,
    )
    workspace = Workspace(folder=tmp_path)
    state = State(
        version=STATE_VERSION,
        name="constell",
        uid="u",
        cluster_id=current.cluster_id,
        node_document=dump_node_document(document),
        kubernetes_version=current.kubernetes_version,
        image=Image(path="/image", release=current.releases[0]),
        policy=sign_policy(current, owner),
        policy_serial=1,
    )
    write_state(workspace.state, state)
    workspace.kubeconfig.write_bytes(b"kubeconfig")
    return World(folder=tmp_path, maker=maker, config=Config(), owner=owner)


async def test_an_image_is_one_node_in_one_node_out_control_planes_first(world: World) -> None:
    assert await world.plan("0.2.0") == (
        CreateNode(group=PLANES),
        RemoveNode(node=f"{PLANES}-0"),
        CreateNode(group=WORKERS),
        RemoveNode(node=f"{WORKERS}-0"),
    )


async def test_another_list_of_the_clouds_components_is_named_and_planned(world: World) -> None:
    world.with_components()
    (move,) = await world.moves()
    (change,) = [c for c in move.changes if c.startswith("cloud integration")]
    assert (change, move.refused) == (
        f"cloud integration: its objects are renewed, {'aa' * 6} to {'bb' * 6}",
        (),
    )
    steps = await world.plan("0.3.0")
    apply = ApplyCloudObjects(digest="bb" * 32)
    assert steps.index(RemoveNode(node=f"{PLANES}-0")) < steps.index(apply)
    assert steps.index(apply) < steps.index(CreateNode(group=WORKERS))


async def test_a_roll_out_is_not_done_before_the_components_are_there(world: World) -> None:
    world.with_components()
    asked: list[Path] = []

    async def silent(_: Path) -> None:
        return None

    async def others(kubeconfig: Path) -> str:
        asked.append(kubeconfig)
        return "cc" * 32

    async def prove(*_: object, **__: object) -> tuple[Verified, ...]:
        raise AssertionError("nodes are asked for evidence too early")

    eyes = Eyes(status=silent, prove=prove, objects=others)
    context = dataclasses.replace(world.context("0.2.0"), wait_s=0.1)
    with pytest.raises(Unavailable, match="nothing went on"):
        await watch(context, eyes=eyes)
    assert asked


async def test_a_release_without_the_clouds_components_is_refused_where_they_run(
    world: World,
) -> None:
    world.with_components(next_has_none=True)
    (move,) = await world.moves()
    assert "this cluster runs its cloud's components" in "".join(move.refused)


async def test_another_kubernetes_begins_with_a_snapshot_and_static_pods(world: World) -> None:
    steps = await world.plan("0.2.0", "v1.36.2")
    assert steps[0] == Snapshot()
    assert UpgradeControlPlane(node=f"{PLANES}-0", kubernetes="v1.36.2") in steps
    assert steps.index(UpgradeControlPlane(node=f"{PLANES}-0", kubernetes="v1.36.2")) < steps.index(
        CreateNode(group=PLANES)
    )


async def test_a_node_that_is_not_ready_is_what_the_plan_begins_and_ends_with(world: World) -> None:
    world.ready = False
    (only,) = await world.plan("0.2.0")
    assert isinstance(only, Wait)


async def test_what_the_rules_refuse_is_not_planned(world: World) -> None:
    with pytest.raises(Rejected, match=r"Kubernetes v1.35.3 is older|v1.35.3 is older"):
        await world.plan("0.2.0", "v1.35.3")


async def test_without_a_release_in_the_conf_there_is_nothing_to_plan(world: World) -> None:
    with pytest.raises(UserError, match="release: expected the version of a release"):
        await world.plan("")


async def test_a_machine_that_is_no_node_yet_is_named(world: World) -> None:
    world.machines = (PLANES, WORKERS, WORKERS)
    with pytest.raises(Conflict, match="i-worker_default of worker_default is no node"):
        await world.plan("0.2.0")


async def test_seven_control_planes_cannot_be_rolled_out(world: World) -> None:
    groups = {PLANES: NodeGroup(role=Role.CONTROL_PLANE, size=7)}
    world.config = Config(node_groups=groups)
    with pytest.raises(Conflict, match="1, 3 or 5"):
        await world.plan("0.2.0")
