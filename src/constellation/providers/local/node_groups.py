"""The local cloud's node groups as the operator sees them: `providers.protocols.NodeGroups`.

HTTP to 169.254.169.254 with the token of the machine that we run on; only control planes are heard.
What comes back is bounded, parsed strictly, and a claim of an untrusted party.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable, UserError
from constellation.providers.local.metadata import HOST, MAX_BYTES, PORT, Instances, ask
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.protocols import NodeGroups

__all__ = ["TOKEN", "LocalNodeGroups"]

TOKEN: Final = Path("/run/constellation/host/instance-token")
_MAX_TOKEN_BYTES = 256
_SHORT_S, _LONG_S = 5.0, 90.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_HEX = re.compile(rb"[0-9a-f]{64}")


class LocalNodeGroups:
    """`providers.protocols.NodeGroups` of the local cloud, for a control plane's own host."""

    def __init__(self, *, token: Path = TOKEN, host: str = HOST, port: int = PORT) -> None:
        self._token, self._host, self._port = token, host, port

    async def create(self, group: str) -> Instance:
        """Add one machine to a group and boot it. Raises Conflict, Unavailable, FormatError."""
        data = await self._ask("POST", f"groups/{_checked(group)}", timeout_s=_LONG_S)
        return decode.load(Instance, data, what="scaling: new instance", max_bytes=MAX_BYTES)

    async def delete(self, instance_id: str) -> None:
        """Take a machine out of the load balancer and remove it; done already is no error."""
        await self._ask("DELETE", f"instances/{_checked(instance_id)}", timeout_s=_LONG_S)

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster. Raises Unavailable, FormatError."""
        data = await self._ask("GET", "instances", timeout_s=_SHORT_S)
        found = decode.load(Instances, data, what="scaling: instances", max_bytes=MAX_BYTES)
        return found.instances

    async def _ask(self, method: str, path: str, *, timeout_s: float) -> bytes:
        # read anew: the next power-on brings another
        token = await asyncio.to_thread(self._read_token)
        return await ask(
            f"{method} /v1/scaling/{path}",
            host=self._host,
            port=self._port,
            headers=(f"Authorization: Bearer {token}",),
            timeout_s=timeout_s,
        )

    def _read_token(self) -> str:
        try:
            with self._token.open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES)
        except OSError as error:
            raise Unavailable(f"{self._token}: {error.strerror}") from error
        if not _HEX.fullmatch(token):
            raise FormatError(f"{self._token}: want 64 hexadecimal digits")
        return token.decode()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"{name[:60]!r} names no group or instance")
    return name


if TYPE_CHECKING:
    _: type[NodeGroups] = LocalNodeGroups
