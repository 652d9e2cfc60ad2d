"""Starts the attestation agent of a node: wiring only."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from constellation.base import logs
from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.retry import until_available
from constellation.rpc.agent_client import AGENT_FOLDER
from constellation.services.agent.allowed import DOORS
from constellation.services.agent.machine import TpmMachine
from constellation.services.agent.server import serve
from constellation.services.machine import EVENT_LOG, machine_settings, tpm_places

__all__ = ["main"]

_log = logging.getLogger(__name__)
_TPM_WITHIN_S = 30.0
_ENDORSEMENTS = Path("/run/constellation/endorsements")


async def _run() -> None:
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    variant = machine_settings().variant
    places = tpm_places(variant)
    machine = await TpmMachine.connect(
        places.tpm, event_log=EVENT_LOG, cache=_ENDORSEMENTS, variant=variant
    )
    try:
        # the TPM has one client at a time: constellation-measure may not have let go yet
        attester_id = await until_available(machine.attester_id, deadline_s=_TPM_WITHIN_S)
        if not EVENT_LOG.exists():
            raise Unavailable(
                f"{EVENT_LOG} is missing", hint="constellation-measure makes it before the agent"
            )
        servers = await serve(machine, doors=DOORS, folder=AGENT_FOLDER)
        _log.info("serving", extra={"attester_id": attester_id.hex()})
        _notify("READY=1")
        await end.wait()
        for server in servers:
            server.close()
    finally:
        await machine.close()


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); without NOTIFY_SOCKET nobody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address.replace("@", "\0", 1))


def main() -> None:
    """Run until SIGTERM; the exit code is the error's (design, section 4)."""
    logs.set_up("agent")
    try:
        asyncio.run(_run())
    except ConstellationError as error:
        _log.error("the attestation agent failed", extra={"reason": str(error)})
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
