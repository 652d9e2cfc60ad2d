"""Answers the official cluster-autoscaler (`externalgrpc.proto`): what it may know and ask for.

One client, on this machine: `autoscaler_door` says how it gets in. Every answer comes from a look
at most 5 s old, and none older than the client's last `Refresh`; what it asks is a new size of a
NodeGroup object, which the leading operator follows as it does for `constellation scale`. Prices,
templates and options are UNIMPLEMENTED: the client has its own way without them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from constellation.base import clock
from constellation.base.errors import FormatError, Untrusted
from constellation.rpc.errors import raise_status
from constellation.rpc.mutual_tls import peer_uris
from constellation.rpc.stubs import externalgrpc_pb2 as pb
from constellation.rpc.stubs.externalgrpc_grpc import CloudProviderBase
from constellation.services.operator.fleet import (
    MachineState,
    Scaled,
    decreased,
    group_of,
    increased,
    machines,
    scaled,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpclib.server import Stream

    from constellation.kube.rollout import NodeGroup
    from constellation.services.operator.fleet import Fleet

__all__ = ["CLIENT_URI", "AutoscalerService", "Sight"]

CLIENT_URI = "constellation://autoscaler/client"
"""URI SAN of the one certificate that may call."""

_FRESH_S = 5.0
_GPU_LABEL = "constellation.internal/gpu"
_STATES = {
    MachineState.RUNNING: pb.InstanceStatus.instanceRunning,
    MachineState.CREATING: pb.InstanceStatus.instanceCreating,
    MachineState.DELETING: pb.InstanceStatus.instanceDeleting,
}
_log = logging.getLogger(__name__)


class Sight(Protocol):
    """What the service sees of the cluster, and the one thing that it may change."""

    async def fleet(self) -> Fleet:
        """Look once."""
        ...

    async def change_group(self, group: NodeGroup) -> None:
        """Write a group that was read before. Raises Conflict: it was changed meanwhile."""
        ...


class AutoscalerService(CloudProviderBase):
    """The calls of `CloudProvider`."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._look = asyncio.Lock()
        self._fleet: Fleet | None = None
        self._at_s = float("-inf")

    async def NodeGroups(self, stream: Stream[Any, Any]) -> None:  # noqa: N802 - the protocol's
        """List the groups that have bounds."""
        with raise_status():
            await _request(stream)
            groups = [_group(s) for s in scaled(await self._seen())]
            await stream.send_message(pb.NodeGroupsResponse(nodeGroups=groups))

    async def NodeGroupForNode(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Say to which group a Node belongs; an empty id: none that is scaled."""
        with raise_status():
            node = (await _request(stream)).node
            found = group_of(await self._seen(), provider_id=node.providerID, name=node.name)
            group = _group(found) if found is not None else pb.NodeGroup()
            await stream.send_message(pb.NodeGroupForNodeResponse(nodeGroup=group))

    async def NodeGroupTargetSize(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Say how many nodes are wanted."""
        with raise_status():
            group = (await _request(stream)).id
            fleet = await self._seen()
            machines(fleet, group)  # there is such a group
            size = next(s.group.size for s in scaled(fleet) if s.group.name == group)
            await stream.send_message(pb.NodeGroupTargetSizeResponse(targetSize=size))

    async def NodeGroupNodes(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """List the machines of a group."""
        with raise_status():
            group = (await _request(stream)).id
            found = [
                pb.Instance(
                    id=m.provider_id,
                    status=pb.InstanceStatus(
                        instanceState=_STATES[m.state], errorInfo=pb.InstanceErrorInfo()
                    ),
                )
                for m in machines(await self._seen(), group)
            ]
            await stream.send_message(pb.NodeGroupNodesResponse(instances=found))

    async def NodeGroupIncreaseSize(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Ask for more nodes."""
        with raise_status():
            asked = await _request(stream)
            await self._change(lambda fleet: increased(fleet, asked.id, delta=asked.delta))
            await stream.send_message(pb.NodeGroupIncreaseSizeResponse())

    async def NodeGroupDecreaseTargetSize(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Take back what was asked for and is not there."""
        with raise_status():
            asked = await _request(stream)
            await self._change(lambda fleet: decreased(fleet, asked.id, delta=asked.delta))
            await stream.send_message(pb.NodeGroupDecreaseTargetSizeResponse())

    async def NodeGroupDeleteNodes(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Let these nodes go."""
        with raise_status():
            asked = await _request(stream)
            nodes = tuple((n.providerID, n.name) for n in asked.nodes)
            await self._change(lambda fleet: without(fleet, asked.id, nodes=nodes))
            await stream.send_message(pb.NodeGroupDeleteNodesResponse())

    async def Refresh(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Forget what was seen, and look."""
        with raise_status():
            await _request(stream)
            self._fleet = None
            await self._seen()
            await stream.send_message(pb.RefreshResponse())

    async def Cleanup(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Nothing is held for a client."""
        with raise_status():
            await _request(stream)
            await stream.send_message(pb.CleanupResponse())

    async def GPULabel(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Name a label that no node has: the client wants one."""
        with raise_status():
            await _request(stream)
            await stream.send_message(pb.GPULabelResponse(label=_GPU_LABEL))

    async def GetAvailableGPUTypes(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """There are none."""
        with raise_status():
            await _request(stream)
            await stream.send_message(pb.GetAvailableGPUTypesResponse())

    async def PricingNodePrice(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Not known."""
        await _unimplemented(stream)

    async def PricingPodPrice(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """Not known."""
        await _unimplemented(stream)

    async def NodeGroupTemplateNodeInfo(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """The client takes a node that runs for the template: no group is without one."""
        await _unimplemented(stream)

    async def NodeGroupGetOptions(self, stream: Stream[Any, Any]) -> None:  # noqa: N802
        """The client's own options count."""
        await _unimplemented(stream)

    async def _seen(self) -> Fleet:
        async with self._look:  # who waits gets what the one before saw
            now_s = clock.monotonic_s()
            if self._fleet is None or now_s - self._at_s > _FRESH_S:
                self._fleet = await self._sight.fleet()
                self._at_s = now_s
            return self._fleet

    async def _change(self, decide: Callable[[Fleet], NodeGroup]) -> None:
        """Decide by a look of now, and write; the object's version keeps two writers apart."""
        async with self._look:
            self._fleet = None
            fleet = await self._sight.fleet()
            group = decide(fleet)
            if group not in fleet.groups:
                await self._sight.change_group(group)
                _log.info(
                    "the autoscaler gave a group another size",
                    extra={"group": group.name, "size": group.size, "leaving": len(group.leaving)},
                )


def _group(found: Scaled) -> pb.NodeGroup:
    return pb.NodeGroup(
        id=found.group.name,
        minSize=found.least,
        maxSize=found.most,
        debug=f"{found.group.name}: {found.group.size} of {found.least} to {found.most}",
    )


async def _request(stream: Stream[Any, Any]) -> Any:
    """Give the request of the one caller that there is. Raises Untrusted, FormatError."""
    if CLIENT_URI not in peer_uris(stream):
        raise Untrusted("autoscaler: the caller's certificate is another one's")
    request = await stream.recv_message()
    if request is None:
        raise FormatError("autoscaler: the caller ended the call before its request")
    return request


async def _unimplemented(stream: Stream[Any, Any]) -> None:
    with raise_status():
        await _request(stream)
    raise GRPCError(Status.UNIMPLEMENTED, "not known here")
