"""The Lease in the Kubernetes API: taken, renewed, and let go of by a node that leaves."""

from __future__ import annotations

from datetime import UTC
from http import HTTPStatus
from typing import TYPE_CHECKING

from lightkube.core.exceptions import ApiError
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease

from constellation.base import clock
from constellation.kube.client import raise_ours, status_of
from constellation.services.operator.leader import DURATION_S, Move, Seen, move, see

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lightkube import AsyncClient

__all__ = ["KubernetesLease"]

_NAMESPACE, _LEASE = "kube-system", "constellation-operator"


class KubernetesLease:
    """Who leads, by the Lease `constellation-operator`; `leaving` says whether this node goes."""

    def __init__(
        self, client: AsyncClient, *, me: str, leaving: Callable[[], Awaitable[bool]]
    ) -> None:
        self._client, self._me, self._leaving = client, me, leaving
        self._seen: Seen | None = None

    async def leads(self) -> bool:
        """Take or renew the Lease; say whether this operator leads now. Raises Unavailable."""
        with raise_ours():
            lease = await self._lease()
            now_s = clock.monotonic_s()
            if lease is None:
                self._seen = None
            else:
                self._seen = see(
                    self._seen,
                    holder=(lease.spec.holderIdentity if lease.spec else None) or "",
                    version=(lease.metadata.resourceVersion if lease.metadata else None) or "",
                    now_s=now_s,
                )
            if await self._leaving():
                # another one shall end this node's API server and delete its machine
                if lease is not None and self._seen is not None and self._seen.holder == self._me:
                    await self._write(lease, holder="")
                return False
            what = move(self._seen, me=self._me, now_s=now_s)
            return what is not Move.WAIT and await self._write(lease, holder=self._me)

    async def _lease(self) -> Lease | None:
        try:
            return await self._client.get(Lease, name=_LEASE, namespace=_NAMESPACE)
        except ApiError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _write(self, old: Lease | None, *, holder: str) -> bool:
        """Write with the version that was read: who was slower gets a conflict, and waits."""
        version = old.metadata.resourceVersion if old and old.metadata else None
        lease = Lease(
            metadata=ObjectMeta(name=_LEASE, namespace=_NAMESPACE, resourceVersion=version),
            spec=LeaseSpec(
                holderIdentity=holder,
                leaseDurationSeconds=int(DURATION_S),
                renewTime=clock.now().astimezone(UTC),
            ),
        )
        try:
            if old is None:
                await self._client.create(lease)
            else:
                await self._client.replace(lease)
        except ApiError as error:
            if status_of(error) == HTTPStatus.CONFLICT:
                return False
            raise
        return True
