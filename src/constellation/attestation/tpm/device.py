"""A TPM 2.0 as an asynchronous object: commands over a unix stream socket or a device node.

`Tpm.connect` takes swtpm's data socket or /dev/tpmrm0. One command at a time; each has a deadline;
a connection whose command was interrupted is closed, since its answer would be taken for the next
command's, and opened again when needed. Source: TCG TPM 2.0 Library, revision 1.59, Part 3
(commands, each method names its own) and Part 1, section 18 (layout, password sessions).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Self

from constellation.attestation.tpm.public import Attribute, Curve, EccKey, Public, Scheme
from constellation.attestation.tpm.structures import (
    Alg,
    PcrSelection,
    pack_selections,
    parse_selections,
)
from constellation.attestation.tpm.transport import HEADER_BYTES, MAX_RESPONSE_BYTES, open_transport
from constellation.base.binary import Reader, Writer
from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, FormatError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from constellation.attestation.tpm.transport import Transport

__all__ = ["AK_TEMPLATE", "CommandRefused", "Tpm"]

AK_TEMPLATE = Public(
    name_alg=Alg.SHA256,
    object_attributes=(
        Attribute.FIXED_TPM
        | Attribute.FIXED_PARENT
        | Attribute.SENSITIVE_DATA_ORIGIN
        | Attribute.USER_WITH_AUTH
        | Attribute.NO_DA
        | Attribute.RESTRICTED
        | Attribute.SIGN_ENCRYPT
    ),
    auth_policy=b"",
    symmetric=None,
    scheme=Scheme(scheme=Alg.ECDSA, hash=Alg.SHA256),
    key=EccKey(curve=Curve.P256, kdf=Scheme(scheme=Alg.NULL), x=b"", y=b""),
)
"""The AK of local nodes: ECDSA P-256 with SHA-256, restricted; the same key from the same TPM."""

# TPM_ST (Part 2, section 6.9), TPM_RH (7.4), TPM_RS_PW
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_OWNER, _ENDORSEMENT, _PLATFORM, _PASSWORD = 0x40000001, 0x4000000B, 0x4000000C, 0x40000009
_DIGESTS_A_READ = 8  # TPML_DIGEST holds at most 8 (Part 2, section 10.9.5)
_NV_CHUNK_BYTES = 512  # below every implementation's TPM_PT_NV_BUFFER_MAX
_MAX_NV_BYTES = 16 * 1024
# TPMA_NV (Part 2, section 13.4): made and written by the platform, read by everybody
_NV_ATTRIBUTES = 1 << 0 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 25 | 1 << 30
_NV_WRITTEN = 1 << 29
_NV_BY_PASSWORD = 1 << 2 | 1 << 18 | 1 << 25  # AUTHWRITE, AUTHREAD, NO_DA
# TPM_RC (Part 2, section 6.6.3): the same command again may work
_RETRY = frozenset({0x908, 0x90A, 0x920, 0x922})  # YIELDED, TESTING, NV_RATE, RETRY
_RETRY_PAUSE_S = 0.02
_INITIALIZE = 0x100  # startup was done before
_NAMES = {
    0x100: "TPM_RC_INITIALIZE",
    0x101: "TPM_RC_FAILURE",
    0x125: "TPM_RC_AUTH_MISSING",
    0x143: "TPM_RC_COMMAND_CODE",
    0x14A: "TPM_RC_NV_UNINITIALIZED",
    0x14C: "TPM_RC_NV_DEFINED",
    0x902: "TPM_RC_OBJECT_MEMORY",
    0x907: "TPM_RC_LOCALITY",
    0x921: "TPM_RC_LOCKOUT",
    0x084: "TPM_RC_VALUE",
    0x08B: "TPM_RC_HANDLE",
    0x095: "TPM_RC_SIZE",
}
_FORMAT_ONE, _HANDLE_ERROR = 0x80, 0x8B


class CommandRefused(Conflict):
    """The TPM answered with another code than success; `code` is its TPM_RC."""

    def __init__(self, command: str, code: int) -> None:
        self.code = code
        # format one carries the number of the parameter or handle in the bits above
        base = code & 0xBF if code & _FORMAT_ONE else code
        super().__init__(f"{command}: the TPM refused: {_NAMES.get(base, 'code')} ({code:#05x})")

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing under the handle that was named."""
        return bool(self.code & _FORMAT_ONE) and self.code & 0xBF == _HANDLE_ERROR


class Tpm:
    """A TPM; make one with `connect`. Every method raises `Unavailable` and `CommandRefused`."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._transport: Transport | None = None
        self._lock = asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path | str, *, timeout_s: float = 10.0) -> Self:
        """Open a TPM; `timeout_s` bounds each command, waiting for an earlier client included.

        Raises:
            Unavailable: nothing there answers.
        """
        tpm = cls(Path(path), timeout_s=timeout_s)
        async with tpm._lock:
            tpm._transport = await open_transport(tpm._path, timeout_s=tpm._timeout_s)
        return tpm

    async def close(self) -> None:
        """Let the next client have the TPM."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def startup(self) -> None:
        """Start the TPM with cleared state (TPM2_Startup); harmless if it was started before."""
        try:
            await self._run("TPM2_Startup", 0x144, params=b"\0\0")
        except CommandRefused as error:
            if error.code != _INITIALIZE:
                raise

    async def extend(self, pcr: int, digest: bytes, *, bank: Alg = Alg.SHA256) -> None:
        """Extend one register (TPM2_PCR_Extend); `digest` has the bank's size."""
        params = Writer(order="big").number(1, 4).number(bank, 2).raw(digest).done()
        await self._run("TPM2_PCR_Extend", 0x182, handles=(pcr,), auths=1, params=params)

    async def read_pcrs(
        self, pcrs: tuple[int, ...], *, bank: Alg = Alg.SHA256
    ) -> Mapping[int, bytes]:
        """Read registers (TPM2_PCR_Read): number -> value, ascending."""
        values: dict[int, bytes] = {}
        missing = sorted(set(pcrs))
        while missing:
            wanted = PcrSelection(bank=bank, pcrs=tuple(missing[:_DIGESTS_A_READ]))
            read = await self._run("TPM2_PCR_Read", 0x17E, params=pack_selections((wanted,)))
            read.number(4, "pcrUpdateCounter")
            got = [n for s in parse_selections(read) if s.bank is bank for n in s.pcrs]
            if not got or read.number(4, "pcrValues.count") != len(got):
                raise CommandRefused("TPM2_PCR_Read", 0)
            values |= {n: read.sized(2, "pcrValues", maximum=64) for n in got}
            read.end()
            missing = [n for n in missing if n not in values]
        return dict(sorted(values.items()))

    async def create_primary_ak(self) -> tuple[int, Public]:
        """Make the AK of local nodes; see `create_primary`."""
        return await self.create_primary(AK_TEMPLATE.pack())

    async def create_primary(self, template: bytes) -> tuple[int, Public]:
        """Make a key in the endorsement hierarchy (TPM2_CreatePrimary) from a TPMT_PUBLIC.

        The same TPM gives the same key for the same template each time. Gives handle and public
        area. Flush the handle.
        """
        params = Writer(order="big")
        params.sized(bytes(4), 2)  # inSensitive: empty authValue, empty data
        params.sized(template, 2).sized(b"", 2).number(0, 4)  # outsideInfo, creationPCR
        read = await self._run(
            *("TPM2_CreatePrimary", 0x131),
            handles=(_ENDORSEMENT,),
            auths=1,
            params=params.done(),
            returns_handle=True,
        )
        handle = read.number(4, "objectHandle")
        return handle, Public.parse(read.sized(2, "outPublic", maximum=MAX_RESPONSE_BYTES))

    async def persist(self, handle: int, persistent: int) -> None:
        """Keep a transient object under a persistent handle (TPM2_EvictControl, owner)."""
        params = persistent.to_bytes(4, "big")
        await self._run(
            "TPM2_EvictControl", 0x120, handles=(_OWNER, handle), auths=1, params=params
        )

    async def flush(self, handle: int) -> None:
        """Free a transient object (TPM2_FlushContext); there are only three slots."""
        await self._run("TPM2_FlushContext", 0x165, params=handle.to_bytes(4, "big"))

    async def read_public(self, handle: int) -> Public:
        """Read an object's public area (TPM2_ReadPublic)."""
        read = await self._run("TPM2_ReadPublic", 0x173, handles=(handle,))
        return Public.parse(read.sized(2, "outPublic", maximum=MAX_RESPONSE_BYTES))

    async def quote(
        self, handle: int, *, qualifying_data: bytes, pcrs: tuple[int, ...], bank: Alg = Alg.SHA256
    ) -> tuple[bytes, bytes]:
        """Quote registers with the key's own scheme (TPM2_Quote): TPMS_ATTEST, TPMT_SIGNATURE."""
        params = Writer(order="big").sized(qualifying_data, 2).number(Alg.NULL, 2)
        params.raw(pack_selections((PcrSelection(bank=bank, pcrs=tuple(sorted(pcrs))),)))
        read = await self._run(
            "TPM2_Quote", 0x158, handles=(handle,), auths=1, params=params.done()
        )
        return read.sized(2, "quoted", maximum=MAX_RESPONSE_BYTES), read.rest()

    async def nv_define(self, index: int, size: int, *, owner: bool = False) -> None:
        """Define an index (TPM2_NV_DefineSpace) that the platform writes and everybody reads.

        `owner`: of the owner hierarchy instead, read and written with an empty password; a running
        system may make such, the platform's hierarchy is the firmware's.
        """
        attributes = _NV_BY_PASSWORD if owner else _NV_ATTRIBUTES
        public = Writer(order="big").number(index, 4).number(Alg.SHA256, 2)
        public.number(attributes, 4).sized(b"", 2).number(size, 2)
        params = Writer(order="big").sized(b"", 2).sized(public.done(), 2).done()
        by = _OWNER if owner else _PLATFORM
        await self._run("TPM2_NV_DefineSpace", 0x12A, handles=(by,), auths=1, params=params)

    async def nv_undefine(self, index: int, *, owner: bool = False) -> None:
        """Remove an index (TPM2_NV_UndefineSpace)."""
        by = _OWNER if owner else _PLATFORM
        await self._run("TPM2_NV_UndefineSpace", 0x122, handles=(by, index), auths=1)

    async def nv_write(self, index: int, data: bytes, *, owner: bool = False) -> None:
        """Write an index from its start, in pieces (TPM2_NV_Write)."""
        by = index if owner else _PLATFORM
        for offset in range(0, len(data), _NV_CHUNK_BYTES):
            piece = data[offset : offset + _NV_CHUNK_BYTES]
            params = Writer(order="big").sized(piece, 2).number(offset, 2).done()
            await self._run("TPM2_NV_Write", 0x137, handles=(by, index), auths=1, params=params)

    async def nsm_request(self, index: int) -> None:
        """Have AWS' hypervisor answer the request in an index, in its place (a vendor command)."""
        await self._run("AWS NSM request", 0x20000001, handles=(index, index), auths=1)

    async def nv_read(self, index: int) -> bytes:
        """Read a whole index (TPM2_NV_ReadPublic, TPM2_NV_Read); empty if never written."""
        read = await self._run("TPM2_NV_ReadPublic", 0x169, handles=(index,))
        public = Reader(
            read.sized(2, "nvPublic", maximum=MAX_RESPONSE_BYTES), what="NV", order="big"
        )
        public.take(6, "nvIndex, nameAlg")
        attributes = public.number(4, "attributes")
        public.sized(2, "authPolicy", maximum=64)
        size = public.number(2, "dataSize")
        if size > _MAX_NV_BYTES:
            raise FormatError(f"NV index {index:#x}: {size} bytes, at most {_MAX_NV_BYTES}")
        if not attributes & _NV_WRITTEN:
            return b""
        data = b""
        while len(data) < size:
            piece = min(_NV_CHUNK_BYTES, size - len(data))
            params = Writer(order="big").number(piece, 2).number(len(data), 2).done()
            read = await self._run(
                "TPM2_NV_Read", 0x14E, handles=(index, index), auths=1, params=params
            )
            part = read.sized(2, "data", maximum=piece)
            if len(part) != piece:
                raise FormatError(f"NV index {index:#x}: {len(part)} bytes, want {piece}")
            data += part
        return data

    async def _run(
        self,
        command: str,
        code: int,
        *,
        handles: tuple[int, ...] = (),
        auths: int = 0,
        params: bytes = b"",
        returns_handle: bool = False,
    ) -> Reader:
        """Run one command; gives a reader of its response parameters (a handle first)."""
        body = Writer(order="big")
        for handle in handles:
            body.number(handle, 4)
        if auths:
            # an empty password: handle, nonce, attributes, hmac (Part 1, section 19.4)
            one = Writer(order="big").number(_PASSWORD, 4).sized(b"", 2).number(0, 1).sized(b"", 2)
            body.sized(one.done() * auths, 4)
        content = body.raw(params).done()
        head = Writer(order="big").number(_SESSIONS if auths else _NO_SESSIONS, 2)
        head.number(HEADER_BYTES + len(content), 4).number(code, 4)
        response = await self._exchange(command, head.raw(content).done())
        read = Reader(response, what=command, order="big")
        tag = read.number(2, "tag")
        read.take(8, "size and code")
        if tag != _SESSIONS:
            return Reader(read.rest(), what=command, order="big")
        handle_bytes = read.take(4, "handle") if returns_handle else b""
        parameters = read.sized(4, "parameters", maximum=MAX_RESPONSE_BYTES)
        return Reader(handle_bytes + parameters, what=command, order="big")

    async def _exchange(self, command: str, data: bytes) -> bytes:
        """Send one command until the TPM does not say "again", within the deadline."""
        end = monotonic_s() + self._timeout_s
        try:
            async with self._lock, asyncio.timeout(self._timeout_s):
                while True:
                    response = await self._once(data)
                    code = int.from_bytes(response[6:10], "big")
                    if code not in _RETRY or monotonic_s() + _RETRY_PAUSE_S > end:
                        break
                    await asyncio.sleep(_RETRY_PAUSE_S)
        except TimeoutError:
            raise Unavailable(
                f"{command}: TPM {self._path} did not answer within {self._timeout_s:g} s",
                hint="another program may hold it; it serves one at a time",
            ) from None
        if code in _RETRY:
            raise Unavailable(f"{command}: TPM {self._path} is busy ({code:#05x})")
        if code:
            raise CommandRefused(command, code)
        return response

    async def _once(self, data: bytes) -> bytes:
        if self._transport is None:
            self._transport = await open_transport(self._path, timeout_s=self._timeout_s)
        done = False
        try:
            response = await self._transport.exchange(data)
            size = int.from_bytes(response[2:6], "big")
            if len(response) < HEADER_BYTES or len(response) != size:
                raise FormatError(f"TPM {self._path}: {len(response)} bytes, header says {size}")
            done = True
        except (OSError, EOFError) as error:
            raise Unavailable(f"TPM {self._path}: connection lost: {error}") from error
        finally:
            if not done:
                await self.close()
        return response
