"""Attacks by root on a running node, with its TPM: looking freshly booted once more.

Whoever has root on a worker has the TPM's data socket. Tickets and disk keys go only to nodes whose
PCR 15 is zero, so these commands are what stands between that root and its next ticket. Source:
TPM 2.0 Library 1.59, Part 3, sections 9.3 (Startup), 9.4 (Shutdown), 22.8 (PCR_Reset).
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import Conflict
from tests.fakes.tpm import LocalCloudCa, swtpm

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER_ID = bytes(range(32))
_OWN_PASSWORD = bytes.fromhex("00000009400000090000000000")  # no password, one session
_INITIALIZE, _LOCALITY = 0x100, 0x107


def _command(code: int, body: bytes, *, session: bool = False) -> bytes:
    return struct.pack(">HII", 0x8002 if session else 0x8001, 10 + len(body), code) + body


def _reset(register: int) -> bytes:
    return _command(0x13D, struct.pack(">I", register) + _OWN_PASSWORD, session=True)


STARTUP_CLEAR = _command(0x144, bytes(2))
SHUTDOWN_CLEAR = _command(0x145, bytes(2))


async def _send(socket: Path, *commands: bytes) -> list[int]:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    codes = []
    try:
        for command in commands:
            writer.write(command)
            head = await asyncio.wait_for(reader.readexactly(10), 5)
            _, size, code = struct.unpack(">HII", head)
            await reader.readexactly(size - 10)
            codes.append(code)
    finally:
        writer.close()
        await writer.wait_closed()
    return codes


async def test_root_with_the_tpm_cannot_look_freshly_booted(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(local_vtpm.firmware_log(bytes(32), "line", b"os")[0])
    async with swtpm(tmp_path) as socket:
        async with await Tpm.connect(socket) as tpm:
            await local_vtpm.manufacture(tpm, LocalCloudCa().certify)
            await local_vtpm.give_to_cluster(tpm, CLUSTER_ID, event_log=tmp_path / "log")
            given = (await tpm.read_pcrs((15,)))[15]
            await tpm.extend(16, bytes(32))
        # the control case: register 16 is for debugging, and anybody may reset it
        assert await _send(socket, _reset(16)) == [0]
        (refused,) = await _send(socket, _reset(15))
        assert refused & 0xFFF == 0x900 | (_LOCALITY & 0x7F)
        # a second power-on without a power cycle, alone and after an orderly end
        assert await _send(socket, STARTUP_CLEAR) == [_INITIALIZE]
        assert await _send(socket, SHUTDOWN_CLEAR, STARTUP_CLEAR) == [0, _INITIALIZE]
        async with await Tpm.connect(socket) as tpm:
            assert (await tpm.read_pcrs((15,)))[15] == given != pcr.initial(0xB, 15)
            with pytest.raises(Conflict, match="since power-on"):
                await local_vtpm.give_to_cluster(tpm, bytes(32), event_log=tmp_path / "log")
