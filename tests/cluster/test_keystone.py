"""OpenStack's identity against a real Keystone: token, catalog, access rules, revocation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base import rest
from constellation.base.errors import FormatError
from constellation.base.rest import Denied
from constellation.base.secret import Secret
from constellation.providers.openstack.access import Access
from constellation.providers.openstack.calls import COMPUTE, access_rules
from constellation.providers.openstack.identity import Cloud
from tests.fakes.real_keystone import POSSIBLE, Keystone, keystone_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.clouds,
    pytest.mark.skipif(not POSSIBLE, reason="tests/fakes/keystone.lock is for CPython 3.11"),
]


@pytest.fixture
async def keystone(tmp_path: Path) -> AsyncIterator[Keystone]:
    async with keystone_in(tmp_path) as served:
        yield served


async def _catalog(keystone: Keystone, token: str) -> None:
    """Enter a compute service in two regions, with an inner address beside the public one."""
    service, _ = await keystone.call(
        "POST", "/services", token, {"service": {"type": "compute", "name": "nova"}}
    )
    await keystone.call("POST", "/regions", token, {"region": {"id": "RegionTwo"}})
    for region, interface, url in (
        ("RegionOne", "public", "https://nova.example/v2.1"),
        ("RegionOne", "internal", "http://10.0.0.1/v2.1"),
        ("RegionTwo", "public", "https://other.example/v2.1"),
    ):
        endpoint = {
            "service_id": service["service"]["id"],
            "region_id": region,
            "interface": interface,
            "url": url,
        }
        await keystone.call("POST", "/endpoints", token, {"endpoint": endpoint})


def _access(keystone: Keystone, credential: dict[str, Any], secret: str) -> Access:
    return Access(
        auth_url=keystone.url,
        region="RegionOne",
        credential_id=credential["id"],
        credential_secret=Secret(secret.encode()),
        certificates="",
        uid="constell-ab12cd",
        groups={},
    )


async def test_an_application_credential_gives_a_token_until_it_is_revoked(
    keystone: Keystone,
) -> None:
    token, user = await keystone.admin()
    await _catalog(keystone, token)
    wanted = {"name": "operator", "access_rules": list(access_rules())}
    made, _ = await keystone.call(
        "POST",
        f"/users/{user}/application_credentials",
        token,
        {"application_credential": wanted},
    )
    credential = made["application_credential"]
    kept = {(r["service"], r["method"], r["path"]) for r in credential["access_rules"]}
    assert kept == {(r["service"], r["method"], r["path"]) for r in access_rules()}

    cloud = Cloud(_access(keystone, credential, credential["secret"]))
    compute = await cloud.caller(COMPUTE)
    assert compute.base_url == "https://nova.example"
    url = "https://nova.example/v2.1/servers"
    sent = await cloud.headers(method="GET", url=url, body=b"", fresh=False)
    # Keystone itself says whose token it is, and what for
    shown = await rest.send(
        "GET",
        f"{keystone.url}/auth/tokens",
        headers={
            "X-Auth-Token": token,
            "X-Subject-Token": sent["X-Auth-Token"],
            # who cannot enforce access rules is told of no token that has them
            "OpenStack-Identity-Access-Rules": "1.0",
        },
        body=None,
        timeout_s=30,
        max_bytes=1_000_000,
    )
    told = json.loads(rest.accept(shown, what="token").body)["token"]
    assert told["methods"] == ["application_credential"]
    assert told["application_credential"]["restricted"] is True
    assert len(told["application_credential"]["access_rules"]) == len(access_rules())

    with pytest.raises(FormatError, match="no public endpoint of network"):
        await cloud.caller("network")
    with pytest.raises(Denied) as caught:
        await Cloud(_access(keystone, credential, "wrong")).caller(COMPUTE)
    assert "revoked or has expired" in caught.value.hint

    path = f"/users/{user}/application_credentials/{credential['id']}"
    await keystone.call("DELETE", path, token)
    with pytest.raises(Denied):
        await cloud.headers(method="GET", url=url, body=b"", fresh=True)
