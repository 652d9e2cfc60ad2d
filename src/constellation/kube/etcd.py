"""etcd's members, by its JSON gateway on this control plane, with the API server's certificate.

Source: etcd 3.6, "gRPC gateway" (`/v3/cluster/member/list`, `/v3/cluster/member/remove`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from constellation.base.errors import FormatError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Etcd", "EtcdMember", "parse_members"]

_URL = "https://127.0.0.1:2379/v3/cluster/member"
_TIMEOUT_S = 10.0


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
        return parse_members(await self._post("list", {"linearizable": True}))

    async def remove(self, member: EtcdMember) -> None:
        """Remove a member; one that is gone already is not an error. Raises Unavailable."""
        if member.member_id in {m.member_id for m in await self.members()}:
            await self._post("remove", {"ID": str(member.member_id)})

    async def _post(self, action: str, body: dict[str, Any]) -> Any:
        try:
            context = ssl.create_default_context(cafile=str(self._pki / "etcd" / "ca.crt"))
            context.load_cert_chain(
                self._pki / "apiserver-etcd-client.crt", self._pki / "apiserver-etcd-client.key"
            )
            async with httpx2.AsyncClient(
                verify=context, trust_env=False, timeout=_TIMEOUT_S
            ) as http:
                reply = await http.post(f"{_URL}/{action}", json=body)
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
