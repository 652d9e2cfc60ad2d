"""Azure Resource Manager as a store: whatever is put at a resource's path is there, until deleted.

arm = ArmStore(uid="constell-ab12cd"); arm.network(); arm.machine(…); app = arm.app()
arm.requests                     # (method, path) of each
arm.permissions                  # what a role must allow for them: "Microsoft.Network/…/read"
arm.refuse = {"Microsoft.Network/loadBalancers/write"}   # a role that does not

It knows no resource's rules. Of what the service adds to a resource it adds id, name, etag, the
state of provisioning, the ids of its parts, an address to a public one, and one to a front end.
Source: Azure REST API reference, "PUT, GET, DELETE, list"; "Azure permissions".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.arm import RESOURCE_GROUP, SUBSCRIPTION

__all__ = ["LOCATION", "ArmStore", "permission_of"]

LOCATION = "germanywestcentral"
_ROOT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers"
_VERB = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}


def permission_of(method: str, path: str) -> str:
    """Say which action a call is: the resource's type and what is done to it."""
    _, _, below = path.rpartition("/providers/")
    if "/" not in below:
        return f"Microsoft.Resources/subscriptions/providers/{_VERB[method]}"
    namespace, *parts = below.split("/")
    kinds = "/".join([namespace, *parts[::2]])
    return f"{kinds}/action" if method == "POST" else f"{kinds}/{_VERB[method]}"


@dataclass(slots=True, kw_only=True)
class ArmStore:
    """One resource group; keys of `resources` are paths in lower case."""

    uid: str
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    permissions: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    refuse: set[str] = field(default_factory=set)
    _addresses: int = 0

    def app(self) -> web.Application:
        """Give the API; it wants a token of the machine's identity."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def path(self, kind: str, name: str) -> str:
        """Give a resource's path: "Microsoft.Network/loadBalancers", its name."""
        return f"{_ROOT}/{kind}/{name}"

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """Give the resources of a kind by name."""
        pattern = re.compile(re.escape(f"{_ROOT}/{kind}/".lower()) + "[^/]+")
        return {r["name"]: r for p, r in self.resources.items() if pattern.fullmatch(p)}

    def network(self) -> None:
        """Put what `infra/azure` makes: network, subnet, security group."""
        network = self.path("Microsoft.Network/virtualNetworks", self.uid)
        self.put(network, {"properties": {"addressSpace": {"addressPrefixes": ["10.42.0.0/16"]}}})
        subnet = {"properties": {"addressPrefix": "10.42.0.0/16"}}
        self.put(f"{network}/subnets/{self.uid}-nodes", subnet)
        groups = [{"id": self.path("Microsoft.Network/applicationSecurityGroups", self.uid)}]
        inwards = {"direction": "Inbound", "sourcePortRange": "*"}
        allow = inwards | {
            "priority": 120,
            "access": "Allow",
            "protocol": "Tcp",
            "destinationPortRanges": ["10250"],
            "sourceApplicationSecurityGroups": groups,
            "destinationApplicationSecurityGroups": groups,
        }
        deny = inwards | {
            "priority": 4096,
            "access": "Deny",
            "protocol": "*",
            "sourceAddressPrefix": "*",
            "destinationAddressPrefix": "*",
            "destinationPortRange": "*",
        }
        rules = [
            {"name": "to-nodes", "properties": allow},
            {"name": "nothing-else", "properties": deny},
        ]
        group = self.path("Microsoft.Network/networkSecurityGroups", self.uid)
        self.put(group, {"properties": {"securityRules": rules}})

    def machine(self, scale_set: str, number: str, *, zone: str = "1") -> str:
        """Put a machine into a scale set, which is made; give its resource id."""
        path = self.path("Microsoft.Compute/virtualMachineScaleSets", scale_set)
        addresses = [{"name": "node", "properties": {"primary": True}}]
        nic = {"name": "node", "properties": {"primary": True, "ipConfigurations": addresses}}
        profile = {
            "osProfile": {"computerNamePrefix": scale_set},
            "networkProfile": {"networkInterfaceConfigurations": [nic]},
        }
        if path.lower() not in self.resources:
            set_ = {"orchestrationMode": "Uniform", "virtualMachineProfile": profile}
            self.put(path, {"properties": set_, "sku": {"name": "Standard_DC4as_v5"}})
        vm = {
            "instanceId": number,
            "sku": {"name": "Standard_DC4as_v5"},
            "zones": [zone],
            "properties": {
                "osProfile": {"computerName": f"{scale_set}{int(number):06d}"},
                "networkProfile": {"networkInterfaces": [{"id": f"{path}/nic"}]},
                "instanceView": {"statuses": [{"code": "PowerState/running"}]},
                "storageProfile": {"dataDisks": []},
            },
        }
        self.put(f"{path}/virtualMachines/{number}", vm, name=f"{scale_set}_{number}")
        return f"{path}/virtualMachines/{number}"

    def put(self, path: str, body: dict[str, Any], *, name: str = "") -> dict[str, Any]:
        """Put a resource, and give it as it is now."""
        found = {
            "location": LOCATION,
            **body,
            "id": path,
            "name": name or path.rpartition("/")[2],
            "etag": f'W/"{len(self.requests)}"',
        }
        kind = path.rpartition("/providers/")[2]
        found["type"] = "/".join([kind.split("/")[0], *kind.split("/")[1::2]])
        properties = found.setdefault("properties", {})
        properties["provisioningState"] = "Succeeded"
        for part, members in properties.items():
            for member in members if isinstance(members, list) else ():
                if isinstance(member, dict) and "name" in member:
                    member["id"] = f"{path}/{part}/{member['name']}"
                    member.setdefault("properties", {})["provisioningState"] = "Succeeded"
        disks = properties.get("storageProfile", {}).get("dataDisks", [])
        disks[:] = [d for d in disks if not d.get("toBeDetached")]
        self._address(found, path)
        self.resources[path.lower()] = found
        return found

    def _address(self, found: dict[str, Any], path: str) -> None:
        properties = found["properties"]
        if "/publicIPAddresses/" in path and "ipAddress" not in properties:
            self._addresses += 1
            properties["ipAddress"] = f"203.0.113.{self._addresses}"
        for end in properties.get("frontendIPConfigurations", ()):
            if "subnet" in end["properties"] and "privateIPAddress" not in end["properties"]:
                self._addresses += 1
                end["properties"]["privateIPAddress"] = f"10.42.255.{self._addresses}"
        if "/backendAddressPools/" in path:
            # a pool is a part of its load balancer as well
            balancer = self.resources[path.lower().partition("/backendaddresspools/")[0]]
            pools = balancer["properties"].setdefault("backendAddressPools", [])
            pools[:] = [p for p in pools if p["name"] != found["name"]] + [found]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        self.requests.append((request.method, path))
        if not request.headers.get("Authorization", "").startswith("Bearer eyJ0."):
            return _refusal(401, "AuthenticationFailed")
        if "api-version" not in request.query:
            return _refusal(400, "MissingApiVersionParameter")
        permission = permission_of(request.method, path)
        self.permissions.add(permission)
        if permission in self.refuse:
            self.refused.add(permission)
            return _refusal(403, "AuthorizationFailed")
        if path.lower() == f"/subscriptions/{SUBSCRIPTION}/providers/microsoft.compute":
            zones = [{"location": LOCATION, "zones": ["1", "2", "3"]}]
            kinds = [{"resourceType": "virtualMachines", "zoneMappings": zones}]
            return web.json_response({"namespace": "Microsoft.Compute", "resourceTypes": kinds})
        return await self._resource(request, path)

    async def _resource(self, request: web.Request, path: str) -> web.StreamResponse:
        there = self.resources.get(path.lower())
        if request.method in ("PUT", "PATCH"):
            return self._write(path, there, json.loads(await request.read()), request.method)
        if request.method == "DELETE":
            gone = [p for p in self.resources if f"{p}/".startswith(f"{path.lower()}/")]
            for below in gone:
                del self.resources[below]
            return web.Response(status=200 if there is not None else 204)
        if request.method == "GET":
            return web.json_response(there) if there is not None else self._list(path)
        return _refusal(404, "ResourceNotFound")

    def _write(
        self, path: str, there: dict[str, Any] | None, body: dict[str, Any], method: str
    ) -> web.StreamResponse:
        if method == "PATCH" and there is None:
            return _refusal(404, "ResourceNotFound")
        if there is not None and (method == "PATCH" or "/virtualMachines/" in path):
            # what a request leaves out stays, also where a machine is put
            properties = there["properties"] | body.get("properties", {})
            return web.json_response(
                self.put(path, there | body | {"properties": properties}, name=there["name"])
            )
        return web.json_response(self.put(path, body))

    def _list(self, path: str) -> web.StreamResponse:
        """Answer a path that ends with a kind: every second part below the provider is one."""
        if len(path.rpartition("/providers/")[2].split("/")) % 2:
            return _refusal(404, "ResourceNotFound")
        below = re.compile(re.escape(path.lower()) + "/[^/]+")
        return web.json_response(
            {"value": [r for p, r in self.resources.items() if below.fullmatch(p)]}
        )


def _refusal(status: int, code: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": code}}, status=status)
