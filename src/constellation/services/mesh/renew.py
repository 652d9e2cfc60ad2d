"""How a running node keeps its certificates young: it asks a JoinService that it has judged.

Every half minute the certificates on the disk are looked at; when half of a life is over, control
planes are asked in turn, over aTLS with purpose `renew-client`, itself last where this is one. What
came is checked (`kube.renewal`) and then replaces the files: services and kubelet read them anew.
An expired certificate is in nobody's way here: evidence is what counts (a laptop that slept).
Source: design, section 10, "Admission".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto.signing import load_private_key, spki
from constellation.crypto.x509 import load_certificate
from constellation.kube.membership import NodeRole
from constellation.kube.renewal import Mine, Renewed, due, expired, require_mine
from constellation.kube.service_identity import ServiceIdentity
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import join_pb2
from constellation.services.join_channel import judged_channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from constellation.atls.client import ChannelAttester
    from constellation.kube.node_record import NodeRecord
    from constellation.services.join_channel import JoinServer
    from constellation.services.kept_policy import KeptPolicy
    from constellation.services.node_time import NodeTime

__all__ = ["NodePaths", "Renewal"]

_PURPOSE = "renew-client"
_LOOK_EVERY_S = 30.0
_LONGEST_PAUSE_S = 900.0
_CALL_S = 20.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePaths:
    """Folders of one node: /var/lib/constellation/keys, /etc/kubernetes/pki, kubelet's pki."""

    keys: Path
    cluster_pki: Path
    kubelet_pki: Path

    @property
    def service(self) -> Path:
        """The service certificate."""
        return self.keys / "service.crt"

    @property
    def serving(self) -> Path:
        """Kubelet's serving certificate."""
        return self.kubelet_pki / "serving.crt"

    @property
    def client(self) -> Path:
        """Kubelet's client certificate with its key: a link that kubelet moves when it renews."""
        return self.kubelet_pki / "kubelet-client-current.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The certificates of one node.

    `attester`: this node's agent, for one attempt. `addresses`: where JoinServices may answer, in
    the order in which they are asked. `restart_kubelet` makes it read a new client certificate.
    """

    record: NodeRecord
    kept: KeptPolicy
    paths: NodePaths
    time: NodeTime
    attester: Callable[[], AbstractAsyncContextManager[ChannelAttester]]
    addresses: Callable[[], Awaitable[tuple[str, ...]]]
    restart_kubelet: Callable[[], Awaitable[None]]

    async def run(self) -> None:
        """Look and renew for ever; after a failure the pauses grow, up to a quarter of an hour."""
        pause = _LOOK_EVERY_S
        while True:
            try:
                await self.once()
                pause = _LOOK_EVERY_S
            except ConstellationError as error:
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                _log.warning("certificates were not renewed", extra={"reason": str(error)})
            await asyncio.sleep(pause)

    async def once(self) -> bool:
        """Renew if something is due; say whether it was.

        Raises:
            ConstellationError: why the last of the JoinServices gave nothing.
        """
        now = clock.now()
        client = expired(load_certificate(_read(self.paths.client)), now=now)
        standing = (load_certificate(_read(p)) for p in (self.paths.service, self.paths.serving))
        if not client and not any(due(c, now=now) for c in standing):
            return False
        failure: ConstellationError = Unavailable("no control plane is known")
        for address in await self.addresses():
            try:
                await self._ask(address, client=client)
            except ConstellationError as error:
                _log.info("will ask another JoinService", extra={"reason": str(error)})
                failure = error
            else:
                return True
        raise failure

    async def _ask(self, address: str, *, client: bool) -> None:
        async with (
            self.attester() as attester,
            judged_channel(
                address,
                purpose=_PURPOSE,
                attester=attester,
                document=self.kept.document,
                minimum_serial=self.kept.verified().serial,
            ) as server,
        ):
            if self.record.role is NodeRole.WORKER:  # a control plane's JoinService takes policies
                self.kept.take_shown(server.signed_policy)
            ticket = await self._call(server, address, client=client)
        renewed = Renewed(
            service=ticket.service_certificate,
            kubelet_serving=ticket.kubelet_serving_certificate,
            kubelet_client=ticket.kubelet_client_certificate if client else None,
        )
        if address != self.record.address:  # nobody tells himself the time
            self.time.say(ticket.time)
        require_mine(renewed, mine=self._mine(), now=clock.now())
        await self._install(renewed)
        _log.info("certificates were renewed", extra={"endpoint": address, "client": client})

    async def _call(
        self, server: JoinServer, address: str, *, client: bool
    ) -> join_pb2.RenewTicket:
        request = join_pb2.RenewRequest(
            node_name=self.record.name,
            role=str(self.record.role),
            instance_id=self.record.instance_id,
            address=self.record.address,
            kubelet_client=client,
            time=int(clock.now().timestamp()),
        )
        with raise_ours(f"JoinService {address}"):
            return await server.stub.Renew(request, timeout=_CALL_S)

    def _mine(self) -> Mine:
        keys, record = self.paths.keys, self.record
        return Mine(
            identity=ServiceIdentity(
                cluster_id=record.cluster_id, role=record.role, name=record.name
            ),
            address=record.address,
            service_public_key=_public(keys / "service.pem"),
            kubelet_serving_public_key=_public(keys / "kubelet-serving.pem"),
            kubelet_client_public_key=_public(keys / "kubelet-client.pem"),
            services_ca=load_certificate(_read(keys / "services-ca.crt")),
            cluster_ca=load_certificate(_read(self.paths.cluster_pki / "ca.crt")),
        )

    async def _install(self, renewed: Renewed) -> None:
        """Replace the files: keys stay, so each moment has a pair that fits."""
        write_atomic(self.paths.service, renewed.service)
        write_atomic(self.paths.serving, renewed.kubelet_serving)
        if renewed.kubelet_client is None:
            return
        target = self.paths.kubelet_pki / "kubelet-client-renewed.pem"
        key = _read(self.paths.keys / "kubelet-client.pem")
        write_atomic(target, renewed.kubelet_client + key, mode=0o600)
        link = self.paths.client.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(target)
        link.replace(self.paths.client)
        await self.restart_kubelet()


def _public(path: Path) -> bytes:
    return spki(load_private_key(Secret(_read(path))).public_key())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
