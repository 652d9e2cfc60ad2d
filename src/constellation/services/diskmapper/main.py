"""The disk mapper: `measure` (node document into PCR 8), then `open` (state disk). Wiring only.

`ready` tells a cloud that waits for it that this machine was set up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.atls import server
from constellation.atls.limits import USUAL
from constellation.attestation.platforms.measuring import measure_node_document
from constellation.attestation.platforms.node_events import bank_of
from constellation.base import clock, logs
from constellation.base.errors import ConstellationError, Rejected
from constellation.base.secret import Secret
from constellation.disk import state_disk
from constellation.kube.node_record import NODE_JSON, load_node_record
from constellation.providers.select import awaits, metadata
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import join_pb2
from constellation.services.diskmapper.compare import compare_and_keep
from constellation.services.diskmapper.measure import measure
from constellation.services.diskmapper.open_disk import (
    NeedsReboot,
    Opener,
    Rejoined,
    Shown,
    open_disk,
)
from constellation.services.diskmapper.ready import report_ready
from constellation.services.diskmapper.recovery import RecoveryService
from constellation.services.diskmapper.unlock import Unlock
from constellation.services.join_channel import judged_channel
from constellation.services.kept_policy import KeptPolicy
from constellation.services.machine import (
    EVENT_LOG,
    NODE_DOCUMENT,
    machine_settings,
    reboot_soon,
    tpm_places,
)
from constellation.services.node_time import REAL_TIME
from constellation.services.peer_lists import verified_peer_list
from constellation.trust.disk_key import DISK_KEY_BYTES
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from constellation.attestation.model import AttestationResult
    from constellation.disk.superblock import DiskState
    from constellation.providers.protocols import Instance
    from constellation.trust.node_document import NodeDocument

__all__ = ["main"]

_log = logging.getLogger(__name__)
_STATE = Path("/var/lib/constellation")
_NAMED = ("local", "baremetal")
"""Where somebody names the state disk: the daemon, or the owner on the host's medium."""
_RECOVERY_PORT = 9999
_REJOIN_DEADLINE_S = 20.0
_ANSWER_IS_READ_S = 2.0
"""Below what `open_disk` waits for its listener."""


def main() -> None:
    """Run `measure`, `open` or `ready`; the exit code is the error's (design, section 4)."""
    os.umask(0o077)
    logs.set_up("diskmapper")
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        match verb:
            case "measure":
                asyncio.run(_measure())
            case "open":
                asyncio.run(_open())
            case "ready":
                asyncio.run(report_ready(awaits(machine_settings().provider)))
            case _:
                sys.exit(2)
    except ConstellationError as error:
        _log.error("the disk mapper failed", extra={"step": verb, "reason": str(error)})
        sys.exit(error.exit_code)


async def _measure() -> None:
    settings = machine_settings()
    places = tpm_places(settings.variant)
    await measure(
        metadata(settings.provider),
        variant=settings.variant,
        document_path=NODE_DOCUMENT,
        extend=lambda data: measure_node_document(
            places.tpm,
            data,
            firmware_log=places.firmware_log,
            event_log=EVENT_LOG,
            bank=bank_of(settings.variant),
        ),
    )


async def _open() -> None:
    REAL_TIME.bound_clock()
    document = parse_node_document(NODE_DOCUMENT.read_bytes())
    agent = await AgentClient.connect(agent_socket("diskmapper"))
    try:
        state = await open_disk(
            metadata=metadata(machine_settings().provider),
            agent=agent,
            door=_RealDoor(document),
            cluster_id=document.cluster_id,
            ask=_Asker(agent, document),
            listen=_Listener(agent, document),
        )
        _log.info("state disk", extra={"state": state})
    except NeedsReboot as error:
        _log.exception("rebooting, since PCR 15 is extended", extra={"reason": str(error)})
        await reboot_soon()
        raise
    finally:
        agent.close()


class _RealDoor:
    """The state disk that the machine gives its guest."""

    def __init__(self, document: NodeDocument) -> None:
        self._document = document
        provider = machine_settings().provider
        self._device = (
            state_disk.device_from_host()
            if provider in _NAMED
            else state_disk.device_by_content(provider, variant=document.variant)
        )

    async def inspect(self) -> DiskState:
        return await asyncio.to_thread(
            state_disk.inspect, self._device, variant=self._document.variant
        )

    def new_uuid(self) -> bytes:
        return secrets.token_bytes(16)

    def record(self, record: state_disk.DiskRecord) -> None:
        state_disk.write_record(record)

    async def open(self, uuid: bytes, key: Secret) -> str:
        await state_disk.open_known(self._device, uuid, key, variant=self._document.variant)
        await state_disk.bind_folders()
        with contextlib.suppress(FileNotFoundError):
            return load_node_record(NODE_JSON.read_bytes()).name
        return ""  # init or join did not finish before the power went

    def compare(self, shown: Shown) -> None:
        compare_and_keep(shown, kept=KeptPolicy(state=_STATE, document=self._document))

    def told_time(self, seconds: int) -> None:
        REAL_TIME.say(seconds)


class _Asker:
    """Asks one JoinService for a rejoin ticket."""

    def __init__(self, agent: AgentClient, document: NodeDocument) -> None:
        self._agent, self._document = agent, document

    async def __call__(self, address: str, own: Instance, uuid: bytes) -> Rejoined:
        # what this node has seen before lies on the disk that is still closed: compared once open
        async with judged_channel(
            address,
            purpose="rejoin-client",
            attester=self._agent,
            document=self._document,
            minimum_serial=1,
        ) as join_server:
            request = join_pb2.RejoinRequest(
                instance_id=own.instance_id,
                disk_uuid=uuid,
                address=own.address,
                time=int(clock.now().timestamp()),
            )
            with raise_ours(f"JoinService {address}"):
                ticket = await join_server.stub.Rejoin(request, timeout=_REJOIN_DEADLINE_S)
        peers = verified_peer_list(ticket.peers, policy=join_server.judged.policy, minimum_serial=0)
        if len(ticket.disk_key) != DISK_KEY_BYTES:
            raise Rejected((f"rejoin ticket: a disk key of {len(ticket.disk_key)} bytes",))
        return Rejoined(
            unlock=Unlock(key=Secret(ticket.disk_key), time=ticket.time),
            shown=Shown(policy=join_server.signed_policy, peers=peers),
        )


class _Listener:
    """Serves recovery until the disk is open."""

    def __init__(self, agent: AgentClient, document: NodeDocument) -> None:
        self._agent, self._document = agent, document

    async def __call__(self, uuid: bytes, opener: Opener) -> None:
        service = RecoveryService(self._document, disk_uuid=uuid, opened=opener.open)
        listening = await server.serve(
            [service],
            host="0.0.0.0",  # noqa: S104 - the owner comes from outside
            port=_RECOVERY_PORT,
            purpose="recover-server",
            attester=self._agent,
            appraisers={"": _nobody_attests},
            limits=USUAL,
        )
        try:
            await opener.opened.wait()
            await service.answered()
        finally:
            await listening.drain(within_s=_ANSWER_IS_READ_S)


def _nobody_attests(*_: object) -> AttestationResult:
    raise ValueError("the owner does not attest")
