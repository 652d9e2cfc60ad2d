"""The KMS v2 plugin of kube-apiserver: Secrets in etcd are under a key that etcd never holds.

Served on a unix socket that only root of this node and kube-apiserver's pod reach. Source:
Kubernetes, "Using a KMS provider for data encryption", KMS v2; `rpc/protos/kmsv2.proto`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import kmsv2_pb2
from constellation.rpc.stubs.kmsv2_grpc import KeyManagementServiceBase
from constellation.services.keyservice.envelope import CURRENT_KEY_ID, NONCE_BYTES, unwrap, wrap

if TYPE_CHECKING:
    from grpclib.server import Stream

    from constellation.crypto.derive import MasterSecret

__all__ = ["KmsPlugin"]


class KmsPlugin(KeyManagementServiceBase):
    """Wraps and unwraps the API server's keys; method names are those of kmsv2.proto."""

    def __init__(self, master: MasterSecret) -> None:
        self._master = master

    async def Status(  # noqa: N802 - the name in kmsv2.proto
        self, stream: Stream[kmsv2_pb2.StatusRequest, kmsv2_pb2.StatusResponse]
    ) -> None:
        """Say that it works and which key is current."""
        await stream.recv_message()
        await stream.send_message(
            kmsv2_pb2.StatusResponse(version="v2", healthz="ok", key_id=CURRENT_KEY_ID)
        )

    async def Encrypt(  # noqa: N802 - the name in kmsv2.proto
        self, stream: Stream[kmsv2_pb2.EncryptRequest, kmsv2_pb2.EncryptResponse]
    ) -> None:
        """Wrap a key under the current key."""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                return
            wrapped = wrap(
                request.plaintext,
                master=self._master,
                key_id=CURRENT_KEY_ID,
                nonce=secrets.token_bytes(NONCE_BYTES),
            )
            await stream.send_message(
                kmsv2_pb2.EncryptResponse(ciphertext=wrapped, key_id=CURRENT_KEY_ID)
            )

    async def Decrypt(  # noqa: N802 - the name in kmsv2.proto
        self, stream: Stream[kmsv2_pb2.DecryptRequest, kmsv2_pb2.DecryptResponse]
    ) -> None:
        """Unwrap a key that was wrapped under any of this cluster's etcd keys."""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                return
            plain = unwrap(request.ciphertext, master=self._master, key_id=request.key_id)
            await stream.send_message(kmsv2_pb2.DecryptResponse(plaintext=plain))
