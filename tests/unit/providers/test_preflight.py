"""What Azure, Google Cloud and OpenStack say against `create`, before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, UserError
from constellation.base.rest import Denied
from constellation.config.cloud_settings import azure_settings, gcp_settings, openstack_settings
from constellation.config.clouds_yaml import parse_login
from constellation.providers.azure import needs as azure_needs
from constellation.providers.azure.cloud import AzureCloud
from constellation.providers.azure.needs import Allowed
from constellation.providers.azure.sizes import quota_of
from constellation.providers.gcp import needs as gcp_needs
from constellation.providers.gcp.cloud import GcpCloud
from constellation.providers.gcp.credentials import WorkstationToken
from constellation.providers.openstack.cloud import OpenStackCloud
from tests.fakes.arm import FakeAzure
from tests.fakes.cloud_confs import UID, clouds_yaml, conf, desired
from tests.fakes.gce import FakeGce
from tests.fakes.openstack import FakeOpenStack
from tools.infrastructure_reference import blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.providers.openstack.cloud import Login, OpenStackSettings
    from constellation.providers.terraform.infrastructure import Cloud

POLICY = ("google_compute_subnetwork", "google_compute_router", "google_compute_firewall")
INFRA = Path(__file__).resolve().parents[3] / "infra"


def _azure(fake: FakeAzure, **changed: Any) -> Cloud:
    config = conf("azure", **changed)
    assert config.provider.azure is not None
    settings = azure_settings(config.provider.azure, variant=config.attestation.variant)
    signer = WorkstationToken(environment={"GOOGLE_OAUTH_ACCESS_TOKEN": "eyJ0.1"})
    return AzureCloud(settings, signer=signer, arm_url=fake.arm.url)


def _gcp(fake: FakeGce, **changed: Any) -> Cloud:
    config = conf("gcp", **changed)
    assert config.provider.gcp is not None
    return GcpCloud(
        settings=gcp_settings(config.provider.gcp, variant=config.attestation.variant),
        signer=WorkstationToken(environment={"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.1"}),
        compute_url=fake.compute_url,
        manager_url=fake.manager_url,
    )


@pytest.fixture
async def azure() -> AsyncIterator[FakeAzure]:
    async with FakeAzure(uid="other-00ffff").serving() as fake:
        yield fake


@pytest.fixture
async def gce() -> AsyncIterator[FakeGce]:
    async with FakeGce(uid="other-00ffff").serving() as fake:
        yield fake


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[FakeOpenStack]:
    async with FakeOpenStack(uid="other-00ffff").serving() as fake:
        clouds_yaml(tmp_path, auth_url=fake.auth_url)
        yield fake


async def _refusal(cloud: Cloud, **changed: Any) -> list[str]:
    with pytest.raises(Conflict) as caught:
        await cloud.preflight(UID, desired(conf(cloud.provider, **changed)))
    assert caught.value.hint.startswith("nothing was made")
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("cloud", "needs"), [("azure", azure_needs.NEEDS), ("gcp", gcp_needs.NEEDS)]
)
def test_there_is_a_row_for_every_resource_of_the_module(
    cloud: str, needs: dict[str, tuple[str, ...]]
) -> None:
    made = {kind for kind, _ in blocks(INFRA / cloud, "resource")}
    assert set(needs) == made
    assert len({p for row in needs.values() for p in row}) <= 100  # what one call of Google takes


async def test_google_says_which_permissions_lack_and_for_what(gce: FakeGce) -> None:
    assert await _gcp(gce).preflight(UID, desired(conf("gcp"))) == ()
    gce.lacks = {"compute.networks.create", "compute.networks.updatePolicy"}
    assert await _refusal(_gcp(gce)) == [
        "no permission compute.networks.create: google_compute_network need it",
        f"no permission compute.networks.updatePolicy: {', '.join(POLICY)} need it",
    ]
    # what a network of somebody else's project, an image or an account allows is not the project's
    gce.lacks = {
        "compute.networks.create",
        "compute.networks.updatePolicy",
        "compute.subnetworks.use",
        "compute.images.useReadOnly",
        "iam.serviceAccounts.actAs",
    }
    own = {"network": "projects/p/global/networks/n", "subnetwork": "projects/p/regions/r/s"}
    assert await _gcp(gce, **own).preflight(UID, desired(conf("gcp"))) == ()


async def test_google_without_its_resource_manager_is_a_note(gce: FakeGce) -> None:
    gce.manager_refuses = 403
    (note,) = await _gcp(gce).preflight(UID, desired(conf("gcp")))
    assert note.startswith("permissions were not looked at")
    gce.manager_refuses = 401
    with pytest.raises(Denied):
        await _gcp(gce).preflight(UID, desired(conf("gcp")))


async def test_quotas_of_google_are_of_machines_disks_and_addresses(gce: FakeGce) -> None:
    gce.quotas = {"INSTANCES": (9, 8), "SSD_TOTAL_GB": (100, 41), "STATIC_ADDRESSES": (1, 1)}
    assert await _refusal(_gcp(gce)) == [
        "quota INSTANCES: 9 of which 8 are used, 2 more needed",
        "quota SSD_TOTAL_GB: 100 of which 41 are used, 60 more needed",
        "quota STATIC_ADDRESSES: 1 of which 1 are used, 1 more needed",
    ]


async def test_azure_says_which_actions_lack_and_for_what(azure: FakeAzure) -> None:
    azure.roles = [(["*"], ["Microsoft.Network/loadBalancers/*"]), (["*/read"], [])]
    said = await _refusal(_azure(azure))
    assert said[0] == (
        "no permission Microsoft.Network/loadBalancers/backendAddressPools/delete: "
        "azurerm_lb_backend_address_pool need it"
    )
    assert all("loadBalancers" in line and "/read" not in line for line in said)
    azure.roles = [([], [])]
    subnet = "/subscriptions/x/subnets/y"
    said = await _refusal(_azure(azure, subnet=subnet))
    assert not [line for line in said if "virtualNetworks" in line or "galleries" in line]


async def test_azure_that_does_not_tell_is_a_note(azure: FakeAzure) -> None:
    azure.may_look = False
    (note,) = await _azure(azure).preflight(UID, desired(conf("azure")))
    assert "Microsoft.Authorization/permissions/read" in note


async def test_sizes_that_zones_of_azure_do_not_have_are_named(azure: FakeAzure) -> None:
    azure.sizes = {"Standard_DC4as_v5": (["1", "2", "3"], ["2"])}
    missing = "zone 2 of germanywestcentral has no machines Standard_DC4as_v5"
    assert await _refusal(_azure(azure)) == [missing]
    azure.sizes = {}
    assert missing in await _refusal(_azure(azure))


async def test_an_image_that_confidential_machines_do_not_boot_is_named(azure: FakeAzure) -> None:
    usual = conf("azure").provider.azure
    assert usual is not None
    azure.image = {"hyperVGeneration": "V1", "features": [], "osState": "Specialized"}
    assert await _refusal(_azure(azure)) == [
        f"image {usual.image} is not for confidential machines (SecurityType -)",
        f"image {usual.image} is of Hyper-V generation 1, V2 is needed",
        f"image {usual.image} is not of the state Generalized (osState)",
    ]
    azure.image = None
    assert await _refusal(_azure(azure)) == [
        f"image {usual.image} is not there (or not yours to use)"
    ]
    # somebody else's gallery cannot be asked like this
    wanted = desired(conf("azure", image="/communityGalleries/x/images/node/versions/1.0.0"))
    (note,) = await _azure(azure).preflight(UID, wanted)
    assert "is of no gallery: it was not looked at" in note


async def test_a_familys_quota_counts_as_the_regions(azure: FakeAzure) -> None:
    azure.usages = {"standardDCASv5Family": (8, 4), "standardDSv3Family": (0, 0)}
    assert await _refusal(_azure(azure)) == [
        "quota standardDCASv5Family: 8 of which 4 are used, 8 more needed"
    ]


@pytest.mark.parametrize(
    ("size", "quota"),
    [
        ("Standard_DC4as_v5", "standarddcasv5family"),
        ("Standard_EC16es_v5", "standardecesv5family"),
        ("Standard_D4as_v5", "standarddasv5family"),
        ("Basic_A0", ""),
    ],
)
def test_a_sizes_quota_has_its_familys_name(size: str, quota: str) -> None:
    assert quota_of(size) == quota


@pytest.mark.parametrize(
    ("pattern", "action", "allowed"),
    [
        ("*", "Microsoft.Network/virtualNetworks/write", True),
        ("*/read", "Microsoft.Network/virtualNetworks/read", True),
        ("*/read", "Microsoft.Network/virtualNetworks/write", False),
        ("microsoft.network/*", "Microsoft.Network/virtualNetworks/write", True),
        ("Microsoft.Network/*/write", "Microsoft.Network/virtualNetworks/subnets/write", True),
        ("Microsoft.Network/*/join/*", "Microsoft.Network/natGateways/join/action", True),
        ("Microsoft.Network/virtualNetworks", "Microsoft.Network/virtualNetworks/write", False),
        ("Microsoft.Network/*e/write", "Microsoft.Network/e/write", True),
        ("ab*ba", "aba", False),
        ("", "Microsoft.Network/virtualNetworks/write", False),
    ],
)
def test_a_star_in_a_role_stands_for_any_characters(
    pattern: str, action: str, allowed: bool
) -> None:
    assert Allowed(actions=(pattern,), not_actions=()).allows(action) is allowed
    assert Allowed(actions=("*",), not_actions=(pattern,)).allows(action) is not allowed


def _settings(folder: Path) -> tuple[OpenStackSettings, Login]:
    config = conf("openstack")
    assert config.provider.openstack is not None
    login = parse_login(folder / "clouds.yaml", cloud="mine", region="")
    return openstack_settings(config.provider.openstack, variant=config.attestation.variant), login


def _stack(folder: Path, *, theirs: str = "theirs") -> Cloud:
    others = parse_login(folder / "clouds.yaml", cloud=theirs, region="")
    settings, mine = _settings(folder)
    return OpenStackCloud(settings, mine, control_planes=others)


async def test_openstack_is_asked_before_anything_is_made(
    stack: FakeOpenStack, tmp_path: Path
) -> None:
    stack.page_size = 1
    assert await _stack(tmp_path).preflight(UID, desired(conf("openstack"))) == ()
    stack.limits |= {"maxTotalCores": 15, "maxTotalVolumes": 7, "maxTotalVolumeGigabytes": 159}
    stack.zones, stack.images = ("eu01-1",), {}
    assert await _refusal(_stack(tmp_path)) == [
        "no availability zone eu01-2",
        "quota of cores: 15 of which 8 are used, 8 more needed",
        "quota of volumes: 7 of which 4 are used, 4 more needed",
        "quota of volumes (GB): 159 of which 80 are used, 80 more needed",
        "image 11111111-0000-4000-8000-000000000001 is not there (or not yours to use)",
    ]


@pytest.mark.usefixtures("stack")
async def test_a_flavor_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = conf("openstack")
    group = config.node_groups["worker_default"].model_copy(update={"instance_type": "m9"})
    wanted = config.model_copy(update={"node_groups": {"worker_default": group}})
    with pytest.raises(Conflict, match="no machines m9"):
        await _stack(tmp_path).preflight(UID, desired(wanted))


async def test_a_service_that_openstack_does_not_have_is_a_note(
    stack: FakeOpenStack, tmp_path: Path
) -> None:
    stack.services = ("compute", "network", "load-balancer")
    notes = await _stack(tmp_path).preflight(UID, desired(conf("openstack")))
    assert [n.startswith("not looked at: Keystone's catalog has no") for n in notes] == [True, True]


async def test_a_credential_that_allows_everything_is_not_given_to_control_planes(
    stack: FakeOpenStack, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="allows more than its rules") as caught:
        await _stack(tmp_path, theirs="mine").preflight(UID, desired(conf("openstack")))
    assert "--access-rules" in caught.value.hint
    stack.projects["cred"] = "another"
    with pytest.raises(UserError, match="of another project"):
        await _stack(tmp_path).preflight(UID, desired(conf("openstack")))
    cloud = OpenStackCloud(*_settings(tmp_path))
    with pytest.raises(UserError, match="a credential of their own"):
        await cloud.preflight(UID, desired(conf("openstack")))


def _integrated(folder: Path, components: str) -> Cloud:
    block = conf("openstack", cloudIntegration=True).provider.openstack
    assert block is not None
    path = folder / "clouds.yaml"
    mine, theirs, others = (
        parse_login(path, cloud=name, region="") if name else None
        for name in ("mine", "theirs", components)
    )
    assert mine is not None
    settings = openstack_settings(block, variant=Variant.QEMU_VTPM)
    return OpenStackCloud(settings, mine, control_planes=theirs, components=others)


@pytest.mark.parametrize(
    ("components", "said"),
    [
        ("", "the cloud's own components need a credential of their own"),
        ("mine", "allows more than its rules"),
        ("theirs", "have the control planes' credential"),
    ],
)
@pytest.mark.usefixtures("stack")
async def test_the_clouds_components_get_a_restricted_credential_of_their_own(
    tmp_path: Path, components: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        await _integrated(tmp_path, components).preflight(UID, desired(conf("openstack")))
    assert caught.value.where == "provider.openstack.componentsCloud"
    assert "infra/iam/openstack/component-rules.json" in caught.value.hint
    assert (
        await _integrated(tmp_path, "components").preflight(UID, desired(conf("openstack"))) == ()
    )


async def test_a_credential_of_another_project_is_not_given_to_the_clouds_components(
    stack: FakeOpenStack, tmp_path: Path
) -> None:
    stack.projects["components"] = "another"
    with pytest.raises(UserError, match="of another project"):
        await _integrated(tmp_path, "components").preflight(UID, desired(conf("openstack")))


async def _no_room(cloud: Cloud) -> list[str]:
    with pytest.raises(Conflict) as caught:
        await cloud.room(desired(conf(cloud.provider)))
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


async def test_google_has_room_for_machines_or_says_what_lacks(gce: FakeGce) -> None:
    gce.quotas = {"INSTANCES": (10, 8), "SSD_TOTAL_GB": (101, 41), "STATIC_ADDRESSES": (1, 1)}
    assert await _gcp(gce).room(desired(conf("gcp"))) == ()
    gce.quotas["SSD_TOTAL_GB"] = (100, 41)
    assert await _no_room(_gcp(gce)) == [
        "quota SSD_TOTAL_GB: 100 of which 41 are used, 60 more needed"
    ]


async def test_azure_has_room_for_machines_or_says_what_lacks(azure: FakeAzure) -> None:
    azure.usages = {"virtualMachineScaleSets": (2, 2), "standardDCASv5Family": (12, 4)}
    assert await _azure(azure).room(desired(conf("azure"))) == ()
    azure.usages["standardDCASv5Family"] = (8, 4)
    azure.sizes = {"Standard_DC4as_v5": (["1", "2", "3"], ["2"])}
    assert await _no_room(_azure(azure)) == [
        "zone 2 of germanywestcentral has no machines Standard_DC4as_v5",
        "quota standardDCASv5Family: 8 of which 4 are used, 8 more needed",
    ]


async def test_openstack_has_room_for_machines_or_says_what_lacks(
    stack: FakeOpenStack, tmp_path: Path
) -> None:
    assert await _stack(tmp_path).room(desired(conf("openstack"))) == ()
    stack.limits |= {"maxTotalCores": 15}
    assert await _no_room(_stack(tmp_path)) == [
        "quota of cores: 15 of which 8 are used, 8 more needed"
    ]
