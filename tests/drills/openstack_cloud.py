"""An OpenStack inside the network of a local cloud: a real Keystone, and a fake of the others.

Nodes reach it at one address: Keystone below /identity, the others below their names. Every call is
held to the access rules that Keystone itself says the token's credential has, as its middleware
does in the real services.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import ClientSession, web

from constellation.base.errors import Unavailable
from constellation.base.secret import Secret
from constellation.providers.openstack.access import Access, Components
from constellation.providers.openstack.component_calls import component_rules
from tests.fakes.openstack_components import PROJECT, ComponentCloud, Hardware, Rule
from tests.fakes.real_keystone import keystone_in
from tests.fakes.rest_service import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from tests.fakes.real_keystone import Keystone

__all__ = ["OpenStack"]

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_SUBNET, _EXTERNAL = "5b000000-0000-4000-8000-000000000001", "ee000000-0000-4000-8000-000000000001"


@dataclass(kw_only=True)
class OpenStack:
    """It runs in a thread of its own, from `within` to `close`."""

    cloud: ComponentCloud
    keystone: Keystone
    url: str
    loop: asyncio.AbstractEventLoop
    asked_as: list[str]
    tokens: dict[str, tuple[str, tuple[Rule, ...]]]
    admin: tuple[str, str]
    addresses: dict[str, str]
    """Machines by their address: who asks for metadata."""
    end: Callable[[], None] = field(repr=False)

    @classmethod
    def within(cls, folder: Path, *, net: Path, host: str, hardware: Hardware) -> OpenStack:
        """Serve it at `host` of a network namespace."""
        listening = _listen(net, host)
        loop, ready = asyncio.new_event_loop(), threading.Event()
        made: list[OpenStack] = []
        failed: list[BaseException] = []
        stop = asyncio.Event()

        async def serve() -> None:
            url = f"http://{host}:{listening.getsockname()[1]}"
            async with keystone_in(folder) as keystone, ClientSession() as session:
                stack = await _stack(keystone, url, hardware=hardware, loop=loop)
                runner = web.AppRunner(_application(stack, session), access_log=None)
                await runner.setup()
                await web.SockSite(runner, listening).start()
                made.append(stack)
                ready.set()
                await stop.wait()
                await runner.cleanup()

        def run() -> None:
            try:
                loop.run_until_complete(serve())
            except BaseException as error:
                failed.append(error)
                raise
            finally:
                ready.set()
                loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        ready.wait()
        if failed:
            thread.join()
            raise failed[0]

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)
            thread.join(timeout=60)

        made[0].end = end
        return made[0]

    def close(self) -> None:
        """End both servers."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it ended by itself
            self.end()

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Have something awaited where the servers run."""
        return asyncio.run_coroutine_threadsafe(question, self.loop).result(timeout=60)

    def credential(self, name: str) -> tuple[str, str]:
        """Make an application credential with the components' rules; gives id and secret."""
        token, user = self.admin
        wanted = {"name": name, "access_rules": list(component_rules())}
        made = self.ask(
            _post(
                self.keystone,
                f"/users/{user}/application_credentials",
                token,
                {"application_credential": wanted},
            )
        )
        credential = made["application_credential"]
        return credential["id"], credential["secret"]

    def revoke(self, credential: str) -> None:
        """Delete an application credential."""
        token, user = self.admin
        path = f"/users/{user}/application_credentials/{credential}"
        self.ask(self.keystone.call("DELETE", path, token))
        # Keystone takes its tokens back, and the services learn it when they validate one anew
        for given in [t for t, (whose, _) in self.tokens.items() if whose == credential]:
            del self.tokens[given]

    def access(self, uid: str, credential: tuple[str, str]) -> Access:
        """Give what control planes of a cluster have on their disks."""
        return Access(
            auth_url=f"{self.url}/identity/v3",
            region="RegionOne",
            credential_id="the operator's",
            credential_secret=Secret(b"the operator's secret"),
            certificates="",
            uid=uid,
            groups={},
            components=Components(
                credential_id=credential[0],
                credential_secret=Secret(credential[1].encode()),
                subnet_id=_SUBNET,
                floating_network_id=_EXTERNAL,
            ),
        )


def _nothing() -> None:
    pass


async def _stack(
    keystone: Keystone, url: str, *, hardware: Hardware, loop: asyncio.AbstractEventLoop
) -> OpenStack:
    tokens: dict[str, tuple[str, tuple[Rule, ...]]] = {}
    cloud = ComponentCloud(
        rules_of=lambda token: _rules_of(tokens, token),
        subnet=_SUBNET,
        external_network=_EXTERNAL,
        hardware=hardware,
    )
    admin = await keystone.admin()
    await _catalog(keystone, admin[0], url)
    return OpenStack(
        cloud=cloud,
        keystone=keystone,
        url=url,
        loop=loop,
        asked_as=[],
        tokens=tokens,
        admin=admin,
        addresses={},
        end=_nothing,
    )


def _application(stack: OpenStack, session: ClientSession) -> web.Application:
    async def metadata(got: web.Request) -> web.Response:
        server = stack.addresses.get(got.remote or "")
        if server is None:
            return web.Response(status=404)
        return web.json_response({"uuid": server, "name": server, "availability_zone": "nova"})

    door = _Door(stack.keystone, session, stack.tokens, stack.asked_as)
    application = web.Application()
    application.router.add_route("*", "/identity/v3/{tail:.*}", door.answer)
    application.router.add_get("/openstack/latest/meta_data.json", metadata)
    application.router.add_route("*", "/{tail:.*}", stack.cloud.service.answer)
    return application


def _rules_of(tokens: dict[str, tuple[str, tuple[Rule, ...]]], token: str) -> Sequence[Rule]:
    if token not in tokens:
        raise Refusal(401, "The request you have made requires authentication.")
    return tokens[token][1]


@dataclass(frozen=True, kw_only=False)
class _Door:
    """Lets nodes ask the real Keystone, and learns which rules the tokens that it gives have."""

    keystone: Keystone
    session: ClientSession
    tokens: dict[str, tuple[str, tuple[Rule, ...]]]
    asked_as: list[str]

    async def answer(self, got: web.Request) -> web.Response:
        body = await got.read()
        headers = {k: v for k, v in got.headers.items() if k in ("Content-Type", "X-Auth-Token")}
        url = f"{self.keystone.url}/{got.match_info['tail']}"
        async with self.session.request(got.method, url, data=body, headers=headers) as answer:
            text, status = await answer.read(), answer.status
            token = answer.headers.get("X-Subject-Token", "")
        if token:
            await self._learn(token)
        shown = {"X-Subject-Token": token} if token else {}
        return web.Response(
            body=text, status=status, headers=shown, content_type="application/json"
        )

    async def _learn(self, token: str) -> None:
        """Validate a token as the middleware of each real service does."""
        headers = {
            "X-Auth-Token": (await self.keystone.admin())[0],
            "X-Subject-Token": token,
            "OpenStack-Identity-Access-Rules": "1.0",
        }
        async with self.session.get(f"{self.keystone.url}/auth/tokens", headers=headers) as answer:
            told = (await answer.json())["token"]
        credential = told["application_credential"]
        assert credential["restricted"] is True
        self.asked_as.append(credential["id"])
        rules = ((r["service"], r["method"], r["path"]) for r in credential["access_rules"])
        self.tokens[token] = (credential["id"], tuple(rules))


async def _catalog(keystone: Keystone, token: str, url: str) -> None:
    for kind, path in (
        ("compute", "/compute/v2.1"),
        ("network", "/network"),
        ("load-balancer", "/load-balancer"),
        ("volumev3", f"/volumev3/v3/{PROJECT}"),
    ):
        made = await _post(keystone, "/services", token, {"service": {"type": kind, "name": kind}})
        endpoint = {
            "service_id": made["service"]["id"],
            "region_id": "RegionOne",
            "interface": "public",
            "url": url + path,
        }
        await _post(keystone, "/endpoints", token, {"endpoint": endpoint})


async def _post(keystone: Keystone, path: str, token: str, body: Any) -> dict[str, Any]:
    """Ask again if a connection was lost on a starved machine."""
    for _ in range(4):
        with contextlib.suppress(Unavailable):
            return (await keystone.call("POST", path, token, body))[0]
    return (await keystone.call("POST", path, token, body))[0]


def _listen(net: Path, host: str) -> socket.socket:
    """Open a listening socket in another network namespace: a thread goes there for it."""

    def there() -> socket.socket:
        space = os.open(net, os.O_RDONLY)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(space, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {net}")
            return socket.create_server((host, 0))
        finally:
            os.close(space)

    # the thread ends with the pool, and with it its view of the network
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(there).result()
