"""Hosts of one's own as the workstation sees them: `providers.protocols.Infrastructure`.

`apply` writes what each host reads when it boots, and looks who answers; it never logs in
anywhere. A host answers as every node does: fresh at 9000, waiting for its disk key at 9999, in
the cluster at 30081.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, FormatError
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.providers.baremetal.hosts import (
    HOSTS_FILE,
    STATE_DISK_FILE,
    USER_DATA_FILE,
    Hosts,
    dump_hosts,
    hosts_of,
)
from constellation.providers.baremetal.metadata import read_hosts
from constellation.providers.protocols import InfrastructureState, Instance, Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.providers.baremetal.hosts import Host
    from constellation.providers.protocols import Desired, Infrastructure

__all__ = ["PORTS", "BaremetalInfrastructure", "takes_connections", "written_for"]

PORTS = {"init": 9000, "recovery": 9999, "verify": 30081, "policy": 30091}
_STEP = "Hosts"
_ANSWERS_S = 2.0


class BaremetalInfrastructure:
    """The hosts of one cluster; `folder` is for what they read, one folder each within.

    `addresses` by node group; `endpoint` host:port of the API server; `trust_roots` (DER) certify
    the hosts' attestation keys where no vendor does; `state_disk` is the name that each host's disk
    has below /dev/disk/by-id; `ports` and `answers` are other ones in tests.
    """

    def __init__(
        self,
        uid: str,
        *,
        addresses: Mapping[str, tuple[str, ...]],
        endpoint: str,
        trust_roots: tuple[bytes, ...],
        folder: Path,
        state_disk: str,
        ports: Mapping[str, int] = PORTS,
        answers: Callable[[str, int], Awaitable[bool]] | None = None,
    ) -> None:
        self._uid, self._addresses, self._endpoint = uid, addresses, endpoint
        self._trust_roots, self._folder, self._ports = trust_roots, folder, ports
        self._state_disk = state_disk
        self._answers = answers or takes_connections

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Write what the hosts read, and say which of them answer; that may be none yet.

        Raises:
            Conflict: the configuration's hosts are not what its groups want, or not those that the
                cluster was made of.
        """
        try:
            hosts = hosts_of(self._addresses, desired.groups)
        except FormatError as error:
            raise Conflict(str(error), hint="provider.baremetal.hosts") from None
        there = self._written()
        if there and there != tuple(hosts):
            raise Conflict(
                f"{self._folder.name} has other hosts than the configuration",
                hint="groups of hosts keep their size: name the hosts that the cluster was made of",
            )
        for host in hosts:
            own = Hosts(uid=self._uid, me=host.name, hosts=tuple(hosts))
            place = self._folder / host.name
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / HOSTS_FILE, dump_hosts(own))
            write_atomic(place / USER_DATA_FILE, desired.node_document)
            write_atomic(place / STATE_DISK_FILE, self._state_disk.encode())
        report(Progress(step=_STEP, detail=f"each one reads its folder in {self._folder}"))
        state = await self._state(tuple(hosts))
        silent = [i.instance_id for i in state.instances if i.state == "off"]
        detail = f"not up yet: {', '.join(silent)}" if silent else "all answer"
        report(Progress(step=_STEP, detail=detail, finished=True))
        return state

    async def observe(self) -> InfrastructureState | None:
        """Say who answers; None where nothing was written from here."""
        hosts = self._written()
        return await self._state(hosts) if hosts else None

    async def destroy(self, *, report: Report) -> None:
        """Forget the hosts: they, and what is on their disks, stay their owner's."""
        shutil.rmtree(self._folder, ignore_errors=True)
        detail = "yours: they run on until you end them; their state disks stay locked"
        report(Progress(step=_STEP, detail=detail, finished=True))

    async def console(self, instance_id: str) -> bytes:
        """Refuse: nobody says how a host's console is reached. Raises Conflict."""
        raise Conflict(f"{instance_id[:80]}: look at the host's own console")

    def _written(self) -> tuple[Host, ...]:
        """Give the hosts that the folder names. Raises Conflict: they are of another cluster."""
        for place in sorted(self._folder.glob("host-*")):
            found = read_hosts(place)
            if found.uid != self._uid:
                raise Conflict(f"{self._folder} is of {found.uid}, expected {self._uid}")
            return found.hosts
        return ()

    async def _state(self, hosts: tuple[Host, ...]) -> InfrastructureState:
        instances = await asyncio.gather(*(self._seen(host) for host in hosts))
        planes = [host.address for host in hosts if host.role is Role.CONTROL_PLANE]
        names = (self._endpoint.rpartition(":")[0], *planes)
        return InfrastructureState(
            uid=self._uid,
            endpoint=self._endpoint,
            user_endpoint=self._endpoint,
            api_sans=tuple(dict.fromkeys(names)),
            instances=tuple(instances),
            trust_roots=self._trust_roots,
        )

    async def _seen(self, host: Host) -> Instance:
        ports = self._ports
        answers = await asyncio.gather(
            *(self._answers(host.address, ports[name]) for name in ("init", "recovery", "verify"))
        )
        return Instance(
            instance_id=host.name,
            group=host.group,
            role=host.role,
            address=host.address,
            state="running" if any(answers) else "off",
            init_endpoint=f"{host.address}:{ports['init']}",
            recovery_endpoint=f"{host.address}:{ports['recovery']}",
            verify_endpoint=f"{host.address}:{ports['verify']}",
            policy_endpoint=f"{host.address}:{ports['policy']}",
        )


def written_for(folder: Path) -> tuple[str, ...]:
    """Name the clusters whose hosts' folders lie here: one, or none. Raises FormatError."""
    return tuple({read_hosts(place).uid for place in folder.glob("host-*")})


async def takes_connections(address: str, port: int) -> bool:
    """Say whether a connection is taken; what listens there proves itself later."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWERS_S):
            _, writer = await asyncio.open_connection(address, port)
        writer.close()
        return True
    return False


if TYPE_CHECKING:
    _: type[Infrastructure] = BaremetalInfrastructure
