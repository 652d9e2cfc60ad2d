"""Starts the operator of a control plane: wiring only."""

from __future__ import annotations

import asyncio
from pathlib import Path

from constellation.base import logs
from constellation.base.errors import Unavailable
from constellation.base.retry import until_available
from constellation.kube.client import connect
from constellation.kube.etcd import Etcd
from constellation.kube.log_copy import LogCopy
from constellation.kube.node_record import NODE_JSON, load_node_record
from constellation.providers.select import balancer_notices_s, node_groups
from constellation.rpc.upgrade_client import UpgradeClient
from constellation.services.api_identities import api_kubeconfig
from constellation.services.kept_policy import KeptPolicy
from constellation.services.operator.autoscaler_door import AutoscalerDoor
from constellation.services.operator.kubernetes import Kubernetes
from constellation.services.operator.lease import KubernetesLease
from constellation.services.operator.loop import Operator
from constellation.services.operator.own_node import OwnNode
from constellation.services.operator.removal import Pace
from constellation.services.operator.world import OwnOrders, RealWorld
from constellation.trust.node_document import parse_node_document

__all__ = ["main"]

_KUBERNETES = Path("/etc/kubernetes")
_STATE = Path("/var/lib/constellation")
_DOCUMENT = Path("/run/constellation/node-document.json")
_FILES_WITHIN_S = 300.0
_LOOK_EVERY_S = 0.3


async def _run() -> None:
    record = load_node_record(_read(NODE_JSON))
    document = parse_node_document(_read(_DOCUMENT))
    client = connect(api_kubeconfig("operator"))
    kubernetes, agent = Kubernetes(client), UpgradeClient()
    world = RealWorld(
        me=record.name,
        kubernetes=kubernetes,
        etcd=Etcd(_KUBERNETES / "pki"),
        provider=node_groups(record.provider),
        agent=agent,
        kept=KeptPolicy(state=_STATE, document=document),
        log=LogCopy(_STATE / "join-log", seed=_STATE / "keys" / "membership.json"),
        cluster_ca=_KUBERNETES / "pki" / "ca.crt",
    )
    operator = Operator(
        world=world,
        leadership=KubernetesLease(
            client, me=record.name, leaving=lambda: kubernetes.is_leaving(record.name)
        ),
        own=OwnNode(record.name, orders=OwnOrders(record.name, kubernetes=kubernetes), agent=agent),
        door=AutoscalerDoor(world, groups=kubernetes.groups),
        pace=Pace(notice_s=2 * balancer_notices_s(record.provider) + 1),
    )
    await operator.run()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


def main() -> None:
    """Run until stopped; what is missing on the disk is waited for, 5 minutes at most."""
    logs.set_up("operator")
    asyncio.run(until_available(_run, deadline_s=_FILES_WITHIN_S, longest_pause_s=_LOOK_EVERY_S))


if __name__ == "__main__":
    main()
