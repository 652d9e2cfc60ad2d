"""OpenStack as its own components ask it: Octavia, Neutron, Nova, Cinder.

cloud = ComponentCloud(rules_of=..., subnet=..., external_network=..., hardware=...)
async with cloud.service.serving(): …
cloud.servers["id"] = "SHUTOFF"    # a machine was switched off; without its entry it is gone
cloud.calls                        # "METHOD SERVICE PATH" of each call, "*" for what differs

Strict where the real ones are: an access rule for each call, a load balancer that is changing takes
no other change (409), bodies without what is required, members beside a subnet, volumes that are
not where a call wants them. What a change needs, takes two looks. Sources: Octavia API v2
(provisioning status codes, "immutable"), Networking API v2.0 (floating IPs, security groups),
Compute API v2.1 ("Servers with volume attachments"), Block Storage API v3 (volumes, os-extend).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from tests.fakes.rest_service import Refusal, Request, RestService

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ComponentCloud", "Hardware", "Rule"]

Rule = tuple[str, str, str]
"""Service, method, path of an access rule."""
_KINDS = ("compute", "network", "load-balancer", "volumev3")
_LOOKS = 2
PROJECT = "0123456789abcdef"


class Hardware(Protocol):
    """What a machine sees of its volumes."""

    def attach(self, server: str, volume: str, size_gb: int) -> str:
        """Show a volume as a device; gives its name in the machine."""
        ...

    def grow(self, volume: str, size_gb: int) -> None:
        """Let it be larger."""
        ...

    def detach(self, server: str, volume: str) -> None:
        """Take it away."""
        ...


@dataclass(slots=True, kw_only=True)
class ComponentCloud:
    """One project: its machines by id with their status, and what the components made."""

    rules_of: Callable[[str], Sequence[Rule]]
    """Gives the access rules of a token; Refusal(401) if it is none."""
    subnet: str
    external_network: str
    hardware: Hardware
    servers: dict[str, str] = field(default_factory=dict)
    balancers: dict[str, dict[str, Any]] = field(default_factory=dict)
    listeners: dict[str, dict[str, Any]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    floating: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    pending: dict[str, int] = field(default_factory=dict)
    service: RestService = field(init=False)

    def __post_init__(self) -> None:
        self.service = _Services(self)


# Octavia's last one is read for what it can do, the others' for their major version
_VERSIONS = {
    "compute": ("v2.1",),
    "network": ("v2.0",),
    "load-balancer": ("v2.0", "v2.1", "v2.5", "v2.12", "v2.14", "v2.27"),
    "volumev3": ("v3.0",),
}


def _versions(kind: str, _request: Request) -> Any:
    *before, last = _VERSIONS[kind]
    listed = [{"id": v, "status": "SUPPORTED", "links": []} for v in before]
    return {"versions": [*listed, {"id": last, "status": "CURRENT", "links": []}]}


class _Services(RestService):
    def __init__(self, cloud: ComponentCloud) -> None:
        super().__init__()
        self._cloud = cloud
        for kind in _KINDS:
            self.route("GET", f"/{kind}/", partial(_versions, kind))
        self.route("GET", "/compute/v2.1/servers/{server}", self._server)
        at = "/compute/v2.1/servers/{server}/os-volume_attachments"
        self.route("POST", at, self._attach)
        self.route("DELETE", at + "/{volume}", self._detach)
        volumes = "/volumev3/v3/{project}/volumes"
        self.route("GET", volumes + "/detail", self._list_volumes)
        self.route("POST", volumes, self._create_volume)
        self.route("POST", volumes + "/{volume}/action", self._extend)
        self.route("GET", volumes + "/{volume}", self._get_volume)
        self.route("DELETE", volumes + "/{volume}", self._delete_volume)
        lb = "/load-balancer/v2.0/lbaas"
        self.route("GET", lb + "/loadbalancers", self._list_balancers)
        self.route("POST", lb + "/loadbalancers", self._create_balancer)
        self.route("GET", lb + "/loadbalancers/{id}", self._get_balancer)
        self.route("DELETE", lb + "/loadbalancers/{id}", self._delete_balancer)
        self.route("GET", lb + "/listeners", self._list_listeners)
        self.route("POST", lb + "/listeners", self._create_listener)
        self.route("PUT", lb + "/listeners/{id}", self._update_listener)
        self.route("DELETE", lb + "/listeners/{id}", self._delete_listener)
        self.route("GET", lb + "/pools", self._list_pools)
        self.route("POST", lb + "/pools", self._create_pool)
        self.route("DELETE", lb + "/pools/{id}", self._delete_pool)
        self.route("GET", lb + "/pools/{id}/members", self._list_members)
        self.route("PUT", lb + "/pools/{id}/members", self._replace_members)
        self.route("GET", "/network/v2.0/floatingips", self._list_floating)
        self.route("POST", "/network/v2.0/floatingips", self._create_floating)
        self.route("DELETE", "/network/v2.0/floatingips/{id}", self._delete_floating)
        self.route("GET", "/network/v2.0/security-groups", self._groups)

    def authorised(self, request: Request, method: str, path: str) -> None:
        """Let a token do what its access rules say; what versions there are is open."""
        kind = next(k for k in _KINDS if path.startswith(f"/{k}/"))
        rest = path.removeprefix(f"/{kind}")
        if rest == "/":
            return
        rules = self._cloud.rules_of(request.headers.get("X-Auth-Token", ""))
        for service, allowed, pattern in rules:
            fits = re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]+"), rest)
            if fits and (service, allowed) == (kind, method):
                self._cloud.calls.append(f"{method} {service} {pattern}")
                return
        self._cloud.refused.append(f"{method} {kind} {rest}")
        raise Refusal(403, "no access rule of the application credential allows it")

    # Nova
    def _server(self, request: Request) -> Any:
        server = request.parts["server"]
        status = self._cloud.servers.get(server)
        if status is None:
            raise Refusal(404, f"Instance {server} could not be found.")
        return {"server": {"id": server, "name": server, "status": status, "addresses": {}}}

    def _attach(self, request: Request) -> Any:
        server = request.parts["server"]
        if self._cloud.servers.get(server) != "ACTIVE":
            raise Refusal(404 if server not in self._cloud.servers else 409, "no such state")
        volume = self._volume(request.json()["volumeAttachment"]["volumeId"])
        if volume["status"] != "available":
            raise Refusal(400, f"Invalid volume: status must be available, is {volume['status']}")
        device = self._cloud.hardware.attach(server, volume["id"], volume["size"])
        volume["status"] = "in-use"
        volume["attachments"] = [
            {"server_id": server, "device": device, "volume_id": volume["id"], "id": volume["id"]}
        ]
        shown = {"id": volume["id"], "volumeId": volume["id"], "serverId": server, "device": device}
        return {"volumeAttachment": shown}

    def _detach(self, request: Request) -> Any:
        volume = self._volume(request.parts["volume"])
        server = request.parts["server"]
        if [a["server_id"] for a in volume["attachments"]] != [server]:
            raise Refusal(404, "Instance has no volume of this id attached")
        self._cloud.hardware.detach(server, volume["id"])
        volume |= {"status": "available", "attachments": []}
        return web.Response(status=202)

    # Cinder
    def _volume(self, volume_id: str) -> dict[str, Any]:
        volume = self._cloud.volumes.get(volume_id)
        if volume is None:
            raise Refusal(404, f"Volume {volume_id} could not be found.")
        return volume

    def _list_volumes(self, request: Request) -> Any:
        named = request.query.get("name")
        # Cinder filters a list since 3.34
        if named is not None and request.headers.get("OpenStack-API-Version") != "volume 3.34":
            raise Refusal(400, "a filter without a microversion that has it")
        found = [v for v in self._cloud.volumes.values() if named in (None, v["name"])]
        return {"volumes": found}

    def _create_volume(self, request: Request) -> Any:
        wanted = request.json()["volume"]
        if not isinstance(wanted.get("size"), int) or wanted["size"] < 1:
            raise Refusal(400, "Invalid input for field/attribute size.")
        volume_id = str(uuid.uuid4())
        self._cloud.volumes[volume_id] = {
            "id": volume_id,
            "name": wanted.get("name", ""),
            "size": wanted["size"],
            "status": "creating",
            "availability_zone": wanted.get("availability_zone", "nova"),
            "metadata": wanted.get("metadata", {}),
            "volume_type": wanted.get("volume_type", "standard"),
            "attachments": [],
            "multiattach": False,
            "created_at": "2026-11-29T10:00:00.000000",
        }
        self._cloud.pending[volume_id] = _LOOKS
        return web.json_response({"volume": self._cloud.volumes[volume_id]}, status=202)

    def _get_volume(self, request: Request) -> Any:
        volume = self._volume(request.parts["volume"])
        left = self._cloud.pending.get(volume["id"], 0)
        self._cloud.pending[volume["id"]] = left - 1
        if left == 1:
            if volume["status"] == "deleting":
                del self._cloud.volumes[volume["id"]]
                raise Refusal(404, "Volume could not be found.")
            if volume["status"] == "creating":
                volume["status"] = "available"
        return {"volume": volume}

    def _extend(self, request: Request) -> Any:
        volume = self._volume(request.parts["volume"])
        size = request.json()["os-extend"]["new_size"]
        if size <= volume["size"]:
            raise Refusal(400, "New size for extend must be greater than current size.")
        in_use = volume["status"] == "in-use"
        if in_use and request.headers.get("OpenStack-API-Version") != "volume 3.42":
            raise Refusal(400, "a volume in use is extended since 3.42")
        volume["size"] = size
        if in_use:
            self._cloud.hardware.grow(volume["id"], size)
        return web.Response(status=202)

    def _delete_volume(self, request: Request) -> Any:
        volume = self._volume(request.parts["volume"])
        if volume["status"] not in ("available", "error"):
            raise Refusal(400, f"Invalid volume: status is {volume['status']}")
        del self._cloud.volumes[volume["id"]]
        return web.Response(status=202)

    # Octavia
    def _balancer(self, balancer_id: str) -> dict[str, Any]:
        balancer = self._cloud.balancers.get(balancer_id)
        if balancer is None:
            raise Refusal(404, f"Load Balancer {balancer_id} not found.")
        return balancer

    def _change(self, balancer_id: str) -> dict[str, Any]:
        """Begin a change of a load balancer; one at a time."""
        balancer = self._balancer(balancer_id)
        if balancer["provisioning_status"] != "ACTIVE":
            raise Refusal(409, f"Load Balancer {balancer_id} is immutable and cannot be updated.")
        balancer["provisioning_status"] = "PENDING_UPDATE"
        self._cloud.pending[balancer_id] = _LOOKS
        return balancer

    def _look(self, balancer: dict[str, Any]) -> dict[str, Any]:
        left = self._cloud.pending.get(balancer["id"], 0)
        self._cloud.pending[balancer["id"]] = left - 1
        if left == 1:
            if balancer["provisioning_status"] == "PENDING_DELETE":
                del self._cloud.balancers[balancer["id"]]
                raise Refusal(404, "Load Balancer not found.")
            balancer["provisioning_status"] = "ACTIVE"
        return balancer | {
            "listeners": [
                {"id": i} for i, x in self._cloud.listeners.items() if x["lb"] == balancer["id"]
            ],
            "pools": [{"id": i} for i, x in self._cloud.pools.items() if x["lb"] == balancer["id"]],
        }

    def _list_balancers(self, request: Request) -> Any:
        named = request.query.get("name")
        found = [b for b in self._cloud.balancers.values() if named in (None, b["name"])]
        return {"loadbalancers": [self._look(b) for b in found]}

    def _get_balancer(self, request: Request) -> Any:
        return {"loadbalancer": self._look(self._balancer(request.parts["id"]))}

    def _create_balancer(self, request: Request) -> Any:
        wanted = request.json()["loadbalancer"]
        if wanted.get("vip_subnet_id") != self._cloud.subnet:
            raise Refusal(400, "Validation failure: VIP must contain a subnet of the project.")
        balancer_id = str(uuid.uuid4())
        balancer = {
            "id": balancer_id,
            "name": wanted["name"],
            "description": wanted.get("description", ""),
            "provider": wanted.get("provider", "amphora"),
            "provisioning_status": "PENDING_CREATE",
            "operating_status": "OFFLINE",
            "vip_address": f"10.42.3.{10 + len(self._cloud.balancers)}",
            "vip_port_id": str(uuid.uuid4()),
            "vip_subnet_id": wanted["vip_subnet_id"],
            "tags": wanted.get("tags", []),
        }
        self._cloud.balancers[balancer_id] = balancer
        self._cloud.pending[balancer_id] = _LOOKS
        for listener in wanted.get("listeners", ()):
            self._add_listener(balancer_id, listener)
        return web.json_response({"loadbalancer": self._look(balancer)}, status=201)

    def _delete_balancer(self, request: Request) -> Any:
        balancer = self._balancer(request.parts["id"])
        if balancer["provisioning_status"] not in ("ACTIVE", "ERROR"):
            raise Refusal(409, "immutable")
        own = [i for i, x in self._cloud.listeners.items() if x["lb"] == balancer["id"]]
        if own and request.query.get("cascade") != "true":
            raise Refusal(409, "Load Balancer has children.")
        for table in (self._cloud.listeners, self._cloud.pools):
            for one in [i for i, x in table.items() if x["lb"] == balancer["id"]]:
                del table[one]
        balancer["provisioning_status"] = "PENDING_DELETE"
        self._cloud.pending[balancer["id"]] = _LOOKS
        return web.Response(status=204)

    def _add_listener(self, balancer_id: str, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted.get("protocol") not in ("TCP", "UDP", "HTTP") or not wanted.get("protocol_port"):
            raise Refusal(400, "Invalid input for field/attribute protocol.")
        port = (wanted["protocol"], wanted["protocol_port"])
        for other in self._cloud.listeners.values():
            if other["lb"] == balancer_id and (other["protocol"], other["protocol_port"]) == port:
                raise Refusal(409, "Another Listener on this Load Balancer is already using it.")
        listener_id = str(uuid.uuid4())
        pool = wanted.get("default_pool")
        listener = {
            "id": listener_id,
            "lb": balancer_id,
            "loadbalancers": [{"id": balancer_id}],
            "timeout_client_data": 50000,
            "timeout_member_connect": 5000,
            "timeout_member_data": 50000,
            "timeout_tcp_inspect": 0,
            "insert_headers": {},
            "tags": [],
            "default_tls_container_ref": None,
            "allowed_cidrs": None,
        } | {k: v for k, v in wanted.items() if k not in ("default_pool", "loadbalancer_id")}
        self._cloud.listeners[listener_id] = listener
        listener["default_pool_id"] = None
        if pool is not None:
            listener["default_pool_id"] = self._add_pool(balancer_id, listener_id, pool)["id"]
        return listener

    def _list_listeners(self, request: Request) -> Any:
        wanted = request.query.get("loadbalancer_id")
        return {
            "listeners": [x for x in self._cloud.listeners.values() if wanted in (None, x["lb"])]
        }

    def _create_listener(self, request: Request) -> Any:
        wanted = request.json()["listener"]
        self._change(wanted["loadbalancer_id"])
        made = self._add_listener(wanted["loadbalancer_id"], wanted)
        return web.json_response({"listener": made}, status=201)

    def _of(self, table: dict[str, dict[str, Any]], request: Request) -> dict[str, Any]:
        found = table.get(request.parts["id"])
        if found is None:
            raise Refusal(404, f"{request.parts['id']} not found.")
        return found

    def _update_listener(self, request: Request) -> Any:
        listener = self._of(self._cloud.listeners, request)
        self._change(listener["lb"])
        listener |= request.json()["listener"]
        return {"listener": listener}

    def _delete_listener(self, request: Request) -> Any:
        listener = self._of(self._cloud.listeners, request)
        self._change(listener["lb"])
        del self._cloud.listeners[listener["id"]]
        return web.Response(status=204)

    def _add_pool(
        self, balancer_id: str, listener_id: str, wanted: dict[str, Any]
    ) -> dict[str, Any]:
        if wanted.get("lb_algorithm") not in ("ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"):
            raise Refusal(400, "Invalid input for field/attribute lb_algorithm.")
        pool_id = str(uuid.uuid4())
        pool = {
            "id": pool_id,
            "lb": balancer_id,
            "loadbalancers": [{"id": balancer_id}],
            "listeners": [{"id": listener_id}],
            "name": wanted.get("name", ""),
            "protocol": wanted["protocol"],
            "lb_algorithm": wanted["lb_algorithm"],
            "healthmonitor_id": None,
            "members": [self._member(m) for m in wanted.get("members", ())],
        }
        self._cloud.pools[pool_id] = pool
        return pool

    def _member(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted.get("subnet_id") not in (None, self._cloud.subnet):
            raise Refusal(400, "Subnet of a member not found.")
        if not wanted.get("address") or not wanted.get("protocol_port"):
            raise Refusal(400, "Invalid input for field/attribute member.")
        return {"id": str(uuid.uuid4()), "monitor_port": None} | wanted

    def _list_pools(self, request: Request) -> Any:
        wanted = request.query.get("loadbalancer_id")
        found = [p for p in self._cloud.pools.values() if wanted in (None, p["lb"])]
        return {"pools": [p | {"members": [{"id": m["id"]} for m in p["members"]]} for p in found]}

    def _create_pool(self, request: Request) -> Any:
        wanted = request.json()["pool"]
        listener = self._cloud.listeners.get(wanted.get("listener_id", ""))
        if listener is None:
            raise Refusal(404, "Listener not found.")
        self._change(listener["lb"])
        pool = self._add_pool(listener["lb"], listener["id"], wanted)
        listener["default_pool_id"] = pool["id"]
        return web.json_response({"pool": pool}, status=201)

    def _delete_pool(self, request: Request) -> Any:
        pool = self._of(self._cloud.pools, request)
        self._change(pool["lb"])
        del self._cloud.pools[pool["id"]]
        return web.Response(status=204)

    def _list_members(self, request: Request) -> Any:
        return {"members": self._of(self._cloud.pools, request)["members"]}

    def _replace_members(self, request: Request) -> Any:
        pool = self._of(self._cloud.pools, request)
        self._change(pool["lb"])
        pool["members"] = [self._member(m) for m in request.json()["members"]]
        return web.Response(status=202)

    # Neutron
    def _list_floating(self, request: Request) -> Any:
        port = request.query.get("port_id")
        found = [f for f in self._cloud.floating.values() if port in (None, f["port_id"])]
        return {"floatingips": found}

    def _create_floating(self, request: Request) -> Any:
        wanted = request.json()["floatingip"]
        if wanted["floating_network_id"] != self._cloud.external_network:
            raise Refusal(404, "Network could not be found.")
        if wanted["port_id"] not in {b["vip_port_id"] for b in self._cloud.balancers.values()}:
            raise Refusal(404, "Port could not be found.")
        floating_id = str(uuid.uuid4())
        address = f"203.0.113.{10 + len(self._cloud.floating)}"
        made = wanted | {"id": floating_id, "floating_ip_address": address, "status": "ACTIVE"}
        self._cloud.floating[floating_id] = made
        return web.json_response({"floatingip": made}, status=201)

    def _delete_floating(self, request: Request) -> Any:
        self._of(self._cloud.floating, request)
        del self._cloud.floating[request.parts["id"]]
        return web.Response(status=204)

    def _groups(self, request: Request) -> Any:
        if not request.query.get("name"):
            raise Refusal(400, "want a name")
        return {"security_groups": []}
