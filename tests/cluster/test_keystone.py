"""OpenStack's identity against a real Keystone: token, catalog, access rules, revocation.

Keystone and its packages are installed by digest into an environment of their own in the cache, the
first time only; its database is SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base import rest
from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError
from constellation.base.rest import Denied
from constellation.base.secret import Secret
from constellation.config.workspace import cache_folder
from constellation.providers.openstack.access import Access
from constellation.providers.openstack.calls import COMPUTE, access_rules
from constellation.providers.openstack.identity import Cloud

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.clouds,
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="tests/fakes/keystone.lock is for CPython 3.11"
    ),
]

FAKES = Path(__file__).resolve().parents[1] / "fakes"
PASSWORD = "sesame"


def _python() -> Path:
    """Have Keystone's environment, and give its Python."""
    lock = FAKES / "keystone.lock"
    key = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / f"keystone-{key}"
    if not (folder / "whole").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(
            *(str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--require-hashes", "--requirement", str(lock)),
        )
        (folder / "whole").touch()
    return folder / "bin/python"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=900)


@dataclass(frozen=True, kw_only=True)
class Keystone:
    url: str

    async def call(
        self, method: str, path: str, token: str = "", body: Any = None
    ) -> tuple[dict[str, Any], str]:
        """Ask as an administrator does; gives the answer, and the token if it brings one."""
        headers = {"X-Auth-Token": token} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        answer = await rest.send(
            method,
            self.url + path,
            headers=headers,
            body=json.dumps(body).encode() if body is not None else None,
            timeout_s=30,
            max_bytes=1_000_000,
        )
        rest.accept(answer, what=path)
        found = json.loads(answer.body) if answer.body else {}
        return found, answer.headers.get("x-subject-token", "")

    async def admin(self) -> tuple[str, str]:
        """Give the administrator's token for the project, and who that is."""
        user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        identity = {"methods": ["password"], "password": {"user": user}}
        found, token = await self.call(
            "POST", "/auth/tokens", body={"auth": {"identity": identity, "scope": scope}}
        )
        return token, found["token"]["user"]["id"]


@pytest.fixture
async def keystone(tmp_path: Path) -> AsyncIterator[Keystone]:
    python = await asyncio.to_thread(_python)
    conf = tmp_path / "keystone.conf"
    folders = {name: tmp_path / name for name in ("fernet", "receipts", "credential")}
    for folder in folders.values():
        folder.mkdir(mode=0o700)
    conf.write_text(
        f"[DEFAULT]\nlog_file = {tmp_path}/log\n"
        f"[database]\nconnection = sqlite:///{tmp_path}/db\n"
        f"[fernet_tokens]\nkey_repository = {folders['fernet']}\n"
        f"[fernet_receipts]\nkey_repository = {folders['receipts']}\n"
        f"[credential]\nkey_repository = {folders['credential']}\n"
    )
    manage = (str(python.with_name("keystone-manage")), "--config-file", str(conf))
    owner = ("--keystone-user", "root", "--keystone-group", "root")
    for words in (
        ("db_sync",),
        ("fernet_setup", *owner),
        ("credential_setup", *owner),
        ("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne",
         "--bootstrap-public-url", "http://127.0.0.1:1/v3"),
    ):  # fmt: skip
        await asyncio.to_thread(_run, *manage, *words)
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(FAKES / "keystone_server.py"),
        str(conf),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port, end = tmp_path / "port", monotonic_s() + 90
        while not port.exists() or not port.read_text():
            assert process.returncode is None, (tmp_path / "log").read_text()[-2000:]
            assert monotonic_s() < end, "Keystone does not start"
            await asyncio.sleep(0.2)
        yield Keystone(url=f"http://127.0.0.1:{port.read_text()}/v3")
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        if process.returncode is None:
            process.kill()
            await process.wait()


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
