"""Azure as the workstation sees it: `providers.terraform.infrastructure.Cloud`.

Machines are listed by Azure Resource Manager with the user's own credentials; what Terraform makes
is in the module `infra/azure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from constellation.base import rest
from constellation.base.errors import Conflict, FormatError
from constellation.base.rest import Denied, Missing
from constellation.providers import answers
from constellation.providers.azure import calls
from constellation.providers.azure.catalogue import AZURE
from constellation.providers.azure.credentials import HINT, WorkstationToken
from constellation.providers.azure.images import image_lines, image_parts
from constellation.providers.azure.needs import Allowed, asked
from constellation.providers.azure.scale_sets import ARM_URL, ResourceManager
from constellation.providers.azure.sizes import missing_sizes, quota_of
from constellation.providers.preflight import Room, refuse, right_lines, room_lines
from constellation.providers.terraform.variables import Shared, shared_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.calls import Signer
    from constellation.providers.protocols import Desired, Instance
    from constellation.providers.terraform.infrastructure import Cloud, Outputs

__all__ = ["AzureCloud", "AzureSettings"]

_MAX_CONSOLE_BYTES = 1024 * 1024
_CONSOLE_S = 30.0
_STORAGE = (".blob.core.windows.net", ".blob.storage.azure.net")
_MOST = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings:
    """What the configuration says about Azure, beside groups and image.

    `subnet` empty: network and subnet are made.
    """

    shared: Shared
    subscription: str
    tenant: str
    resource_group: str
    identity_control_planes: str
    identity_workers: str
    subnet: str
    secure_boot: bool
    cloud_integration: bool


class AzureCloud:
    """Azure with one configuration; the other arguments are for tests."""

    def __init__(
        self,
        settings: AzureSettings,
        *,
        signer: Signer | None = None,
        arm_url: str = ARM_URL,
        storage_url: str = "",
    ) -> None:
        self._storage_url = storage_url
        self._settings, self._arm_url = settings, arm_url
        self._signer: Signer = signer or WorkstationToken(settings.tenant)

    @property
    def provider(self) -> str:
        """Give its name, which is its module's as well."""
        return "azure"

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        """Give the module's variables; see infra/azure/variables.tf."""
        own = self._settings
        return {
            **shared_variables(
                own.shared, uid, desired, network={"subnet_id": own.subnet} if own.subnet else None
            ),
            "subscription": own.subscription,
            "resource_group": own.resource_group,
            "identity_control_planes": own.identity_control_planes,
            "identity_workers": own.identity_workers,
            "secure_boot": own.secure_boot,
            "cloud_integration": own.cloud_integration,
        }

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        """Look at credentials, resource group, rights, sizes and quotas; see the protocol.

        Raises:
            Conflict: with everything that speaks against `create`.
            Unavailable, Denied: Azure does not answer, or not to these credentials.
        """
        manager, own = self._manager(uid), self._settings
        try:
            await manager.call(calls.GET_GROUP, {})
        except Missing:
            raise Conflict(
                f"no resource group {own.resource_group} in subscription {own.subscription}",
                hint="infra/iam/azure makes it with the nodes' identities; nothing was made",
            ) from None
        image, untold = await self._image(manager, desired.image_path)
        others = [
            *image,
            *await self._sizes(manager, desired),
            *await self._quotas(manager, desired, scale_sets=len(desired.groups)),
        ]
        if await manager.sets():
            others.append(f"scale sets of {uid} exist already, and this workspace has no state")
        rights, notes = await self._rights(manager)
        refuse(f"Azure, {own.shared.region}", rights=rights, others=tuple(others))
        return (*untold, *notes)

    async def room(self, more: Desired) -> tuple[str, ...]:
        """Look at sizes and quotas; see the protocol."""
        manager = self._manager("")
        lines = (
            *await self._sizes(manager, more),
            *await self._quotas(manager, more, scale_sets=0),
        )
        refuse(f"Azure, {self._settings.shared.region}", rights=(), others=lines)
        return ()

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        """List the machines. Raises Unavailable, Denied, FormatError."""
        manager = self._manager(outputs.uid)
        return tuple(f.instance for f in await manager.machines(await manager.sets()))

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        """Name scale sets that still have the cluster's tag."""
        return tuple(s.name for s in await self._manager(uid).sets())

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console. Raises Missing, Unavailable."""
        scale_set, _, number = instance_id.rpartition("_")
        answer = await self._manager("").call(calls.CONSOLE, {"scale_set": scale_set, "vm": number})
        found = answers.parse(answer.body, what="boot diagnostics")
        # an address of Azure's storage that is signed for this one file, for some minutes
        console = await rest.send(
            "GET",
            _storage(found.text("serialConsoleLogBlobUri"), usual=self._storage_url),
            headers={},
            body=None,
            timeout_s=_CONSOLE_S,
            max_bytes=8 * _MAX_CONSOLE_BYTES,
        )
        return rest.accept(console, what="boot diagnostics").body[-_MAX_CONSOLE_BYTES:]

    async def _quotas(
        self, manager: ResourceManager, desired: Desired, *, scale_sets: int
    ) -> tuple[str, ...]:
        offer = AZURE.of(self._settings.shared.variant)
        needed = {"virtualmachinescalesets": scale_sets, "cores": 0}
        for group in desired.groups:
            machine = offer.machine(group.instance_type) if offer is not None else None
            vcpus = (machine.vcpus if machine is not None else 0) * group.size
            for quota in ("cores", quota_of(group.instance_type)):
                needed[quota] = needed.get(quota, 0) + vcpus
        answer = await manager.call(calls.LIST_USAGES, {"location": self._settings.shared.region})
        usages = answers.parse(answer.body, what="usages").items("value")
        return room_lines(
            Room(
                quota=name,
                limit=usage.number("limit", most=_MOST),
                used=usage.number("currentValue", most=_MOST),
                more=needed[name.lower()],
            )
            for usage in usages
            if (name := usage.fields("name").text_or("value", "")).lower() in needed
        )

    async def _image(
        self, manager: ResourceManager, image: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Say what speaks against the image, and what was not told: it may be somebody else's."""
        if (parts := image_parts(image)) is None:
            return (), (f"image {image[:120]} is of no gallery: it was not looked at",)
        try:
            answer = await manager.call(calls.GET_IMAGE, parts)
        except Missing:
            return (f"image {image} is not there (or not yours to use)",), ()
        except Denied as error:
            if error.expired:
                raise
            return (), (f"the image was not looked at: {error}",)
        definition = answers.parse(answer.body, what="image definition")
        return image_lines(definition, image, variant=self._settings.shared.variant), ()

    async def _sizes(self, manager: ResourceManager, desired: Desired) -> tuple[str, ...]:
        region = self._settings.shared.region
        query = {"$filter": f"location eq '{region}'"}
        listed = [s async for s in manager.list_(calls.LIST_SIZES, {}, query)]
        wanted = {(g.instance_type, zone) for g in desired.groups for zone in g.zones or ("",)}
        return missing_sizes(listed, wanted=wanted, region=region)

    async def _rights(self, manager: ResourceManager) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give what lacks, and a note where the caller may not even look at what it may do."""
        try:
            held = tuple(
                [
                    Allowed(actions=p.texts("actions"), not_actions=p.texts("notActions"))
                    async for p in manager.list_(calls.LIST_PERMISSIONS, {})
                ]
            )
        except Denied as error:
            if error.expired:
                raise
            return (), (f"permissions were not looked at: {error}",)
        made = asked(own_network=not self._settings.subnet)
        return right_lines(made, lambda action: any(one.allows(action) for one in held)), ()

    def _manager(self, uid: str) -> ResourceManager:
        return ResourceManager(
            self._signer,
            subscription=self._settings.subscription,
            resource_group=self._settings.resource_group,
            uid=uid,
            url=self._arm_url,
            expired_hint=HINT,
        )


def _storage(url: str, *, usual: str) -> str:
    """Give an address of a console back if it is Azure's storage: what is there is shown to people.

    `usual`: where a test's storage is. Raises FormatError.
    """
    if usual and url.startswith(f"{usual}/"):
        return url
    try:
        parts = urlsplit(url)
        named = parts.port is None and parts.username is None
    except ValueError:
        named, parts = False, urlsplit("")
    host = parts.hostname or ""
    if not named or parts.scheme != "https" or not host.endswith(_STORAGE):
        raise FormatError(f"boot diagnostics: {url[:80]!r} is not at Azure's storage")
    return url


if TYPE_CHECKING:
    _: type[Cloud] = AzureCloud
