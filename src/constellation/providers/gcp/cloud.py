"""Google Cloud as the workstation sees it: `providers.terraform.infrastructure.Cloud`.

Machines are listed by the Compute Engine API with the user's own credentials; what Terraform makes
is in the module `infra/gcp`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Conflict
from constellation.base.rest import Missing
from constellation.providers.calls import Caller
from constellation.providers.gcp import calls
from constellation.providers.gcp.catalogue import GCP
from constellation.providers.gcp.credentials import HINT, WorkstationToken
from constellation.providers.gcp.instances import list_instances
from constellation.providers.gcp.metadata import COMPUTE_URL
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
_QUOTAS: Final = {"n2d": "N2D_CPUS", "c3": "C3_CPUS", "c3d": "C3D_CPUS"}


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
    """Google Cloud with one configuration; `compute_url` is for tests."""

    settings: GcpSettings
    signer: Signer = field(default_factory=WorkstationToken)
    compute_url: str = COMPUTE_URL

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

    async def preflight(self, uid: str, desired: Desired) -> None:
        """Look at credentials, image, machine types and quotas; all that is missing is told.

        Raises:
            Conflict: with everything that speaks against `create`.
            Unavailable, Denied: Google Cloud does not answer, or not to these credentials.
        """
        findings = [
            *await self._image(desired.image_path, self.settings.shared.variant),
            *await self._machine_types(desired),
            *await self._quotas(desired),
        ]
        if await self._list(uid):
            findings.append(f"machines of {uid} exist already, and this workspace has no state")
        if findings:
            lines = "\n".join(f"  {line}" for line in findings)
            where = f"Google Cloud, {self.settings.project}, {self.settings.shared.region}"
            raise Conflict(f"{where}:\n{lines}", hint="nothing was made")

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

    async def _quotas(self, desired: Desired) -> list[str]:
        offer = GCP.of(self.settings.shared.variant)
        needed: dict[str, int] = {}
        for group in desired.groups:
            machine = offer.machine(group.instance_type) if offer is not None else None
            quota = _QUOTAS.get(group.instance_type.partition("-")[0])
            if machine is not None and quota is not None:
                needed[quota] = needed.get(quota, 0) + machine.vcpus * group.size
        parts = {"project": self.settings.project, "region": self.settings.shared.region}
        region = await self._caller().fields(calls.GET_REGION, parts=parts)
        findings = []
        for item in region.items("quotas"):
            name = item.text_or("metric", "")
            if name in needed:
                limit, used = item.number("limit", most=_MOST), item.number("usage", most=_MOST)
                if used + needed[name] > limit:
                    room = f"{limit} of which {used} are used, {needed[name]} more needed"
                    findings.append(f"quota {name}: {room}")
        return findings

    def _caller(self) -> Caller:
        return Caller(
            service="Compute Engine",
            base_url=self.compute_url,
            signer=self.signer,
            expired_hint=HINT,
        )


if TYPE_CHECKING:
    _: type[Cloud] = GcpCloud
