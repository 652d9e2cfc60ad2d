"""Azure, Google Cloud and OpenStack on the workstation: variables, credentials, preflight."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.errors import Conflict, UserError
from constellation.base.rest import Missing
from constellation.config.cloud_settings import azure_settings, gcp_settings
from constellation.config.clouds_yaml import find_clouds_yaml, parse_login
from constellation.providers.azure.cloud import AzureCloud
from constellation.providers.azure.credentials import WorkstationToken as AzureToken
from constellation.providers.gcp.cloud import GcpCloud
from constellation.providers.gcp.credentials import WorkstationToken as GcpToken
from tests.fakes.arm import FakeAzure
from tests.fakes.cloud_confs import UID, clouds_yaml, conf, desired
from tests.fakes.gce import FakeGce
from tests.fakes.token_service import TokenService
from tools.cloud_variables import dump_variables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
TOKEN_OF_GCE, TOKEN_OF_AZURE = "ya29.1", "eyJ0.1"


@pytest.mark.parametrize("cloud", ["azure", "gcp", "openstack"])
def test_a_configuration_gives_these_variables(cloud: str) -> None:
    text = (GOLDEN / f"variables-{cloud}.json").read_text()
    assert text == dump_variables(cloud)
    assert "sesame" not in text


@pytest.fixture
async def gce() -> AsyncIterator[FakeGce]:
    async with FakeGce().serving() as made:
        for vm in [*made.vms.values()]:
            vm.uid = "other-00ffff"
        yield made


@pytest.fixture
async def azure() -> AsyncIterator[FakeAzure]:
    async with FakeAzure().serving() as made:
        for scale_set in made.sets.values():
            scale_set.uid = "other-00ffff"
        yield made


def _gcp(gce: FakeGce, **changed: Any) -> tuple[GcpCloud, Any]:
    config = conf("gcp", **changed)
    assert config.provider.gcp is not None
    settings = gcp_settings(config.provider.gcp, variant=config.attestation.variant)
    signer = GcpToken(environment={"GOOGLE_OAUTH_ACCESS_TOKEN": TOKEN_OF_GCE})
    cloud = GcpCloud(
        settings=settings,
        signer=signer,
        compute_url=gce.compute_url,
        manager_url=gce.manager_url,
    )
    return cloud, desired(config)


async def _azure(azure: FakeAzure, **changed: Any) -> tuple[AzureCloud, Any]:
    config = conf("azure", **changed)
    assert config.provider.azure is not None
    settings = azure_settings(config.provider.azure, variant=config.attestation.variant)
    return AzureCloud(
        settings,
        signer=_Given(TOKEN_OF_AZURE),
        arm_url=azure.arm.url,
        storage_url=azure.arm.url,
    ), desired(config)


class _Given:
    """A token that a test has."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def headers(self, *, method: str, url: str, body: bytes, fresh: bool) -> dict[str, str]:
        del method, url, body, fresh
        return {"Authorization": f"Bearer {self._token}"}


async def test_google_is_asked_before_anything_is_made(gce: FakeGce) -> None:
    cloud, wanted = _gcp(gce)
    await cloud.preflight(UID, wanted)
    gce.cpus, gce.features, gce.machine_types = (12.0, 8.0), ("UEFI_COMPATIBLE",), ()
    gce.add("worker_default", "left")
    with pytest.raises(Conflict) as caught:
        await cloud.preflight(UID, wanted)
    said = str(caught.value)
    assert "quota N2D_CPUS: 12 of which 8 are used, 8 more needed" in said
    assert "lacks the feature SEV_SNP_CAPABLE" in said
    assert "europe-west3-b has no machines n2d-standard-4" in said
    assert f"machines of {UID} exist already" in said
    assert caught.value.hint == "nothing was made"


async def test_an_image_that_is_not_there_is_found_before(gce: FakeGce) -> None:
    for image, said in (
        ("projects/project/global/images/gone", "not there"),
        ("x", "expected proj"),
    ):
        cloud, wanted = _gcp(gce, image=image)
        with pytest.raises(Conflict, match=said):
            await cloud.preflight(UID, wanted)


async def test_a_console_of_google(gce: FakeGce) -> None:
    cloud, _ = _gcp(gce)
    vm = gce.add("worker_default", "0007")
    assert await cloud.console(vm.name) == f"console of {vm.name}\n".encode()
    with pytest.raises(Missing):
        await cloud.console("constell-ab12cd-worker-default-gone")
    assert await cloud.leftovers(UID) == (vm.name,)


async def test_azure_is_asked_before_anything_is_made(azure: FakeAzure) -> None:
    cloud, wanted = await _azure(azure)
    await cloud.preflight(UID, wanted)
    azure.cores = (12, 8)
    azure.sets[f"{UID}-worker-default"].uid = UID
    with pytest.raises(Conflict) as caught:
        await cloud.preflight(UID, wanted)
    assert "quota cores: 12 of which 8 are used, 8 more needed" in str(caught.value)
    assert f"scale sets of {UID} exist already" in str(caught.value)
    cloud, wanted = await _azure(azure, resourceGroup="gone")
    with pytest.raises(Conflict, match="no resource group gone"):
        await cloud.preflight(UID, wanted)


async def test_a_console_of_azure(azure: FakeAzure) -> None:
    cloud, _ = await _azure(azure)
    assert await cloud.console(f"{UID}-worker-default_0") == b"console"
    azure.sets[f"{UID}-worker-default"].uid = UID
    assert await cloud.leftovers(UID) == (f"{UID}-worker-default",)


async def test_a_service_account_signs_for_its_token(gce: FakeGce, tmp_path: Path) -> None:
    async with TokenService(TOKEN_OF_GCE).serving() as service:
        service.write_key(tmp_path / "key.json")
        environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
        signer = GcpToken(environment=environment, token_url=f"{service.url}/token")
        cloud, wanted = _gcp(gce)
        cloud = dataclasses.replace(cloud, signer=signer)
        await cloud.preflight(UID, wanted)
        assert service.count("POST", "/token") == 1
        other = TokenService(TOKEN_OF_GCE)
        other.write_key(tmp_path / "key.json")
        gce.token_serial += 1  # so that a token is asked for again
        with pytest.raises(UserError, match="does not accept"):
            await cloud.preflight(UID, wanted)


async def test_gclouds_own_file_is_exchanged(tmp_path: Path) -> None:
    usual = tmp_path / ".config/gcloud/application_default_credentials.json"
    usual.parent.mkdir(parents=True)
    data = {
        "type": "authorized_user",
        "client_id": "id",
        "client_secret": "known to all",
        "refresh_token": "1//refresh",
    }
    usual.write_text(json.dumps(data))
    async with TokenService("token").serving() as service:
        signer = GcpToken(environment={"HOME": str(tmp_path)}, token_url=f"{service.url}/token")
        sent = await signer.headers(method="GET", url="", body=b"", fresh=False)
        assert sent == {"Authorization": "Bearer token"}
        service.expired = True
        with pytest.raises(UserError) as caught:
            await signer.headers(method="GET", url="", body=b"", fresh=True)
        assert "gcloud auth application-default login" in caught.value.hint


async def test_an_application_of_azure_asks_for_its_token() -> None:
    environment = {"ARM_CLIENT_ID": "app", "ARM_CLIENT_SECRET": "sesame"}
    async with TokenService("token").serving() as service:
        signer = AzureToken("tenant", environment=environment, login_url=service.url)
        sent = await signer.headers(method="GET", url="", body=b"", fresh=False)
        assert sent == {"Authorization": "Bearer token"}
        service.expired = True
        with pytest.raises(UserError) as caught:
            await signer.headers(method="GET", url="", body=b"", fresh=True)
        assert "sesame" not in str(caught.value)
        assert "new secret" in caught.value.hint


async def test_no_credentials_say_what_to_do(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    for signer in (GcpToken(environment=environment), AzureToken("t", environment=environment)):
        with pytest.raises(UserError, match="no credentials"):
            await signer.headers(method="GET", url="", body=b"", fresh=False)


def test_clouds_yaml_gives_an_application_credential(tmp_path: Path) -> None:
    clouds_yaml(tmp_path)
    path = find_clouds_yaml("", folder=tmp_path, environment={"HOME": str(tmp_path)})
    login = parse_login(path, cloud="mine", region="")
    assert (login.region, login.credential_id) == ("RegionOne", "owner")
    assert "sesame" not in repr(login)
    assert parse_login(path, cloud="mine", region="Two").region == "Two"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  mine:", "  yours:", "has no cloud mine"),
        ("v3applicationcredential", "password", "expected auth_type"),
        (
            "application_credential_secret: owner's sesame",
            "x: y",
            "application_credential_secret is missing",
        ),
        ("clouds:", "clouds: [", "is no YAML"),
    ],
)
def test_what_clouds_yaml_lacks_is_said_without_its_secrets(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    clouds_yaml(tmp_path)
    path = tmp_path / "clouds.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=said) as caught:
        parse_login(path, cloud="mine", region="")
    assert "sesame" not in str(caught.value)
