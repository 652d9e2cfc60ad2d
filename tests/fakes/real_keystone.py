"""A real Keystone on 127.0.0.1 with a database of its own, for one test.

It and its packages are installed by digest into an environment of their own in the cache, the first
time only; its database is SQLite.
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

from constellation.base import rest
from constellation.base.clock import monotonic_s
from constellation.config.workspace import cache_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["POSSIBLE", "Keystone", "keystone_in"]

POSSIBLE = sys.version_info[:2] == (3, 11)
"""tests/fakes/keystone.lock is for CPython 3.11."""
FAKES = Path(__file__).resolve().parent
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


@contextlib.asynccontextmanager
async def keystone_in(folder: Path) -> AsyncIterator[Keystone]:
    """Serve one whose files lie in `folder`."""
    python = await asyncio.to_thread(_python)
    conf = folder / "keystone.conf"
    folders = {name: folder / name for name in ("fernet", "receipts", "credential")}
    for keys in folders.values():
        keys.mkdir(mode=0o700)
    conf.write_text(
        f"[DEFAULT]\nlog_file = {folder}/log\n"
        f"[database]\nconnection = sqlite:///{folder}/db\n"
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
        port, end = folder / "port", monotonic_s() + 90
        while not port.exists() or not port.read_text():
            assert process.returncode is None, (folder / "log").read_text()[-2000:]
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
