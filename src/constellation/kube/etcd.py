"""etcd as the control planes see it: members, who leads, snapshots; by its JSON gateway.

With the API server's client certificate. A call goes to the member of this node, or to another by
its address: only the member that leads gives the lead away.
Source: etcd 3.6, "gRPC gateway" (`/v3/cluster/member/…`, `/v3/maintenance/…`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from constellation.base.errors import FormatError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["Etcd", "EtcdMember", "parse_members", "write_snapshot"]

_HERE = "127.0.0.1"
_PORT = 2379
_TIMEOUT_S = 10.0
_MAX_LINE_BYTES = 8 * 1024 * 1024
_MAX_SNAPSHOT_BYTES = 16 * 1024**3
_DIGEST_BYTES = 32
"""A snapshot ends with the SHA-256 of what came before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdMember:
    """An etcd member: its id, and the address in its peer URL; a learner has no vote yet."""

    member_id: int
    address: str
    learner: bool


class Etcd:
    """The etcd member of this node, with the certificates below /etc/kubernetes/pki."""

    def __init__(self, pki: Path) -> None:
        self._pki = pki

    async def members(self) -> tuple[EtcdMember, ...]:
        """List all members. Raises Unavailable, FormatError."""
        return parse_members(await self._post("cluster/member/list", {"linearizable": True}))

    async def remove(self, member: EtcdMember) -> None:
        """Remove a member; one that is gone already is not an error. Raises Unavailable."""
        if member.member_id in {m.member_id for m in await self.members()}:
            await self._post("cluster/member/remove", {"ID": str(member.member_id)})

    async def leader(self) -> int:
        """Give the id of the member that leads; 0: none. Raises Unavailable, FormatError."""
        status = await self._post("maintenance/status", {})
        try:
            return int(status.get("leader", "0"))
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(f"etcd: not a status: {error!r}") from None

    async def move_leader(self, leader: EtcdMember, *, to: EtcdMember) -> None:
        """Let `leader` give the lead to another voter. Raises Unavailable."""
        await self._post(
            "maintenance/transfer-leadership",
            {"targetID": str(to.member_id)},
            address=leader.address,
        )

    async def snapshot(self, target: BinaryIO) -> None:
        """Write a snapshot, whole and checked after this. Raises Unavailable, FormatError."""
        try:
            async with (
                self._http() as http,
                http.stream("POST", _url(_HERE, "maintenance/snapshot"), json={}) as reply,
            ):
                reply.raise_for_status()
                await write_snapshot(reply.aiter_bytes(), target)
        except (OSError, ssl.SSLError, httpx2.HTTPError) as error:
            raise Unavailable(f"etcd: {str(error) or type(error).__name__}") from error

    def _http(self) -> httpx2.AsyncClient:
        context = ssl.create_default_context(cafile=str(self._pki / "etcd" / "ca.crt"))
        context.load_cert_chain(
            self._pki / "apiserver-etcd-client.crt", self._pki / "apiserver-etcd-client.key"
        )
        return httpx2.AsyncClient(verify=context, trust_env=False, timeout=_TIMEOUT_S)

    async def _post(self, call: str, body: dict[str, Any], *, address: str = _HERE) -> Any:
        try:
            async with self._http() as http:
                reply = await http.post(_url(address, call), json=body)
                reply.raise_for_status()
                return reply.json()
        except (OSError, ssl.SSLError, httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"etcd: {str(error) or type(error).__name__}") from error


def parse_members(reply: Any) -> tuple[EtcdMember, ...]:
    """Read the gateway's answer; numbers of 64 bits come as strings.

    Raises:
        FormatError: not a member list.
    """
    try:
        return tuple(
            EtcdMember(
                member_id=int(m["ID"]),
                address=urlsplit(m["peerURLs"][0]).hostname or "",
                learner=bool(m.get("isLearner", False)),
            )
            for m in reply["members"]
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FormatError(f"etcd: not a member list: {error!r}") from None


async def write_snapshot(answer: AsyncIterator[bytes], target: BinaryIO) -> None:
    """Write the blobs of a snapshot's stream (a JSON object a line), digest included.

    Raises:
        FormatError: not such a stream, or the digest at its end is another one.
        Unavailable: etcd says that it failed.
    """
    digest, tail, size = hashlib.sha256(), b"", 0
    async for line in _lines(answer):
        blob = _blob(line)
        size += len(blob)
        if size > _MAX_SNAPSHOT_BYTES:
            raise FormatError(f"etcd: a snapshot of more than {_MAX_SNAPSHOT_BYTES} bytes")
        target.write(blob)
        tail += blob
        digest.update(tail[:-_DIGEST_BYTES])
        tail = tail[-_DIGEST_BYTES:]
    if size <= _DIGEST_BYTES or tail != digest.digest():
        raise FormatError(f"etcd: snapshot of {size} bytes does not end with its SHA-256")


async def _lines(answer: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    kept = b""
    async for chunk in answer:
        *whole, kept = (kept + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(kept) > _MAX_LINE_BYTES:
            raise FormatError(f"etcd: a line of more than {_MAX_LINE_BYTES} bytes")
    if kept.strip():
        yield kept


def _blob(line: bytes) -> bytes:
    if not line.strip():
        return b""
    try:
        message = json.loads(line)
        if "error" in message:
            raise Unavailable(f"etcd: snapshot: {str(message['error'])[:300]}")
        return base64.b64decode(message["result"].get("blob", ""), validate=True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"etcd: not a part of a snapshot: {error!r}") from None


def _url(address: str, call: str) -> str:
    return f"https://{address}:{_PORT}/v3/{call}"
