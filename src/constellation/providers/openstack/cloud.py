"""OpenStack as the workstation sees it: Terraform for what machines stand in, our calls for them.

OpenStack has no groups of machines, and Terraform would make a replaced machine anew. So the module
`infra/openstack` makes network, security groups and load balancer, and the same code makes the
first machines here that makes later ones on control planes (`node_groups`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, FormatError, UserError
from constellation.base.progress import Progress
from constellation.base.rest import Denied, Missing
from constellation.providers.openstack import calls
from constellation.providers.openstack.access import (
    Access,
    Components,
    Pool,
    Template,
    dump_access,
)
from constellation.providers.openstack.identity import Cloud as Region
from constellation.providers.openstack.node_groups import OpenStackNodeGroups
from constellation.providers.openstack.preflight import flavor_of, list_flavors, preflight_lines
from constellation.providers.openstack.servers import list_servers
from constellation.providers.preflight import refuse
from constellation.providers.protocols import Role
from constellation.providers.terraform.variables import Shared, shared_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.base.progress import Report
    from constellation.base.secret import Secret
    from constellation.providers.openstack.preflight import Flavor
    from constellation.providers.protocols import (
        Desired,
        Infrastructure,
        InfrastructureState,
        Instance,
    )
    from constellation.providers.terraform.infrastructure import (
        Cloud,
        Outputs,
        TerraformInfrastructure,
    )
    from constellation.providers.terraform.run import Plan

__all__ = ["Login", "OpenStackCloud", "OpenStackInfrastructure", "OpenStackSettings"]

_BOOT_VOLUME_GB = 10
_STEP = "Machines"
_WHERE = "provider.openstack.controlPlanesCloud"
_COMPONENTS_WHERE = "provider.openstack.componentsCloud"
_MAKE = (
    "`openstack application credential create --access-rules infra/iam/openstack/"
    "{rules} NAME`, and write it into clouds.yaml as another cloud"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """The user's own application credential, out of clouds.yaml; see `access.Access`."""

    auth_url: str
    region: str
    credential_id: str
    credential_secret: Secret
    certificates: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStackSettings:
    """What the configuration says about OpenStack, beside groups and image.

    `network` empty: network and subnet are made; else `subnet` lies in it.
    """

    shared: Shared
    cloud: str
    external_network: str
    network: str
    subnet: str
    cloud_integration: bool


class OpenStackCloud:
    """OpenStack with one configuration; `pause_s` and `drain_s` are for tests.

    `components`: the login of the cloud's own components, if the configuration names one.
    """

    def __init__(
        self,
        settings: OpenStackSettings,
        login: Login,
        *,
        control_planes: Login | None = None,
        components: Login | None = None,
        pause_s: float = 2.0,
        drain_s: float = 10.0,
    ) -> None:
        self._settings, self._login = settings, login
        self._control_planes, self._components = control_planes, components
        self._pause_s, self._drain_s = pause_s, drain_s
        self._outputs: Outputs | None = None
        self._wanted: Desired | None = None

    @property
    def provider(self) -> str:
        """Give its name, which is its module's as well."""
        return "openstack"

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        """Give the module's variables; see infra/openstack/variables.tf."""
        own = self._settings
        network = {"network_id": own.network, "subnet_id": own.subnet}
        return {
            **shared_variables(own.shared, uid, desired, network=network if own.network else None),
            "cloud": own.cloud,
            "external_network": own.external_network,
            "cloud_integration": own.cloud_integration,
        }

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        """Look at credentials, flavours, zones, image and quotas; see the protocol.

        Raises:
            Conflict: with everything that speaks against `create`.
            Denied, Unavailable: the cloud does not answer, or not to this credential.
        """
        region = Region(self._plain_access(uid))
        await self._logins(uid)
        others = [f"machines of {uid} exist already, and this workspace has no state"]
        if not await self._list(uid):
            others.clear()
        # Terraform's part has no machines; those that are wanted are made afterwards
        lines, notes = await preflight_lines(
            region, self._wanted or desired, boot_volume_gb=_BOOT_VOLUME_GB
        )
        where = f"OpenStack, {self._settings.cloud}, {self._login.region}"
        refuse(where, rights=(), others=(*others, *lines))
        return notes

    async def room(self, more: Desired) -> tuple[str, ...]:
        """Look at flavours, zones, image and quotas; see the protocol."""
        region = Region(self._plain_access(""))
        lines, notes = await preflight_lines(region, more, boot_volume_gb=_BOOT_VOLUME_GB)
        refuse(f"OpenStack, {self._settings.cloud}, {self._login.region}", rights=(), others=lines)
        return notes

    def expect(self, desired: Desired) -> None:
        """Note which machines will be made after Terraform's part, for the preflight."""
        self._wanted = desired

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        """List the machines, and note where the module has put them."""
        self._outputs = outputs
        return await self._list(outputs.uid)

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        """Name machines that still have the cluster's tag."""
        return tuple(i.instance_id for i in await self._list(uid))

    async def console(self, instance_id: str) -> bytes:
        """Refuse: Nova's console log is not among the calls of an application credential."""
        raise Conflict(f"{instance_id[:80]}: look at its console with `openstack console log show`")

    async def node_access(self, uid: str, desired: Desired) -> Secret:
        """Make what control planes ask the cloud's API with; the module was applied.

        Raises:
            UserError: no credential for them is named, or it allows more than they need.
            Denied, Unavailable: it is not accepted, or the cloud does not answer.
        """
        if self._outputs is None:
            raise ValueError("the module was not applied")
        login, theirs = await self._logins(uid)
        access = await self._access(uid, desired, self._outputs)
        components = None
        if theirs is not None:
            components = Components(
                credential_id=theirs.credential_id,
                credential_secret=theirs.credential_secret,
                subnet_id=self._outputs.details["subnet"],
                floating_network_id=self._settings.external_network,
            )
        return dump_access(
            dataclasses.replace(
                access,
                credential_id=login.credential_id,
                credential_secret=login.credential_secret,
                components=components,
            )
        )

    async def make_missing(self, uid: str, desired: Desired, *, report: Report) -> None:
        """Make machines until each group has its size, control planes first.

        Raises:
            Conflict, Unavailable: one could not be made; those that were stay.
        """
        if self._outputs is None:
            raise ValueError("the module was not applied")
        access = await self._access(uid, desired, self._outputs)
        groups = OpenStackNodeGroups(
            access,
            node_document=desired.node_document,
            pause_s=self._pause_s,
            drain_s=self._drain_s,
        )
        there = await groups.list_instances()
        total = sum(g.size for g in desired.groups)
        for group in sorted(desired.groups, key=lambda g: g.role is not Role.CONTROL_PLANE):
            have = sum(i.group == group.name for i in there)
            for number in range(have, group.size):
                detail = f"{group.name}: {number + 1} of {group.size}"
                report(Progress(step=_STEP, detail=detail, total=total, unit="machines"))
                await groups.create(group.name)
        report(Progress(step=_STEP, finished=True))

    async def remove_all(self, uid: str, *, report: Report) -> None:
        """Remove every machine of a cluster; none there is no error."""
        groups = OpenStackNodeGroups(
            self._plain_access(uid), node_document=b"", pause_s=self._pause_s, drain_s=0.0
        )
        for instance in await groups.list_instances():
            report(Progress(step="Remove machines", detail=instance.instance_id))
            await groups.delete(instance.instance_id)

    async def _logins(self, uid: str) -> tuple[Login, Login | None]:
        """Give control planes' login and that of the cloud's own components, both restricted."""
        login = await self._restricted(
            uid, self._control_planes, "control planes", where=_WHERE, rules="access-rules.json"
        )
        if not self._settings.cloud_integration:
            return login, None
        if self._components is not None and self._components.credential_id == login.credential_id:
            raise UserError(
                "the cloud's own components have the control planes' credential",
                where=_COMPONENTS_WHERE,
                hint=_MAKE.format(rules="component-rules.json"),
            )
        theirs = await self._restricted(
            uid,
            self._components,
            "the cloud's own components",
            where=_COMPONENTS_WHERE,
            rules="component-rules.json",
        )
        return login, theirs

    async def _restricted(
        self, uid: str, login: Login | None, whose: str, *, where: str, rules: str
    ) -> Login:
        """Give a login once it was seen to be refused what its holders do not need."""
        refuse_login = partial(UserError, where=where, hint=_MAKE.format(rules=rules))
        if login is None:
            raise refuse_login(f"{whose} need a credential of their own")
        theirs, ours = Region(self._plain_access(uid, login)), Region(self._plain_access(uid))
        if await theirs.project() != await ours.project():
            raise refuse_login("the credential is of another project")
        # one with the control planes' rules is restricted as well, and makes machines
        beyond = (calls.LIST_ZONES, *([calls.LIST_PORTS] if where == _COMPONENTS_WHERE else ()))
        for call in beyond:
            with contextlib.suppress(Denied, Missing):
                caller = await theirs.caller(call.permission)
                await caller.call(call, parts={}, query={"name": uid})
                raise refuse_login("the credential allows more than its rules")
        return login

    async def _list(self, uid: str) -> tuple[Instance, ...]:
        compute = await Region(self._plain_access(uid)).caller(calls.COMPUTE)
        return tuple(f.instance for f in await list_servers(compute, uid=uid))

    def _plain_access(self, uid: str, login: Login | None = None) -> Access:
        login = login or self._login
        return Access(
            auth_url=login.auth_url,
            region=login.region,
            credential_id=login.credential_id,
            credential_secret=login.credential_secret,
            certificates=login.certificates,
            uid=uid,
            groups={},
        )

    async def _access(self, uid: str, desired: Desired, outputs: Outputs) -> Access:
        details = outputs.details
        flavors = await list_flavors(Region(self._plain_access(uid)))
        try:
            pools = tuple(
                Pool(pool_id=str(p["pool_id"]), port=int(p["port"]))
                for p in json.loads(details["pools"]).values()
            )
            groups = {
                group.name: Template(
                    role=group.role,
                    name_prefix=uid,
                    flavor_id=_flavor_id(flavors, group.instance_type),
                    image_id=desired.image_path,
                    network_id=details["network"],
                    subnet_id=details["subnet"],
                    security_group_ids=(
                        details[f"security_group_{str(group.role).replace('-', '_')}"],
                    ),
                    availability_zones=group.zones,
                    boot_volume_gb=_BOOT_VOLUME_GB,
                    state_volume_gb=group.state_disk_gb,
                    volume_type=group.state_disk_type,
                    pools=pools if group.role is Role.CONTROL_PLANE else (),
                )
                for group in desired.groups
            }
        except (KeyError, ValueError, TypeError, AttributeError):
            raise FormatError("outputs of the module: details are not complete") from None
        return dataclasses.replace(self._plain_access(uid), groups=groups)


def _flavor_id(flavors: tuple[Flavor, ...], wanted: str) -> str:
    """Give the id, which Nova takes, of what people call by its name."""
    if (found := flavor_of(flavors, wanted)) is None:
        raise Conflict(f"the cloud has no machines {wanted}, or several of that name")
    return found.flavor_id


class OpenStackInfrastructure:
    """`providers.protocols.Infrastructure`: Terraform's part within, machines around it.

    `trust_roots` (DER) certify the machines' attestation keys: the cloud itself names none.
    """

    def __init__(
        self,
        inner: TerraformInfrastructure,
        cloud: OpenStackCloud,
        uid: str,
        *,
        trust_roots: tuple[bytes, ...] = (),
    ) -> None:
        self._inner, self._cloud, self._uid = inner, cloud, uid
        self._trust_roots = trust_roots

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Create what is missing; see the protocol."""
        self._cloud.expect(desired)
        await self.ask_room(desired, report=report)
        # Terraform's part waits for no machines
        empty = tuple(dataclasses.replace(g, size=0) for g in desired.groups)
        state = await self._inner.apply(dataclasses.replace(desired, groups=empty), report=report)
        await self._cloud.make_missing(self._uid, desired, report=report)
        return await self.observe() or state

    async def plan(self, desired: Desired, *, report: Report) -> Plan:
        """Say what `apply` would do with what machines stand in."""
        empty = tuple(dataclasses.replace(g, size=0) for g in desired.groups)
        return await self._inner.plan(dataclasses.replace(desired, groups=empty), report=report)

    async def ask_room(self, desired: Desired, *, report: Report) -> None:
        """Ask whether groups may grow to these sizes; see `TerraformInfrastructure.ask_room`."""
        await self._inner.ask_room(desired, report=report)

    async def observe(self) -> InfrastructureState | None:
        """Say what exists; None where nothing does."""
        found = await self._inner.observe()
        if found is None:
            return None
        return dataclasses.replace(found, trust_roots=self._trust_roots)

    async def node_access(self, desired: Desired) -> Secret:
        """Make what control planes ask the cloud's API with; see `OpenStackCloud.node_access`."""
        if await self._inner.observe() is None:
            raise Conflict("no machines yet", hint="run `constellation create`")
        return await self._cloud.node_access(self._uid, desired)

    async def destroy(self, *, report: Report) -> None:
        """Remove everything, machines first: they hold ports of the network."""
        await self._cloud.remove_all(self._uid, report=report)
        await self._inner.destroy(report=report)

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console; see the protocol."""
        return await self._inner.console(instance_id)


if TYPE_CHECKING:
    _: type[Cloud] = OpenStackCloud
    __: type[Infrastructure] = OpenStackInfrastructure
