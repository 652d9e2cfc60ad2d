"""A cloud as the workstation sees it: `providers.protocols.Infrastructure` over Terraform.

What differs between clouds is one `Cloud`: the module's variables, and what its API says about
machines. Order of `apply`: preflight, module and variables, init, plan, room for what a later apply
adds, the user's word, apply, wait until the cloud lists the machines. A first apply that fails is
rolled back, and what is left is named; a later one never is, since that would take a cluster away.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.base import clock, decode
from constellation.base.errors import Conflict, ConstellationError, FormatError, Unavailable
from constellation.base.progress import Progress
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.providers.terraform import program as programs
from constellation.providers.terraform.folder import Folder, Mark, module_source
from constellation.providers.terraform.run import Plan, Terraform, TerraformSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.providers.protocols import Desired, Infrastructure

__all__ = ["PORTS", "Cloud", "Outputs", "TerraformInfrastructure", "grown"]

PORTS = {"api": 6443, "init": 9000, "recovery": 9999, "verify": 30081, "policy": 30091}
"""What the load balancer leads to control planes, by the name in the configuration (`access`)."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ENDPOINT = re.compile(rf"{_HOST.pattern}:[0-9]{{1,5}}")
_STEP = "Machines"
_PAUSE_S = 2.0
_LISTED_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What every module says in the end; see docs/reference/infrastructure.md.

    Endpoints are host:port of the API server, outside and inside; `groups` maps a node group to the
    cloud's id of it; `details` is for the cloud's own code.
    """

    uid: str
    endpoint: str
    in_cluster_endpoint: str
    api_sans: tuple[str, ...]
    node_cidr: str
    groups: dict[str, str]
    load_balancer: str
    details: dict[str, str] = dataclasses.field(default_factory=dict)


class Cloud(Protocol):
    """What is different about a cloud, on the workstation."""

    @property
    def provider(self) -> str:
        """Give its name, which is its module's as well."""
        ...

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        """Give the module's variables: plain JSON, no secret."""
        ...

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        """Ask for credentials, permissions and quotas before anything is made.

        Gives notes: what the cloud did not say, so that nobody takes it for granted.

        Raises:
            Conflict: with everything that is missing.
            Unavailable: the cloud does not answer.
        """
        ...

    async def room(self, more: Desired) -> tuple[str, ...]:
        """Ask whether zones and quotas have room for these machines beside all others.

        Gives notes, and raises, as `preflight` does.
        """
        ...

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        """List the machines, by the cloud's API. Raises Unavailable, FormatError."""
        ...

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        """Name what the cloud still has of a cluster, whoever made it."""
        ...

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console, 1 MiB at most."""
        ...


class TerraformInfrastructure:
    """The resources of one uid, made by the module of one cloud in one folder."""

    def __init__(
        self,
        cloud: Cloud,
        uid: str,
        *,
        folder: Path,
        program: str,
        settings: TerraformSettings,
        confirm: Callable[[Plan], None],
        direct: bool = False,
        listed_s: float = _LISTED_S,
        lead_init: Callable[[Outputs, str], Awaitable[None]] | None = None,
    ) -> None:
        self._cloud, self._uid = cloud, uid
        self._folder = Folder(path=folder)
        self._program, self._settings = program, settings
        self._confirm, self._direct, self._listed_s = confirm, direct, listed_s
        self._lead_init = lead_init

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Create or change what differs; see the module's docstring.

        Raises:
            UserError: no Terraform, or the user's answer was no.
            Conflict: something speaks against it; nothing was changed.
            Unavailable: the cloud refused; says what is left of it.
        """
        terraform = await self._terraform()
        new = self._folder.mark() is None
        if new:
            await self._preflight(desired, report=report)
        self._folder.fill(
            module_source(self._cloud.provider),
            mark=self._mark,
            variables=self._cloud.variables(self._uid, desired),
            backend=self._settings.backend,
        )
        await terraform.init(report=report)
        before = await terraform.resources()
        if not before and not new:  # an earlier run was stopped before it made anything
            await self._preflight(desired, report=report)
        plan = await terraform.plan(report=report)
        if plan.changes:
            if before:
                await self._ask_room(terraform, desired, report=report)
            self._confirm(plan)
            try:
                await terraform.apply(plan, report=report, step=_STEP)
            except ConstellationError as error:
                if before:
                    raise
                raise await self._rolled_back(terraform, error, report=report) from error
        return await self._listed(terraform, desired, report=report)

    async def _preflight(self, desired: Desired, *, report: Report) -> None:
        report(Progress(step="Preflight"))
        for note in await self._cloud.preflight(self._uid, desired):
            report(Progress(step="Preflight", detail=note))
        report(Progress(step="Preflight", finished=True))

    async def ask_room(self, desired: Desired, *, report: Report) -> None:
        """Ask whether groups may grow to these sizes; nothing is changed.

        Where nothing was made from this folder, nobody is asked: the preflight does that.

        Raises:
            Conflict: a quota, or a zone, has no room for the machines that are not there yet.
            Unavailable, Denied: the cloud does not answer, or not to these credentials.
        """
        if self._folder.mark() == self._mark:
            await self._ask_room(await self._terraform(), desired, report=report)

    async def _ask_room(self, terraform: Terraform, desired: Desired, *, report: Report) -> None:
        found = await terraform.outputs()
        there = await self._cloud.instances(_outputs(found)) if found else ()
        if (more := grown(desired, there)) is not None:
            for note in await self._cloud.room(more):
                report(Progress(step="Preflight", detail=note))
            report(Progress(step="Preflight", detail="there is room", finished=True))

    async def plan(self, desired: Desired, *, report: Report) -> Plan:
        """Say what `apply` would do with resources that exist; nothing is changed.

        Raises:
            Conflict: nothing was made from this folder, or another run holds the state.
        """
        if self._folder.mark() != self._mark:
            raise Conflict(f"{self._uid}: nothing was made from {self._folder.path}")
        terraform = await self._terraform()
        self._folder.fill(
            module_source(self._cloud.provider),
            mark=self._mark,
            variables=self._cloud.variables(self._uid, desired),
            backend=self._settings.backend,
        )
        await terraform.init(report=report)
        plan = await terraform.plan(report=report)
        self._folder.plan.unlink(missing_ok=True)
        return plan

    async def observe(self) -> InfrastructureState | None:
        """Say what exists; None where nothing was made from this folder."""
        if self._folder.mark() != self._mark:
            return None
        terraform = await self._terraform()
        found = await terraform.outputs()
        if not found:
            return None
        return await self._state(_outputs(found))

    async def destroy(self, *, report: Report) -> None:
        """Remove everything; nothing there is no error.

        Raises:
            Unavailable: something is left; it is named, and the same command goes on.
        """
        if self._folder.mark() != self._mark:
            return
        terraform = await self._terraform()
        await terraform.init(report=report)
        plan = await terraform.plan(report=report, destroy=True)
        if plan.changes:
            await terraform.apply(plan, report=report, step="Remove machines")
        left = (*await terraform.resources(), *await self._cloud.leftovers(self._uid))
        if left:
            raise Unavailable(
                f"left of {self._uid}: {', '.join(left)}",
                hint="the same command again goes on; what Kubernetes made is yours to remove",
            )
        self._folder.remove()

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console, 1 MiB at most."""
        return await self._cloud.console(instance_id)

    @property
    def _mark(self) -> Mark:
        return Mark(provider=self._cloud.provider, uid=self._uid)

    async def _terraform(self) -> Terraform:
        program = await programs.find(self._program)
        return Terraform(program, self._folder, self._settings)

    async def _rolled_back(
        self, terraform: Terraform, error: ConstellationError, *, report: Report
    ) -> ConstellationError:
        """Remove what a first apply has made; gives the error that says what is left."""
        report(Progress(step=_STEP, detail="failed; removing what was made", finished=True))
        with contextlib.suppress(ConstellationError):
            plan = await terraform.plan(report=report, destroy=True)
            if plan.changes:
                await terraform.apply(plan, report=report, step="Roll back")
        left = await terraform.resources()
        if left:
            note = f"left behind: {', '.join(left)}; `constellation terminate` removes it"
        else:
            self._folder.remove()
            note = "everything that was made has been removed again"
        return type(error)(f"{error}. {note}", hint=error.hint)

    async def _listed(
        self, terraform: Terraform, desired: Desired, *, report: Report
    ) -> InfrastructureState:
        """Wait until the cloud's API lists every machine: it may lag behind what it has made."""
        outputs = _outputs(await terraform.outputs())
        end = clock.monotonic_s() + self._listed_s
        while True:
            state = await self._state(outputs)
            missing = [
                f"{group.name} ({found} of {group.size})"
                for group in desired.groups
                if (found := _ready_in(group.name, state.instances)) < group.size
            ]
            if not missing:
                await self._lead(outputs, state)
                report(Progress(step="Machines are listed", finished=True))
                return state
            if clock.monotonic_s() > end:
                raise Unavailable(
                    f"the cloud does not list all machines: {', '.join(missing)}",
                    hint="the same command again looks anew",
                )
            report(Progress(step="Machines are listed", detail=", ".join(missing)))
            await asyncio.sleep(_PAUSE_S)

    async def _lead(self, outputs: Outputs, state: InfrastructureState) -> None:
        """Lead init to the control plane that it goes to: the first by id, as `init` chooses."""
        planes = sorted(m.instance_id for m in state.instances if m.role is Role.CONTROL_PLANE)
        if self._lead_init is not None and planes:
            await self._lead_init(outputs, planes[0])

    async def _state(self, outputs: Outputs) -> InfrastructureState:
        if outputs.uid != self._uid:
            raise Conflict(f"the state is of {outputs.uid}, expected {self._uid}")
        host = outputs.details.get("host") or outputs.endpoint.rpartition(":")[0]
        instances = await self._cloud.instances(outputs)
        return InfrastructureState(
            uid=outputs.uid,
            endpoint=outputs.in_cluster_endpoint,
            user_endpoint=outputs.endpoint,
            api_sans=outputs.api_sans,
            instances=tuple(_reached(m, host, direct=self._direct) for m in instances),
            trust_roots=(),
        )


def grown(desired: Desired, there: tuple[Instance, ...]) -> Desired | None:
    """Give what is to be made beside what there is: groups with their growth; None: nothing is."""
    have = [machine.group for machine in there]
    groups = tuple(
        dataclasses.replace(group, size=group.size - have.count(group.name))
        for group in desired.groups
        if group.size > have.count(group.name)
    )
    return dataclasses.replace(desired, groups=groups) if groups else None


def _ready_in(group: str, machines: tuple[Instance, ...]) -> int:
    # a cloud lists some machines a while before it says their addresses
    return sum(m.group == group and bool(m.address) for m in machines)


def _outputs(found: Mapping[str, object]) -> Outputs:
    """Read a module's outputs: what they name is reached later, and stands in a kubeconfig."""
    outputs = decode.load_value(Outputs, dict(found), what="outputs of the module")
    for endpoint in (outputs.endpoint, outputs.in_cluster_endpoint):
        if not _ENDPOINT.fullmatch(endpoint):
            raise FormatError(f"outputs of the module: {endpoint[:80]!r} is no host:port")
    hosts = (*outputs.api_sans, *filter(None, (outputs.details.get("host"),)))
    if bad := [h for h in hosts if not _HOST.fullmatch(h)]:
        raise FormatError(f"outputs of the module: {bad[0][:80]!r} is no host")
    return outputs


def _reached(instance: Instance, host: str, *, direct: bool) -> Instance:
    """Say how the workstation reaches a machine.

    Control planes through the load balancer, which leads to any of them; with `direct` (a way into
    the private network), and workers always, by their own addresses.
    """
    balanced = instance.role is Role.CONTROL_PLANE and not direct
    to = host if balanced else instance.address
    if not to:  # its machine is being made; an endpoint without a host would be this workstation
        return instance
    return dataclasses.replace(
        instance,
        init_endpoint=f"{to}:{PORTS['init']}",
        recovery_endpoint=f"{to}:{PORTS['recovery']}",
        verify_endpoint=f"{to}:{PORTS['verify']}",
        policy_endpoint=f"{to}:{PORTS['policy']}",
    )


if TYPE_CHECKING:
    _: type[Infrastructure] = TerraformInfrastructure
