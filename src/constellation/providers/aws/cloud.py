"""AWS as the workstation sees it: `providers.terraform.infrastructure.Cloud`.

Machines are listed by EC2's API with the user's own credentials; what Terraform makes is in the
module `infra/aws`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError
from constellation.providers import tags
from constellation.providers.aws import calls, preflight
from constellation.providers.aws.credentials import HINT, WorkstationCredentials
from constellation.providers.aws.instances import list_instances
from constellation.providers.aws.query import QueryClient
from constellation.providers.preflight import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import Variant
    from constellation.providers.aws.query import CredentialSource
    from constellation.providers.protocols import Desired, Instance
    from constellation.providers.terraform.infrastructure import Cloud, Outputs

__all__ = ["AwsCloud", "AwsSettings"]

_MAX_CONSOLE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """What the configuration says about AWS, beside groups and image.

    `access` has the networks for each port by its name in the configuration. `vpc` empty: a network
    is made; else `subnets` and `public_subnets` are its subnets by zone.
    """

    region: str
    zones: tuple[str, ...]
    variant: Variant
    node_network: str
    instance_profile_control_planes: str
    instance_profile_workers: str
    vpc: str
    subnets: Mapping[str, str]
    public_subnets: Mapping[str, str]
    access: Mapping[str, tuple[str, ...]]
    internal: bool
    custom_endpoint: str
    extra_names: tuple[str, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCloud:
    """AWS with one configuration; `endpoint` is for tests."""

    settings: AwsSettings
    source: CredentialSource = field(default_factory=WorkstationCredentials)
    endpoint: str = ""

    @property
    def provider(self) -> str:
        """Give its name, which is its module's as well."""
        return "aws"

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        """Give the module's variables; see infra/aws/variables.tf."""
        settings = self.settings
        network: dict[str, object] | None = None
        if settings.vpc:
            network = {
                "vpc_id": settings.vpc,
                "subnets": dict(settings.subnets),
                "public_subnets": dict(settings.public_subnets),
            }
        return {
            "uid": uid,
            "region": settings.region,
            "node_groups": {
                group.name: {
                    "role": str(group.role),
                    "size": group.size,
                    "zones": list(group.zones),
                    "instance_type": group.instance_type,
                    "state_disk_gb": group.state_disk_gb,
                    "state_disk_type": group.state_disk_type,
                }
                for group in desired.groups
            },
            "image": desired.image_path,
            "node_document": base64.b64encode(desired.node_document).decode(),
            "variant": str(settings.variant),
            "node_cidr": settings.node_network,
            "existing_network": network,
            "internal_load_balancer": settings.internal,
            "access": {name: list(networks) for name, networks in settings.access.items()},
            "initialised": desired.initialised,
            "custom_endpoint": settings.custom_endpoint,
            "extra_names": list(settings.extra_names),
            "instance_profile_control_planes": settings.instance_profile_control_planes,
            "instance_profile_workers": settings.instance_profile_workers,
            "tags": dict(settings.tags),
        }

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        """Look at credentials, image, machine types, quotas and rights; see the protocol.

        Raises:
            Conflict: with everything that speaks against `create`.
            Unavailable: AWS does not answer.
        """
        client, own = self._client(), self.settings
        await client.call(calls.WHO_AM_I, {})
        others = [
            *await preflight.image_lines(client, desired.image_path, own.variant),
            *await preflight.offer_lines(client, desired),
        ]
        full, untold = await preflight.quota_lines(
            client, desired, variant=own.variant, own_network=not own.vpc
        )
        others += full
        if await list_instances(client, uid):
            others.append(f"machines of {uid} exist already, and this workspace has no state")
        rights, untried = await preflight.right_lines(
            client, desired, own_network=not own.vpc, marks={**own.tags, tags.UID: uid}
        )
        refuse(
            f"AWS, {own.region}",
            rights=rights,
            others=tuple(others),
            rights_said="docs/how-to/aws.md says which rights of yours Terraform needs",
        )
        return (*untold, *untried)

    async def room(self, more: Desired) -> tuple[str, ...]:
        """Look at machine types and quotas; see the protocol."""
        client, own = self._client(), self.settings
        offers = await preflight.offer_lines(client, more)
        full, untold = await preflight.quota_lines(
            client, more, variant=own.variant, own_network=False
        )
        refuse(f"AWS, {own.region}", rights=(), others=(*offers, *full))
        return untold

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        """List the machines, by EC2's API. Raises Unavailable, Denied, FormatError."""
        return await list_instances(self._client(), outputs.uid)

    async def lead_init(self, outputs: Outputs, instance_id: str) -> None:
        """Let port 9000 of the load balancer lead to this machine; nothing where it is closed."""
        if group := outputs.details.get("init_target_group"):
            target = {"TargetGroupArn": group, "Targets.member.1.Id": instance_id}
            await self._client().call(calls.REGISTER, target)

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        """Name machines and volumes that still have the cluster's tag."""
        client = self._client()
        machines = [i.instance_id for i in await list_instances(client, uid)]
        found = await client.call(
            calls.DESCRIBE_VOLUMES, {"Filter.1.Name": f"tag:{tags.UID}", "Filter.1.Value.1": uid}
        )
        volumes = [
            v.text("volumeId") for v in found.items("volumeSet") if v.text("status") != "deleting"
        ]
        return (*machines, *volumes)

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console, 1 MiB at most. Raises Missing, Unavailable."""
        found = await self._client().call(calls.CONSOLE, {"InstanceId": instance_id})
        output = found.find("output")
        try:
            text = base64.b64decode(output.element.text or "") if output is not None else b""
        except (ValueError, binascii.Error):
            raise FormatError(f"console of {instance_id}: no base64") from None
        return text[-_MAX_CONSOLE_BYTES:]

    def _client(self) -> QueryClient:
        return QueryClient(
            region=self.settings.region,
            source=self.source,
            endpoint=self.endpoint,
            expired_hint=HINT,
        )


if TYPE_CHECKING:
    _: type[Cloud] = AwsCloud
