"""The owner opens the disk of a control plane that finds no JoinService: recovery server, 9999.

The node attests (`recover-server`), the caller proves the owner key over the channel and brings
the master secret. Anybody else, and any other master secret, is refused. Source: design, 4 and 6.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.atls import server
from constellation.base.errors import Conflict
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import recover_pb2
from constellation.rpc.stubs.recover_grpc import RecoveryServiceBase
from constellation.services.diskmapper.unlock import Unlock
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, verify_owner_channel
from constellation.trust.disk_key import disk_key, own_master_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpclib.server import Stream

    from constellation.trust.node_document import NodeDocument

__all__ = ["RecoveryService"]


class RecoveryService(RecoveryServiceBase):
    """Hands the key to `opened`, which opens the disk and gives the node's name."""

    def __init__(
        self,
        document: NodeDocument,
        *,
        disk_uuid: bytes,
        opened: Callable[[Unlock], Awaitable[str]],
    ) -> None:
        self._document = document
        self._disk_uuid = disk_uuid
        self._opened = opened
        self._idle = asyncio.Event()
        self._idle.set()

    async def answered(self) -> None:
        """Wait until no call is being answered."""
        await self._idle.wait()

    async def Recover(  # noqa: N802 - the name in recover.proto
        self, stream: Stream[recover_pb2.RecoverRequest, recover_pb2.RecoverReply]
    ) -> None:
        """Check owner and master secret, open the disk, answer with the node's name."""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                return
            verify_owner_channel(
                self._document.owner_public_key,
                request.owner_signature,
                exporter=server.peer_of(stream).exporter(OWNER_CHANNEL_LABEL),
                cluster_id=self._document.cluster_id,
                purpose="recover",
            )
            server.owner_proven(stream)
            master = own_master_secret(
                request.master_key, request.master_salt, document=self._document
            )
            key = disk_key(master, self._disk_uuid)
            if not self._idle.is_set():
                raise Conflict("this node is being recovered already")
            self._idle.clear()
            try:
                name = await self._opened(Unlock(key=key, time=request.time))
                await stream.send_message(recover_pb2.RecoverReply(node_name=name))
            finally:
                self._idle.set()
