"""The bootstrapper: a new node waits for init or joins, a known one starts what it was. Wiring."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls import server
from constellation.atls.limits import USUAL
from constellation.base import logs
from constellation.base.errors import Conflict, ConstellationError
from constellation.base.proc import run
from constellation.base.retry import until_available
from constellation.disk import state_disk
from constellation.disk.superblock import State
from constellation.kube.node_record import load_node_record
from constellation.providers.select import configures, metadata, placed
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.services.bootstrapper.boot import boot_steps
from constellation.services.bootstrapper.component_config import configure_components
from constellation.services.bootstrapper.init_run import InitRun
from constellation.services.bootstrapper.init_server import InitServer
from constellation.services.bootstrapper.join_loop import join_until_done
from constellation.services.bootstrapper.node_lock import NodeLock
from constellation.services.bootstrapper.paths import REAL
from constellation.services.bootstrapper.spent import leave_spent_boot
from constellation.services.machine import NODE_DOCUMENT, machine_settings, reboot_soon
from constellation.services.node_time import REAL_TIME
from constellation.services.steps import Step, StepBook, kind_of, run_steps
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from constellation.attestation.model import AttestationResult
    from constellation.base.secret import Secret
    from constellation.crypto.derive import MasterSecret
    from constellation.kube.node_record import NodeRecord
    from constellation.providers.placement import Placement
    from constellation.providers.protocols import Instance
    from constellation.rpc.stubs import init_pb2
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.bootstrapper.init_server import Prepared
    from constellation.services.bootstrapper.paths import Paths
    from constellation.trust.cluster_policy import SignedPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["main"]

_log = logging.getLogger(__name__)
_INIT_PORT = 9000
_METADATA_S = 60.0
_JOURNAL_S = 20.0


def main() -> None:
    """Run until stopped; the exit code is the error's (design, section 4)."""
    os.umask(0o077)
    logs.set_up("bootstrapper")
    try:
        asyncio.run(_run())
    except ConstellationError as error:
        _log.exception("the bootstrapper failed", extra={"reason": str(error)})
        sys.exit(error.exit_code)


async def _run() -> None:
    REAL_TIME.bound_clock()
    document = parse_node_document(NODE_DOCUMENT.read_bytes())
    paths = dataclasses.replace(REAL, provider=machine_settings().provider)
    provider = metadata(paths.provider)
    own = await until_available(provider.self_, deadline_s=_METADATA_S)
    placement = await _placement(paths.provider)
    await _configure_components(paths.provider)
    agent = await AgentClient.connect(agent_socket("bootstrapper"))
    disk = state_disk.read_record()
    await leave_spent_boot(disk.state, agent=agent, reboot=reboot_soon)
    kind = kind_of(REAL.steps) if disk.state is State.OPEN else ""
    lock = NodeLock(held_by=kind)
    if (record_file := REAL.state / "node.json").exists():
        record = load_node_record(record_file.read_bytes())
        steps = boot_steps(record, shelf=_shelf_of_boot(record, document, paths), paths=paths)
        await run_steps(steps, book=StepBook(REAL.steps, kind=kind), notify=_log_step)
        REAL.ticket.unlink(missing_ok=True)  # of a join that was cut off after its node record
        _log.info("this node is up", extra={"node": record.name, "role": str(record.role)})
    try:
        async with asyncio.TaskGroup() as tasks:
            if kind != "join":
                tasks.create_task(
                    _serve_init(_Preparer(document, own, agent, paths, placement), lock=lock)
                )
            if kind != "init" and not record_file.exists():
                tasks.create_task(
                    join_until_done(
                        document=document,
                        own=own,
                        agent=agent,
                        lock=lock,
                        paths=paths,
                        time=REAL_TIME,
                        provider=provider,
                        placement=placement,
                    )
                )
    finally:
        agent.close()


def _shelf_of_boot(record: NodeRecord, document: NodeDocument, paths: Paths) -> Shelf:
    return paths.shelf(
        paths.kept_policy(document).verified().artifact_sources,
        own_address=record.address,
        inner=(record.pod_network, record.service_cidr, record.mesh_cidr),
    )


async def _placement(provider: str) -> Placement | None:
    where = placed(provider)
    if where is None:
        return None
    return await until_available(where.placement, deadline_s=_METADATA_S)


async def _configure_components(provider: str) -> None:
    found = configures(provider)
    if found is not None:
        await until_available(lambda: configure_components(found), deadline_s=_METADATA_S)


async def _serve_init(prepare: _Preparer, *, lock: NodeLock) -> None:
    service = InitServer(
        document=prepare.document,
        own=prepare.own,
        lock=lock,
        prepare=prepare,
        run=_run_init,
        journal=_journal,
    )
    listening = await server.serve(
        [service],
        host="0.0.0.0",  # noqa: S104 - the owner comes from outside
        port=_INIT_PORT,
        purpose="init-server",
        attester=prepare.agent,
        appraisers={"": _nobody_attests},
        limits=USUAL,
    )
    try:
        await lock.taken_by("join")
    finally:
        listening.close()
        await listening.wait_closed()


@dataclass(frozen=True, slots=True)
class _Preparer:
    """Makes an `InitRun`; the plan of an earlier run stays."""

    document: NodeDocument
    own: Instance
    agent: AgentClient
    paths: Paths
    placement: Placement | None

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
        kept = REAL.state / "init-plan.bin"
        if kept.exists() and kept.read_bytes() != plan.SerializeToString(deterministic=True):
            raise Conflict(
                "init: another plan than the one that this node began with",
                hint="undo the change of constellation-conf.yaml, or terminate and create anew",
            )
        REAL_TIME.say(time)
        return InitRun(
            paths=self.paths,
            agent=self.agent,
            document=self.document,
            own=self.own,
            plan=plan,
            master=master,
            access=access,
            placement=self.placement,
            shelf=self.paths.shelf(
                sources,
                own_address=self.own.address,
                inner=(plan.pod_cidr, plan.service_cidr, plan.mesh_cidr),
            ),
            ask_policy=ask_policy,
        )


async def _run_init(
    steps: tuple[Step, ...], notify: Callable[[str, bool], Awaitable[None]]
) -> None:
    await run_steps(steps, book=StepBook(REAL.steps, kind="init"), notify=notify)


async def _log_step(name: str, done: bool) -> None:
    _log.info("step", extra={"step": name, "state": "done" if done else "started"})


async def _journal() -> bytes:
    finished = await run(
        "journalctl", "--no-pager", "--lines=400", timeout_s=_JOURNAL_S, check=False
    )
    return finished.stdout


def _nobody_attests(*_: object) -> AttestationResult:
    raise ValueError("the owner does not attest")
