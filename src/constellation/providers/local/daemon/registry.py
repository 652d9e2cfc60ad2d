"""The image registry that every node uses as mirror of all registries, on 169.254.169.254:5000.

The reading half of the OCI Distribution Specification 1.1; containerd says in `ns` which registry
it means (docs/hosts.md there). Images get in through the daemon's socket, or from their own
registry unless the cloud is offline. Nothing here is believed by a node: containerd checks digests,
and what a tag means is as trustworthy as the machine.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from constellation.base import decode
from constellation.base.errors import ConstellationError, Unavailable, UserError
from constellation.base.fetch import HttpStatus
from constellation.providers.local.daemon import kernel
from constellation.providers.local.daemon.network import METADATA
from constellation.providers.local.image_documents import (
    DIGEST,
    REGISTRY,
    REPOSITORY,
    TAG,
    Reference,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aiohttp.typedefs import Middleware

    from constellation.providers.local.daemon.image_store import ImageStore
    from constellation.providers.local.daemon.pull_through import PullThrough
    from constellation.providers.local.daemon.records import CloudRecord

__all__ = ["PORT", "application", "serve"]

PORT = 5000
_SELF = f"{METADATA}:{PORT}"
_NOT_FOUND, _REFUSED = frozenset({400, 404, 405}), frozenset({401, 403})
_log = logging.getLogger(__name__)


def application(
    cloud: Callable[[], CloudRecord], store: ImageStore, upstream: PullThrough
) -> web.Application:
    """Make the HTTP application over the cloud's present record; `offline` there is obeyed."""
    app = web.Application(middlewares=[_machines_only(cloud)])
    routes = _Registry(cloud, store, upstream)
    app.router.add_get("/v2/", routes.version)
    app.router.add_get("/v2/{name:.+}/manifests/{reference}", routes.manifest)
    app.router.add_get("/v2/{name:.+}/blobs/{reference}", routes.blob)
    app.router.add_get("/v2/{name:.+}/tags/list", routes.tags)
    return app


async def serve(app: web.Application, netns: Path) -> web.AppRunner:
    """Listen inside the cloud's network; the runner's `cleanup` ends it."""
    listener = await kernel.inside(lambda: socket.create_server((METADATA, PORT)), net=netns)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner


class _Missing(Unavailable):
    """It is not here, and nobody is asked."""


class _Registry:
    def __init__(
        self, cloud: Callable[[], CloudRecord], store: ImageStore, upstream: PullThrough
    ) -> None:
        self._cloud, self._store, self._upstream = cloud, store, upstream

    async def version(self, _request: web.Request) -> web.Response:
        """Say that this is a registry (the specification's end-1)."""
        return _json({})

    async def manifest(self, request: web.Request) -> web.Response:
        """Give an index or manifest by tag or digest (end-2)."""
        registry, name, reference = _names(request)
        try:
            if match := DIGEST.fullmatch(reference):
                sha256 = match[1]
                if not self._store.has(sha256):
                    self._online()
                    await self._upstream.document(registry, name, sha256)
            else:
                sha256 = await self._tagged(registry, name, reference)
            data, document = self._store.document(sha256)
        except ConstellationError as error:
            _fail(error, "MANIFEST_UNKNOWN", f"{registry}/{name}:{reference}")
        return web.Response(
            body=data,
            content_type=document.media_type,
            headers={"Docker-Content-Digest": f"sha256:{sha256}"},
        )

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """Give a blob, or a range of it, by its digest (end-2)."""
        registry, name, reference = _names(request)
        match = DIGEST.fullmatch(reference)
        if match is None:
            raise _error(web.HTTPBadRequest, "DIGEST_INVALID", reference[:80])
        try:
            if not self._store.has(match[1]):
                self._online()
                await self._upstream.blob(registry, name, match[1])
        except ConstellationError as error:
            _fail(error, "BLOB_UNKNOWN", f"{registry}/{name}@{reference}")
        headers = {
            "Docker-Content-Digest": reference,
            "Content-Type": "application/octet-stream",
        }
        return web.FileResponse(self._store.path(match[1]), headers=headers)

    async def tags(self, request: web.Request) -> web.Response:
        """List the tags that are here (end-8a)."""
        registry, name, _ = _names(request)
        return _json({"name": name, "tags": list(self._store.tags(registry, name))})

    async def _tagged(self, registry: str, name: str, tag: str) -> str:
        if not TAG.fullmatch(tag):
            raise _error(web.HTTPBadRequest, "MANIFEST_INVALID", tag[:80])
        reference = Reference(registry=registry, repository=name, tag=tag)
        known = self._store.find(reference)
        if known is not None and (known.loaded or self._cloud().offline):
            return known.sha256
        self._online()
        try:
            return await self._upstream.resolve(reference)
        except Unavailable as error:
            # without the registry, what was pulled before is better than nothing
            if known is None or (isinstance(error, HttpStatus) and error.status in _NOT_FOUND):
                raise
            _log.warning("a registry does not answer", extra={"image": str(reference)})
            return known.sha256

    def _online(self) -> None:
        if self._cloud().offline:
            raise _Missing("not here, and offline: `constellation mini load-image` brings it in")


def _machines_only(cloud: Callable[[], CloudRecord]) -> Middleware:
    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not any(node.address == request.remote for node in cloud().nodes):
            raise _error(web.HTTPForbidden, "DENIED", "no instance has this address")
        return await handler(request)

    return check


def _names(request: web.Request) -> tuple[str, str, str]:
    registry = request.query.get("ns", _SELF)
    name, reference = request.match_info["name"], request.match_info.get("reference", "")
    if not REGISTRY.fullmatch(registry) or not REPOSITORY.fullmatch(name):
        raise _error(web.HTTPBadRequest, "NAME_INVALID", f"{registry[:80]}/{name[:80]}")
    return registry, name, reference


def _fail(error: ConstellationError, code: str, what: str) -> NoReturn:
    _log.warning("an image is not to be had", extra={"image": what, "error": str(error)})
    said = f"{what}: {error}"
    if isinstance(error, HttpStatus) and error.status in _REFUSED:
        raise _error(web.HTTPForbidden, "DENIED", said) from error
    absent = isinstance(error, HttpStatus) and error.status in _NOT_FOUND
    if absent or isinstance(error, _Missing | UserError):
        raise _error(web.HTTPNotFound, code, said) from error
    raise _error(web.HTTPBadGateway, "UNKNOWN", said) from error


def _error(kind: type[web.HTTPException], code: str, message: str) -> web.HTTPException:
    body = decode.dump({"errors": [{"code": code, "message": message}]})
    return kind(text=body.decode(), content_type="application/json")


def _json(value: object) -> web.Response:
    return web.Response(
        body=decode.dump(value),
        content_type="application/json",
        headers={"Docker-Distribution-Api-Version": "registry/2.0"},
    )
