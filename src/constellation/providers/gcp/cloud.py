"""Google Cloud as the workstation sees it: `providers.terraform.infrastructure.Cloud`.

Machines are listed by the Compute Engine API with the user's own credentials; what Terraform makes
is in the module `infra/gcp`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from constellation.base.rest import Denied, Missing, Refused
from constellation.providers.calls import Caller
from constellation.providers.gcp import calls, needs
from constellation.providers.gcp.catalogue import GCP
from constellation.providers.gcp.credentials import HINT, WorkstationToken
from constellation.providers.gcp.instances import list_instances
from constellation.providers.gcp.metadata import COMPUTE_URL
from constellation.providers.preflight import Room, refuse, right_lines, room_lines
from constellation.providers.terraform.variables import Shared, shared_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import Variant
    from constellation.providers.calls import Signer
    from constellation.providers.protocols import Desired, Instance
    from constellation.providers.terraform.infrastructure import Cloud, Outputs

__all__ = ["GcpCloud", "GcpSettings"]

_IMAGE: Final = re.compile(r"projects/([a-z0-9.:-]+)/global/images/([a-z0-9-]+)")
# a machine's name begins with its cluster's
_OF_CLUSTER: Final = re.compile(r"([a-z][a-z0-9-]{0,12}?-[0-9a-f]{6})-")
_MAX_CONSOLE_BYTES = 1024 * 1024
_MOST = 10**9
# what a machine's image must say so that Google starts it as a confidential one
_FEATURES: Final[dict[str, str]] = {
    "gcp-tdx": "TDX_CAPABLE",
    "gcp-sev-snp": "SEV_SNP_CAPABLE",
    "gcp-sev-es": "SEV_CAPABLE",
}
# machine family -> the name of its quota
_CPU_QUOTAS: Final = {"n2d": "N2D_CPUS", "c3": "C3_CPUS", "c3d": "C3D_CPUS"}
_DISK_QUOTAS: Final = {"pd-standard": "DISKS_TOTAL_GB"}
_USUAL_DISK_QUOTA: Final = "SSD_TOTAL_GB"
_MANAGER_URL: Final = "https://cloudresourcemanager.googleapis.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSettings:
    """What the configuration says about Google Cloud, beside groups and image.

    `subnetwork` empty: network and subnetwork are made; else it lies in `network`.
    """

    shared: Shared
    project: str
    service_account_control_planes: str
    service_account_workers: str
    network: str
    subnetwork: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpCloud:
    """Google Cloud with one configuration; the addresses are for tests."""

    settings: GcpSettings
    signer: Signer = field(default_factory=WorkstationToken)
    compute_url: str = COMPUTE_URL
    manager_url: str = _MANAGER_URL

    @property
    def provider(self) -> str:
        """Give its name, which is its module's as well."""
        return "gcp"

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        """Give the module's variables; see infra/gcp/variables.tf."""
        own = self.settings
        network = {"network": own.network, "subnetwork": own.subnetwork}
        return {
            **shared_variables(
                own.shared, uid, desired, network=network if own.subnetwork else None
            ),
            "project": own.project,
            "service_account_control_planes": own.service_account_control_planes,
            "service_account_workers": own.service_account_workers,
        }

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        """Look at credentials, rights, image, machine types and quotas; see the protocol.

        Raises:
            Conflict: with everything that speaks against `create`.
            Unavailable, Denied: Google Cloud does not answer, or not to these credentials.
        """
        addresses = 0 if self.settings.shared.internal else 1
        others = [
            *await self._image(desired.image_path, self.settings.shared.variant),
            *await self._machine_types(desired),
            *room_lines(await self._rooms(desired, addresses=addresses)),
        ]
        if await self._list(uid):
            others.append(f"machines of {uid} exist already, and this workspace has no state")
        rights, notes = await self._rights()
        where = f"Google Cloud, {self.settings.project}, {self.settings.shared.region}"
        refuse(where, rights=rights, others=tuple(others))
        return notes

    async def room(self, more: Desired) -> tuple[str, ...]:
        """Look at machine types and quotas; see the protocol."""
        lines = (
            *await self._machine_types(more),
            *room_lines(await self._rooms(more, addresses=0)),
        )
        where = f"Google Cloud, {self.settings.project}, {self.settings.shared.region}"
        refuse(where, rights=(), others=lines)
        return ()

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        """List the machines. Raises Unavailable, Denied, FormatError."""
        return await self._list(outputs.uid)

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        """Name machines that still have the cluster's label."""
        return tuple(i.instance_id for i in await self._list(uid))

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's first serial port. Raises Missing, Unavailable."""
        match = _OF_CLUSTER.match(instance_id)
        if match is None:
            raise Missing(f"{instance_id[:80]!r} names no machine of a cluster")
        project = self.settings.project
        found = await list_instances(self._caller(), project=project, uid=match[1])
        zones = [f.zone for f in found if f.instance.instance_id == instance_id]
        if not zones:
            raise Missing(f"no machine {instance_id[:80]}")
        parts = {"project": self.settings.project, "zone": zones[0], "instance": instance_id}
        answer = await self._caller().fields(calls.CONSOLE, parts=parts, query={"port": "1"})
        return str(answer.raw("contents") or "").encode()[-_MAX_CONSOLE_BYTES:]

    async def _list(self, uid: str) -> tuple[Instance, ...]:
        found = await list_instances(self._caller(), project=self.settings.project, uid=uid)
        return tuple(f.instance for f in found)

    async def _image(self, image: str, variant: Variant) -> list[str]:
        match = _IMAGE.fullmatch(image)
        if match is None:
            return [f"image {image[:80]!r}: expected projects/PROJECT/global/images/NAME"]
        parts = {"project": match[1], "image": match[2]}
        try:
            found = await self._caller().fields(calls.GET_IMAGE, parts=parts)
        except Missing:
            return [f"image {image} is not there (or not yours to use)"]
        has = {f.text_or("type", "") for f in found.items("guestOsFeatures")}
        wanted = {_FEATURES[variant], "UEFI_COMPATIBLE"}
        return [f"image {image} lacks the feature {name}" for name in sorted(wanted - has)]

    async def _machine_types(self, desired: Desired) -> list[str]:
        findings = []
        for kind, zone in sorted({(g.instance_type, z) for g in desired.groups for z in g.zones}):
            parts = {"project": self.settings.project, "zone": zone, "kind": kind}
            try:
                await self._caller().fields(calls.GET_MACHINE_TYPE, parts=parts)
            except Missing:
                findings.append(f"{zone} has no machines {kind}")
        return findings

    async def _rooms(self, desired: Desired, *, addresses: int) -> tuple[Room, ...]:
        needed = self._needed(desired) | {"STATIC_ADDRESSES": addresses}
        parts = {"project": self.settings.project, "region": self.settings.shared.region}
        region = await self._caller().fields(calls.GET_REGION, parts=parts)
        return tuple(
            Room(
                quota=name,
                limit=item.number("limit", most=_MOST),
                used=item.number("usage", most=_MOST),
                more=needed[name],
            )
            for item in region.items("quotas")
            if (name := item.text_or("metric", "")) in needed
        )

    def _needed(self, desired: Desired) -> dict[str, int]:
        """Give what the machines take of each quota; a boot disk's size is its image's."""
        offer = GCP.of(self.settings.shared.variant)
        needed = {"INSTANCES": 0}
        for group in desired.groups:
            needed["INSTANCES"] += group.size
            disks = _DISK_QUOTAS.get(group.state_disk_type, _USUAL_DISK_QUOTA)
            needed[disks] = needed.get(disks, 0) + group.state_disk_gb * group.size
            machine = offer.machine(group.instance_type) if offer is not None else None
            quota = _CPU_QUOTAS.get(group.instance_type.partition("-")[0])
            if machine is not None and quota is not None:
                needed[quota] = needed.get(quota, 0) + machine.vcpus * group.size
        return needed

    async def _rights(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give what lacks, and a note where Google does not say: its API may be switched off."""
        made = needs.asked(own_network=not self.settings.subnetwork)
        asked = sorted({permission for row in made.values() for permission in row})
        manager = Caller(
            service="Cloud Resource Manager",
            base_url=self.manager_url,
            signer=self.signer,
            expired_hint=HINT,
        )
        try:
            answer = await manager.fields(
                calls.TEST_PERMISSIONS,
                parts={"project": self.settings.project},
                body={"permissions": asked},
            )
        except (Denied, Refused) as error:
            if isinstance(error, Denied) and error.expired:
                raise
            return (), (f"permissions were not looked at: {error}",)
        held = frozenset(answer.texts("permissions"))
        return right_lines(made, held.__contains__), ()

    def _caller(self) -> Caller:
        return Caller(
            service="Compute Engine",
            base_url=self.compute_url,
            signer=self.signer,
            expired_hint=HINT,
        )


if TYPE_CHECKING:
    _: type[Cloud] = GcpCloud
