"""A NitroTPM on a socket: NV indices of the owner, and AWS' vendor command over a `NitroWorld`.

It reads and writes the wire as a TPM does, so that what is tried is what goes to the device.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import cbor2

from constellation.base.binary import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.aws_nitro import NitroWorld
    from tests.fakes.vtpm import SoftTpm

__all__ = ["NsmTpm"]

_SESSIONS, _NO_SESSIONS = 0x8002, 0x8001
_REFUSED, _NO_HANDLE = 0x101, 0x18B
_PASSWORD_BYTES = 9


class NsmTpm:
    """Indices by number; `error` is what the hypervisor says instead of a document."""

    def __init__(self, world: NitroWorld, tpm: SoftTpm, *, error: str = "") -> None:
        self.world, self.tpm, self.error = world, tpm, error
        self.indices: dict[int, bytearray] = {}
        self.most = 0
        self._clients: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[Path]:
        server = await asyncio.start_unix_server(self._client, path)
        try:
            yield path
        finally:
            server.close()
            await asyncio.gather(*self._clients)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.append(task)
        try:
            while True:
                head = await reader.readexactly(10)
                size, code = int.from_bytes(head[2:6], "big"), int.from_bytes(head[6:10], "big")
                body = Reader(await reader.readexactly(size - 10), what="command", order="big")
                try:
                    params = self._run(code, body)
                    tag, result = (_SESSIONS, 0) if code != 0x169 else (_NO_SESSIONS, 0)
                except KeyError:
                    params, tag, result = b"", _NO_SESSIONS, _NO_HANDLE
                out = params
                if tag == _SESSIONS:
                    out = len(params).to_bytes(4, "big") + params + b"\0\0\1\0\0"
                answer = Writer(order="big").number(tag, 2).number(10 + len(out), 4)
                writer.write(answer.number(result, 4).raw(out).done())
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # the client went away
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _run(self, code: int, body: Reader) -> bytes:
        first = body.number(4, "handle")
        if code == 0x169:  # NV_ReadPublic
            return self._public(first)
        if code != 0x12A:
            index = body.number(4, "index")
            assert index in self.indices or code == 0x122
        body.take(4 + _PASSWORD_BYTES, "password session")
        match code:
            case 0x12A:  # NV_DefineSpace
                body.sized(2, "auth", maximum=0)
                public = Reader(body.sized(2, "public", maximum=64), what="nv", order="big")
                number = public.number(4, "index")
                if number in self.indices:
                    raise KeyError(number)  # TPM_RC_NV_DEFINED
                public.take(8, "nameAlg, attributes, policy")
                self.indices[number] = bytearray(public.number(2, "size"))
                self.most = max(self.most, len(self.indices))
            case 0x122:  # NV_UndefineSpace
                del self.indices[index]
            case 0x137:  # NV_Write
                data, offset = body.sized(2, "data", maximum=4096), body.number(2, "offset")
                self.indices[index][offset : offset + len(data)] = data
            case 0x14E:  # NV_Read
                size, offset = body.number(2, "size"), body.number(2, "offset")
                piece = bytes(self.indices[index][offset : offset + size])
                return len(piece).to_bytes(2, "big") + piece
            case 0x20000001:
                self._answer(index)
            case _:
                pass
        return b""

    def _public(self, index: int) -> bytes:
        size = len(self.indices[index])
        public = Writer(order="big").number(index, 4).number(0x0B, 2)
        public.number(1 << 29 | 1 << 2 | 1 << 18, 4).sized(b"", 2).number(size, 2)
        return Writer(order="big").sized(public.done(), 2).sized(b"", 2).done()

    def _answer(self, index: int) -> None:
        buffer = self.indices[index]
        asked = cbor2.loads(bytes(buffer))["Attestation"]
        document = self.world.document(self.tpm.pcrs, nonce=asked["nonce"])
        answer = {"Error": self.error} if self.error else {"Attestation": {"document": document}}
        data = cbor2.dumps(answer)
        buffer[: len(data)] = data
