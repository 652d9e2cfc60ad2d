"""How an image comes in through the daemon's socket: checked blobs, then names.

A name is given only to an image that is here with everything it names.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError
from constellation.providers.local.image_documents import REGISTRY, REPOSITORY, TAG, Reference

if TYPE_CHECKING:
    from grpclib.server import Stream

    from constellation.providers.local.daemon.image_store import ImageStore
    from constellation.rpc.stubs import daemon_pb2 as pb

__all__ = ["MAX_CHUNK_BYTES", "load"]

MAX_CHUNK_BYTES = 1024 * 1024
_MAX_PARTS = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


async def load(stream: Stream[pb.LoadImageRequest, pb.LoadImageReply], store: ImageStore) -> None:
    """Take what one call sends.

    Raises:
        FormatError, WrongDigest: not what was announced; that blob is not kept.
        Conflict: no room, or a name without a whole image.
    """
    for _ in range(_MAX_PARTS):
        message = await stream.recv_message()
        if message is None:
            return
        match message.WhichOneof("part"):
            case "blob":
                await _blob(stream, message.blob, store)
            case "name":
                await asyncio.to_thread(_name, message.name, store)
            case _:
                raise FormatError("load image: bytes of no blob")
    raise FormatError(f"load image: more than {_MAX_PARTS} parts")


async def _blob(
    stream: Stream[pb.LoadImageRequest, pb.LoadImageReply], blob: pb.Blob, store: ImageStore
) -> None:
    if not _SHA256.fullmatch(blob.sha256):
        raise FormatError("load image: a blob's SHA-256 is not 64 hexadecimal digits")
    left = blob.size
    with store.receive(blob.sha256, blob.size) as receiver:
        while left > 0:
            message = await stream.recv_message()
            if message is None or message.WhichOneof("part") != "chunk":
                raise FormatError(f"blob {blob.sha256}: {left} bytes are missing")
            if not 0 < len(message.chunk) <= MAX_CHUNK_BYTES:
                raise FormatError(f"blob {blob.sha256}: a chunk of {len(message.chunk)} bytes")
            await asyncio.to_thread(receiver.write, message.chunk)
            left -= len(message.chunk)


def _name(name: pb.ImageName, store: ImageStore) -> None:
    if not (
        REGISTRY.fullmatch(name.registry)
        and REPOSITORY.fullmatch(name.repository)
        and TAG.fullmatch(name.tag)
        and _SHA256.fullmatch(name.sha256)
    ):
        raise FormatError("load image: no name of an image")
    store.ensure_complete(name.sha256)
    reference = Reference(registry=name.registry, repository=name.repository, tag=name.tag)
    store.name(reference, name.sha256, loaded=True)
