"""Answers GetDataKey over mutual TLS: who calls, whether that caller may, then the key."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from constellation.crypto.derive import MasterSecret, derive_key
from constellation.kube.service_identity import parse_identity
from constellation.rpc.errors import raise_status
from constellation.rpc.mutual_tls import peer_public_key, peer_uris
from constellation.rpc.stubs.key_grpc import KeyServiceBase
from constellation.rpc.stubs.key_pb2 import GetDataKeyReply, GetDataKeyRequest
from constellation.services.keyservice.members import require_live_disk, require_member
from constellation.services.keyservice.namespaces import allow

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpclib.server import Stream

    from constellation.kube.membership import Membership

__all__ = ["PORT", "DataKeys"]

PORT = 9090
_log = logging.getLogger(__name__)


class DataKeys(KeyServiceBase):
    """The KeyService of one cluster; `membership` gives that of this moment."""

    def __init__(
        self, master: MasterSecret, *, cluster_id: bytes, membership: Callable[[], Membership]
    ) -> None:
        self._master = master
        self._cluster_id = cluster_id
        self._membership = membership

    async def GetDataKey(  # noqa: N802 - the name in key.proto
        self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
    ) -> None:
        """Derive one key; who asked for which is logged, the key never."""
        with raise_status():
            caller = parse_identity(peer_uris(stream), cluster_id=self._cluster_id)
            request = await stream.recv_message()
            if request is None:
                return
            key_id = allow(caller, key_id=request.id, size_bytes=request.size_bytes)
            membership = self._membership()
            require_member(membership, caller, public_key=peer_public_key(stream))
            require_live_disk(membership, key_id)
            key = derive_key(self._master, key_id, size_bytes=request.size_bytes)
            _log.info("a key was given", extra={"node": caller.name, "key_id": key_id})
            await stream.send_message(GetDataKeyReply(key=key.reveal()))
