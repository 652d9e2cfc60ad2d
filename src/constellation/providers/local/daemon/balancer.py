"""haproxy in front of the cloud: its configuration (pure) and its one running process.

It listens on the cloud's loopback address and inside the cloud's network, and connects inside only.
A reload starts a new process that takes the listening sockets over; connections that are open stay
with the old one. Source: HAProxy configuration manual, sections 4.2, 5.1 (`namespace`), 5.2.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.base.proc import run
from constellation.base.tools_root import command
from constellation.providers.local.daemon import kernel, spawn
from constellation.providers.local.daemon.network import BALANCER
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.providers.local.daemon.cgroups import Cgroups
    from constellation.providers.local.daemon.layout import Layout
    from constellation.providers.local.daemon.records import CloudRecord, NodeRecord, Process

__all__ = ["configuration", "reload"]

_API = 6443
_INIT, _RECOVERY, _VERIFY, _POLICY = 9000, 9999, 30081, 30091
_KUBE_PROXY_HEALTH = 10256
_NODE_PORTS = "30100-32767"
_PART = "services"
_ASK_S = 2.0
_MAX_STATE_BYTES = 1024 * 1024
_LOG_KEPT_BYTES = 1024 * 1024


def configuration(
    cloud: CloudRecord, *, netns: str, socket: Path, state: Path, authority: Path
) -> str:
    """Write haproxy.cfg for the nodes that exist.

    NodePorts go to the same port of any node whose kube-proxy says that it may be used: not one
    that is being removed (KEP-3836). 6443 goes to control planes only. `state`: what the process
    before knew of its servers, so that one that is not ready is not taken for ready again.
    `authority`: file with the CA of the API servers, used once the cloud knows it.
    """
    control = [n for n in cloud.nodes if n.role is Role.CONTROL_PLANE]
    verify = f"verify required ca-file {authority}" if cloud.api_ca else "verify none"
    text = [
        *_everywhere(socket, state),
        "frontend api",
        f"  bind {cloud.address}:{_API}",
        f"  bind {BALANCER}:{_API} namespace {netns}",
        "  default_backend api",
        "backend api",
        "  balance leastconn",
        # an API server that listens is not one that can answer: before its caches are filled, and
        # without a quorum of etcd, it refuses (403) or hangs. Sessions of one that is marked down
        # go on: it may be draining. Before init nobody knows the CA; clients verify in any case
        "  option httpchk",
        "  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host kubernetes",
        "  http-check expect status 200",
        "  timeout check 1500ms",
        f"  default-server check check-ssl {verify} inter 500ms fall 3 rise 1",
        *(f"  server {_server(n)} {n.address}:{_API} namespace {netns}" for n in control),
        "frontend node-ports",
        f"  bind {cloud.address}:{_NODE_PORTS}",
        "  default_backend node-ports",
        "backend node-ports",
        "  balance roundrobin",
        "  option httpchk GET /healthz",
        "  http-check expect status 200",
        f"  default-server check port {_KUBE_PROXY_HEALTH} inter 1s fall 2 rise 1",
        *(f"  server {_server(n)} {n.address} namespace {netns}" for n in cloud.nodes),
    ]
    text += [line for node in cloud.nodes for line in _own_ports(cloud, node, netns)]
    return "\n".join(text) + "\n"


def _everywhere(socket: Path, state: Path) -> tuple[str, ...]:
    """Write what holds for the whole process, and for every proxy unless it says otherwise."""
    return (
        "global",
        "  maxconn 8000",
        "  nbthread 1",
        "  hard-stop-after 1h",
        f"  stats socket {socket} mode 600 level admin expose-fd listeners",
        f"  server-state-file {state}",
        "defaults",
        "  load-server-state-from-file global",
        "  mode tcp",
        "  timeout connect 2s",
        # a watch is silent for long
        "  timeout client 24h",
        "  timeout server 24h",
        "  timeout tunnel 24h",
        "  timeout check 1s",
        "  retries 3",
        # at once on another server: nobody waits for one that just ended
        "  option redispatch 1",
        "  option clitcpka",
        "  option srvtcpka",
        "  srvtcpka-idle 5s",
        "  srvtcpka-intvl 2s",
        "  srvtcpka-cnt 3",
    )


def _own_ports(cloud: CloudRecord, node: NodeRecord, netns: str) -> list[str]:
    """Write the listeners of one node: its init, recovery, verification and policy ports."""
    ports = (
        (node.init_port, _INIT),
        (node.recovery_port, _RECOVERY),
        (node.verify_port, _VERIFY),
        (node.policy_port, _POLICY),
    )
    text = []
    for outer, inner in ports:
        text += [
            f"listen {_server(node)}-{inner}",
            f"  bind {cloud.address}:{outer}",
            f"  server {_server(node)} {node.address}:{inner} namespace {netns}",
        ]
    return text


async def reload(
    layout: Layout, cloud: CloudRecord, *, cgroups: Cgroups, tools_root: Path
) -> Process:
    """Bring haproxy to the present nodes; gives the new process.

    Raises:
        Unavailable: the configuration was refused, or a port is taken.
    """
    file, socket = layout.run / "haproxy.cfg", layout.run / "haproxy.sock"
    state, authority = layout.run / "haproxy.state", layout.run / "api-ca.pem"
    write_atomic(authority, cloud.api_ca, mode=0o600)
    text = configuration(
        cloud, netns=layout.name, socket=socket, state=state, authority=authority
    ).encode()
    old = cloud.haproxy
    running = kernel.alive(old.pid, old.started)
    if running and file.exists() and file.read_bytes() == text:
        return old
    write_atomic(file, text, mode=0o600)
    write_atomic(state, await _servers_state(socket) if running else b"", mode=0o600)
    haproxy = command(tools_root, "haproxy")
    await run(*haproxy, "-c", "-q", "-f", file, timeout_s=20, env=spawn.ENVIRONMENT)
    log = layout.state / "haproxy.log"
    await asyncio.to_thread(_bound, log)
    # -x: sockets come from the old process, so that no connection is refused meanwhile
    handover = ("-x", str(socket), "-sf", str(old.pid)) if running else ()
    new = spawn.start(
        (*haproxy, "-db", "-f", str(file), *handover),
        cgroups=cgroups,
        part=_PART,
        log=log,
    )
    await _listening(cloud, new, log)
    return new


async def _servers_state(socket: Path) -> bytes:
    """Ask the running process how its servers are; nothing where it does not say."""
    try:
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"show servers state\n")
                return await _all(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


async def _all(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while len(found) < _MAX_STATE_BYTES and (chunk := await reader.read(65536)):
        found += chunk
    return found


async def _listening(cloud: CloudRecord, process: Process, log: Path) -> None:
    for _ in range(200):
        if not kernel.alive(process.pid, process.started):
            words = (await asyncio.to_thread(log.read_bytes))[-800:].decode(errors="replace")
            raise Unavailable(
                f"haproxy ended: {words.strip()}", hint=f"is a port of {cloud.address} in use?"
            )
        try:
            _, writer = await asyncio.open_connection(cloud.address, _API)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise Unavailable(f"haproxy does not listen on {cloud.address}:{_API}")


def _bound(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_KEPT_BYTES:
        log.unlink()


def _server(node: NodeRecord) -> str:
    return f"n{node.index}"
