"""The owner makes this node the first of a cluster: one stream a watcher, one run at a time.

The owner key is checked before anything of the message is used. The run goes on when its watcher
leaves; who comes next sees it from its beginning, and answers for the policy if it still waits.
Source: design, sections 4 and 6; rpc/protos/init.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from constellation.atls import server
from constellation.base.errors import ConstellationError, FormatError
from constellation.base.secret import Secret
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import init_pb2
from constellation.rpc.stubs.init_grpc import InitServiceBase
from constellation.services.bootstrapper.events import Events
from constellation.services.bootstrapper.first_node import require_me
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, verify_owner_channel
from constellation.trust.cluster_policy import SignedPolicy
from constellation.trust.disk_key import own_master_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpclib.server import Stream

    from constellation.crypto.derive import MasterSecret
    from constellation.providers.protocols import Instance
    from constellation.services.bootstrapper.node_lock import NodeLock
    from constellation.services.steps import Step
    from constellation.trust.node_document import NodeDocument

__all__ = ["InitServer", "Prepare", "Prepared"]

_log = logging.getLogger(__name__)
_JOURNAL_BYTES = 64 * 1024


class Prepared(Protocol):
    """A run that is ready to start."""

    def steps(self) -> tuple[Step, ...]:
        """Give the steps."""
        ...

    def result(self) -> tuple[bytes, bytes]:
        """Give kubeconfig and cluster CA."""
        ...


class Prepare(Protocol):
    """Makes a run from what the owner sent."""

    def __call__(
        self,
        plan: init_pb2.ClusterPlan,
        *,
        master: MasterSecret | None,
        access: Secret | None,
        sources: tuple[str, ...],
        time: int,
        ask_policy: Callable[[bytes], Awaitable[SignedPolicy]],
    ) -> Prepared:
        """Prepare; `access` is for the provider's API, if it needs one.

        Raises:
            Conflict: an earlier run had another plan.
            FormatError: plan, access or sources of artifacts are not what they must be.
        """
        ...


class InitServer(InitServiceBase):
    """Serves `init.proto` on a node that may become, or is, the first of its cluster."""

    def __init__(
        self,
        *,
        document: NodeDocument,
        own: Instance,
        lock: NodeLock,
        prepare: Prepare,
        run: Callable[[tuple[Step, ...], Callable[[str, bool], Awaitable[None]]], Awaitable[None]],
        journal: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._document, self._own, self._lock = document, own, lock
        self._prepare, self._run, self._journal = prepare, run, journal
        self._events: Events | None = None
        self._policy: asyncio.Future[SignedPolicy] | None = None
        self._task: asyncio.Task[None] | None = None
        self.finished = asyncio.Event()

    async def Init(  # noqa: N802 - the name in init.proto
        self, stream: Stream[init_pb2.InitRequest, init_pb2.InitEvent]
    ) -> None:
        """Check the owner, start or watch the run, take the policy when it comes."""
        with raise_status():
            request = await stream.recv_message()
            if request is None or request.WhichOneof("kind") != "start":
                raise FormatError("init: the first message is not Start")
            events = self._begin(request.start, server.peer_of(stream).exporter)
            server.owner_proven(stream)
            receiver = asyncio.create_task(self._receive(stream))
            try:
                async for event in events.watch():
                    await stream.send_message(event)
            finally:
                receiver.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await receiver

    def _begin(self, start: init_pb2.Start, exporter: Callable[[str], bytes]) -> Events:
        verify_owner_channel(
            self._document.owner_public_key,
            start.owner_signature,
            exporter=exporter(OWNER_CHANNEL_LABEL),
            cluster_id=self._document.cluster_id,
            purpose="init",
        )
        require_me(start.plan, self._own)
        master = None
        if start.master_key or start.master_salt:
            master = own_master_secret(start.master_key, start.master_salt, document=self._document)
        self._lock.take("init")
        if self._events is not None and not self._events.ended:
            return self._events
        prepared = self._prepare(
            start.plan,
            master=master,
            access=Secret(start.provider_access) if start.provider_access else None,
            sources=tuple(start.artifact_sources),
            time=start.time,
            ask_policy=self._ask_policy,
        )
        self._events = Events()
        self._task = asyncio.create_task(self._run_to_end(prepared, self._events))
        return self._events

    async def _receive(self, stream: Stream[init_pb2.InitRequest, init_pb2.InitEvent]) -> None:
        async for request in stream:
            if request.WhichOneof("kind") != "policy":
                continue
            if self._policy is not None and not self._policy.done():
                self._policy.set_result(
                    SignedPolicy(policy=request.policy.policy, signature=request.policy.signature)
                )

    async def _ask_policy(self, join_public_key: bytes) -> SignedPolicy:
        self._policy = asyncio.get_running_loop().create_future()
        assert self._events is not None  # noqa: S101 - asked by a step of the run
        needed = init_pb2.PolicyNeeded(join_public_key=join_public_key)
        await self._events.add(init_pb2.InitEvent(policy_needed=needed))
        return await self._policy

    async def _run_to_end(self, prepared: Prepared, events: Events) -> None:
        async def notify(name: str, done: bool) -> None:
            _log.info("step", extra={"step": name, "state": "done" if done else "started"})
            await events.step(name, done=done)

        try:
            await self._run(prepared.steps(), notify)
            kubeconfig, authority = prepared.result()
        except ConstellationError as error:
            _log.exception("init failed", extra={"reason": str(error)})
            failed = init_pb2.Failed(exit_code=error.exit_code, message=str(error), hint=error.hint)
        except Exception as error:  # noqa: BLE001 - the top of this task
            _log.exception("init failed by a bug")
            failed = init_pb2.Failed(exit_code=1, message=f"{type(error).__name__}: {error}")
        else:
            await events.add(
                init_pb2.InitEvent(
                    finished=init_pb2.Finished(
                        kubeconfig=kubeconfig, cluster_ca_certificate=authority
                    )
                )
            )
            self.finished.set()
            return
        failed.journal = (await self._journal())[-_JOURNAL_BYTES:]
        await events.add(init_pb2.InitEvent(failed=failed))
