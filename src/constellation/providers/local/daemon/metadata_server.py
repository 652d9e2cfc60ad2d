"""What a node may ask its cloud: who am I, who else is there, my user data, public artifacts.

HTTP on 169.254.169.254:80 inside the cloud's network; the caller is known by its source address.
Every answer is a claim (design, section 2): no secret is here.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from constellation.base import decode
from constellation.providers.local.daemon import kernel
from constellation.providers.local.daemon.network import METADATA
from constellation.providers.local.metadata import Instances
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.providers.local.daemon.records import CloudRecord, NodeRecord

__all__ = ["application", "instance", "serve"]

_PORT = 80
_DIGEST = re.compile(r"[0-9a-f]{64}")


def instance(node: NodeRecord, state: str) -> Instance:
    """Give a node as its peers see it: without the workstation's endpoints."""
    return Instance(
        instance_id=node.instance_id,
        group=node.group,
        role=node.role,
        address=node.address,
        state=state,
    )


def application(
    cloud: Callable[[], CloudRecord], state: Callable[[NodeRecord], str]
) -> web.Application:
    """Make the HTTP application over the cloud's present record."""

    def json(value: object) -> web.Response:
        return web.Response(body=decode.dump(value), content_type="application/json")

    def caller(request: web.Request) -> NodeRecord:
        for node in cloud().nodes:
            if node.address == request.remote:
                return node
        raise web.HTTPForbidden(text="no instance has this address\n")

    async def self_(request: web.Request) -> web.Response:
        node = caller(request)
        return json(instance(node, state(node)))

    async def peers(request: web.Request) -> web.Response:
        caller(request)
        return json(Instances(instances=tuple(instance(n, state(n)) for n in cloud().nodes)))

    async def user_data(request: web.Request) -> web.Response:
        caller(request)
        return web.Response(body=cloud().node_document, content_type="application/octet-stream")

    async def artifact(request: web.Request) -> web.StreamResponse:
        caller(request)
        digest = request.match_info["digest"]
        path = Path(cloud().artifacts_path) / "sha256" / digest
        if not _DIGEST.fullmatch(digest) or not path.is_file():
            raise web.HTTPNotFound(text=f"no artifact {digest[:64]}\n")
        return web.FileResponse(path)

    app = web.Application()
    app.router.add_get("/v1/self", self_)
    app.router.add_get("/v1/peers", peers)
    app.router.add_get("/v1/user-data", user_data)
    app.router.add_get("/v1/artifacts/sha256/{digest}", artifact)
    return app


async def serve(app: web.Application, netns: Path) -> web.AppRunner:
    """Listen inside the cloud's network; the runner's `cleanup` ends it."""

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((METADATA, _PORT))
        return listener

    listener = await kernel.inside(listen, net=netns)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
