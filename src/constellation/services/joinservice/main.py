"""Starts the JoinService of a control plane: wiring only."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from constellation.base import clock, logs
from constellation.base.errors import Unavailable
from constellation.base.retry import until_available
from constellation.kube.etcd import Etcd
from constellation.kube.log_copy import LogCopy
from constellation.kube.membership import member_by_name
from constellation.providers.select import metadata
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.services.api_identities import api_kubeconfig
from constellation.services.joinservice.judge import fresh_node, given_node
from constellation.services.joinservice.kubernetes_version import AskApiServer
from constellation.services.joinservice.ledger import Ledger
from constellation.services.joinservice.outside import (
    KubernetesLog,
    KubernetesWorld,
    LocalKeyService,
)
from constellation.services.joinservice.secrets_on_disk import NodeFiles
from constellation.services.joinservice.server import JoinServer
from constellation.services.node_time import REAL_TIME
from constellation.services.release_root import pinned_root

__all__ = ["main"]

_STATE = Path("/var/lib/constellation")
_KUBERNETES = Path("/etc/kubernetes")
_RUN = Path("/run/constellation")
_FILES_WITHIN_S = 300.0
_LOOK_EVERY_S = 0.3
_log = logging.getLogger(__name__)


async def _serve() -> None:
    REAL_TIME.bound_clock()
    files = NodeFiles(
        state=_STATE, pki=_KUBERNETES / "pki", node_document=_RUN / "node-document.json"
    )
    kept = files.kept_policy()
    identity = files.identity(kept.document)
    records = KubernetesLog(api_kubeconfig("joinservice"))
    ledger = Ledger.open_(
        LogCopy(_STATE / "join-log", seed=_STATE / "keys" / "membership.json"),
        records=records,
        writer=identity.name,
        join_private_key=files.join_key(),
    )
    me = member_by_name(ledger.membership, identity.name)
    if me is None:
        raise Unavailable(f"{identity.name} is not in the membership yet")
    provider = metadata(files.provider())
    server = JoinServer(
        files=files,
        kept=kept,
        ledger=ledger,
        attester=await AgentClient.connect(agent_socket("joinservice")),
        appraise=fresh_node(kept),
        appraise_given=given_node(kept),
        provider=provider,
        keys=LocalKeyService(me.address, tls=files.service_tls()),
        world=KubernetesWorld(records, provider=provider, etcd=Etcd(_KUBERNETES / "pki")),
        versions=AskApiServer(_KUBERNETES / "pki" / "ca.crt"),
        pinned_root=pinned_root(),
        own_name=me.name,
        host=me.address,
    )
    await server.run(
        started=lambda ports: _log.info(
            "JoinService listens", extra={"port": ports.join, "time": str(clock.now())}
        )
    )


def main() -> None:
    """Run until stopped; what is missing on the disk is waited for, 5 minutes at most."""
    logs.set_up("joinservice")
    asyncio.run(until_available(_serve, deadline_s=_FILES_WITHIN_S, longest_pause_s=_LOOK_EVERY_S))


if __name__ == "__main__":
    main()
