"""The link wg0, its routes and the node's packet filter: where plans become kernel state.

The kernel's WireGuard where it has one, else wireguard-go with its configuration socket. The
private key goes through standard input or that socket, never argv. Every call may be repeated.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.proc import run
from constellation.base.retry import until_available
from constellation.kube import cni
from constellation.services.mesh import firewall, wireguard
from constellation.services.mesh.firewall import DEVICE

if TYPE_CHECKING:
    from constellation.base.secret import Secret
    from constellation.kube.peers import Peer
    from constellation.services.mesh.firewall import Place

__all__ = ["Device"]

_SHORT_S = 10.0
_SOCKET = Path("/var/run/wireguard") / f"{DEVICE}.sock"
_MAX_REPLY_BYTES = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """wg0 of this node. Make with `up`; `kernel`: which of the two implementations it is."""

    place: Place
    private_key: Secret
    kernel: bool
    socket: Path

    @classmethod
    async def up(cls, place: Place, *, private_key: Secret, socket: Path = _SOCKET) -> Device:
        """Load the packet filter for no peers, then make the link, without peers.

        Raises:
            Unavailable: a program is missing or failed.
        """
        await _filter(place, ())
        kernel = await _make(socket)
        device = cls(place=place, private_key=private_key, kernel=kernel, socket=socket)
        await _ip("address", "replace", f"{place.mesh_address}/{_prefix(place)}", "dev", DEVICE)
        await _ip("link", "set", DEVICE, "mtu", str(cni.MTU), "up")
        _log.info("mesh is up", extra={"kernel": kernel, "address": place.mesh_address})
        return device

    async def apply(self, peers: tuple[Peer, ...], *, before: tuple[Peer, ...] | None) -> None:
        """Make filter, peers and routes what the list says; `before`: the list until now.

        Raises:
            Unavailable: a program failed; calling again is safe.
        """
        await _filter(self.place, peers)
        if self.kernel:
            text = wireguard.tool_configuration(peers, private_key=self.private_key)
            await run(
                "wg", "syncconf", DEVICE, "/dev/stdin", stdin=text.reveal(), timeout_s=_SHORT_S
            )
        else:
            request = wireguard.uapi_configuration(
                peers, before=before, private_key=self.private_key
            )
            await self._tell(request)
        wanted = wireguard.routes(peers)
        for network in sorted(wanted):
            await _ip("route", "replace", network, "dev", DEVICE, "src", self.place.mesh_address)
        for network in await self._present() - wanted:
            await _ip("route", "delete", network, "dev", DEVICE)

    async def _present(self) -> set[str]:
        shown = await run("ip", "-j", "route", "show", "dev", DEVICE, timeout_s=_SHORT_S)
        networks = {str(r["dst"]) for r in json.loads(shown.stdout or b"[]")}
        return {n for n in networks if n != self.place.mesh_cidr}

    async def _tell(self, request: Secret) -> None:
        try:
            async with asyncio.timeout(_SHORT_S):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(request.reveal())
                    await writer.drain()
                    reply = await reader.readuntil(b"\n\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"wireguard-go: {str(error) or 'no answer'}") from error
        if b"errno=0" not in reply[:_MAX_REPLY_BYTES]:
            raise Unavailable(f"wireguard-go: {reply[:100]!r}, expected errno=0")


async def _make(socket: Path) -> bool:
    """Make the link if there is none; say whether it is the kernel's."""
    if await _link_exists():
        return not await asyncio.to_thread(socket.exists)
    made = await run(
        "ip", "link", "add", DEVICE, "type", "wireguard", timeout_s=_SHORT_S, check=False
    )
    if made.returncode == 0:
        return True
    await run("wireguard-go", DEVICE, timeout_s=_SHORT_S)

    async def listens() -> None:
        if not await asyncio.to_thread(socket.exists):
            raise Unavailable(f"wireguard-go made no {socket}")

    await until_available(listens, deadline_s=_SHORT_S)
    return False


async def _link_exists() -> bool:
    shown = await run("ip", "link", "show", DEVICE, timeout_s=_SHORT_S, check=False)
    return shown.returncode == 0


async def _filter(place: Place, peers: tuple[Peer, ...]) -> None:
    text = firewall.ruleset(place, peers)
    await run("nft", "-f", "-", stdin=text.encode(), timeout_s=_SHORT_S)


async def _ip(*words: str) -> None:
    await run("ip", *words, timeout_s=_SHORT_S)


def _prefix(place: Place) -> str:
    return place.mesh_cidr.partition("/")[2]
