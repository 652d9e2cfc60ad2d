"""A cluster-autoscaler at the operator's door: gRPC's own client, real TLS, the rest in memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from constellation.base import clock
from constellation.base.errors import ConstellationError, UserError
from constellation.crypto.signing import dump_private_key, generate_key, spki
from constellation.crypto.x509 import CertificateAuthority, load_certificate
from constellation.kube.cluster_release import Phase
from constellation.kube.rollout import Bounds
from constellation.rpc.stubs import externalgrpc_pb2 as pb
from constellation.services.operator.autoscaler_door import AutoscalerDoor
from constellation.services.operator.autoscaler_service import CLIENT_URI
from constellation.services.operator.fleet import without
from tests.fakes.rollout_world import CONTROL, NEW_IMAGE, OLD_IMAGE, WORKERS, RolloutWorld, policy
from tests.scenarios.test_rollouts import Drill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from google.protobuf.message import Message

    from constellation.kube.rollout import NodeGroup

SERVICE = "/clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider/"
CALLS: dict[str, tuple[type[Message], type[Message]]] = {
    "NodeGroups": (pb.NodeGroupsRequest, pb.NodeGroupsResponse),
    "NodeGroupForNode": (pb.NodeGroupForNodeRequest, pb.NodeGroupForNodeResponse),
    "PricingNodePrice": (pb.PricingNodePriceRequest, pb.PricingNodePriceResponse),
    "PricingPodPrice": (pb.PricingPodPriceRequest, pb.PricingPodPriceResponse),
    "GPULabel": (pb.GPULabelRequest, pb.GPULabelResponse),
    "GetAvailableGPUTypes": (pb.GetAvailableGPUTypesRequest, pb.GetAvailableGPUTypesResponse),
    "Cleanup": (pb.CleanupRequest, pb.CleanupResponse),
    "Refresh": (pb.RefreshRequest, pb.RefreshResponse),
    "NodeGroupTargetSize": (pb.NodeGroupTargetSizeRequest, pb.NodeGroupTargetSizeResponse),
    "NodeGroupIncreaseSize": (pb.NodeGroupIncreaseSizeRequest, pb.NodeGroupIncreaseSizeResponse),
    "NodeGroupDeleteNodes": (pb.NodeGroupDeleteNodesRequest, pb.NodeGroupDeleteNodesResponse),
    "NodeGroupDecreaseTargetSize": (
        pb.NodeGroupDecreaseTargetSizeRequest,
        pb.NodeGroupDecreaseTargetSizeResponse,
    ),
    "NodeGroupNodes": (pb.NodeGroupNodesRequest, pb.NodeGroupNodesResponse),
    "NodeGroupTemplateNodeInfo": (
        pb.NodeGroupTemplateNodeInfoRequest,
        pb.NodeGroupTemplateNodeInfoResponse,
    ),
    "NodeGroupGetOptions": (
        pb.NodeGroupAutoscalingOptionsRequest,
        pb.NodeGroupAutoscalingOptionsResponse,
    ),
}


class Cluster:
    """3+2 nodes, workers from 1 to 4, six places in the policy, and the door of one operator."""

    def __init__(self, folder: Path) -> None:
        self.world = RolloutWorld.running(control_planes=3, workers=2)
        self.world.policy = dataclasses.replace(self.world.policy, slots={WORKERS: 6})
        self.folder = folder
        self.drill = Drill(self.world)
        self.door = AutoscalerDoor(self.world, groups=self.groups, folder=folder, port=0)

    async def groups(self) -> tuple[NodeGroup, ...]:
        return tuple(self.world.groups.values())

    @property
    def workers(self) -> NodeGroup:
        return self.world.groups[WORKERS]

    def bound(self, bounds: Bounds | None) -> None:
        self.world.groups[WORKERS] = dataclasses.replace(self.workers, bounds=bounds)

    def settings(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "client/cloud-config").read_bytes())
        return found

    def node(self, name: str) -> pb.ExternalGrpcNode:
        """A Node object as the client tells of it."""
        found = next(n for n in self.world._nodes.values() if n.name == name)
        return pb.ExternalGrpcNode(providerID=found.provider_id, name=name)

    async def ask(self, call: str, request: Message | None = None, **pair: bytes) -> Any:
        """Call as the official client does: by what cloud-config names."""
        settings = self.settings()
        credentials = grpc.ssl_channel_credentials(
            root_certificates=pair.get("ca") or _read(settings["cacert"]),
            private_key=pair.get("key") or _read(settings["key"]),
            certificate_chain=pair.get("cert") or _read(settings["cert"]),
        )
        wanted, given = CALLS[call]
        async with grpc.aio.secure_channel(settings["address"], credentials) as channel:
            method = channel.unary_unary(
                SERVICE + call,
                request_serializer=wanted.SerializeToString,
                response_deserializer=given.FromString,
            )
            return await method(request if request is not None else wanted(), timeout=10)

    async def increase(self, delta: int, group: str = WORKERS) -> None:
        request = pb.NodeGroupIncreaseSizeRequest(id=group, delta=delta)
        await self.ask("NodeGroupIncreaseSize", request)

    async def decrease(self, delta: int, group: str = WORKERS) -> None:
        request = pb.NodeGroupDecreaseTargetSizeRequest(id=group, delta=delta)
        await self.ask("NodeGroupDecreaseTargetSize", request)

    async def delete(self, *nodes: pb.ExternalGrpcNode, group: str = WORKERS) -> None:
        request = pb.NodeGroupDeleteNodesRequest(id=group, nodes=nodes)
        await self.ask("NodeGroupDeleteNodes", request)

    async def listed(self) -> dict[str, int]:
        reply = await self.ask("NodeGroupNodes", pb.NodeGroupNodesRequest(id=WORKERS))
        return {i.id: i.status.instanceState for i in reply.instances}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - a path of somebody else's file
        return file.read()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    one = Cluster(tmp_path)
    await one.drill.until_idle()
    one.bound(Bounds(least=1, most=4))
    await one.drill.until_idle()
    await one.door.once()
    yield one
    await one.door.close()
    await one.drill.close()


@contextlib.contextmanager
def refused(*codes: grpc.StatusCode, saying: str = "") -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert caught.value.code() in codes, caught.value
    assert saying in (caught.value.details() or "")


BAD = (grpc.StatusCode.INVALID_ARGUMENT,)
NOT_NOW = (grpc.StatusCode.FAILED_PRECONDITION,)
AWAY = (grpc.StatusCode.UNAVAILABLE,)
UNKNOWN = (grpc.StatusCode.UNAUTHENTICATED,)
LESS = (grpc.StatusCode.UNIMPLEMENTED,)
WORKER, OTHER = "worker-default-0", "worker-default-1"


async def test_groups_with_bounds_are_shown_and_their_nodes_are_found(cluster: Cluster) -> None:
    (group,) = (await cluster.ask("NodeGroups")).nodeGroups
    assert (group.id, group.minSize, group.maxSize) == (WORKERS, 1, 4)
    size = await cluster.ask("NodeGroupTargetSize", pb.NodeGroupTargetSizeRequest(id=WORKERS))
    assert size.targetSize == 2
    running = pb.InstanceStatus.instanceRunning
    node = cluster.node(WORKER)
    assert node.providerID.startswith("constellation://i-"), "the operator has named it"
    assert await cluster.listed() == dict.fromkeys(
        (node.providerID, cluster.node(OTHER).providerID), running
    )
    for known in (node, pb.ExternalGrpcNode(name=WORKER)):
        reply = await cluster.ask("NodeGroupForNode", pb.NodeGroupForNodeRequest(node=known))
        assert reply.nodeGroup.id == WORKERS
    control_plane = cluster.node("control-plane-default-0")
    for other in (control_plane, pb.ExternalGrpcNode(name="x", providerID="y")):
        reply = await cluster.ask("NodeGroupForNode", pb.NodeGroupForNodeRequest(node=other))
        assert reply.nodeGroup.id == ""


async def test_the_policys_slots_are_above_an_objects_bounds(cluster: Cluster) -> None:
    cluster.bound(Bounds(least=1, most=900))
    await cluster.ask("Refresh")
    (group,) = (await cluster.ask("NodeGroups")).nodeGroups
    assert group.maxSize == 6
    with refused(*NOT_NOW, saying="at most 6"):
        await cluster.increase(5)
    await cluster.increase(4)


async def test_more_nodes_are_made_until_the_bound(cluster: Cluster) -> None:
    await cluster.increase(2)
    assert cluster.workers.size == 4
    await cluster.drill.until_idle()
    assert sum(n.startswith("worker") for n in cluster.world.names()) == 4
    await cluster.ask("Refresh")
    assert len(await cluster.listed()) == 4
    with refused(*NOT_NOW, saying="expected at most 4"):
        await cluster.increase(1)
    assert cluster.workers.size == 4


async def test_the_node_that_was_named_goes_and_no_other(cluster: Cluster) -> None:
    # the planner itself would take the first one by name
    await cluster.delete(cluster.node(OTHER))
    await cluster.ask("Refresh")
    assert sorted((await cluster.listed()).values()) == [
        pb.InstanceStatus.instanceRunning,
        pb.InstanceStatus.instanceDeleting,
    ]
    assert cluster.workers.size == 1
    await cluster.drill.until_idle()
    assert [n for n in cluster.world.names() if n.startswith("worker")] == [WORKER]
    assert cluster.workers.leaving == (), "the object does not keep it"
    assert cluster.world.broken == []


async def test_a_node_named_twice_or_again_counts_once(cluster: Cluster) -> None:
    node = cluster.node(WORKER)
    await cluster.delete(node, node)
    await cluster.delete(node)
    assert cluster.workers.size == 1


async def test_a_node_that_goes_already_costs_the_group_nothing(cluster: Cluster) -> None:
    await cluster.world.mark_leaving(WORKER)
    await cluster.delete(cluster.node(WORKER))
    assert (cluster.workers.size, cluster.workers.leaving) == (2, ())


async def test_a_node_of_another_scaled_group_is_refused(cluster: Cluster) -> None:
    fleet = await cluster.world.fleet()
    other = dataclasses.replace(cluster.workers, name="other")
    machine = dataclasses.replace(fleet.instances[-1], instance_id="i-other", group="other")
    slots = {WORKERS: 6, "other": 6}
    fleet = dataclasses.replace(
        fleet,
        policy=dataclasses.replace(fleet.policy, slots=slots),
        groups=(*fleet.groups, other),
        instances=(*fleet.instances, machine),
    )
    node = ("constellation://i-other", "")
    assert without(fleet, "other", nodes=(node,)).leaving == ("i-other",)
    with pytest.raises(UserError, match="is no node of it"):
        without(fleet, WORKERS, nodes=(node,))


async def test_a_machine_that_never_became_a_node_goes_by_its_id(cluster: Cluster) -> None:
    cluster.world.next_broken = True
    await cluster.increase(1)
    await cluster.drill.turn()
    await cluster.drill.turn()
    await cluster.ask("Refresh")
    (coming,) = [
        i for i, s in (await cluster.listed()).items() if s == pb.InstanceStatus.instanceCreating
    ]
    await cluster.delete(pb.ExternalGrpcNode(providerID=coming, name=coming))
    await cluster.drill.until_idle()
    assert cluster.workers.size == 2
    assert coming.removeprefix("constellation://") not in cluster.world.instance_ids()


async def test_what_was_not_made_yet_is_taken_back_but_no_machine_that_exists(
    cluster: Cluster,
) -> None:
    await cluster.increase(2)
    await cluster.decrease(-1)
    assert cluster.workers.size == 3
    with refused(*NOT_NOW, saying="2 machines exist"):
        await cluster.decrease(-2)
    assert cluster.workers.size == 3


async def test_fewer_than_the_bound_never_stay(cluster: Cluster) -> None:
    cluster.bound(Bounds(least=2, most=4))
    with refused(*NOT_NOW, saying="expected at least 2"):
        await cluster.delete(cluster.node(WORKER))
    assert (cluster.workers.size, cluster.workers.leaving) == (2, ())


@pytest.mark.parametrize("delta", [0, -1, -(2**31)])
async def test_a_delta_that_is_no_growth_is_refused(cluster: Cluster, delta: int) -> None:
    with refused(*BAD):
        await cluster.increase(delta)
    with refused(*BAD):
        await cluster.decrease(-max(delta, -(2**31) + 1))
    with refused(*NOT_NOW):
        await cluster.increase(2**31 - 1)
    assert cluster.workers.size == 2


@pytest.mark.parametrize("group", ["", CONTROL, "other", "w" * 100_000])
async def test_a_group_that_is_not_scaled_is_none(cluster: Cluster, group: str) -> None:
    with refused(*BAD):
        await cluster.increase(1, group)
    with refused(*BAD):
        await cluster.decrease(-1, group)
    with refused(*BAD):
        await cluster.delete(cluster.node(WORKER), group=group)
    with refused(*BAD):
        await cluster.ask("NodeGroupTargetSize", pb.NodeGroupTargetSizeRequest(id=group))
    with refused(*BAD):
        await cluster.ask("NodeGroupNodes", pb.NodeGroupNodesRequest(id=group))


async def test_nodes_of_others_and_too_many_are_refused(cluster: Cluster) -> None:
    strangers = (
        cluster.node("control-plane-default-1"),
        pb.ExternalGrpcNode(name="control-plane-default-1"),
        pb.ExternalGrpcNode(name="nobody", providerID="constellation://i-999"),
        pb.ExternalGrpcNode(),
        pb.ExternalGrpcNode(name="n" * 301),
        # its name is a worker's, its machine a control plane's
        pb.ExternalGrpcNode(
            name=WORKER, providerID=f"constellation://{min(cluster.world.instance_ids())}"
        ),
    )
    for stranger in strangers:
        with refused(*BAD):
            await cluster.delete(cluster.node(WORKER), stranger)
    with refused(*BAD):
        await cluster.delete()
    with refused(*BAD):
        await cluster.delete(*[cluster.node(WORKER)] * 101)
    assert (cluster.workers.size, cluster.workers.leaving) == (2, ())


async def test_no_group_is_scaled_while_a_roll_out_goes_on(cluster: Cluster) -> None:
    node = cluster.node(WORKER)
    rolling = policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes="v1.36.2")
    cluster.world.policy = dataclasses.replace(rolling, slots={WORKERS: 6})
    with refused(*NOT_NOW, saying="a roll-out goes on"):
        await cluster.increase(1)
    with refused(*NOT_NOW, saying="a roll-out goes on"):
        await cluster.delete(node)
    assert cluster.workers.size == 2


async def test_two_writers_do_not_overwrite_each_other(cluster: Cluster) -> None:
    fleet = await cluster.world.fleet()
    await cluster.increase(1)
    read = next(g for g in fleet.groups if g.name == WORKERS)
    with pytest.raises(ConstellationError, match="version"):
        await cluster.world.change_group(dataclasses.replace(read, size=1))
    await cluster.ask("NodeGroups")  # remembered
    fleet = await cluster.world.fleet()
    read = next(g for g in fleet.groups if g.name == WORKERS)
    await cluster.world.change_group(dataclasses.replace(read, size=2))
    await cluster.increase(1)
    assert cluster.workers.size == 3, "decided by what is now"
    await asyncio.gather(*(cluster.increase(1) for _ in range(4)), return_exceptions=True)
    assert cluster.workers.size == 4


@pytest.mark.parametrize(
    "call",
    ["PricingNodePrice", "PricingPodPrice", "NodeGroupTemplateNodeInfo", "NodeGroupGetOptions"],
)
async def test_what_is_not_known_is_said_to_be_so(cluster: Cluster, call: str) -> None:
    with refused(*LESS):
        await cluster.ask(call)


async def test_the_rest_of_the_protocol_is_answered(cluster: Cluster) -> None:
    assert (await cluster.ask("GPULabel")).label
    assert not (await cluster.ask("GetAvailableGPUTypes")).gpuTypes
    await cluster.ask("Cleanup")


async def test_only_the_one_certificate_may_call(cluster: Cluster, tmp_path: Path) -> None:
    now = clock.now()
    stranger = CertificateAuthority.create("services", now=now, lifetime=timedelta(hours=1))
    key = generate_key()
    pem = dump_private_key(key).reveal()

    def certified(by: CertificateAuthority, uri: str) -> bytes:
        return by.issue(
            spki(key.public_key()),
            common_name="autoscaler client",
            uris=(uri,),
            usage="client",
            now=now,
            lifetime=timedelta(hours=1),
        )

    with refused(*AWAY):  # of the cluster's own authority for services, say
        await cluster.ask("NodeGroups", key=pem, cert=certified(stranger, CLIENT_URI))
    own = cluster.door._authority
    assert own is not None
    with refused(*UNKNOWN):
        await cluster.ask("NodeGroups", key=pem, cert=certified(own, "constellation://else"))
    with refused(*AWAY):  # the server's: it may not call
        await cluster.ask(
            "NodeGroups",
            key=(tmp_path / "server/tls.key").read_bytes(),
            cert=(tmp_path / "server/tls.crt").read_bytes(),
        )
    await cluster.ask("NodeGroups", key=pem, cert=certified(own, CLIENT_URI))
    settings = cluster.settings()
    async with grpc.aio.insecure_channel(settings["address"]) as channel:
        method = channel.unary_unary(
            SERVICE + "NodeGroups",
            request_serializer=pb.NodeGroupsRequest.SerializeToString,
            response_deserializer=pb.NodeGroupsResponse.FromString,
        )
        with refused(*AWAY, grpc.StatusCode.DEADLINE_EXCEEDED):
            await method(pb.NodeGroupsRequest(), timeout=5)


async def test_the_door_is_open_while_a_group_has_bounds(cluster: Cluster, tmp_path: Path) -> None:
    client = tmp_path / "client"
    assert {p.name for p in client.iterdir()} == {"tls.crt", "tls.key", "ca.crt", "cloud-config"}
    for path in tmp_path.rglob("*.*"):
        assert path.is_dir() or path.stat().st_mode & 0o077 == 0, path
    settings = cluster.settings()
    assert settings["address"] == f"127.0.0.1:{cluster.door.port}"
    cluster.bound(None)
    await cluster.door.once()
    assert cluster.door.port == 0
    assert list(client.iterdir()) == []
    host, _, port = settings["address"].rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
    cluster.bound(Bounds(least=1, most=4))
    await cluster.door.once()
    await cluster.ask("NodeGroups")


async def test_its_certificates_are_short_and_no_key_of_their_authority_is_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    authority = load_certificate((tmp_path / "client/ca.crt").read_bytes())
    for end in ("server", "client"):
        found = load_certificate((tmp_path / end / "tls.crt").read_bytes())
        found.verify_directly_issued_by(authority)
        life = found.not_valid_after_utc - found.not_valid_before_utc
        assert life <= timedelta(hours=24)
    own = cluster.door._authority
    assert own is not None
    secret = own.key_pem.reveal()
    assert all(secret not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


async def test_without_bounds_nothing_of_it_is_there(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.drill.until_idle()
    await cluster.door.once()
    assert cluster.door.port == 0
    assert list(tmp_path.iterdir()) == []
    assert all(not n.provider_id for n in cluster.world._nodes.values())


async def test_a_dead_node_that_is_asked_to_leave_goes_as_the_dead_do(cluster: Cluster) -> None:
    node = cluster.node(WORKER)
    cluster.world.power_off(WORKER)
    for _ in range(70):
        await cluster.drill.turn()
        if WORKER not in cluster.world.names():
            break
    status = cluster.world.status
    assert status is not None
    assert status.phase is not Phase.STOPPED
    await cluster.drill.until_idle()
    assert len(cluster.world.instance_ids()) == 5
    # it is gone, and another has its place: its old id is nobody's
    with refused(*BAD):
        await cluster.delete(pb.ExternalGrpcNode(providerID=node.providerID, name="gone"))
