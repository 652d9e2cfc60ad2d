"""The local cloud as the workstation sees it: `providers.protocols.Infrastructure` over the daemon.

The daemon itself is started by `daemon_command` (root, through sudo where the user is not).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from grpclib.exceptions import GRPCError, StreamTerminatedError

from constellation.atls.grpc_bounds import BoundedChannel
from constellation.base import errors
from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.progress import Progress
from constellation.providers.local import image_archive, push
from constellation.providers.local.daemon.layout import STATE_ROOT, Layout
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.rpc.stubs import daemon_pb2 as pb
from constellation.rpc.stubs.daemon_grpc import LocalCloudStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.base.progress import Report
    from constellation.providers.protocols import Desired, Infrastructure

__all__ = [
    "LocalInfrastructure",
    "daemon_command",
    "destroy_command",
    "preflight_command",
    "workspaces",
]

_PROGRAM = "constellation.providers.local.daemon.main"
_SHORT_S, _LONG_S = 15.0, 600.0
_ERRORS: dict[str, type[ConstellationError]] = {
    name: getattr(errors, name)
    for name in ("UserError", "Unavailable", "Conflict", "FormatError", "Untrusted")
}


def daemon_command(id_: str, *, tools_root: Path, workspace: Path | None = None) -> tuple[str, ...]:
    """Give the command (for root) that starts the daemon, or finds it running, and then ends.

    `workspace` (absolute) is noted as the folder that the cloud belongs to.
    """
    return (
        *_python(),
        *("--id", Layout.of(id_).id, "--tools-root", str(tools_root), "--uid", str(os.getuid())),
        *(("--workspace", str(workspace)) if workspace is not None else ()),
    )


def destroy_command(id_: str) -> tuple[str, ...]:
    """Give the command (for root) that removes a cloud whose daemon does not answer."""
    return (*_python(), "--id", Layout.of(id_).id, "--destroy")


def preflight_command() -> tuple[str, ...]:
    """Give the command (for root) that prints `preflight` findings as JSON."""
    return (*_python(), "--preflight")


def workspaces() -> dict[str, Path]:
    """Give the clouds of this machine, running or not, and the workspace that each belongs to."""
    found = {}
    for path in sorted(STATE_ROOT.glob("*/workspace")):
        with contextlib.suppress(OSError):
            found[path.parent.name] = Path(os.fsdecode(path.read_bytes()))
    return found


class LocalInfrastructure:
    """One local cloud, by its id; `offline`: its image registry asks no other one."""

    def __init__(self, id_: str, *, offline: bool = False) -> None:
        self._layout = Layout.of(id_)
        self._offline = offline

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Create what is missing; see the protocol. Raises UserError, Conflict, Unavailable."""
        request = pb.ApplyRequest(
            groups=[pb.Group(name=g.name, role=str(g.role), size=g.size) for g in desired.groups],
            image_path=desired.image_path,
            node_document=desired.node_document,
            artifacts_path=desired.artifacts_path,
            disk_bytes=desired.state_disk_bytes,
            offline=self._offline,
            api_ca=desired.api_ca,
        )
        async with self._stub() as stub, stub.Apply.open(timeout=_LONG_S) as stream:
            await stream.send_message(request, end=True)
            async for item in stream:
                report(Progress(step=item.step, detail=item.detail, finished=item.done))
        state = await self.observe()
        if state is None:
            raise Unavailable("the local cloud's daemon ended after it had applied")
        return state

    async def observe(self) -> InfrastructureState | None:
        """Say what exists; None where no daemon runs. Raises Unavailable."""
        if not self._layout.socket.exists():
            return None
        async with self._stub() as stub:
            return _state(await stub.Observe(pb.ObserveRequest(), timeout=_SHORT_S))

    async def destroy(self, *, report: Report) -> None:
        """Remove everything; nothing there is no error. Raises Unavailable."""
        if not self._layout.socket.exists():
            return
        async with self._stub() as stub, stub.Destroy.open(timeout=_LONG_S) as stream:
            await stream.send_message(pb.DestroyRequest(), end=True)
            async for item in stream:
                report(Progress(step=item.step, detail=item.detail, finished=item.done))

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console, 1 MiB at most. Raises Conflict, Unavailable."""
        async with self._stub() as stub:
            request = pb.ConsoleRequest(instance_id=instance_id)
            return bytes((await stub.Console(request, timeout=_SHORT_S)).text)

    async def power(self, instance_id: str, action: str, *, image_path: str = "") -> None:
        """Switch a machine "on", "off" or "cycle", for once with another image if named."""
        request = pb.PowerRequest(instance_id=instance_id, action=action, image_path=image_path)
        async with self._stub() as stub:
            await stub.Power(request, timeout=_LONG_S)

    async def delete(self, instance_id: str) -> None:
        """Remove a machine, first from the load balancer; done already is not an error."""
        async with self._stub() as stub:
            await stub.Delete(pb.DeleteRequest(instance_id=instance_id), timeout=_LONG_S)

    async def load_image(self, archive: Path, *, name: str = "", report: Report) -> tuple[str, ...]:
        """Put a docker-save or OCI archive (tar) into the cloud's registry; give its names.

        A pod can use each name as it is. `name` is for an archive that has none, or another.

        Raises:
            FormatError: it is no such archive; a blob is not what its digest says (Untrusted).
            Conflict: the archive lacks a part of the image, or there is no room for it.
            UserError: it cannot be read. Unavailable: the daemon does not answer.
        """
        with image_archive.open_archive(archive, name=name) as image:
            async with self._stub() as stub, stub.LoadImage.open(timeout=_LONG_S) as stream:
                await push.push(stream, image, report=report)
            return tuple(str(named.reference) for named in image.names)

    async def nodes(self) -> tuple[pb.Node, ...]:
        """List machines with what only this provider knows (pid of init, image digest)."""
        async with self._stub() as stub:
            return tuple((await stub.Observe(pb.ObserveRequest(), timeout=_SHORT_S)).nodes)

    @contextlib.asynccontextmanager
    async def _stub(self) -> AsyncIterator[LocalCloudStub]:
        channel = BoundedChannel(path=str(self._layout.socket))
        try:
            yield LocalCloudStub(channel)
        except GRPCError as error:
            raise _error(error) from error
        except (OSError, StreamTerminatedError, TimeoutError) as error:
            raise Unavailable(
                f"the daemon of local cloud {self._layout.id} does not answer: {error}",
                hint="start it again with: constellation mini up",
            ) from error
        finally:
            channel.close()


def _python() -> tuple[str, ...]:
    return (sys.executable, "-m", _PROGRAM)


def _error(error: GRPCError) -> ConstellationError:
    name, found, message = (error.message or "").partition(": ")
    if found and name in _ERRORS:
        return _ERRORS[name](message)
    return Unavailable(f"local cloud: {error.message or error.status.name}")


def _state(cloud: pb.Cloud) -> InfrastructureState:
    def instance(node: pb.Node) -> Instance:
        return Instance(
            instance_id=node.instance_id,
            group=node.group,
            role=Role(node.role),
            address=node.address,
            state=node.state,
            init_endpoint=f"{cloud.address}:{node.init_port}",
            recovery_endpoint=f"{cloud.address}:{node.recovery_port}",
            verify_endpoint=f"{cloud.address}:{node.verify_port}",
            policy_endpoint=f"{cloud.address}:{node.policy_port}",
        )

    host, _, _ = cloud.inner_endpoint.rpartition(":")
    return InfrastructureState(
        uid=cloud.id,
        endpoint=cloud.inner_endpoint,
        user_endpoint=f"{cloud.address}:6443",
        api_sans=(cloud.address, host, "localhost"),
        instances=tuple(instance(n) for n in cloud.nodes),
        trust_roots=(cloud.ca_certificate,),
    )


if TYPE_CHECKING:
    _: type[Infrastructure] = LocalInfrastructure
