"""The operator's loop: lead or wait; when leading, look, plan, and remove what is gone."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from lightkube.core.exceptions import ApiError
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node

from constellation.base import clock
from constellation.base.errors import ConstellationError
from constellation.kube.client import raise_ours, status_of
from constellation.services.operator.leader import DURATION_S, Move, Seen, move, see
from constellation.services.operator.plan import (
    Absence,
    KubernetesNode,
    Observed,
    RemoveMember,
    plan,
    watch_absence,
)

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from constellation.kube.etcd import Etcd
    from constellation.providers.protocols import Instance

__all__ = ["Operator", "Provider"]

_EVERY_S = 5.0
_NAMESPACE, _LEASE = "kube-system", "constellation-operator"
_log = logging.getLogger(__name__)


class Provider(Protocol):
    """The provider's view; `providers.protocols.Metadata` has it."""

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster. Raises Unavailable."""
        ...


class Operator:
    """One operator; `me` is its node's name, `address` its node's own."""

    def __init__(
        self, client: AsyncClient, *, provider: Provider, etcd: Etcd, me: str, address: str
    ) -> None:
        self._client = client
        self._provider = provider
        self._etcd = etcd
        self._me = me
        self._address = address
        self._seen: Seen | None = None
        self._absent: dict[str, Absence] = {}

    async def run(self) -> None:
        """Repeat for ever; what fails is tried again."""
        while True:
            try:
                if await self.leads():
                    await self.once()
                else:
                    self._absent = {}
            except ConstellationError as error:
                _log.warning("will try again", extra={"reason": str(error)})
            await asyncio.sleep(_EVERY_S)

    async def once(self) -> None:
        """Look, plan, apply. Raises Unavailable."""
        observed = await self._observe()
        now_s = clock.monotonic_s()
        self._absent = watch_absence(self._absent, observed, now_s=now_s)
        for action in plan(observed, self._absent, now_s=now_s):
            if isinstance(action, RemoveMember):
                await self._etcd.remove(action.member)
                _log.info("etcd member removed", extra={"address": action.member.address})
            else:
                await self._delete(action.node)
                _log.info("node removed", extra={"node": action.node.name})

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
            what = move(self._seen, me=self._me, now_s=now_s)
            return what is not Move.WAIT and await self._write(lease)

    async def _lease(self) -> Lease | None:
        try:
            return await self._client.get(Lease, name=_LEASE, namespace=_NAMESPACE)
        except ApiError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _write(self, old: Lease | None) -> bool:
        """Write with the version that was read: who was slower gets a conflict, and waits."""
        version = old.metadata.resourceVersion if old and old.metadata else None
        lease = Lease(
            metadata=ObjectMeta(name=_LEASE, namespace=_NAMESPACE, resourceVersion=version),
            spec=LeaseSpec(
                holderIdentity=self._me,
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

    async def _observe(self) -> Observed:
        instances = await self._provider.peers()
        members = await self._etcd.members()
        nodes = []
        with raise_ours():
            async for node in self._client.list(Node):
                addresses = (node.status.addresses if node.status else None) or []
                own = [a.address for a in addresses if a.type == "InternalIP"]
                if node.metadata is not None and node.metadata.name and own:
                    nodes.append(KubernetesNode(name=node.metadata.name, address=own[0]))
        return Observed(
            own_address=self._address,
            addresses=frozenset(i.address for i in instances),
            nodes=tuple(nodes),
            members=members,
        )

    async def _delete(self, node: KubernetesNode) -> None:
        with raise_ours():
            try:
                await self._client.delete(Node, name=node.name)
            except ApiError as error:
                if status_of(error) != HTTPStatus.NOT_FOUND:
                    raise
