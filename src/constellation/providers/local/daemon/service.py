"""The daemon's gRPC service (`daemon.proto`): messages to calls, errors to statuses.

A `ConstellationError` travels as a status whose message is "<class>: <message>" and whose details
are empty; the client makes the same class of it (`infrastructure.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from constellation.base import errors
from constellation.base.errors import ConstellationError
from constellation.providers.local.daemon import loading
from constellation.providers.local.daemon.network import BALANCER
from constellation.providers.protocols import Desired, Group, Role
from constellation.rpc.stubs import daemon_pb2 as pb
from constellation.rpc.stubs.daemon_grpc import LocalCloudBase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from grpclib.server import Stream

    from constellation.base.progress import Progress, Report
    from constellation.providers.local.daemon.cloud import Cloud

__all__ = ["LocalCloud"]

_log = logging.getLogger(__name__)
_API_PORT = 6443
_MIN_DISK_BYTES = 64 * 1024 * 1024


class LocalCloud(LocalCloudBase):
    """Serves one cloud; `destroy` ends it and then the daemon."""

    def __init__(self, cloud: Cloud, destroy: Callable[[bool, Report], Awaitable[None]]) -> None:
        self._cloud, self._destroy = cloud, destroy

    async def Observe(self, stream: Stream[pb.ObserveRequest, pb.Cloud]) -> None:  # noqa: N802
        """Give the cloud as it is now."""
        await stream.recv_message()
        record = self._cloud.record
        nodes = [
            pb.Node(
                instance_id=n.instance_id,
                group=n.group,
                role=str(n.role),
                address=n.address,
                state=self._cloud.state(n),
                init_port=n.init_port,
                recovery_port=n.recovery_port,
                verify_port=n.verify_port,
                policy_port=n.policy_port,
                pid=n.init.pid if self._cloud.state(n) == "running" else 0,
                image=n.image_digest,
            )
            for n in record.nodes
        ]
        await stream.send_message(
            pb.Cloud(
                id=record.id,
                address=record.address,
                ca_certificate=self._cloud.ca_der,
                nodes=nodes,
                inner_endpoint=f"{BALANCER}:{_API_PORT}",
            )
        )

    async def Apply(self, stream: Stream[pb.ApplyRequest, pb.Progress]) -> None:  # noqa: N802
        """Bring groups to their sizes."""
        request = await stream.recv_message()
        if request is None:
            return
        with _errors():
            desired = _desired(request)
        offline = request.offline
        await _stream(
            stream, lambda report: self._cloud.apply(desired, offline=offline, report=report)
        )

    async def Power(self, stream: Stream[pb.PowerRequest, pb.PowerReply]) -> None:  # noqa: N802
        """Switch a node on, off, or off and on."""
        request = await stream.recv_message()
        if request is None:
            return
        with _errors():
            await self._cloud.power(
                request.instance_id, request.action, image_path=request.image_path
            )
        await stream.send_message(pb.PowerReply())

    async def Delete(self, stream: Stream[pb.DeleteRequest, pb.DeleteReply]) -> None:  # noqa: N802
        """Remove a node."""
        request = await stream.recv_message()
        if request is None:
            return
        with _errors():
            await self._cloud.delete(request.instance_id)
        await stream.send_message(pb.DeleteReply())

    async def Console(self, stream: Stream[pb.ConsoleRequest, pb.ConsoleReply]) -> None:  # noqa: N802
        """Give the end of a node's console."""
        request = await stream.recv_message()
        if request is None:
            return
        with _errors():
            text = await self._cloud.console(request.instance_id)
        await stream.send_message(pb.ConsoleReply(text=text))

    async def LoadImage(  # noqa: N802
        self, stream: Stream[pb.LoadImageRequest, pb.LoadImageReply]
    ) -> None:
        """Take an image into the registry."""
        with _errors():
            await loading.load(stream, self._cloud.store)
        await stream.send_message(pb.LoadImageReply())

    async def Destroy(self, stream: Stream[pb.DestroyRequest, pb.Progress]) -> None:  # noqa: N802
        """Remove everything, then end the daemon."""
        request = await stream.recv_message()
        if request is None:
            return
        keep = request.keep_disks
        await _stream(stream, lambda report: self._destroy(keep, report))


def _desired(request: pb.ApplyRequest) -> Desired:
    groups = []
    for group in request.groups:
        if group.role not in list(Role):
            raise GRPCError(Status.INVALID_ARGUMENT, f"UserError: {group.role[:40]!r} is no role")
        groups.append(Group(name=group.name, role=Role(group.role), size=group.size))
    return Desired(
        groups=tuple(groups),
        image_path=request.image_path,
        node_document=request.node_document,
        artifacts_path=request.artifacts_path,
        state_disk_bytes=max(request.disk_bytes, _MIN_DISK_BYTES),
        api_ca=request.api_ca,
    )


async def _stream(
    stream: Stream[Any, pb.Progress], work: Callable[[Report], Awaitable[None]]
) -> None:
    """Run `work` to its end, also where the caller hangs up, and send its progress meanwhile."""
    queue: asyncio.Queue[Progress | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    # not a child of the handler: cancelling the call must not leave half a node
    task = asyncio.create_task(run())
    _running.add(task)
    task.add_done_callback(_running.discard)
    while (item := await queue.get()) is not None:
        await stream.send_message(
            pb.Progress(step=item.step, detail=item.detail, done=item.finished)
        )
    with _errors():
        await asyncio.shield(task)


_running: set[asyncio.Task[None]] = set()
_STATUS = {3: Status.INVALID_ARGUMENT, 6: Status.UNAVAILABLE, 7: Status.FAILED_PRECONDITION}


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except ConstellationError as error:
        # the other side knows the classes of the tree, not those that modules derive
        name = next(k.__name__ for k in type(error).__mro__ if k.__name__ in errors.__all__)
        _log.warning("a request failed", extra={"error": f"{name}: {error}"})
        hint = f" ({error.hint})" if error.hint else ""
        raise GRPCError(
            _STATUS.get(error.exit_code, Status.INTERNAL), f"{name}: {error}{hint}"
        ) from error
    except OSError as error:
        _log.exception("a request met the kernel")
        raise GRPCError(Status.INTERNAL, f"Unavailable: {error}") from error
