"""Runs the local cloud's real haproxy before two nodes that this program plays, and asks them.

`python -m tests.fakes.balanced FOLDER`, inside namespaces of its own (user, network, mount) in
which /run/netns/host is another network. Writes to standard output, as JSON, who answered when.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyroute2 import IPRoute

from constellation.base import clock
from constellation.crypto.x509 import generate_key, self_signed
from constellation.providers.local.daemon import kernel
from constellation.providers.local.daemon.balancer import configuration
from constellation.providers.local.daemon.network import BALANCER
from constellation.providers.local.daemon.records import CloudRecord, with_node
from constellation.providers.protocols import Group, Role
from tests.fakes.tpm import program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_HOST = Path("/run/netns/host")
_NODE_PORT = 30124
_ASKED, _MOST_ASKED = 8, 100
_SEEN_S, _SLOW_S = 60.0, 3.0


@dataclass(kw_only=True)
class Node:
    """Answers everybody at once, and a check by `status` after `delay_s`."""

    address: str
    status: int = 200
    delay_s: float = 0.0

    async def serve(self, tls: ssl.SSLContext) -> None:
        for port, context in ((6443, tls), (10256, None), (_NODE_PORT, None)):
            await asyncio.start_server(self._answer, self.address, port, ssl=context)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line.split(b" ")[1:2] in ([b"/readyz"], [b"/healthz"]):
            await asyncio.sleep(self.delay_s)
            writer.write(f"HTTP/1.0 {self.status} It\r\n\r\n".encode())
        else:
            writer.write(self.address.encode())
        writer.close()


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """The two nodes and haproxy before them."""

    cloud: CloudRecord
    nodes: tuple[Node, Node]
    admin: Path

    async def until_up(self, **wanted: int) -> None:
        """Wait until haproxy would use so many servers of each backend."""
        async with asyncio.timeout(_SEEN_S):
            for name, number in wanted.items():
                while int(await self._is(name, "BACKEND", "act")) != number:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    async def until_slow(self, *backends: str) -> None:
        """Wait until the first node's answer to a check was taken, as late as it comes."""
        async with asyncio.timeout(_SEEN_S):
            for name in backends:
                while not await self._slow(name):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    async def _slow(self, backend: str) -> bool:
        status = await self._is(backend, "n0", "check_status")
        took_ms = int(await self._is(backend, "n0", "check_duration") or 0)
        return status.endswith("L7OK") and took_ms >= 1000 * _SLOW_S

    async def _is(self, backend: str, server: str, what: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.admin))
        writer.write(b"show stat\n")
        table = [line.split(",") for line in (await reader.read()).decode().splitlines()]
        writer.close()
        column = table[0].index(what)
        return next(r[column] for r in table if r[:2] == [backend.replace("_", "-"), server])

    async def answers(self, expected: int) -> dict[str, list[str]]:
        """Give who answered, of the API and of a NodePort; "" for a connection that was closed.

        So many are expected: asked on until they have been heard.
        """
        asks = {"api": self._api, "node port": self._node_port}
        return {name: await _who(ask, expected) for name, ask in asks.items()}

    async def _api(self) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(BALANCER, 6443, ssl=context)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        said = await reader.read()
        writer.close()
        return said.decode()

    async def _node_port(self) -> str:
        def ask() -> str:
            with socket.create_connection((self.cloud.address, _NODE_PORT), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return client.recv(100).decode()

        return await kernel.inside(ask, net=_HOST)


async def _who(ask: Callable[[], Awaitable[str]], expected: int) -> list[str]:
    found = set[str]()
    for n in range(_MOST_ASKED):
        if n >= _ASKED and len(found) >= expected:
            break
        try:
            found.add(await ask())
        except OSError:
            found.add("")
    return sorted(found)


def _loopback(*addresses: str) -> None:
    with IPRoute() as route:
        route.link("set", index=1, state="up")
        for address in addresses:
            route.addr("add", index=1, address=address, prefixlen=16)


async def _run(folder: Path) -> Balanced:
    cloud = CloudRecord(id="balanced", address="127.0.0.7")
    for _ in range(2):
        cloud, _node = with_node(cloud, Group(name="control", role=Role.CONTROL_PLANE, size=2))
    # in threads: it runs a loop of its own
    await kernel.inside(lambda: _loopback(BALANCER, *(n.address for n in cloud.nodes)))
    await kernel.inside(_loopback, net=_HOST)
    first, second = (Node(address=n.address) for n in cloud.nodes)
    for node in (first, second):
        await node.serve(_tls(folder))
    admin, file = Path("/run/haproxy.sock"), folder / "haproxy.cfg"
    authority, state = folder / "ca.pem", folder / "state"
    file.write_text(
        configuration(cloud, host=_HOST.name, socket=admin, state=state, authority=authority)
    )
    words = (*program("haproxy"), "-db", "-f", str(file))
    haproxy = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(_SEEN_S):
        while not admin.exists():
            assert haproxy.returncode is None, "haproxy ended"
            await asyncio.sleep(0.05)
    return Balanced(cloud=cloud, nodes=(first, second), admin=admin)


def _tls(folder: Path) -> ssl.SSLContext:
    key = generate_key()
    certificate = self_signed(
        key, common_name="node", now=clock.now(), lifetime=timedelta(days=1)
    ).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "node.pem").write_bytes(certificate + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "node.pem")
    return context


async def _main(folder: Path) -> dict[str, dict[str, list[str]]]:
    world = await _run(folder)
    starved, leaving = world.nodes
    found = {"both are well": await world.answers(2)}
    leaving.status = 503
    # of those that are asked with patience, too: nobody is used who says no
    await world.until_up(api=1, node_ports=1, api_patient=1, node_ports_patient=1)
    found["one says no"] = await world.answers(1)
    starved.delay_s = _SLOW_S
    await world.until_up(api=0, node_ports=0)
    await world.until_slow("api_patient", "node_ports_patient")
    found["the other is slow"] = await world.answers(1)
    leaving.status, starved.delay_s = 200, 0.0
    await world.until_up(api=2, node_ports=2)
    found["both are well again"] = await world.answers(2)
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(_main(Path(sys.argv[1]))), sys.stdout)
