"""A second machine joins a cluster that `init` has begun: a real JoinService, real attested TLS.

Whoever has two nodes and a workspace before them is a `Life`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Protocol

from constellation.atls import client
from constellation.cluster.secrets import read_secrets
from constellation.kube.membership import GroupSlots, NodeRole
from constellation.rpc.stubs.join_grpc import JoinServiceStub
from constellation.trust.appraisal import node_verifier
from constellation.trust.cluster_policy import parse_policy
from constellation.trust.node_document import parse_node_document
from tests.fakes.clouds import NOW
from tests.fakes.join_world import (
    Provider,
    SharedLog,
    World,
    ledger_of,
    request_of,
    server_of,
    write_control_plane,
)
from tests.fakes.members import asks, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.config.state import State
    from constellation.config.workspace import Workspace
    from constellation.providers.protocols import Instance, Metadata
    from constellation.rpc.stubs import join_pb2
    from constellation.trust.cluster_policy import SignedPolicy
    from tests.fakes.cloud_node import CloudNode

__all__ = ["Life", "ask", "join_service"]


class Life(Protocol):
    """`first` is the control plane that `init` was given to, `second` a fresh worker."""

    workspace: Workspace
    first: CloudNode
    second: CloudNode


@contextlib.asynccontextmanager
async def join_service(
    life: Life, state: State, folder: Path, *, provider: Metadata
) -> AsyncIterator[int]:
    """Run the JoinService of the first node, which asks `provider` for its list; gives its port."""
    document = parse_node_document(state.node_document)
    plan = dataclasses.replace(
        settings(),
        cluster_id=state.cluster_id,
        artifact_list=state.artifact_list,
        groups=(
            settings().groups[0],
            GroupSlots(name="worker_default", role=NodeRole.WORKER, size=1),
        ),
    )
    owned = _Owned(life=life, state=state)
    files = write_control_plane(folder, cluster=owned, plan=plan)  # type: ignore[arg-type] # as a cluster has them
    log, started = SharedLog(), asyncio.get_running_loop().create_future()

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        policy = parse_policy(owned.policy(serial=1).policy)
        verifier = node_verifier(policy, document, joined=False, now=NOW)
        return verifier.appraise(evidence, binding=binding, now=NOW)

    server = server_of(files, ledger_of(files, log), Provider(instances=()), World())
    server = dataclasses.replace(
        server,
        attester=life.first,
        appraise=appraise,
        provider=provider,
    )
    task = asyncio.create_task(server.run(started=started.set_result))
    waits = asyncio.ensure_future(started)
    await asyncio.wait({task, waits}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield waits.result().join
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Owned:
    """The cluster's secrets as its first node has them."""

    life: Life
    state: State

    @property
    def join(self) -> object:
        return self.life.first.join_key

    @property
    def document(self) -> object:
        return parse_node_document(self.state.node_document)

    @property
    def master(self) -> object:
        return read_secrets(self.life.workspace, cluster_id=self.state.cluster_id).master

    def policy(self, *, serial: int) -> SignedPolicy:
        del serial
        assert self.state.policy is not None
        return self.state.policy


async def ask(life: Life, state: State, port: int, instance: Instance) -> join_pb2.JoinTicket:
    """Let the second node ask a JoinService, as the machine that `instance` says."""
    document = parse_node_document(state.node_document)
    assert state.policy is not None
    policy = parse_policy(state.policy.policy)

    def server(evidence: Evidence, binding: Binding) -> AttestationResult:
        verifier = node_verifier(policy, document, joined=True, now=NOW)
        return verifier.appraise(evidence, binding=binding, now=NOW)

    channel = await client.connect(
        "127.0.0.1",
        port,
        purpose="join-client",
        server_purpose="join-server",
        attester=life.second,
        appraise=server,
        deadline_s=10,
    )
    try:
        return await JoinServiceStub(channel.grpc).Join(request_of(asks(instance)), timeout=10)
    finally:
        channel.close()
