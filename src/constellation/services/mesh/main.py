"""Starts the mesh of a node, and the renewal of its certificates: wiring only."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import logs
from constellation.base.errors import FormatError, Unavailable
from constellation.base.proc import run
from constellation.base.retry import until_available
from constellation.base.secret import Secret
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import NODE_JSON, load_node_record
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.rpc.mutual_tls import ServiceTls
from constellation.services.api_identities import ApiIdentities
from constellation.services.kept_policy import KeptPolicy
from constellation.services.mesh.device import Device
from constellation.services.mesh.firewall import Place
from constellation.services.mesh.follow import Follower
from constellation.services.mesh.renew import NodePaths, Renewal
from constellation.services.mesh.servers import known_servers
from constellation.services.node_time import REAL_TIME
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.atls.client import ChannelAttester

__all__ = ["main"]

_STATE = Path("/var/lib/constellation")
_DOCUMENT = Path("/run/constellation/node-document.json")
_KEY_BYTES = 32
_PATHS = NodePaths(
    keys=_STATE / "keys",
    cluster_pki=Path("/etc/kubernetes/pki"),
    kubelet_pki=Path("/var/lib/kubelet/pki"),
)
_FILES_WITHIN_S = 3600.0
_RESTART_S = 60.0


async def _start() -> tuple[Follower, Renewal, ApiIdentities | None]:
    record = load_node_record(_read(NODE_JSON))
    document = parse_node_document(_read(_DOCUMENT))
    kept = KeptPolicy(state=_STATE, document=document)
    place = Place(
        address=record.address,
        mesh_address=record.mesh_address,
        pod_cidr=record.pod_cidr,
        pod_network=record.pod_network,
        mesh_cidr=record.mesh_cidr,
    )
    keys = _STATE / "keys"
    follower = Follower(
        await Device.up(place, private_key=_private_key(_read(keys / "mesh.key"))),
        path=_STATE / "peers.json",
        own_name=record.name,
        join_public_key=kept.verified().join_public_key,
        cluster_id=document.cluster_id,
        tls=ServiceTls(
            certificate=keys / "service.crt",
            private_key=keys / "service.pem",
            ca=keys / "services-ca.crt",
        ),
    )
    await follower.start()
    renewal = Renewal(
        record=record,
        kept=kept,
        paths=_PATHS,
        time=REAL_TIME,
        attester=_attester,
        addresses=known_servers(record, follower.control_planes),
        restart_kubelet=_restart_kubelet,
    )
    if record.role is not NodeRole.CONTROL_PLANE:
        return follower, renewal, None
    return (
        follower,
        renewal,
        ApiIdentities(
            state=_STATE,
            pki=_PATHS.cluster_pki,
            node_name=record.name,
            endpoint=record.endpoint,
        ),
    )


async def _run() -> None:
    REAL_TIME.bound_clock()
    follower, renewal, identities = await until_available(_start, deadline_s=_FILES_WITHIN_S)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follower.run())
        tasks.create_task(renewal.run())
        if identities is not None:
            tasks.create_task(identities.keep())
        tasks.create_task(REAL_TIME.keep())


@contextlib.asynccontextmanager
async def _attester() -> AsyncIterator[ChannelAttester]:
    agent = await AgentClient.connect(agent_socket("mesh"))
    try:
        yield agent
    finally:
        agent.close()


async def _restart_kubelet() -> None:
    await run("systemctl", "restart", "kubelet.service", timeout_s=_RESTART_S)


def _private_key(text: bytes) -> Secret:
    """Read mesh.key: base64 of 32 bytes (X25519), as wg(8) writes keys."""
    try:
        key = Secret(base64.b64decode(text.strip(), validate=True))
    except binascii.Error:
        raise FormatError("mesh.key: not base64") from None
    if len(key) != _KEY_BYTES:
        raise FormatError(f"mesh.key: {len(key)} bytes, want {_KEY_BYTES} (X25519)")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


def main() -> None:
    """Run until stopped; files that the bootstrapper has yet to write are waited for."""
    logs.set_up("mesh")
    asyncio.run(_run())


if __name__ == "__main__":
    main()
