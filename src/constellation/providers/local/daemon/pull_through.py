"""What the cloud's registry does not have, fetched from its own registry by the workstation's way.

The node says which registry (`ns`); only https to a host with a DNS name is asked, never an
address or a name without a dot: a node must not reach the workstation's own services. Blobs are
checked against the digest that was asked for; a tag means what its registry says now.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.digest import WrongDigest
from constellation.base.errors import UserError
from constellation.base.registry_session import RegistrySession
from constellation.providers.local.daemon.image_store import MAX_BLOB_BYTES
from constellation.providers.local.image_documents import (
    MAX_DOCUMENT_BYTES,
    MEDIA_TYPES,
    parse_document,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from constellation.providers.local.daemon.image_store import ImageStore
    from constellation.providers.local.image_documents import Reference

__all__ = ["PullThrough", "origin"]

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z](?:[a-z0-9-]*[a-z0-9])?(:[0-9]+)?")
_INSIDE = (".localhost", ".local", ".internal")
_DOCKER = {"docker.io": "registry-1.docker.io"}
_MAX_SESSIONS = 256
_AT_ONCE = 6


def origin(registry: str) -> str:
    """Give the URL of a registry. Raises UserError: one that is not asked."""
    host = registry.lower()
    name = host.partition(":")[0]
    if not _HOST.fullmatch(host) or name.endswith(_INSIDE):
        raise UserError(f"registry {registry[:80]!r} is not asked: want a DNS name")
    return f"https://{_DOCKER.get(host, host)}"


class PullThrough:
    """Fetches into `store`; `where` gives a registry's URL (`origin`, but in tests)."""

    def __init__(self, store: ImageStore, *, where: Callable[[str], str]) -> None:
        self._store, self._where = store, where
        self._sessions: OrderedDict[str, RegistrySession] = OrderedDict()
        self._flights: dict[str, tuple[asyncio.Lock, int]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def resolve(self, reference: Reference) -> str:
        """Fetch the document that a tag means now; give its SHA-256 (hexadecimal).

        Raises:
            UserError: the registry is not asked.
            FormatError: it is no image document.
            HttpStatus, Unavailable: the registry refused, or does not answer.
        """
        session = self._session(reference.registry, reference.repository)
        sha256 = await self._document(session, reference.tag)
        self._store.name(reference, sha256, loaded=False)
        return sha256

    async def document(self, registry: str, repository: str, sha256: str) -> None:
        """Fetch an index or manifest by its digest. Raises WrongDigest, and as `resolve`."""
        async with self._flight(sha256):
            if self._store.has(sha256):
                return
            session = self._session(registry, repository)
            found = await self._document(session, f"sha256:{sha256}", expected=sha256)
            assert found == sha256  # noqa: S101 - `_document` has compared

    async def blob(self, registry: str, repository: str, sha256: str) -> None:
        """Fetch a blob by its digest. Raises WrongDigest, Conflict (no room), and as `resolve`."""
        async with self._flight(sha256):
            if self._store.has(sha256):
                return
            session = self._session(registry, repository)
            self._store.ensure_room(0)
            folder = self._store.path(sha256).parent.parent / "incoming"
            # the store hashes while it copies; this one download has done so and is renamed
            with tempfile.TemporaryDirectory(dir=folder) as name:
                target = Path(name) / sha256
                await session.blob(
                    sha256, target, max_bytes=MAX_BLOB_BYTES, on_bytes=self._room_watch()
                )
                target.replace(self._store.path(sha256))

    def _room_watch(self) -> Callable[[int, int], None]:
        looked = -1

        def on_bytes(done: int, total: int) -> None:
            nonlocal looked
            # every 64 MiB, and at the start for all that is announced
            if done >> 26 != looked:
                looked = done >> 26
                self._store.ensure_room(max(total - done, 0))

        return on_bytes

    async def _document(
        self, session: RegistrySession, named: str, *, expected: str | None = None
    ) -> str:
        answer = await session.document(
            f"manifests/{named}", accept=MEDIA_TYPES, max_bytes=MAX_DOCUMENT_BYTES
        )
        sha256 = hashlib.sha256(answer.body).hexdigest()
        if expected not in (None, sha256):
            raise WrongDigest(answer.url, expected=str(expected), found=sha256)
        parse_document(answer.body)
        if not self._store.has(sha256):
            with self._store.receive(sha256, len(answer.body)) as receiver:
                receiver.write(answer.body)
        return sha256

    def _session(self, registry: str, repository: str) -> RegistrySession:
        url = f"{self._where(registry)}/v2/{repository}"
        if url not in self._sessions:
            self._sessions[url] = RegistrySession(url)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return self._sessions[url]

    @contextlib.asynccontextmanager
    async def _flight(self, sha256: str) -> AsyncIterator[None]:
        """One fetch of a digest at a time, few of all."""
        lock, waiting = self._flights.get(sha256, (asyncio.Lock(), 0))
        self._flights[sha256] = (lock, waiting + 1)
        try:
            async with lock, self._gate:
                yield
        finally:
            lock, waiting = self._flights.pop(sha256)
            if waiting > 1:
                self._flights[sha256] = (lock, waiting - 1)
