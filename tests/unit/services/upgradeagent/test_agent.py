"""One control plane goes to another version; killed at any move, the next call finishes it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, Rejected, Unavailable
from constellation.base.retry import until_available
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import NodeRecord
from constellation.releases.delivery import ArtifactMissing
from constellation.rpc.upgrade_client import UpgradeClient
from constellation.services.upgradeagent import manifests
from constellation.services.upgradeagent.agent import Agent
from constellation.services.upgradeagent.judge import Target
from constellation.services.upgradeagent.server import serve
from tests.fakes.control_plane import NEW, OLD, Host, Policies

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.cluster_policy import ClusterPolicy

TARGET = Target(policy_serial=2, kubernetes=NEW)
RECORD = NodeRecord(
    name="control-plane-0",
    instance_id="cp-0",
    role=NodeRole.CONTROL_PLANE,
    group="control-plane",
    address="127.0.0.1",
    mesh_address="10.43.0.1",
    pod_cidr="10.244.0.0/24",
    pod_network="10.244.0.0/16",
    mesh_cidr="10.43.0.0/16",
    service_cidr="10.96.0.0/12",
    cluster_id=bytes(32),
    disk_uuid=bytes(16),
    endpoint="10.42.0.1:6443",
    kubernetes_version=OLD,
    artifact_list=b"{}",
    time=0,
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(home=tmp_path)


@pytest.fixture
def policies(host: Host, monkeypatch: pytest.MonkeyPatch) -> Policies:
    return host.install(monkeypatch)


def agent(host: Host, policies: Policies) -> Agent:
    return Agent(
        record=RECORD,
        policies=policies,
        etcd=host,
        paths=host.paths,
        settle=host.settle,
        api_port=host.port,
    )


def versions(host: Host) -> set[str]:
    paths = host.paths
    return {
        manifests.image_tag((paths.manifests / f"{name}.yaml").read_bytes())
        for name in manifests.COMPONENTS
    }


async def test_the_static_pods_get_the_version_and_the_images_come_first(
    host: Host, policies: Policies
) -> None:
    async with host.api_server():
        await agent(host, policies).upgrade(TARGET)
    assert versions(host) == {NEW}
    diary = host.diary()
    assert diary[-1] == "kubeadm upgrade node phase control-plane"
    assert [line for line in diary if line == "ctr import"] == ["ctr import"] * 3
    # neither images nor manifests are on the disk because a program that wrote them has ended
    assert host.settled == [
        ("containerd", diary.index("kubeadm upgrade node phase control-plane")),
        ("manifests", len(diary)),
    ]


@pytest.mark.parametrize("moves", range(6))
async def test_killed_at_any_move_the_next_call_finishes_it(
    host: Host, policies: Policies, moves: int
) -> None:
    host.kubeadm_dies_after(moves)
    async with host.api_server():
        with pytest.raises(Unavailable):
            await agent(host, policies).upgrade(TARGET)
        host.kubeadm_lives()
        await agent(host, policies).upgrade(TARGET)
    assert versions(host) == {NEW}
    assert host.diary().count("ctr import") == 3


@pytest.mark.parametrize("moves", range(6))
async def test_a_node_without_another_api_server_is_whole_again_by_itself(
    host: Host, policies: Policies, moves: int
) -> None:
    host.kubeadm_dies_after(moves)
    async with host.api_server():
        with pytest.raises(Unavailable):
            await agent(host, policies).upgrade(TARGET)
        host.kubeadm_lives()
        agent(host, policies).mend()  # the node's next start: nobody could order anything
        assert versions(host) <= {OLD, NEW}
        await agent(host, policies).upgrade(TARGET)
    assert versions(host) == {NEW}


@pytest.mark.parametrize("name", [*manifests.COMPONENTS, "etcd"])
@pytest.mark.parametrize("left", [None, b""])
async def test_a_manifest_that_a_power_cut_took_or_emptied_is_put_back(
    host: Host, policies: Policies, name: str, left: bytes | None
) -> None:
    manifest = host.paths.manifests / f"{name}.yaml"
    was = manifest.read_bytes()
    for folder, data in (
        ("kubeadm-backup-manifests-2026-11-29-10-00-01", was),
        ("kubeadm-backup-manifests-2026-11-29-10-00-02", b""),
        # kept by an earlier upgrade, while the machine's clock was ahead
        ("kubeadm-backup-manifests-2031-01-01-00-00-00", _older(was)),
    ):
        backup = host.paths.kubernetes / "tmp" / folder
        backup.mkdir(parents=True)
        (backup / manifest.name).write_bytes(data)
    if left is None:
        manifest.unlink()
    else:
        manifest.write_bytes(left)
    agent(host, policies).mend()
    assert manifest.read_bytes() == was


def _older(manifest: bytes) -> bytes:
    return manifest.replace(OLD.encode(), b"v1.34.9").replace(b"3.6.8-0", b"3.5.24-0")


async def test_images_of_a_cut_off_import_are_pinned_all_the_same(
    host: Host, policies: Policies
) -> None:
    (host.home / "images").write_text(f"registry.k8s.io/kube-apiserver:{NEW}\n")
    async with host.api_server():
        await agent(host, policies).upgrade(TARGET)
    assert (host.diary().count("ctr import"), host.diary().count("ctr label")) == (2, 3)


@dataclasses.dataclass(kw_only=True)
class TurnsBack(Policies):
    """An owner who turns back while the images come."""

    host: Host

    def verified(self) -> ClusterPolicy:
        if "ctr import" not in self.host.diary():
            return self.policy
        lists = {**self.policy.artifact_lists, OLD: bytes(32)}
        return dataclasses.replace(
            self.policy, serial=3, kubernetes_version=OLD, artifact_lists=lists
        )


async def test_who_turns_back_while_the_images_come_is_heard(
    host: Host, policies: Policies
) -> None:
    turning = TurnsBack(policy=policies.policy, lists=policies.lists, host=host)
    async with host.api_server():
        with pytest.raises(Conflict, match="the order is of policy 2, this node obeys 3"):
            await agent(host, turning).upgrade(TARGET)
    assert versions(host) == {OLD}


async def test_a_retired_control_plane_is_not_brought_back(host: Host, policies: Policies) -> None:
    async with host.api_server():
        await agent(host, policies).upgrade(TARGET)
        await agent(host, policies).retire()
        agent(host, policies).mend()
        with pytest.raises(Conflict, match="ended for good"):
            await agent(host, policies).upgrade(TARGET)
    assert {p.name for p in host.paths.manifests.iterdir()} == {"etcd.yaml"}


async def test_done_once_more_changes_nothing(host: Host, policies: Policies) -> None:
    async with host.api_server():
        await agent(host, policies).upgrade(TARGET)
        before = {p.name: p.read_bytes() for p in host.paths.manifests.iterdir()}
        await agent(host, policies).upgrade(TARGET)
    assert {p.name: p.read_bytes() for p in host.paths.manifests.iterdir()} == before
    assert host.diary().count("ctr import") == 3


@pytest.mark.parametrize("address", [RECORD.address, "10.244.1.1", "169.254.169.254"])
async def test_on_a_cloud_files_come_from_the_policys_sources_and_from_no_inner_address(
    host: Host, policies: Policies, address: str
) -> None:
    record = dataclasses.replace(RECORD, provider="aws")
    policies.policy = dataclasses.replace(
        policies.policy, artifact_sources=("https://files.example", f"http://{RECORD.address}")
    )
    asked: list[str] = []

    async def ask(name: str, _port: int) -> tuple[str, ...]:
        asked.append(name)
        return (address,)

    own = Agent(
        record=record, policies=policies, etcd=host, paths=host.paths, settle=host.settle, ask=ask
    )
    async with host.api_server():
        with pytest.raises(ArtifactMissing, match=f"is {address}: no request goes there"):
            await own.upgrade(TARGET)
    assert set(asked) == {"files.example", RECORD.address}
    assert versions(host) == {OLD}
    # what lies on the state disk already is used, and nobody is asked
    (host.paths.disk / "artifacts").mkdir(parents=True, exist_ok=True)
    host.store.rename(host.paths.disk / "artifacts/sha256")
    asked.clear()
    async with host.api_server() as port:
        del port
        await Agent(
            record=record, policies=policies, etcd=host, paths=host.paths, settle=host.settle,
            api_port=host.port, ask=ask,
        ).upgrade(TARGET)  # fmt: skip
    assert (versions(host), asked) == ({NEW}, [])


async def test_no_byte_of_a_damaged_artifact_is_used(host: Host, policies: Policies) -> None:
    for path in host.store.iterdir():
        if path.read_bytes().startswith(b"#!"):
            path.write_bytes(path.read_bytes() + b"# one byte more\n")
    async with host.api_server():
        with pytest.raises(Rejected, match="artifact kubeadm"):
            await agent(host, policies).upgrade(TARGET)
    assert versions(host) == {OLD}
    assert host.diary() == []


async def test_a_list_that_was_exchanged_is_refused(host: Host, policies: Policies) -> None:
    policies.lists[NEW] = policies.lists[NEW].replace(b"kubeadm", b"kubeadn")
    with pytest.raises(Rejected, match="artifact list"):
        await agent(host, policies).upgrade(TARGET)
    assert versions(host) == {OLD}


async def test_an_api_server_that_does_not_come_back_is_no_success(
    host: Host, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constellation.services.upgradeagent.agent._READY_S", 0.3)
    with pytest.raises(Unavailable, match="API server at"):
        await agent(host, policies).upgrade(TARGET)


async def test_a_snapshot_is_taken_once_for_a_policy_and_the_last_two_stay(
    host: Host, policies: Policies
) -> None:
    for serial in (2, 3, 4):
        policies.policy = dataclasses.replace(policies.policy, serial=serial)
        host.snapshot_data = b"data %d" % serial
        target = dataclasses.replace(TARGET, policy_serial=serial)
        await agent(host, policies).snapshot(target)
        host.snapshot_data = b"later"
        await agent(host, policies).snapshot(target)
        assert agent(host, policies).has_snapshot(serial)
    kept = sorted(host.paths.upgrade.glob("*"))
    assert [(p.name, p.read_bytes()) for p in kept] == [
        ("etcd-3.db", b"data 3"),
        ("etcd-4.db", b"data 4"),
    ]
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in kept)


async def test_rbac_runs_kubeadms_phase_and_deletes_what_lets_token_holders_join(
    host: Host, policies: Policies
) -> None:
    await agent(host, policies).rbac(TARGET)
    diary = host.diary()
    assert diary[0] == "kubeadm upgrade apply phase bootstrap-token"
    assert "kubeadm:node-autoapprove-bootstrap" in diary[-1]
    assert "clusterrolebindings" in diary[-1]


async def test_a_retired_control_plane_ends_its_api_server_last_and_stays_so(
    host: Host, policies: Policies
) -> None:
    async with host.api_server():
        await agent(host, policies).retire()
        await agent(host, policies).retire()
    left = {p.name for p in host.paths.manifests.iterdir()}
    assert left == {"etcd.yaml"}
    assert len(list(host.paths.retired.iterdir())) == 3


async def test_over_its_socket_it_obeys_the_kept_policy_and_no_order_for_another_node(
    host: Host, policies: Policies
) -> None:
    socket = host.home / "agent.sock"
    async with host.api_server():
        server = await serve(agent(host, policies), socket)
        try:
            client = UpgradeClient(socket)
            before = await client.describe()
            assert (before.policy_serial, before.api_server, before.snapshot) == (2, OLD, False)
            with pytest.raises(Conflict, match="another node"):
                await client.retire(node="control-plane-1")
            with pytest.raises(Conflict, match="this node obeys 2"):
                await client.upgrade(serial=3, kubernetes=NEW)
            assert versions(host) == {OLD}
            await client.snapshot(serial=2, kubernetes=NEW)
            await client.upgrade(serial=2, kubernetes=NEW)
            after = await client.describe()
            assert (after.api_server, after.snapshot) == (NEW, True)
        finally:
            server.close()


async def test_a_run_goes_on_when_its_caller_hangs_up(host: Host, policies: Policies) -> None:
    socket = host.home / "agent.sock"
    async with host.api_server():
        server = await serve(agent(host, policies), socket)
        try:
            client = UpgradeClient(socket)
            call = asyncio.create_task(client.upgrade(serial=2, kubernetes=NEW))
            await until_available(host.began, deadline_s=20, longest_pause_s=0.02)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await until_available(host.upgraded, deadline_s=30, longest_pause_s=0.05)
        finally:
            server.close()
    assert versions(host) == {NEW}
    assert host.diary().count("ctr import") == 3
