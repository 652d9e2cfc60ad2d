"""How the workstation sends an image to the daemon: blobs in chunks, then the names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base.progress import Progress
from constellation.rpc.stubs import daemon_pb2 as pb

if TYPE_CHECKING:
    from grpclib.client import Stream

    from constellation.base.progress import Report
    from constellation.providers.local.image_archive import Image

__all__ = ["push"]

_CHUNK_BYTES = 512 * 1024


async def push(
    stream: Stream[pb.LoadImageRequest, pb.LoadImageReply], image: Image, *, report: Report
) -> None:
    """Send all of an image, end the stream, and wait for the daemon's word."""
    total, done = sum(blob.size_bytes for blob in image.blobs), 0
    step = f"Load {', '.join(str(n.reference) for n in image.names)}"
    for blob in image.blobs:
        announced = pb.Blob(sha256=blob.sha256, size=blob.size_bytes)
        await stream.send_message(pb.LoadImageRequest(blob=announced))
        with blob.open() as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await stream.send_message(pb.LoadImageRequest(chunk=chunk))
                done += len(chunk)
                report(Progress(step=step, done=done, total=total, unit="bytes"))
    for named in image.names:
        reference = named.reference
        name = pb.ImageName(
            registry=reference.registry,
            repository=reference.repository,
            tag=reference.tag,
            sha256=named.sha256,
        )
        await stream.send_message(pb.LoadImageRequest(name=name))
    await stream.end()
    await stream.recv_message()
    report(Progress(step=step, done=done, total=total, unit="bytes", finished=True))
