"""The cloud's scaling groups, as control planes change them: HTTP below /v1/scaling.

GET /v1/scaling/instances, POST /v1/scaling/groups/NAME (one machine more; answers with it), DELETE
/v1/scaling/instances/ID. Only a control plane's host is heard: its address, and the token that its
machine was given at power-on, which its pods and other machines cannot read.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Protocol, TypeVar

from aiohttp import web

from constellation.base import decode
from constellation.base.errors import Conflict, ConstellationError
from constellation.base.files import write_atomic
from constellation.providers.local.metadata import Instances
from constellation.providers.protocols import Instance, Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from constellation.providers.local.daemon.records import CloudRecord, NodeRecord

__all__ = ["TOKEN_FILE", "Scales", "add_routes", "write_token"]

T = TypeVar("T")
TOKEN_FILE = "instance-token"  # noqa: S105 - a file's name
_BEARER = "Bearer "
_TOKEN_BYTES = 32


class Scales(Protocol):
    """What changes the cloud (`cloud.Cloud`)."""

    async def create(self, group: str) -> NodeRecord:
        """Add one machine to a group. Raises Conflict, Unavailable."""
        ...

    async def scale_in(self, instance_id: str) -> None:
        """Remove a machine; one that is not there is no error."""
        ...


def write_token(host_folder: Path) -> None:
    """Give a machine a new token, for its root only."""
    token = secrets.token_hex(_TOKEN_BYTES).encode()
    write_atomic(host_folder / TOKEN_FILE, token, mode=0o400)


def add_routes(
    app: web.Application,
    *,
    cloud: Callable[[], CloudRecord],
    describe: Callable[[NodeRecord], Instance],
    token: Callable[[str], bytes],
    scales: Scales,
) -> None:
    """Add the three calls; `token` reads the token of a machine, empty where it has none."""

    def authorize(request: web.Request) -> None:
        sent = request.headers.get("Authorization", "")
        for node in cloud().nodes:
            if node.address == request.remote and node.role is Role.CONTROL_PLANE:
                own = token(node.instance_id)
                good = _BEARER.encode() + own
                if own and hmac.compare_digest(sent.encode(errors="replace"), good):
                    return
        raise web.HTTPForbidden(text="for control planes, with their token\n")

    async def list_(request: web.Request) -> web.Response:
        authorize(request)
        return _json(Instances(instances=tuple(describe(n) for n in cloud().nodes)))

    async def create(request: web.Request) -> web.Response:
        authorize(request)
        node = await _answered(scales.create(request.match_info["group"]))
        return _json(describe(node))

    async def delete(request: web.Request) -> web.Response:
        authorize(request)
        await _answered(scales.scale_in(request.match_info["instance"]))
        return _json({})

    app.router.add_get("/v1/scaling/instances", list_)
    app.router.add_post("/v1/scaling/groups/{group}", create)
    app.router.add_delete("/v1/scaling/instances/{instance}", delete)


async def _answered(work: Awaitable[T]) -> T:
    try:
        return await work
    except Conflict as error:
        raise web.HTTPConflict(text=f"{error}\n") from error
    except ConstellationError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error


def _json(value: object) -> web.Response:
    return web.Response(body=decode.dump(value), content_type="application/json")
