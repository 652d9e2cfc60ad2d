"""Starts the VerificationService of a node: wiring only."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from constellation.atls.grpc_bounds import MAX_UNREAD_OPEN_BYTES, OpenServer
from constellation.base import logs
from constellation.base.errors import Unavailable
from constellation.base.retry import until_available
from constellation.kube.node_record import NODE_JSON, load_node_record
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.services.verificationservice.answers import CALLS, CONNECTIONS, Answers
from constellation.services.verificationservice.http import HTTP_PORT, HttpVerification
from constellation.services.verificationservice.server import (
    MAX_REQUEST_BYTES,
    PORT,
    Verification,
)

__all__ = ["main"]

_CLUSTER_CA = Path("/etc/kubernetes/pki/ca.crt")
_FILES_WITHIN_S = 300.0
_LOOK_EVERY_S = 0.3
_log = logging.getLogger(__name__)


async def _serve() -> None:
    try:
        record = load_node_record(NODE_JSON.read_bytes())
    except OSError as error:
        raise Unavailable(f"{NODE_JSON}: {error.strerror}") from error
    agent = await AgentClient.connect(agent_socket("verification"))
    answers = Answers(agent, cluster_ca=_CLUSTER_CA, node_name=record.name, limits=CALLS)
    http = HttpVerification(answers)
    server = OpenServer(
        [Verification(answers)],
        limits=CONNECTIONS,
        life_s=CONNECTIONS.handshake_s,
        max_message_bytes=MAX_REQUEST_BYTES,
        max_unread_bytes=MAX_UNREAD_OPEN_BYTES,
    )
    try:
        await http.start(record.address, HTTP_PORT)
        await server.start(record.address, PORT)
        _log.info("VerificationService listens", extra={"port": PORT, "node": record.name})
        await server.wait_closed()
    except OSError as error:
        raise Unavailable(f"cannot listen on {record.address}:{PORT}: {error}") from error
    finally:
        http.close()
        agent.close()


def main() -> None:
    """Run until stopped; what is missing is waited for, 5 minutes at most."""
    logs.set_up("verificationservice")
    asyncio.run(until_available(_serve, deadline_s=_FILES_WITHIN_S, longest_pause_s=_LOOK_EVERY_S))


if __name__ == "__main__":
    main()
