"""haproxy in front of the cloud: its configuration (pure) and its one running process.

It runs inside the cloud's network, listens there and on the cloud's loopback address of the
machine, and connects inside only. A reload starts a new process that takes the listening sockets
over; connections that are open, and those that it has just taken, stay with the old one. That one
forgets all namespaces but its own when it is told to end, and must still reach servers: hence
inside. Source: HAProxy configuration manual, sections 4.2, 5.1 (`namespace`), 5.2.
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
    from collections.abc import Sequence
    from pathlib import Path

    from constellation.providers.local.daemon.cgroups import Cgroups
    from constellation.providers.local.daemon.layout import Layout
    from constellation.providers.local.daemon.records import CloudRecord, NodeRecord, Process

__all__ = ["configuration", "reload", "with_new_servers_down"]

_API = 6443
_INIT, _RECOVERY, _VERIFY, _POLICY = 9000, 9999, 30081, 30091
_KUBE_PROXY_HEALTH = 10256
_API_BACKEND, _NODE_PORTS_BACKEND = "api", "node-ports"
_PATIENT = "-patient"
_BACKENDS = tuple(
    name + kind for name in (_API_BACKEND, _NODE_PORTS_BACKEND) for kind in ("", _PATIENT)
)
_NODE_PORTS = "30100-32767"
_DOWN = {
    "srv_op_state": "0",
    "srv_admin_state": "0",
    "srv_check_health": "0",
    "srv_check_status": "1",
}
"""Stopped, and nothing known of its checks (HAProxy, `enum srv_state`, `HCHK_STATUS_INI`)."""
_PART = "services"
_ASK_S = 2.0
_MAX_STATE_BYTES = 1024 * 1024


def configuration(
    cloud: CloudRecord, *, host: str, socket: Path, state: Path, authority: Path
) -> str:
    """Write haproxy.cfg for the nodes that exist.

    NodePorts go to the same port of any node whose kube-proxy says that it may be used: not one
    that is being removed (KEP-3836). 6443 goes to control planes only. `state`: what the process
    before knew of its servers, so that one that is not ready is not taken for ready again.
    `host`: name of the machine's network namespace. `authority`: file with the CA of the API
    servers, used once the cloud knows it.
    """
    verify = f"verify required ca-file {authority}" if cloud.api_ca else "verify none"
    # an API server that listens is not one that can answer: before its caches are filled, and
    # without a quorum of etcd, it refuses (403) or hangs. Sessions of one that is marked down
    # go on: it may be draining. Before init nobody knows the CA; clients verify in any case
    api = (
        "  balance leastconn",
        "  option httpchk",
        "  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host kubernetes",
        "  http-check expect status 200",
    )
    node_ports = (
        "  balance roundrobin",
        "  option httpchk GET /healthz",
        "  http-check expect status 200",
    )
    text = [
        *_everywhere(socket, state),
        "frontend api",
        f"  bind {cloud.address}:{_API} namespace {host}",
        f"  bind {BALANCER}:{_API}",
        *_backends(
            _API_BACKEND,
            *api,
            # with these, one that is told to end is known within 0.5 + 3 * 1 + 2 * 0.2 s
            pace="inter 500ms fastinter 200ms fall 3 rise 1",
            check=f"check check-ssl {verify}",
            servers=[f"{_server(n)} {n.address}:{_API}" for n in _behind(_API_BACKEND, cloud)],
        ),
        "frontend node-ports",
        f"  bind {cloud.address}:{_NODE_PORTS} namespace {host}",
        *_backends(
            _NODE_PORTS_BACKEND,
            *node_ports,
            # and a node that is marked within 1 + 2 * 1 + 0.2 s
            pace="inter 1s fastinter 200ms fall 2 rise 1",
            check=f"check port {_KUBE_PROXY_HEALTH}",
            servers=[f"{_server(n)} {n.address}" for n in _behind(_NODE_PORTS_BACKEND, cloud)],
        ),
    ]
    text += [line for node in cloud.nodes for line in _own_ports(cloud, node, host)]
    return "\n".join(text) + "\n"


def _backends(
    name: str, *rules: str, pace: str, check: str, servers: Sequence[str]
) -> tuple[str, ...]:
    """Write the end of a frontend, its servers, and the same servers asked with patience.

    On a machine that is starved of processor time no server answers within a second, and a
    backend whose checks all fail closes every connection. Then those are taken that answer the
    same question within 10 s: slow ones, and none that refuses or says no.
    """
    lines = tuple(f"  server {server}" for server in servers)
    return (
        f"  use_backend {name}{_PATIENT} if {{ nbsrv({name}) eq 0 }}",
        f"  default_backend {name}",
        f"backend {name}",
        *rules,
        f"  default-server {check} {pace}",
        *lines,
        f"backend {name}{_PATIENT}",
        *rules,
        # a check connects within the shorter of the first and `inter`, TLS included, and waits for
        # its answer the longer of the second and `inter`
        "  timeout connect 5s",
        "  timeout check 10s",
        f"  default-server {check} inter 5s fastinter 1s downinter 1s fall 3 rise 1",
        *lines,
    )


def _behind(backend: str, cloud: CloudRecord) -> list[NodeRecord]:
    """Give the nodes of a backend: API servers are on control planes only."""
    every = backend.removesuffix(_PATIENT) == _NODE_PORTS_BACKEND
    return [n for n in cloud.nodes if every or n.role is Role.CONTROL_PLANE]


def with_new_servers_down(state: bytes, cloud: CloudRecord) -> bytes:
    """Add a line for each server of which the process before knows nothing: down until it answers.

    haproxy takes a new server for ready until its first check has failed, and would send requests
    to a machine that is not there yet. Source: HAProxy management guide, "show servers state"
    (version 1: a head that names the columns, a line a server; one without a known head stays).
    """
    lines = state.decode(errors="replace").splitlines()
    head = next((line[2:].split() for line in lines if line.startswith("# be_id ")), [])
    rows = [dict(zip(head, line.split(), strict=True)) for line in lines if _is_row(line, head)]
    new = []
    for backend in _BACKENDS:
        known = [row for row in rows if row.get("be_name") == backend]
        names = {row.get("srv_name") for row in known}
        for node in _behind(backend, cloud):
            if known and _server(node) not in names:
                own = {"srv_name": _server(node), "srv_addr": node.address}
                new.append(" ".join((known[0] | _DOWN | own)[column] for column in head))
    if not new:
        return state
    return "\n".join((*(line for line in lines if line), *new, "")).encode()


def _is_row(line: str, head: list[str]) -> bool:
    return bool(head) and not line.startswith("#") and len(line.split()) == len(head)


def _everywhere(socket: Path, state: Path) -> tuple[str, ...]:
    """Write what holds for the whole process, and for every proxy unless it says otherwise."""
    return (
        "global",
        "  maxconn 8000",
        "  nbthread 1",
        "  hard-stop-after 1h",
        # which connections failed and how, and what checks of servers found; no others
        "  log stdout format timed local0",
        f"  stats socket {socket} mode 600 level admin expose-fd listeners",
        f"  server-state-file {state}",
        "defaults",
        "  load-server-state-from-file global",
        "  log global",
        "  option tcplog",
        "  option dontlog-normal",
        "  option log-health-checks",
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


def _own_ports(cloud: CloudRecord, node: NodeRecord, host: str) -> list[str]:
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
            f"  bind {cloud.address}:{outer} namespace {host}",
            f"  server {_server(node)} {node.address}:{inner}",
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
        cloud, host=layout.host_netns.name, socket=socket, state=state, authority=authority
    ).encode()
    old = cloud.haproxy
    running = kernel.alive(old.pid, old.started)
    if running and file.exists() and file.read_bytes() == text:
        return old
    write_atomic(file, text, mode=0o600)
    known = await _servers_state(socket) if running else b""
    write_atomic(state, with_new_servers_down(known, cloud), mode=0o600)
    haproxy = command(tools_root, "haproxy")
    await run(*haproxy, "-c", "-q", "-f", file, timeout_s=20, env=spawn.ENVIRONMENT)
    log = layout.balancer_log
    # -x: sockets come from the old process, so that no connection is refused meanwhile
    handover = ("-x", str(socket), "-sf", str(old.pid)) if running else ()
    words = (*haproxy, "-db", "-f", str(file), *handover)
    new = await kernel.inside(
        lambda: spawn.start(words, cgroups=cgroups, part=_PART, log=log), net=layout.netns()
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


def _server(node: NodeRecord) -> str:
    return f"n{node.index}"
