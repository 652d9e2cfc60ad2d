"""What Kubernetes made in a cloud, that Terraform does not know: load balancers and disks.

A Service of type LoadBalancer has one, made by the cloud's controller manager, and Terraform cannot
remove the network that it stands in; so these Services go first, as long as their controller runs.
A PersistentVolume of a CSI driver is a disk. It stays: who removes a cluster has not said that the
data may go, and is told its id. Only of clusters whose policy lets the cloud's components run.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError, Unavailable, UserError
from constellation.base.progress import Progress
from constellation.cluster.current_policy import current_policy
from constellation.cluster.kubeconfig import only_endpoint
from constellation.cluster.kubernetes import ask_api
from constellation.config.reader import read_config
from constellation.config.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

    from lightkube import AsyncClient

    from constellation.base.progress import Report
    from constellation.config.state import State
    from constellation.config.workspace import Workspace

__all__ = [
    "NOT_ASKED",
    "Balancer",
    "Disk",
    "Leavings",
    "hint_on_leavings",
    "look",
    "look_before_removal",
    "remove_balancers",
]

_STEP = "Load balancers of Services"
_LOOK_S = 2.0
_MOST_TOLD = 40
_LONGEST_WORD = 253
_TAGS = {
    "aws": "load balancers and security groups with the tag KubernetesCluster = {uid}",
    "azure": "public addresses with the tag k8s-azure-service, and the load balancer of theirs",
    "gcp": "forwarding rules, target pools and firewall rules whose description names a Service",
    "openstack": "load balancers called kube_service_…",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """A Service of type LoadBalancer, and where it is reached."""

    namespace: str
    name: str
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        """Name it for people."""
        shown = f" ({', '.join(self.addresses)})" if self.addresses else ""
        return _plain(f"Service {self.namespace}/{self.name}{shown}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A PersistentVolume of a CSI driver: `handle` is the cloud's id, `policy` what its class says.

    `claim` is NAMESPACE/NAME of the claim that has it, or "".
    """

    name: str
    driver: str
    handle: str
    policy: str
    claim: str

    def __str__(self) -> str:
        """Name it for people."""
        of = f", claim {self.claim}" if self.claim else ""
        of_what = f"{self.driver[:_LONGEST_WORD]} ({self.name}{of}, {self.policy})"
        return _plain(f"disk {self.handle[:_LONGEST_WORD]} of {of_what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leavings:
    """What there is; `why` says why it is not known, empty where it is."""

    balancers: tuple[Balancer, ...] = ()
    disks: tuple[Disk, ...] = ()
    why: str = ""

    def names(self) -> tuple[str, ...]:
        """Name all of it, 40 at most."""
        named = [str(one) for one in (*self.balancers, *self.disks)]
        more = len(named) - _MOST_TOLD
        return (*named[:_MOST_TOLD], *([f"and {more} more"] if more > 0 else []))

    def lines(self) -> tuple[str, ...]:
        """Say what becomes of it when the cluster is removed."""
        if self.why:
            known = "load balancers of Services and disks of volumes, if there are any, stay"
            return (f"{self.why}: {known} in the cloud",)
        return (
            *(f"{one}: deleted first, with its load balancer" for one in self.balancers),
            *self.staying(),
        )

    def staying(self) -> tuple[str, ...]:
        """Say which disks stay."""
        return tuple(f"{disk}: stays in the cloud, and is yours to remove" for disk in self.disks)


NOT_ASKED = Leavings()
"""Of a cluster without its cloud's components."""


async def look(kubeconfig: Path) -> Leavings:
    """Ask the Kubernetes API. Raises Unavailable, UserError."""
    found: Leavings = await ask_api(kubeconfig, _list)
    return found


async def look_before_removal(workspace: Workspace) -> Leavings | None:
    """Look, if this cluster's policy lets its cloud's components run; None: it does not.

    Machines that Terraform did not make here stay, and so does all that they run: None as well.
    Who does not answer keeps no cluster alive: then that is what is said.
    """
    if not workspace.terraform.is_dir() or not _runs_components(workspace):
        return None
    if not workspace.kubeconfig.exists():
        return Leavings(why="there is no kubeconfig to ask the Kubernetes API with")
    try:
        _demand_own(workspace)
        return await look(workspace.kubeconfig)
    except (Unavailable, UserError) as error:
        return Leavings(why=str(error))


async def remove_balancers(kubeconfig: Path, *, wait_s: float, report: Report) -> tuple[str, ...]:
    """Delete all Services of type LoadBalancer, and wait until their controller let them go.

    Gives what may be left: a controller that does not run, or an API that stops to answer, keeps
    no cluster alive.
    """
    end = monotonic_s() + wait_s
    left: tuple[Balancer, ...] = ()
    while True:
        try:
            left = (await ask_api(kubeconfig, _delete_balancers)).balancers
        except Unavailable as error:
            report(Progress(step=_STEP, detail=str(error)))
            if monotonic_s() > end:
                break
        else:
            if not left:
                report(Progress(step=_STEP, detail="all are gone", finished=True))
                return ()
            shown = ", ".join(f"{b.namespace}/{b.name}" for b in left[:_MOST_TOLD])
            report(Progress(step=_STEP, detail=f"waiting for {len(left)}: {shown}"))
            if monotonic_s() > end:
                break
        await asyncio.sleep(_LOOK_S)
    detail = f"not gone within {wait_s:g} s: the removal goes on without them"
    report(Progress(step=_STEP, detail=detail, finished=True))
    named = tuple(str(balancer) for balancer in left) or ("load balancers of Services",)
    return tuple(f"{name}: its load balancer may be left in the cloud" for name in named)


def _runs_components(workspace: Workspace) -> bool:
    """Say whether the policy lets them run; of a cluster whose state is lost the conf says it."""
    state = _state(workspace)
    if state is not None:
        return state.policy is not None and current_policy(state).cloud_integration
    if not workspace.kubeconfig.exists():
        return False
    try:
        return read_config(workspace.config).provider.wants_integration
    except UserError:
        return False


def _demand_own(workspace: Workspace) -> None:
    """Refuse a kubeconfig that leads to another cluster, whose Services would be deleted.

    Raises:
        UserError: it is none, names several clusters, or another one than the state does.
    """
    path = workspace.kubeconfig
    try:
        found = only_endpoint(path.read_bytes())
    except (FormatError, OSError) as error:
        raise UserError(f"cannot be used: {error}", where=str(path)) from error
    state = _state(workspace)
    expected = state.infrastructure.user_endpoint if state and state.infrastructure else found
    if found != expected:
        raise UserError(f"leads to {found[:80]}, expected {expected}", where=str(path))


def _state(workspace: Workspace) -> State | None:
    try:
        return read_state(workspace.state)
    except UserError:
        return None


def _plain(text: str) -> str:
    """Keep a line a line: a volume's handle is whatever its maker wrote."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def hint_on_leavings(provider: str, uid: str) -> str:
    """Say what to look for in a cloud whose network cannot be removed."""
    what = _TAGS.get(provider, "load balancers that this cluster's Services had").format(uid=uid)
    return f"what Kubernetes made may stand in the network: look for {what}; then the same again"


async def _list(client: AsyncClient) -> Leavings:
    from lightkube.resources.core_v1 import (  # noqa: PLC0415 - half a second of imports
        PersistentVolume,
        Service,
    )

    services = [s async for s in client.list(Service, namespace="*")]
    volumes = [v async for v in client.list(PersistentVolume)]
    balancers = tuple(_balancer(s) for s in services if s.spec and s.spec.type == "LoadBalancer")
    disks = tuple(_disk(v) for v in volumes if v.spec and v.spec.csi)
    return Leavings(
        balancers=tuple(sorted(balancers, key=lambda b: (b.namespace, b.name))),
        disks=tuple(sorted(disks, key=lambda d: d.name)),
    )


async def _delete_balancers(client: AsyncClient) -> Leavings:
    """Delete what is there, once more what came meanwhile; gives what was there before."""
    from lightkube.core.exceptions import ApiError  # noqa: PLC0415 - see above
    from lightkube.resources.core_v1 import Service  # noqa: PLC0415 - see above

    there = await _list(client)
    for one in there.balancers:
        with contextlib.suppress(ApiError):  # gone meanwhile; what else it is shows the next look
            await client.delete(Service, one.name, namespace=one.namespace)
    return there


def _balancer(service: Any) -> Balancer:
    status = service.status.loadBalancer if service.status else None
    ingress = (status.ingress if status else None) or ()
    found = (point.hostname or point.ip or "" for point in ingress)
    return Balancer(
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        addresses=tuple(address for address in found if address),
    )


def _disk(volume: Any) -> Disk:
    spec = volume.spec
    claim = spec.claimRef
    return Disk(
        name=volume.metadata.name,
        driver=spec.csi.driver,
        handle=spec.csi.volumeHandle,
        policy=spec.persistentVolumeReclaimPolicy or "Retain",
        claim=f"{claim.namespace}/{claim.name}" if claim else "",
    )
