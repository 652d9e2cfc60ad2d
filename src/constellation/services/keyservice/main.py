"""Starts the KeyService of a control plane: wiring only."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from constellation.base import logs
from constellation.base.ready import tell_service_manager
from constellation.base.retry import until_available
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.services.keyservice.server import KeyServer
from constellation.services.node_time import REAL_TIME

__all__ = ["main"]

_FILES_WITHIN_S = 300.0
_log = logging.getLogger(__name__)


def main() -> None:
    """Run until stopped; what is missing on the disk is waited for, 5 minutes at most."""
    logs.set_up("keyservice")
    REAL_TIME.bound_clock()
    server = KeyServer(
        state=Path("/var/lib/constellation"),
        node_document=Path("/run/constellation/node-document.json"),
        socket=Path("/run/constellation/kms/kms.sock"),
        attester=lambda: AgentClient.connect(agent_socket("keyservice")),
    )

    async def serve() -> None:
        await server.run(
            plugin_ready=tell_service_manager,
            listening=lambda what, endpoint: _log.info(
                "KeyService listens", extra={"for": what, "endpoint": endpoint}
            ),
        )

    asyncio.run(until_available(serve, deadline_s=_FILES_WITHIN_S))


if __name__ == "__main__":
    main()
