"""Whom a JoinService asks: KeyService for disk keys, Kubernetes and provider for what exists."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Node

from constellation.base.errors import FormatError
from constellation.base.secret import Secret
from constellation.kube import live_nodes
from constellation.kube.client import connect, raise_ours, status_of
from constellation.kube.cluster_release import LEAVING_TAINT
from constellation.kube.join_records import KubernetesRecords
from constellation.rpc import errors as rpc_errors
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs import key_pb2
from constellation.rpc.stubs.key_grpc import KeyServiceStub
from constellation.services.joinservice.housekeep import Observed

if TYPE_CHECKING:
    from pathlib import Path

    from lightkube import AsyncClient

    from constellation.kube.etcd import Etcd, EtcdMember
    from constellation.kube.join_log import SignedRecord
    from constellation.kube.membership import Membership
    from constellation.services.joinservice.handlers import Provider

__all__ = ["KubernetesLog", "KubernetesWorld", "LocalKeyService"]

_KEY_PORT = 9090
_KEY_BYTES = 64
_KEY_DEADLINE_S = 10.0
_API_CALL_S = 2.0
"""Seconds for a call to the API: without a quorum of etcd it would hang for a minute."""


class LocalKeyService:
    """KeyService of this very control plane, at the node's own address."""

    def __init__(self, address: str, *, tls: ServiceTls) -> None:
        self._address = address
        self._tls = tls

    async def state_disk(self, uuid: bytes) -> Secret:
        """Give a state disk's key, 64 bytes. Raises Unavailable, Rejected."""
        keys = channel(self._address, _KEY_PORT, tls=self._tls)
        try:
            with rpc_errors.raise_ours("KeyService"):
                reply = await KeyServiceStub(keys).GetDataKey(
                    key_pb2.GetDataKeyRequest(id=f"state-disk/{uuid.hex()}", size_bytes=_KEY_BYTES),
                    timeout=_KEY_DEADLINE_S,
                )
        finally:
            keys.close()
        if len(reply.key) != _KEY_BYTES:
            raise FormatError(f"KeyService: a key of {len(reply.key)} bytes, expected {_KEY_BYTES}")
        return Secret(reply.key)


class KubernetesLog:
    """`ledger.Records` in the Kubernetes API; connects at first use."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._client: AsyncClient | None = None

    async def get(self, sequence: int) -> SignedRecord | None:
        """Read a record. Raises Unavailable."""
        return await self._records().get(sequence)

    async def create(self, sequence: int, record: SignedRecord) -> bool:
        """Write a record; False if the number is taken. Raises Unavailable."""
        return await self._records().create(sequence, record)

    async def delete(self, sequence: int) -> None:
        """Remove a record. Raises Unavailable."""
        await self._records().delete(sequence)

    async def after(self, sequence: int) -> int | None:
        """Give the lowest number above `sequence`. Raises Unavailable."""
        return await self._records().after(sequence)

    def client(self) -> AsyncClient:
        """Give the client. Raises Unavailable while there is no kubeconfig."""
        if self._client is None:
            self._client = connect(self._kubeconfig, timeout_s=_API_CALL_S)
        return self._client

    def _records(self) -> KubernetesRecords:
        return KubernetesRecords(self.client())


class KubernetesWorld:
    """What housekeeping sees: Node objects, the provider's list, etcd's members."""

    def __init__(self, log: KubernetesLog, *, provider: Provider, etcd: Etcd) -> None:
        self._log = log
        self._provider = provider
        self._etcd = etcd

    async def observe(self) -> Observed:
        """Look once. Raises Unavailable if one of them does not answer."""
        instances = await self._provider.peers()
        members = await self._etcd.members()
        nodes, ready, leaving = set(), set(), set()
        with raise_ours():
            async for node in self._log.client().list(Node):
                name = (node.metadata.name if node.metadata else None) or ""
                nodes.add(name)
                conditions = (node.status.conditions if node.status else None) or []
                if any(c.type == "Ready" and c.status == "True" for c in conditions):
                    ready.add(name)
                taints = (node.spec.taints if node.spec else None) or []
                if any(t.key == LEAVING_TAINT for t in taints):
                    leaving.add(name)
        return Observed(
            nodes=frozenset(nodes),
            ready=frozenset(ready),
            instances=frozenset(i.instance_id for i in instances),
            etcd=members,
            leaving=frozenset(leaving),
        )

    async def remove_member(self, member: EtcdMember) -> None:
        """Take a member out of etcd. Raises Unavailable."""
        await self._etcd.remove(member)

    async def publish(self, membership: Membership) -> None:
        """Write the list of `live_nodes`, unless a newer one is there. Raises Unavailable."""
        client = self._log.client()
        with raise_ours():
            present = await _list_of_nodes(client)
            metadata = (present and present.metadata) or ObjectMeta()
            annotation = (metadata.annotations or {}).get(live_nodes.SEQUENCE, "")
            data = dict((present and present.data) or {})
            if present is not None and not live_nodes.newer(
                membership, data=data, annotation=annotation
            ):
                return
            wanted = ConfigMap(
                metadata=ObjectMeta(
                    name=live_nodes.NAME,
                    namespace=live_nodes.NAMESPACE,
                    annotations={live_nodes.SEQUENCE: str(membership.sequence)},
                    # who was slower gets a conflict, and looks again
                    resourceVersion=metadata.resourceVersion,
                ),
                data=live_nodes.names(membership),
            )
            if present is None:
                await client.create(wanted)
            else:
                await client.replace(wanted)


async def _list_of_nodes(client: AsyncClient) -> ConfigMap | None:
    try:
        return await client.get(ConfigMap, name=live_nodes.NAME, namespace=live_nodes.NAMESPACE)
    except ApiError as error:
        if status_of(error) == HTTPStatus.NOT_FOUND:
            return None
        raise
