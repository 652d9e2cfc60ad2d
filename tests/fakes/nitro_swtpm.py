"""A NitroTPM under QEMU: swtpm, with the Nitro hypervisor's own command in front of it.

QEMU speaks to swtpm's control socket, and hands over one end of its data channel there. This stands
in between, and answers what swtpm has not: AWS' vendor command and the NV index that it works on
(8 KiB, more than swtpm's indices hold). Both go to the fake `nsm_tpm`, whose registers are swtpm's
own: the guest's firmware, kernel and programs measured them. The vendor command is in the list of
commands too, else Linux' resource manager would not let it through.
Sources: swtpm, man 3 swtpm_ioctls (CMD_SET_DATAFD); TPM 2.0 Library, Part 3, TPM2_GetCapability;
Linux 6.12, drivers/char/tpm/tpm2-cmd.c (tpm2_get_cc_attrs_tbl) and tpm2-space.c.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from constellation.attestation.tpm.structures import Alg
from tests.fakes.nsm_tpm import NsmTpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.aws_nitro import NitroWorld

__all__ = ["nitro_swtpm"]

_SET_DATAFD = (0x10).to_bytes(4, "big")
_HEADER_BYTES = 10
_GET_CAPABILITY, _PCR_READ = 0x17A, 0x17E
_COMMANDS, _PROPERTIES, _TOTAL_COMMANDS = 2, 6, 0x129
_VENDOR = 0x20000001
_VENDOR_ATTRIBUTES = _VENDOR | 2 << 25  # two handles
_NV_COMMANDS = {0x12A, 0x122, 0x137, 0x14E, 0x169, _VENDOR}
_INDEX = (0x01800C0E).to_bytes(4, "big")
_CHUNK = 65536


@contextlib.asynccontextmanager
async def nitro_swtpm(
    control: Path, *, real: Path, world: NitroWorld, folder: Path
) -> AsyncIterator[None]:
    """Listen on `control` for QEMU; `real` is swtpm's control socket. Ends with the block."""
    registers: Any = _Registers()
    fake = NsmTpm(world, registers)
    tasks: list[asyncio.Task[None]] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(control))
    listener.listen(1)
    listener.setblocking(False)
    async with fake.serve(folder / "nsm.sock") as nsm:
        tasks.append(asyncio.create_task(_control(listener, real, nsm, registers, tasks)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            listener.close()


class _Registers:
    """What `NsmTpm` takes registers from; filled before each document."""

    def __init__(self) -> None:
        self.pcrs: dict[int, bytes] = {}


async def _control(
    listener: socket.socket,
    real: Path,
    nsm: Path,
    registers: _Registers,
    tasks: list[asyncio.Task[None]],
) -> None:
    loop = asyncio.get_running_loop()
    qemu, _ = await loop.sock_accept(listener)
    qemu.setblocking(False)
    swtpm = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    swtpm.setblocking(False)
    await loop.sock_connect(swtpm, str(real))
    try:
        tasks.append(asyncio.create_task(_pump(swtpm, qemu)))
        while True:
            await _readable(qemu)
            data, ancillary, _, _ = qemu.recvmsg(_CHUNK, socket.CMSG_SPACE(4))
            if not data:
                return
            if not ancillary:
                await loop.sock_sendall(swtpm, data)
                continue
            assert data.startswith(_SET_DATAFD)
            given = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
            ours, theirs = socket.socketpair()
            socket.send_fds(swtpm, [data], [theirs.fileno()])
            theirs.close()
            for end in (given, ours):
                end.setblocking(False)
            tasks.append(asyncio.create_task(_commands(given, ours, nsm, registers)))
    finally:
        qemu.close()
        swtpm.close()


async def _readable(of: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(of, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(of)


async def _pump(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(target, data)


async def _commands(
    qemu: socket.socket, swtpm: socket.socket, nsm: Path, registers: _Registers
) -> None:
    """Answer TPM commands one by one."""
    loop = asyncio.get_running_loop()
    fake = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fake.setblocking(False)
    await loop.sock_connect(fake, str(nsm))
    try:
        while (command := await _message(qemu)) is not None:
            code = int.from_bytes(command[6:10], "big")
            if code in _NV_COMMANDS and _INDEX in command:
                if code == _VENDOR:
                    registers.pcrs = await _registers(swtpm)
                answer = await _exchange(fake, command)
            else:
                answer = await _exchange(swtpm, command)
                if code == _GET_CAPABILITY:
                    answer = _with_vendor_command(answer)
            await loop.sock_sendall(qemu, answer)
    finally:
        for end in (qemu, swtpm, fake):
            end.close()


async def _exchange(tpm: socket.socket, command: bytes) -> bytes:
    await asyncio.get_running_loop().sock_sendall(tpm, command)
    answer = await _message(tpm)
    assert answer is not None
    return answer


async def _message(of: socket.socket) -> bytes | None:
    """Read one command or answer by the size in its header; None: the other end is gone."""
    loop, data = asyncio.get_running_loop(), b""
    wanted = _HEADER_BYTES
    while len(data) < wanted:
        piece = await loop.sock_recv(of, wanted - len(data))
        if not piece:
            return None
        data += piece
        if len(data) == _HEADER_BYTES:
            wanted = int.from_bytes(data[2:6], "big")
    return data


def _with_vendor_command(answer: bytes) -> bytes:
    """Count the vendor command, and list it after the last of swtpm's own."""
    more, capability = answer[10], int.from_bytes(answer[11:15], "big")
    count, rest = int.from_bytes(answer[15:19], "big"), answer[19:]
    if any(answer[6:10]):
        return answer
    if capability == _PROPERTIES and count == 1 and rest[:4] == _TOTAL_COMMANDS.to_bytes(4, "big"):
        return answer[:23] + (int.from_bytes(rest[4:8], "big") + 1).to_bytes(4, "big")
    if capability == _COMMANDS and not more:
        listed = rest + _VENDOR_ATTRIBUTES.to_bytes(4, "big")
        size = (len(answer) + 4).to_bytes(4, "big")
        return answer[:2] + size + answer[6:15] + (count + 1).to_bytes(4, "big") + listed
    return answer


async def _registers(swtpm: socket.socket) -> dict[int, bytes]:
    """Read PCR 0 to 23 of the SHA-384 bank (TPM2_PCR_Read gives eight at a time)."""
    found: dict[int, bytes] = {}
    for first in (0, 8, 16):
        chosen = bytes(0xFF if first == 8 * n else 0 for n in range(3))
        selection = (1).to_bytes(4, "big") + Alg.SHA384.to_bytes(2, "big") + b"\x03" + chosen
        size = (_HEADER_BYTES + len(selection)).to_bytes(4, "big")
        command = b"\x80\x01" + size + _PCR_READ.to_bytes(4, "big") + selection
        answer = await _exchange(swtpm, command)
        digests = answer[-(8 * 50) :]  # TPML_DIGEST ends the answer: size (48), digest
        for number in range(8):
            found[first + number] = digests[50 * number + 2 : 50 * number + 50]
    return found
