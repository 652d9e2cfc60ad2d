"""Where a node's peer list comes from: its disk first, then any control plane, by long polls.

Only lists that the join key signed and that are not older than the kept one are taken; whoever
delivers them need not be trusted for more than that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from constellation.base import decode
from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.files import write_atomic
from constellation.kube.membership import NodeRole
from constellation.kube.peers import Peer, SignedPeers, load_peers, verify_peers
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import channel
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import PeerServiceStub
from constellation.services.mesh.wireguard import others

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.rpc.mutual_tls import ServiceTls

__all__ = ["Applies", "Follower", "from_message"]

_PORT = 9091
_POLL_S = 30.0
_PAUSE_S = 1.0
_log = logging.getLogger(__name__)


class Applies(Protocol):
    """What takes a peer list: `device.Device`."""

    async def apply(self, peers: tuple[Peer, ...], *, before: tuple[Peer, ...] | None) -> None:
        """Make the network what the list says, where it was `before`. Raises Unavailable."""
        ...


def from_message(message: join_pb2.PeerList) -> SignedPeers:
    """Give the value of a message; nothing is believed by that."""
    return SignedPeers(
        serial=message.serial,
        signature=message.signature,
        peers=tuple(
            Peer(
                node_name=p.node_name,
                address=p.address,
                mesh_public_key=p.mesh_public_key,
                mesh_address=p.mesh_address,
                pod_cidr=p.pod_cidr,
                role=p.role,
            )
            for p in message.peers
        ),
    )


class Follower:
    """Keeps one node's mesh in step with the newest list. Make it, then `start`, then `run`."""

    def __init__(
        self,
        device: Applies,
        *,
        path: Path,
        own_name: str,
        join_public_key: bytes,
        cluster_id: bytes,
        tls: ServiceTls,
    ) -> None:
        self._device = device
        self._path = path
        self._own_name = own_name
        self._join_public_key = join_public_key
        self._cluster_id = cluster_id
        self._tls = tls
        self._kept: SignedPeers | None = None

    async def start(self) -> None:
        """Apply the list on disk.

        Raises:
            Untrusted: the join key did not sign it.
            FormatError: it is not a peer list.
            Unavailable: there is none yet, or the network could not be changed.
        """
        try:
            data = self._path.read_bytes()
        except OSError as error:
            raise Unavailable(f"{self._path}: {error.strerror}") from error
        await self._take(load_peers(data, what=str(self._path)))

    async def run(self) -> None:
        """Ask control planes in turn, for ever."""
        turn = 0
        while True:
            asked = self.control_planes()
            try:
                if not asked:
                    raise Unavailable("the peer list names no control plane")
                await self.poll(asked[turn % len(asked)])
            except ConstellationError as error:
                turn += 1
                _log.info("will ask another control plane", extra={"reason": str(error)})
                await asyncio.sleep(_PAUSE_S)

    async def poll(self, address: str) -> None:
        """Ask one control plane for a newer list and apply it; returns after 20 s without news.

        Raises:
            Unavailable: it does not answer.
            Untrusted: what it gave is not signed by the join key, or is older.
        """
        peers = channel(address, _PORT, tls=self._tls)
        try:
            with raise_ours(f"PeerService {address}"):
                message = await PeerServiceStub(peers).Peers(
                    join_pb2.PeersRequest(known_serial=self._serial), timeout=_POLL_S
                )
        finally:
            peers.close()
        signed = from_message(message)
        if signed.serial != self._serial:
            await self._take(signed)

    @property
    def _serial(self) -> int:
        return self._kept.serial if self._kept is not None else 0

    def control_planes(self) -> tuple[str, ...]:
        """Give the addresses of all control planes in the kept list, this node's own included."""
        listed = self._kept.peers if self._kept is not None else ()
        return tuple(p.address for p in listed if p.role == NodeRole.CONTROL_PLANE)

    async def _take(self, signed: SignedPeers) -> None:
        verify_peers(
            signed,
            join_public_key=self._join_public_key,
            cluster_id=self._cluster_id,
            minimum_serial=self._serial,
        )
        before = self._kept.peers if self._kept is not None else None
        await self._device.apply(
            others(signed.peers, own_name=self._own_name),
            before=None if before is None else others(before, own_name=self._own_name),
        )
        write_atomic(self._path, decode.dump(signed), mode=0o600)
        self._kept = signed
        _log.info("peers", extra={"serial": signed.serial, "count": len(signed.peers)})
