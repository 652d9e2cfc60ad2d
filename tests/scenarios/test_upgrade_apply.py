"""`upgrade apply`, `rollback`, `scale` against a real JoinService; machines are a small model.

The model does what the operator does as far as the workstation can see it: nodes get the image that
the provider was told last, once the policy that a control plane keeps accepts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base import clock
from constellation.base.errors import Conflict, Rejected, Unavailable, Untrusted, UserError
from constellation.base.secret import Secret
from constellation.cluster import policy_hand_over, roll_out, scale
from constellation.cluster import upgrade as upgrades
from constellation.cluster.context import Context, KubernetesNode
from constellation.cluster.current_policy import current_policy
from constellation.cluster.plan import Observed, Step, plan, resized
from constellation.cluster.roll_out import Eyes, Goal, apply_upgrade
from constellation.cluster.verify import Verified
from constellation.cluster.way_back import demand_way_back, rollback_to
from constellation.config.artifacts import Artifacts
from constellation.config.schema import Autoscaling, Config, NodeGroup
from constellation.config.state import State, read_state, write_state
from constellation.kube.cluster_release import NodeStatus, Phase, ReleaseStatus
from constellation.kube.rollout import Bounds
from constellation.providers.protocols import Desired, InfrastructureState, Role
from constellation.releases.site import Site
from constellation.services.joinservice import server as server_module
from constellation.services.kept_access import KeptAccess
from constellation.trust.cluster_policy import ClusterPolicy, Versions, parse_policy
from constellation.trust.sealed_access import unseal_access
from tests.fakes.cluster_machines import IMAGE, machine, release_of
from tests.fakes.policy_world import NEXT, Owned, endpoint, owned_cluster
from tests.fakes.release_world import digest
from tests.fakes.tpm import NOW
from tests.fakes.upgrade_world import Upgrades

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from constellation.base.progress import Report
    from constellation.trust.release import Release

GROUP, WORK = "control_plane_default", "workers"
KUBERNETES = "v1.36.2"


class Cut(Exception):
    """The command was killed here."""


@dataclass
class Cloud:
    """Provider, Kubernetes and operator of a cluster whose control planes are `owned`.

    `cut_at`: where the command is killed, once: "provider told" or "before the signature"; or from
    where on "nobody answers" of the control planes: once the provider is told.
    """

    owned: Owned
    folder: Path
    image: bytes = IMAGE
    told: bytes = IMAGE
    api_version: str = KUBERNETES
    phase: Phase = Phase.ROLLING
    works: bool = True
    size: int = 1
    workers: int = 0
    bounds: Bounds | None = None
    node_access: Callable[[str, Desired], Awaitable[Secret]] | None = None
    cut_at: str = ""
    applied: str = ""
    begun: list[str] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def __post_init__(self) -> None:
        groups = {GROUP: NodeGroup(role=Role.CONTROL_PLANE, size=1)}
        self.config = Config(name="test", node_groups=groups)

    @property
    def context(self) -> Context:
        return dataclasses.replace(
            self.owned.context,
            config=self.config,
            supplies=self,  # type: ignore[arg-type] # what an upgrade asks of supplies
            infrastructure=lambda _: self,  # type: ignore[arg-type,return-value] # what it asks
            list_nodes=self.nodes,
            wait_s=20.0 if self.works else 1.0,
            node_access=self.cut if self.cut_at == "before the signature" else self.node_access,
        )

    @property
    def eyes(self) -> Eyes:
        return Eyes(status=self.status, prove=self.prove, objects=self.objects)

    async def objects(self, _: Path) -> str:
        return self.applied

    # supplies
    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def put_kubectl(self, *versions: str) -> None:
        for version in versions:
            path = self.cache / "sha256" / digest(f"kubectl {version}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"kubectl {version}")

    async def release_files(
        self, release: Release, config: Config, *, kubernetes: str, report: Report
    ) -> Path:
        del config, report
        assert kubernetes in release.kubernetes
        return self.folder / release.images[0].sha256

    # provider
    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        del report
        self.told = bytes.fromhex(Path(desired.image_path).name)
        if self.cut_at == "provider told":
            self.cut_at = ""
            raise Cut
        if self.cut_at == "nobody answers":
            self.cut_at = ""
            for plane in self.owned.planes:
                await plane.stop()
        return await self.observe()

    async def cut(self, *_: object) -> Secret:
        self.cut_at = ""
        raise Cut

    async def observe(self) -> InfrastructureState:
        infrastructure = self.owned.state.infrastructure
        assert infrastructure is not None
        some = tuple(
            dataclasses.replace(infrastructure.instances[0], instance_id=f"cp-{n}")
            for n in range(self.size)
        )
        others = tuple(
            dataclasses.replace(some[0], instance_id=f"w-{n}", group=WORK, role=Role.WORKER)
            for n in range(self.workers)
        )
        return dataclasses.replace(infrastructure, instances=(*some, *others))

    # Kubernetes and operator
    async def nodes(self, _: Path) -> tuple[KubernetesNode, ...]:
        return tuple(
            KubernetesNode(
                name=f"n-{n}",
                role="control-plane",
                ready=True,
                version=self.api_version,
                address="127.0.0.1",
                reason="",
            )
            for n in range(self.size + self.workers)
        )

    async def status(self, _: Path) -> ReleaseStatus:
        policy = self.owned.planes[0].files.kept_policy().verified()
        if self.works and self.told != self.image and accepts(policy, self.told):
            await self.replace()
            self.api_version = policy.kubernetes_version
        return ReleaseStatus(
            phase=self.phase,
            policySerial=policy.serial,
            message="node n-3 is not healthy: it hangs" if self.phase is Phase.STOPPED else "",
            nodes=(
                NodeStatus(
                    name="n-0",
                    image=self.image.hex(),
                    kubelet=self.api_version,
                    apiServer=self.api_version,
                    health="ready",
                    step="",
                    since="2026-11-22T12:00:00Z",
                    reason="",
                ),
            ),
        )

    async def replace(self) -> None:
        """Let the control planes be machines with the new image."""
        self.image = self.told
        for n, plane in enumerate(self.owned.planes):
            folder = self.folder / f"{self.told.hex()[:8]}-{n}-{id(plane.on)}"
            new = await self.stack.enter_async_context(
                machine(folder, cluster=self.owned.cluster, image=self.told)
            )
            await plane.stop()
            plane.on = new
            await plane.start()

    async def prove(
        self, context: Context, state: State, *, cluster_id: bytes | None, deadline_s: float
    ) -> tuple[Verified, ...]:
        """Say what evidence would: whether the state's policy accepts what the machines run."""
        del context, cluster_id, deadline_s
        assert state.policy is not None
        fine = accepts(parse_policy(state.policy.policy), self.image)
        error = None if fine else Rejected(("pcr4",))
        return (Verified(instance_id="cp-0", node_name="n-0", result=None, error=error),)

    async def set_size(
        self, kubeconfig: Path, group: str, size: int, *, bounds: Bounds | None
    ) -> None:
        del kubeconfig
        self.asked.append((group, size))
        if group == WORK:
            self.workers, self.bounds = size, bounds
        else:
            self.size = size

    async def upgrade(
        self, version: str, *, kubernetes: str = KUBERNETES, ends_at: int | None = None
    ) -> State:
        return await self._move(Versions(release=version, kubernetes=kubernetes), ends_at=ends_at)

    async def back(self) -> State:
        to = rollback_to(current_policy(self.state))
        await demand_way_back(self.context, to, status=self.status)
        return await self._move(to, back=True)

    async def _move(self, to: Versions, *, back: bool = False, ends_at: int | None = None) -> State:
        self.begun = []
        maker = self.owned.upgrades.maker
        found = await upgrades.find(
            self.context,
            Site(place=str(maker.folder)),
            to.release,
            pinned_root=maker.pinned_root,
        )
        goal = Goal(release=to.release, kubernetes=to.kubernetes, ends_at=ends_at)
        return await apply_upgrade(
            self.context,
            found,
            goal,
            eyes=self.eyes,
            back=back,
            begun=lambda: self.begun.append(to.release),
        )

    @property
    def state(self) -> State:
        found = read_state(self.owned.workspace.state)
        assert found is not None
        return found

    @property
    def policy(self) -> ClusterPolicy:
        return self.owned.planes[0].files.kept_policy().verified()


def accepts(policy: ClusterPolicy, image: bytes) -> bool:
    now = int(NOW.timestamp())
    return any(e.image_digest == image and e.accepted_at(now) for e in policy.releases)


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    monkeypatch.setattr(roll_out, "_LOOK_S", 0.05)
    async with owned_cluster(tmp_path, count=1) as owned:
        owned.reach(*map(endpoint, owned.planes))
        owned.state = dataclasses.replace(
            owned.state, infrastructure=owned.state.infrastructure, cluster_ca=b"ca"
        )
        (tmp_path / "workspace" / "constellation-admin.conf").write_bytes(b"kubeconfig")
        write_state(
            owned.workspace.state,
            dataclasses.replace(
                owned.state,
                image=roll_out.Image(path=f"/{IMAGE.hex()}", release=release_of(IMAGE)),
            ),
        )
        one = Cloud(owned=owned, folder=tmp_path)
        async with one.stack:
            yield one


def names(policy: ClusterPolicy) -> dict[str, bool]:
    """Give each accepted release, and whether it is to end."""
    return {e.name: e.not_after is not None for e in policy.releases}


async def test_a_cluster_comes_to_another_release_and_at_the_end_accepts_only_that(
    cloud: Cloud,
) -> None:
    cloud.works = False
    with pytest.raises(Unavailable, match="nothing went on"):
        await cloud.upgrade("0.2.0")
    assert names(cloud.policy) == {"0.2.0": False, "0.1.0": True}
    assert (cloud.policy.serial, cloud.policy.slots, cloud.told) == (2, {GROUP: 2}, NEXT)
    cloud.works = True
    state = await cloud.upgrade("0.2.0")  # the same again goes on
    assert names(cloud.policy) == {"0.2.0": False}
    assert (cloud.policy.serial, cloud.policy.slots) == (3, {GROUP: 1})
    assert state == cloud.state
    assert [p.serial for p in cloud.owned.planes] == [3]
    await cloud.upgrade("0.2.0")  # nothing is left to do
    assert cloud.policy.serial == 3


async def test_a_roll_out_brings_control_planes_what_its_machines_are_made_of(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they ask the cloud with what the owner gave them, that names the image as well."""
    monkeypatch.setattr(policy_hand_over, "_AGAIN_S", 0.05)
    master = cloud.owned.cluster.master
    kept = KeptAccess(state=cloud.owned.planes[0].files.state)

    async def access(_: str, desired: Desired) -> Secret:
        return Secret(f"a credential and image {desired.image_path}".encode())

    async def keyservice() -> None:
        while True:
            if sealed := cloud.policy.provider_access:
                kept.take(
                    unseal_access(sealed, master=master, cluster_id=cloud.policy.cluster_id),
                    sealed=sealed,
                )
            await asyncio.sleep(0.05)

    cloud.node_access = access
    # and new nodes fetch the release from where the conf names it
    sources = Artifacts(sources=("https://files.example/k8s",))
    cloud.config = cloud.config.model_copy(update={"artifacts": sources})
    task = asyncio.create_task(keyservice())
    await cloud.upgrade("0.2.0")
    task.cancel()
    has = kept.access()
    assert has is not None
    assert has.reveal().endswith(NEXT.hex().encode())
    # what the roll-out's end accepts says nothing else about the credential
    assert kept.taken() == hashlib.sha256(cloud.policy.provider_access).digest()
    assert cloud.policy.artifact_sources == ("https://files.example/k8s",)


async def test_the_users_kubectl_becomes_the_releases_if_the_cache_has_it(cloud: Cloud) -> None:
    mine = cloud.owned.workspace.kubectl
    mine.write_text("kubectl v1.36.1")  # of the same size
    await cloud.upgrade("0.2.0")
    assert mine.read_text() == "kubectl v1.36.1"
    cloud.put_kubectl("v1.36.1", KUBERNETES)
    await cloud.upgrade("0.2.0")  # nothing is left to do but this
    assert mine.read_text() == f"kubectl {KUBERNETES}"
    assert mine.stat().st_mode & 0o777 == 0o755
    mine.write_text("kubectl v1.36.1")
    cloud.owned.upgrades.publish("0.3.0", b"3" * 32)
    await cloud.upgrade("0.3.0")
    assert mine.read_text() == f"kubectl {KUBERNETES}"


async def test_old_images_are_accepted_until_every_node_proves_the_new_one(cloud: Cloud) -> None:
    cloud.works = False
    cloud.told = NEXT
    with pytest.raises(Unavailable):
        await cloud.upgrade("0.2.0")
    cloud.works, cloud.api_version = True, KUBERNETES
    cloud.told = IMAGE  # Kubernetes' versions are as wanted, the machines are not
    with pytest.raises(Unavailable, match="nothing went on"):
        await roll_out.watch(dataclasses.replace(cloud.context, wait_s=0.0), eyes=cloud.eyes)
    assert names(cloud.policy) == {"0.2.0": False, "0.1.0": True}
    await cloud.upgrade("0.2.0")
    assert names(cloud.policy) == {"0.2.0": False}


async def test_an_interrupted_hand_over_goes_on_with_the_chain_that_was_signed_for(
    cloud: Cloud,
) -> None:
    cloud.cut_at = "nobody answers"
    with pytest.raises(Unavailable):
        await cloud.upgrade("0.2.0")
    signed = cloud.state.policy
    assert cloud.state.policy_before is not None
    cloud.owned.upgrades.publish("0.3.0", b"3" * 32)  # the repository has moved on meanwhile
    for plane in cloud.owned.planes:
        await plane.start()
    cloud.works = False
    with pytest.raises(Unavailable, match="nothing went on"):
        await cloud.upgrade("0.2.0")
    assert cloud.owned.planes[0].files.kept_policy().signed() == signed
    cloud.works = True
    await cloud.upgrade("0.2.0")
    assert cloud.policy.serial == 3


@pytest.mark.parametrize("where", ["provider told", "before the signature"])
async def test_who_turns_back_before_a_policy_was_signed_gets_the_providers_image_back(
    cloud: Cloud, where: str
) -> None:
    await cloud.upgrade("0.2.0")
    cloud.owned.upgrades.publish("0.3.0", b"3" * 32)
    cloud.cut_at = where
    with pytest.raises(Cut):
        await cloud.upgrade("0.3.0")
    assert (cloud.told, cloud.policy.serial) == (b"3" * 32, 3)
    to = Versions(release="0.1.0", kubernetes=KUBERNETES)
    with pytest.raises(Conflict, match=r"to 0\.3\.0 was cut off .* has release 0\.2\.0 still"):
        await demand_way_back(cloud.context, to, status=cloud.status)
    await cloud.upgrade("0.2.0")  # the conf says so again
    assert cloud.told == NEXT
    assert cloud.state.image is not None
    assert cloud.state.image.release.image_digest == NEXT
    assert names(cloud.policy) == {"0.2.0": False}
    await cloud.upgrade("0.3.0")
    assert names(cloud.policy) == {"0.3.0": False}


@pytest.mark.parametrize("where", ["provider told", "before the signature"])
async def test_a_roll_out_goes_on_with_its_own_image_though_a_way_back_was_begun(
    cloud: Cloud, where: str
) -> None:
    await cloud.upgrade("0.2.0")
    cloud.owned.upgrades.publish("0.3.0", b"3" * 32)
    cloud.works = False
    with pytest.raises(Unavailable, match="nothing went on"):
        await cloud.upgrade("0.3.0")
    cloud.cut_at = where
    with pytest.raises(Cut):
        await cloud.back()
    assert cloud.told == NEXT
    cloud.works = True
    await cloud.upgrade("0.3.0")
    assert (cloud.told, names(cloud.policy)) == (b"3" * 32, {"0.3.0": False})


async def test_what_every_control_plane_refuses_changes_nothing_here(
    cloud: Cloud, tmp_path: Path
) -> None:
    before = cloud.state
    root = cloud.owned.upgrades.maker.pinned_root
    strange = Upgrades(cluster=cloud.owned.cluster, folder=tmp_path / "other").maker.pinned_root
    for plane in cloud.owned.planes:  # these images pin the root of another maker
        await plane.stop()
        plane.pinned_root = strange
        await plane.start()
    with pytest.raises(Untrusted, match="signature"):
        await cloud.upgrade("0.2.0")
    after = cloud.state
    assert (after.policy, after.image, cloud.told) == (before.policy, before.image, IMAGE)
    assert (after.policy_serial, after.signed_serial) == (1, 2)
    for plane in cloud.owned.planes:
        await plane.stop()
        plane.pinned_root = root
        await plane.start()
    await cloud.upgrade("0.2.0")
    assert cloud.policy.serial == 4


async def test_no_roll_out_begins_while_something_is_missing(cloud: Cloud) -> None:
    cloud.size = 0
    before = cloud.state
    with pytest.raises(Conflict, match="not whole: 0 machines and 0 Ready nodes, 1 wanted"):
        await cloud.upgrade("0.2.0")
    assert (cloud.state, cloud.policy.serial, cloud.told) == (before, 1, IMAGE)
    cloud.size = 1
    await cloud.upgrade("0.2.0")


async def test_a_stopped_roll_out_says_why_and_rollback_leads_back(cloud: Cloud) -> None:
    await cloud.upgrade("0.2.0")
    with pytest.raises(Conflict, match="the first that the cluster follows"):
        await cloud.back()
    bad = b"b" * 32
    cloud.owned.upgrades.publish("0.3.0", bad)
    cloud.works, cloud.phase = False, Phase.STOPPED
    with pytest.raises(Conflict, match="not healthy: it hangs"):
        await cloud.upgrade("0.3.0")
    assert names(cloud.policy) == {"0.3.0": False, "0.2.0": True}
    assert cloud.told == bad
    cloud.works, cloud.phase = True, Phase.ROLLING
    state = await cloud.back()
    assert (names(cloud.policy), cloud.told) == ({"0.2.0": False}, NEXT)
    policy = upgrades.current_policy(state)
    assert policy.release is not None
    assert (policy.release.version, policy.serial) == ("0.2.0", 6)


async def test_rollback_leads_out_of_a_roll_out_whose_time_is_over(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the policy of that roll-out no control plane is one of this cluster any more."""
    await cloud.upgrade("0.2.0")
    cloud.owned.upgrades.publish("0.3.0", b"b" * 32)
    cloud.works, cloud.phase = False, Phase.STOPPED
    with pytest.raises(Conflict, match="not healthy"):
        await cloud.upgrade("0.3.0", ends_at=int(NOW.timestamp()) + 3600)
    cloud.owned.later_s = 2 * 3600
    monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(seconds=cloud.owned.later_s))
    with pytest.raises(Rejected, match="pcr4"):
        await policy_hand_over.obeyed_policies(cloud.context, cloud.state)
    cloud.phase = Phase.ROLLING  # and no machine is of another image than before
    await cloud.back()
    assert (names(cloud.policy), cloud.told) == ({"0.2.0": False}, NEXT)


async def test_a_rollback_that_was_interrupted_goes_on_and_does_not_turn_round(
    cloud: Cloud,
) -> None:
    await cloud.upgrade("0.2.0")
    cloud.owned.upgrades.publish("0.3.0", b"b" * 32)
    await cloud.upgrade("0.3.0")
    cloud.works = False
    with pytest.raises(Unavailable, match="nothing went on"):
        await cloud.back()
    assert cloud.begun == ["0.2.0"], "the conf says so from now on"
    serial = cloud.policy.serial
    for _ in range(2):
        with pytest.raises(Unavailable, match="nothing went on"):
            await cloud.back()
        assert (cloud.policy.serial, cloud.told) == (serial, NEXT)
    cloud.works = True
    await cloud.back()
    assert names(cloud.policy) == {"0.2.0": False}
    # once it has ended, the release before is the one that it came from
    await cloud.back()
    assert names(cloud.policy) == {"0.3.0": False}


async def test_a_refused_way_back_leaves_the_conf_alone(cloud: Cloud) -> None:
    await cloud.upgrade("0.2.0")
    cloud.owned.upgrades.publish("0.3.0", b"b" * 32)
    await cloud.upgrade("0.3.0")
    for plane in cloud.owned.planes:
        await plane.stop()
    cloud.works = False
    with pytest.raises(Unavailable):
        await cloud.back()
    assert cloud.begun == []


async def test_kubernetes_does_not_go_back(cloud: Cloud) -> None:
    to = Versions(release="0.2.0", kubernetes="v1.36.1")
    with pytest.raises(Conflict, match=r"n-0 has v1\.36\.2 already"):
        await demand_way_back(cloud.context, to, status=cloud.status)
    cloud.api_version = "v1.36.1"
    await demand_way_back(cloud.context, to, status=cloud.status)

    cloud.api_version = "junk"  # of whoever may write the report
    with pytest.raises(Unavailable, match="report cannot be read"):
        await demand_way_back(cloud.context, to, status=cloud.status)

    async def nothing(_: Path) -> None:
        return None

    with pytest.raises(Unavailable, match="has not reported which API servers run"):
        await demand_way_back(cloud.context, to, status=nothing)


async def test_while_no_control_plane_answers_the_provider_is_told_nothing(cloud: Cloud) -> None:
    before = cloud.state
    for plane in cloud.owned.planes:
        await plane.stop()
    with pytest.raises(Unavailable):
        await cloud.upgrade("0.2.0")
    assert (cloud.state, cloud.told) == (before, IMAGE)
    for plane in cloud.owned.planes:
        await plane.start()
    await cloud.upgrade("0.2.0")


async def test_of_two_workstations_one_wins_and_the_other_is_told(
    cloud: Cloud,
) -> None:
    first = (cloud.owned.workspace.state).read_bytes()
    cloud.works = False
    with pytest.raises(Unavailable):
        await cloud.upgrade("0.2.0")
    won, boots = cloud.policy, cloud.told
    # the other has a copy of the workspace from before, and wants something else
    cloud.owned.workspace.state.write_bytes(first)
    cloud.owned.upgrades.publish("0.3.0", b"3" * 32)
    with pytest.raises(Conflict, match=r"obeys cluster policy 2.*another workstation") as told:
        await cloud.upgrade("0.3.0")
    assert "constellation-state.yaml" in told.value.hint
    assert cloud.policy == won
    assert cloud.told == boots, "the winner's machines are made of the winner's image"
    assert cloud.owned.workspace.state.read_bytes() == first, "nothing was signed"


def nothing() -> None:
    """Write no configuration: the test's own is changed already."""


async def test_a_group_grows_with_its_slots_first_and_shrinks_with_them_last(
    cloud: Cloud,
) -> None:
    def sized(size: int) -> None:
        groups = {GROUP: NodeGroup(role=Role.CONTROL_PLANE, size=size)}
        cloud.config = Config(name="test", node_groups=groups)

    slots_when_asked = []

    async def ask(kubeconfig: Path, group: str, size: int, *, bounds: Bounds | None) -> None:
        assert bounds is None
        slots_when_asked.append(dict(cloud.policy.slots))
        await cloud.set_size(kubeconfig, group, size, bounds=bounds)

    sized(3)
    await scale.scale(cloud.context, GROUP, ask=ask, write=nothing)
    assert (slots_when_asked, cloud.policy.slots, cloud.size) == ([{GROUP: 3}], {GROUP: 3}, 3)
    sized(1)
    await scale.scale(cloud.context, GROUP, ask=ask, write=nothing)
    assert slots_when_asked[1:] == [{GROUP: 3}]
    assert (cloud.policy.slots, cloud.size) == ({GROUP: 1}, 1)
    assert cloud.policy.serial == 3
    assert cloud.asked == [(GROUP, 3), (GROUP, 1)]


async def test_with_autoscaling_the_policy_has_places_for_the_most_and_the_object_the_bounds(
    cloud: Cloud,
) -> None:
    def conf(size: int, *, bounds: tuple[int, int] | None) -> None:
        chosen = Autoscaling(min=bounds[0], max=bounds[1]) if bounds else None
        planes = NodeGroup(role=Role.CONTROL_PLANE, size=1)
        workers = NodeGroup(role=Role.WORKER, size=size, autoscaling=chosen)
        cloud.config = Config(name="test", node_groups={GROUP: planes, WORK: workers})

    conf(1, bounds=(1, 4))
    await scale.scale(cloud.context, WORK, ask=cloud.set_size, write=nothing)
    assert cloud.policy.slots == {GROUP: 1, WORK: 4}
    assert cloud.bounds == Bounds(least=1, most=4)
    cloud.workers = 3  # as an autoscaler made it
    await scale.scale(cloud.context, GROUP, ask=cloud.set_size, write=nothing)
    assert cloud.policy.slots == {GROUP: 1, WORK: 4}
    assert cloud.workers == 3, "another group's call leaves it alone"
    conf(2, bounds=None)
    await scale.scale(cloud.context, WORK, ask=cloud.set_size, write=nothing)
    assert (cloud.bounds, cloud.policy.slots) == (None, {GROUP: 1, WORK: 2})
    assert cloud.workers == 2


async def test_a_group_for_which_the_cloud_has_no_room_changes_nothing(cloud: Cloud) -> None:
    asked: list[dict[str, int]] = []

    async def ask_room(uid: str, desired: Desired) -> None:
        assert uid == "test"
        asked.append({g.name: g.size for g in desired.groups})
        raise Conflict("quota of cores: 8 of which 8 are used, 4 more needed")

    written: list[int] = []
    cloud.config = Config(
        name="test", node_groups={GROUP: NodeGroup(role=Role.CONTROL_PLANE, size=3)}
    )
    full = dataclasses.replace(cloud.context, ask_room=ask_room)
    with pytest.raises(Conflict, match="quota of cores"):
        await scale.scale(full, GROUP, ask=cloud.set_size, write=lambda: written.append(1))
    assert asked == [{GROUP: 3}]
    assert (written, cloud.asked, cloud.policy.serial) == ([], [], 1)
    await scale.scale(cloud.context, GROUP, ask=cloud.set_size, write=lambda: written.append(1))
    assert (written, cloud.size) == ([1], 3)


def _resized(cloud: Cloud) -> tuple[str, ...]:
    """Give what `apply` resizes, which is what `apply --plan` says."""
    state = read_state(cloud.context.workspace.state)
    assert state is not None
    observed = Observed(infrastructure=state.infrastructure, has_kubeconfig=True, nodes=())
    shown = [p for p in plan(cloud.config, state, observed) if p.step is Step.SIZES]
    found = resized(cloud.config, state)
    wanted = [f"{name}: size {cloud.config.node_groups[name].size} is wanted" for name in found]
    assert [p.why for p in shown] == wanted
    return found


async def test_apply_finds_groups_of_another_size_and_no_others(cloud: Cloud) -> None:
    def conf(**sizes: int) -> None:
        roles = {GROUP: Role.CONTROL_PLANE, WORK: Role.WORKER}
        groups = {n: NodeGroup(role=roles[n], size=size) for n, size in sizes.items()}
        cloud.config = Config(name="test", node_groups=groups)

    assert _resized(cloud) == ()
    conf(**{GROUP: 3, WORK: 1})  # the workers are new: they are made first
    assert _resized(cloud) == (GROUP,)
    conf(**{GROUP: 3})
    await scale.scale(cloud.context, GROUP, ask=cloud.set_size, write=nothing)
    assert _resized(cloud) == ()
    cloud.size = 2  # one was lost: the operator's affair
    assert _resized(cloud) == ()
    cloud.size = 3
    conf(**{GROUP: 1})
    assert _resized(cloud) == (GROUP,)
    await scale.scale(cloud.context, GROUP, ask=cloud.set_size, write=nothing)
    assert (_resized(cloud), cloud.size) == ((), 1)
    cloud.works = False
    with pytest.raises(Unavailable):
        await cloud.upgrade("0.2.0")
    conf(**{GROUP: 3})
    assert _resized(cloud) == ()  # a roll-out goes on: upgrade first


def test_a_size_outside_the_bounds_is_refused() -> None:
    bounds = Autoscaling(min=2, max=4)
    workers = NodeGroup(role=Role.WORKER, size=2, autoscaling=bounds)
    planes = NodeGroup(role=Role.CONTROL_PLANE, size=1)
    config = Config(name="test", node_groups={GROUP: planes, WORK: workers})
    scale.check_size(config, WORK, 4)
    for size in (1, 5):
        with pytest.raises(UserError, match="expected 2 to 4 nodes"):
            scale.check_size(config, WORK, size)


async def test_no_group_is_scaled_while_a_roll_out_goes_on(cloud: Cloud) -> None:
    cloud.works = False
    with pytest.raises(Unavailable):
        await cloud.upgrade("0.2.0")
    with pytest.raises(Conflict, match="a roll-out goes on"):
        await scale.scale(cloud.context, GROUP, ask=cloud.set_size, write=nothing)
    assert cloud.asked == []
    cloud.works = True
    await cloud.upgrade("0.2.0")
    await scale.scale(cloud.context, GROUP, ask=cloud.set_size, write=nothing)
    assert cloud.asked == [(GROUP, 1)]
