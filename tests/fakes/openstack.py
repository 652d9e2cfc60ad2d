"""OpenStack in memory: Keystone, Nova, Neutron, Octavia, and Nova's metadata service.

cloud = FakeOpenStack(); async with cloud.serving(): …
cloud.token_serial += 1           # every token that was given is worth nothing now
cloud.revoked = True              # every application credential is gone
cloud.gone.add("cred")            # that one alone is
cloud.no_host = True              # the next server goes to ERROR
cloud.quota = 2                   # a third server is refused at once
cloud.most_members = 1            # the load balancer's quota
cloud.balancer_busy = 2           # two changes are refused as "immutable"
cloud.build_looks = 2             # a new server is in BUILD for two looks
cloud.elsewhere["compute"] = url  # what the catalog says instead
cloud.limits["maxTotalCores"] = 4 # the project's quotas; -1 is none

Credentials: "cred" and "cred2" are what control planes have, with access rules; "components" is
what the cloud's own components have, with rules of theirs; "owner" is the user's own.
"""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from constellation.base.secret import Secret
from constellation.providers.openstack.access import Access, Pool, Template
from constellation.providers.openstack.calls import access_rules
from constellation.providers.openstack.component_calls import component_rules
from constellation.providers.protocols import Role
from tests.fakes.rest_service import Refusal, Request, RestService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["FakeOpenStack", "Server"]

_API_POOL, _REGION = "pool-6443", "RegionOne"
_KINDS = ("compute", "network", "load-balancer", "image", "volumev3")
_SECRETS = {
    "cred": "sesame",
    "cred2": "open sesame",
    "components": "components' sesame",
    "owner": "owner's sesame",
}


_LIMITS = {
    "maxTotalCores": 100,
    "totalCoresUsed": 8,
    "maxTotalInstances": 20,
    "totalInstancesUsed": 2,
    "maxTotalRAMSize": -1,
    "totalRAMUsed": 32768,
    "maxTotalVolumes": 40,
    "totalVolumesUsed": 4,
    "maxTotalVolumeGigabytes": 1000,
    "totalGigabytesUsed": 80,
}
FLAVOR = "f1a00000-0000-4000-8000-000000000004"


@dataclass(slots=True, kw_only=True)
class Server:
    """One server of Nova's."""

    server_id: str
    name: str
    metadata: dict[str, str]
    tags: list[str]
    address: str
    status: str = "ACTIVE"
    looks: int = 0
    fault: str = ""
    user_data: bytes = b""
    volumes: int = 2


@dataclass(slots=True, kw_only=True)
class FakeOpenStack:
    """One project in one region."""

    uid: str = "constell-ab12cd"
    servers: dict[str, Server] = field(default_factory=dict)
    ports: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> name, address
    members: dict[str, str] = field(default_factory=dict)  # id -> address, of the API's pool
    me: str = ""
    token_serial: int = 1
    accepts_tokens: bool = True
    revoked: bool = False
    gone: set[str] = field(default_factory=set)
    no_host: bool = False
    quota: int = 1000
    balancer_busy: int = 0
    most_members: int = 1000
    pools: dict[str, int] = field(default_factory=lambda: {_API_POOL: 6443})
    build_looks: int = 0
    page_size: int = 500
    limits: dict[str, int] = field(default_factory=lambda: dict(_LIMITS))
    zones: tuple[str, ...] = ("eu01-1", "eu01-2")
    images: dict[str, str] = field(
        default_factory=lambda: {"11111111-0000-4000-8000-000000000001": "active"}
    )
    services: tuple[str, ...] = _KINDS
    elsewhere: dict[str, str] = field(default_factory=dict)
    projects: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys(_SECRETS, "0123456789abcdef")
    )
    user_data: bytes = b'{"document":1}'
    made: int = 0
    events: list[str] = field(default_factory=list)
    service: RestService = field(init=False)
    metadata: RestService = field(init=False)

    def __post_init__(self) -> None:
        self.service, self.metadata = _Services(self), _Metadata(self)
        self.me = self.add("control_plane_default", "control-plane").server_id
        self.add("worker_default", "worker")

    def add(self, group: str, role: str, *, uid: str = "", name: str = "") -> Server:
        number, self.made = self.made, self.made + 1
        address = f"10.42.{1 + number // 200}.{10 + number % 200}"
        name = name or f"{self.uid}-{group.replace('_', '-')}-{number:04x}"
        self.ports[f"port-{number}"] = (name, address)
        server = Server(
            server_id=f"00000000-0000-4000-8000-{number:012x}",
            name=name,
            metadata={
                "constellation-uid": uid or self.uid,
                "constellation-role": role,
                "constellation-node-group": group,
                "constellation-control-planes": "10.42.1.10",
            },
            tags=[f"constellation-uid-{uid or self.uid}"],
            address=address,
        )
        self.servers[server.server_id] = server
        if role == "control-plane":
            self.members[f"member-{number}"] = address
        return server

    def access(self, credential: str = "cred") -> Access:
        """Give what control planes of this cluster have on their disks."""

        def template(role: Role) -> Template:
            pools = (Pool(pool_id=_API_POOL, port=6443),) if role is Role.CONTROL_PLANE else ()
            return Template(
                role=role,
                name_prefix=f"{self.uid}",
                flavor_id=FLAVOR,
                image_id="11111111-0000-4000-8000-000000000001",
                network_id="net",
                subnet_id="subnet",
                security_group_ids=("nodes",),
                availability_zones=("eu01-1", "eu01-2"),
                boot_volume_gb=10,
                state_volume_gb=30,
                volume_type="storage_premium_perf6",
                pools=pools,
            )

        return Access(
            auth_url=self.auth_url,
            region=_REGION,
            credential_id=credential,
            credential_secret=Secret(_SECRETS[credential].encode()),
            certificates="",
            uid=self.uid,
            groups={
                "control_plane_default": template(Role.CONTROL_PLANE),
                "worker_default": template(Role.WORKER),
            },
        )

    @property
    def auth_url(self) -> str:
        return f"{self.service.url}/identity/v3"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        async with self.service.serving(), self.metadata.serving():
            yield self


class _Metadata(RestService):
    def __init__(self, cloud: FakeOpenStack) -> None:
        super().__init__()
        self._cloud = cloud
        self.route("GET", "/openstack/latest/meta_data.json", self._meta_data)
        self.route("GET", "/openstack/latest/user_data", self._user_data)
        self.route("GET", "/latest/meta-data/local-ipv4", self._address)

    def _meta_data(self, _request: Request) -> Any:
        server = self._cloud.servers[self._cloud.me]
        return {
            "uuid": server.server_id,
            "name": server.name,
            "meta": server.metadata,
            "availability_zone": self._cloud.zones[0],
        }

    def _user_data(self, _request: Request) -> Any:
        return web.Response(body=self._cloud.user_data)

    def _address(self, _request: Request) -> Any:
        return web.Response(text=self._cloud.servers[self._cloud.me].address)


class _Services(RestService):
    """All four services on one port, each below its own path, as behind one proxy."""

    def __init__(self, cloud: FakeOpenStack) -> None:
        super().__init__()
        self._cloud = cloud
        self.route("POST", "/identity/v3/auth/tokens", self._authenticate)
        self.route("GET", "/compute/v2.1/servers/detail", self._list)
        self.route("POST", "/compute/v2.1/servers", self._create)
        self.route("DELETE", "/compute/v2.1/servers/{server}", self._delete)
        self.route("POST", "/compute/v2.1/servers/{server}/metadata", self._set_metadata)
        self.route("GET", "/network/v2.0/ports", self._ports)
        self.route("POST", "/network/v2.0/ports", self._create_port)
        self.route("DELETE", "/network/v2.0/ports/{port}", self._delete_port)
        pool = "/load-balancer/v2/lbaas/pools/{pool}/members"
        self.route("GET", pool, self._members)
        self.route("POST", pool, self._add_member)
        self.route("DELETE", pool + "/{member}", self._remove_member)
        self.route("GET", "/compute/v2.1/flavors/detail", self._flavors)
        self.route("GET", "/compute/v2.1/os-availability-zone", self._zones)
        self.route("GET", "/compute/v2.1/limits", self._limits)
        self.route("GET", "/volumev3/v3/{project}/limits", self._limits)
        self.route("GET", "/image/v2/images/{image}", self._image)

    def authorised(self, request: Request, method: str, path: str) -> None:
        if path == "/identity/v3/auth/tokens":
            return
        shown = request.headers.get("X-Auth-Token", "")
        whose, _, serial = shown.rpartition("-")
        known = serial == str(self._cloud.token_serial) and self._cloud.accepts_tokens
        if not known or whose.removeprefix("gAAAA-") in self._cloud.gone:
            raise Refusal(401, "The request you have made requires authentication.")
        if whose == "gAAAA-owner":
            return
        kind = next(k for k in _KINDS if path.startswith(f"/{k}/"))
        for rule in component_rules() if whose == "gAAAA-components" else access_rules():
            pattern = re.escape(rule["path"]).replace(r"\*", "[^/]+")
            matches = re.fullmatch(pattern, path.removeprefix(f"/{kind}"))
            if matches and (rule["service"], rule["method"]) == (kind, method):
                return
        raise Refusal(403, "no access rule of the application credential allows it")

    def _authenticate(self, request: Request) -> Any:
        identity = request.json()["auth"]["identity"]
        if identity["methods"] != ["application_credential"]:
            raise Refusal(400, "unknown method")
        credential = identity["application_credential"]
        if self._cloud.revoked or credential["id"] in self._cloud.gone:
            raise Refusal(404, "Could not find Application Credential: cred.")
        if _SECRETS.get(credential["id"]) != credential["secret"]:
            raise Refusal(401, "The request you have made requires authentication.")
        versions = {
            "compute": "/v2.1",
            "network": "",
            "load-balancer": "",
            "image": "",
            "volumev3": "/v3/0123456789abcdef",
        }
        catalog = [
            {
                "type": kind,
                "endpoints": [
                    {"interface": "internal", "region": _REGION, "url": "http://10.0.0.1"},
                    {"interface": "public", "region": "RegionTwo", "url": "http://10.0.0.2"},
                    {
                        "interface": "public",
                        "region": _REGION,
                        "url": f"{self.url}/{kind}{end}",
                    },
                ],
            }
            for kind, end in versions.items()
            if kind in self._cloud.services
        ]
        # as a real one does, Keystone names itself, maybe where nobody of ours would ask
        own = {"interface": "public", "region": _REGION, "url": "http://192.0.2.5:5000/v3"}
        catalog.append({"type": "identity", "endpoints": [own]})
        for service in catalog:
            if (url := self._cloud.elsewhere.get(str(service["type"]))) is not None:
                service["endpoints"] = [{"interface": "public", "region": _REGION, "url": url}]
        token = {
            "issued_at": "2026-11-29T10:00:00.000000Z",
            "expires_at": "2026-11-29T11:00:00.000000Z",
            "catalog": catalog,
            "project": {"id": self._cloud.projects[credential["id"]], "name": "mine"},
        }
        token_text = f"gAAAA-{credential['id']}-{self._cloud.token_serial}"
        headers = {"X-Subject-Token": token_text}
        return web.json_response({"token": token}, status=201, headers=headers)

    def _flavors(self, request: Request) -> Any:
        there = [
            {"id": "f1a00000-0000-4000-8000-000000000002", "name": "m1a.2cd", "vcpus": 2},
            {"id": FLAVOR, "name": "m1a.4cd", "vcpus": 4},
        ]
        size = min(int(request.query["limit"]), self._cloud.page_size)
        rest = [f for f in there if str(f["id"]) > request.query.get("marker", "")]
        answer: dict[str, Any] = {"flavors": [f | {"ram": 16384} for f in rest[:size]]}
        if len(rest) > size:
            answer["flavors_links"] = [{"rel": "next", "href": "http://10.0.0.1/flavors"}]
        return answer

    def _zones(self, _request: Request) -> Any:
        zones = [{"zoneName": z, "zoneState": {"available": True}} for z in self._cloud.zones]
        return {
            "availabilityZoneInfo": [
                *zones,
                {"zoneName": "eu01-off", "zoneState": {"available": False}},
            ]
        }

    def _limits(self, _request: Request) -> Any:
        return {"limits": {"rate": [], "absolute": self._cloud.limits}}

    def _image(self, request: Request) -> Any:
        status = self._cloud.images.get(request.parts["image"])
        if status is None:
            raise Refusal(404, "No image found")
        return {"id": request.parts["image"], "status": status}

    def _list(self, request: Request) -> Any:
        if request.headers.get("OpenStack-API-Version") != "compute 2.67":
            raise Refusal(400, "tags: additional properties are not allowed")
        tag, size = request.query["tags"], min(int(request.query["limit"]), self._cloud.page_size)
        for server in self._cloud.servers.values():
            if server.looks:
                server.looks -= 1
                server.status = "BUILD" if server.looks else "ACTIVE"
        shown = sorted(
            (s for s in self._cloud.servers.values() if tag in s.tags), key=lambda s: s.server_id
        )
        shown = [s for s in shown if s.server_id > request.query.get("marker", "")]
        answer: dict[str, Any] = {"servers": [_server(s) for s in shown[:size]]}
        if len(shown) > size:
            # an address that only the cloud's inside knows
            answer["servers_links"] = [{"rel": "next", "href": "http://10.0.0.1/servers?marker=x"}]
        return answer

    def _create(self, request: Request) -> Any:
        wanted = request.json()["server"]
        if len(self._cloud.servers) >= self._cloud.quota:
            raise Refusal(403, "Quota exceeded for instances: Requested 1, but already used 2 of 2")
        if wanted["flavorRef"] != FLAVOR:
            raise Refusal(400, "Flavor's ID is malformed.")
        name, address = self._cloud.ports[wanted["networks"][0]["port"]]
        boot, state = wanted["block_device_mapping_v2"]
        if (boot["boot_index"], state["source_type"]) != (0, "blank"):
            raise Refusal(400, "Block Device Mapping is Invalid")
        self._cloud.made += 1
        number = self._cloud.made + 100
        server = Server(
            server_id=f"00000000-0000-4000-8000-{number:012x}",
            name=wanted["name"],
            metadata=wanted["metadata"],
            tags=wanted["tags"],
            address=address,
            user_data=base64.b64decode(wanted["user_data"]),
            looks=self._cloud.build_looks + 1,
            status="BUILD",
        )
        if self._cloud.no_host:
            server.status, server.looks, server.fault = "ERROR", 0, "No valid host was found."
        self._cloud.servers[server.server_id] = server
        self._cloud.events.append(f"server {name}")
        return web.json_response({"server": {"id": server.server_id}}, status=202)

    def _delete(self, request: Request) -> Any:
        server = self._cloud.servers.pop(request.parts["server"], None)
        if server is None:
            raise Refusal(404, "Instance could not be found.")
        balanced = server.address in self._cloud.members.values()
        self._cloud.events.append(f"gone {server.name}{' while balanced' if balanced else ''}")
        return web.Response(status=204)

    def _set_metadata(self, request: Request) -> Any:
        server = self._cloud.servers[request.parts["server"]]
        new = request.json()["metadata"]
        if any(len(v) > 255 for v in new.values()):
            raise Refusal(400, "metadata: value is too long")
        server.metadata |= new
        return {"metadata": server.metadata}

    def _ports(self, request: Request) -> Any:
        wanted = request.query["name"]
        found = self._cloud.ports.items()
        return {"ports": [{"id": i, "name": n} for i, (n, _) in found if n == wanted]}

    def _create_port(self, request: Request) -> Any:
        port = request.json()["port"]
        self._cloud.made += 1
        number = self._cloud.made + 50
        address = f"10.42.9.{number}"
        self._cloud.ports[f"port-{number}"] = (port["name"], address)
        (fixed,) = port["fixed_ips"]
        made = {"id": f"port-{number}", "fixed_ips": [fixed | {"ip_address": address}]}
        return web.json_response({"port": made}, status=201)

    def _delete_port(self, request: Request) -> Any:
        if self._cloud.ports.pop(request.parts["port"], None) is None:
            raise Refusal(404, "Port could not be found.")
        return web.Response(status=204)

    def _members(self, request: Request) -> Any:
        wanted = request.query["address"]
        return {
            "members": [
                {"id": i, "address": a} for i, a in self._cloud.members.items() if a == wanted
            ]
        }

    def _add_member(self, request: Request) -> Any:
        self._settle(request)
        member = request.json()["member"]
        if member["protocol_port"] != self._cloud.pools[request.parts["pool"]]:
            raise Refusal(400, "Invalid input")
        if not member["subnet_id"]:
            raise Refusal(400, "Invalid input")
        if len(self._cloud.members) >= self._cloud.most_members:
            raise Refusal(403, "Quota exceeded for resources: ['Member']")
        self._cloud.made += 1
        made = f"member-{self._cloud.made + 50}"
        self._cloud.members[made] = member["address"]
        return web.json_response({"member": {"id": made}}, status=201)

    def _remove_member(self, request: Request) -> Any:
        self._settle(request)
        if self._cloud.members.pop(request.parts["member"], None) is None:
            raise Refusal(404, "member not found")
        return web.Response(status=204)

    def _settle(self, request: Request) -> None:
        if request.parts["pool"] not in self._cloud.pools:
            raise Refusal(404, "pool not found")
        if self._cloud.balancer_busy:
            self._cloud.balancer_busy -= 1
            raise Refusal(409, "Load Balancer is immutable and cannot be updated.")


def _server(server: Server) -> dict[str, Any]:
    floating = {"addr": "192.0.2.7", "version": 4, "OS-EXT-IPS:type": "floating"}
    fixed = {"addr": server.address, "version": 4, "OS-EXT-IPS:type": "fixed"}
    shown: dict[str, Any] = {
        "id": server.server_id,
        "name": server.name,
        "status": server.status,
        "metadata": server.metadata,
        "addresses": {"nodes": [floating, fixed]} if server.status == "ACTIVE" else {},
    }
    if server.fault:
        shown["fault"] = {"code": 500, "message": server.fault}
    return shown
