"""Starts the upgrade agent of a control plane: wiring only."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import logs
from constellation.base.errors import ConstellationError, Unavailable
from constellation.kube.etcd import Etcd
from constellation.kube.node_record import NODE_JSON, load_node_record
from constellation.rpc.upgrade_client import SOCKET
from constellation.services.kept_lists import kept_artifact_list
from constellation.services.kept_policy import KeptPolicy
from constellation.services.node_time import REAL_TIME
from constellation.services.upgradeagent.agent import Agent
from constellation.services.upgradeagent.paths import REAL
from constellation.services.upgradeagent.server import serve
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from constellation.kube.node_record import NodeRecord
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["main"]

_DOCUMENT = Path("/run/constellation/node-document.json")
_log = logging.getLogger(__name__)


async def _run() -> None:
    REAL_TIME.bound_clock()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    record = load_node_record(_read(NODE_JSON))
    document = parse_node_document(_read(_DOCUMENT))
    agent = Agent(
        record=record,
        policies=_Policies(KeptPolicy(state=REAL.state, document=document), record=record),
        etcd=Etcd(REAL.pki),
        paths=REAL,
    )
    agent.mend()
    server = await serve(agent, SOCKET)
    _log.info("serving", extra={"node": record.name})
    await end.wait()
    server.close()


class _Policies:
    """The kept policy, and the artifact lists that lie on this node; whoever uses one checks it."""

    def __init__(self, kept: KeptPolicy, *, record: NodeRecord) -> None:
        self._kept, self._record = kept, record

    def verified(self) -> ClusterPolicy:
        return self._kept.verified()

    def artifact_list(self, version: str) -> bytes:
        return kept_artifact_list(self._kept, version, own=self._record.artifact_list)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


def main() -> None:
    """Run until SIGTERM; the exit code is the error's (design, section 4)."""
    logs.set_up("upgradeagent")
    try:
        asyncio.run(_run())
    except ConstellationError as error:
        _log.error("the upgrade agent failed", extra={"reason": str(error)})
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
