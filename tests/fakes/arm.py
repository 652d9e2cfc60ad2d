"""Azure in memory: the metadata service and the resource manager's scale sets.

azure = FakeAzure(); async with azure.serving(): …
azure.hidden["…_1"] = 2           # this machine is missing in the next two lists
azure.token_serial += 1           # every token that was given is worth nothing now
azure.quota = 2                   # a third machine is refused
azure.slow_updates = 2            # a changed machine is "Updating" for two looks
azure.usages["…"] = (10, 8)        # a quota: limit and current value
azure.roles = [(["*/read"], [])]  # what the caller may do, and what not
azure.sizes["…"] = (["1"], [])     # a machine size: its zones, and those that are restricted
azure.wire.reports                # what the wire server was told: see `wire_server`
"""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from tests.fakes.rest_service import Refusal, Request, RestService
from tests.fakes.wire_server import FakeWireServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["GROUP_PATH", "FakeAzure", "ScaleSet", "SetVm"]

SUBSCRIPTION, RESOURCE_GROUP = "0b1c2d3e-0000-4000-8000-000000000001", "constell-rg"
GROUP_PATH = (
    "/subscriptions/{subscription}/resourceGroups/{resource_group}"
    "/providers/Microsoft.Compute/virtualMachineScaleSets"
)
_PLACE = {"subscription": SUBSCRIPTION, "resource_group": RESOURCE_GROUP}
_VERSIONS = ("2024-07-01", "2018-10-01", "2021-04-01", "2021-07-01", "2022-04-01", "2023-07-03")
_GROUPS = (("control_plane_default", "control-plane"), ("worker_default", "worker"))
_POOL = "/subscriptions/x/providers/Microsoft.Network/loadBalancers/lb/backendAddressPools/all"


_IMAGE = {
    "hyperVGeneration": "V2",
    "osState": "Generalized",
    "features": [{"name": "SecurityType", "value": "ConfidentialVmSupported"}],
}


@dataclass(slots=True, kw_only=True)
class SetVm:
    """One machine of a scale set; `pools` are the load balancer's that it is in."""

    number: str
    address: str
    pools: list[dict[str, str]]
    provisioning: str = "Succeeded"
    updating: int = 0


@dataclass(slots=True, kw_only=True)
class ScaleSet:
    """One scale set: what its tags say, and its machines."""

    group: str
    role: str
    uid: str
    vms: dict[str, SetVm] = field(default_factory=dict)
    made: int = 0


class _Imds(RestService):
    def __init__(self, azure: FakeAzure) -> None:
        super().__init__()
        self._azure = azure
        self.route("GET", "/metadata/instance", self._instance)
        self.route("GET", "/metadata/identity/oauth2/token", self._token)

    def check(self, request: Request) -> None:
        if request.headers.get("Metadata", "").lower() != "true":
            raise Refusal(400, "Bad request. Required metadata header not specified")
        if "X-Forwarded-For" in request.headers:
            raise Refusal(400, "Bad request")

    def _instance(self, request: Request) -> Any:
        # the second is what Azure's own components ask with
        if request.query.get("api-version") not in ("2021-12-13", "2021-10-01"):
            raise Refusal(400, "Bad request. api-version is invalid or was not specified")
        set_name, _, number = self._azure.me.rpartition("_")
        scale_set = self._azure.sets[set_name]
        address = {"privateIpAddress": scale_set.vms[number].address, "publicIpAddress": ""}
        return {
            "compute": {
                "name": self._azure.me,
                "vmScaleSetName": set_name,
                "subscriptionId": SUBSCRIPTION,
                "resourceGroupName": RESOURCE_GROUP,
                "resourceId": f"{GROUP_PATH.format(**_PLACE)}/{set_name}/virtualMachines/{number}",
                "location": "germanywestcentral",
                "zone": self._azure.zone,
                "vmSize": "Standard_DC4as_v5",
                "userData": base64.b64encode(self._azure.user_data).decode(),
                "tagsList": [{"name": k, "value": v} for k, v in _tags(scale_set).items()],
            },
            "network": {"interface": [{"ipv4": {"ipAddress": [address]}, "ipv6": {}}]},
        }

    def _token(self, request: Request) -> Any:
        if request.query.get("api-version") != "2018-02-01":
            raise Refusal(400, "invalid_request")
        if not self._azure.has_identity:
            raise Refusal(400, "Identity not found")
        return {
            "access_token": f"eyJ0.{self._azure.token_serial}",
            "expires_in": "86399",
            "expires_on": "1893456000",
            "resource": request.query["resource"],
            "token_type": "Bearer",
        }


@dataclass(slots=True, kw_only=True)
class FakeAzure:
    """One resource group with two scale sets, one machine each."""

    uid: str = "constell-ab12cd"
    sets: dict[str, ScaleSet] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    me: str = ""
    token_serial: int = 1
    accepts_tokens: bool = True
    has_identity: bool = True
    quota: int = 1000
    page_size: int = 100
    slow_updates: int = 0
    cores: tuple[int, int] = (100, 8)  # limit and current value
    usages: dict[str, tuple[int, int]] = field(default_factory=dict)
    roles: list[tuple[list[str], list[str]]] = field(default_factory=lambda: [(["*"], [])])
    may_look: bool = True
    image: dict[str, Any] | None = field(default_factory=lambda: dict(_IMAGE))
    zone: str = "2"
    sizes: dict[str, tuple[list[str], list[str]]] = field(
        default_factory=lambda: {"Standard_DC4as_v5": (["1", "2", "3"], [])}
    )
    user_data: bytes = b'{"document":1}'
    deleted: list[tuple[str, bool]] = field(default_factory=list)  # name, was it in a pool?
    imds: RestService = field(init=False)
    arm: RestService = field(init=False)
    wire: FakeWireServer = field(default_factory=FakeWireServer)

    def __post_init__(self) -> None:
        self.imds, self.arm = _Imds(self), _Arm(self)
        for group, role in (
            ("control_plane_default", "control-plane"),
            ("worker_default", "worker"),
        ):
            name = f"{self.uid}-{group.replace('_', '-')}"
            self.sets[name] = ScaleSet(group=group, role=role, uid=self.uid)
            self.add(name)
        self.me = f"{self.uid}-control-plane-default_0"

    def add(self, set_name: str) -> str:
        scale_set = self.sets[set_name]
        number = str(scale_set.made)
        total = sum(s.made for s in self.sets.values())
        scale_set.made += 1
        scale_set.vms[number] = SetVm(
            number=number,
            address=f"10.42.{1 + total // 200}.{10 + total % 200}",
            pools=[{"id": _POOL}],
        )
        return f"{set_name}_{number}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        async with self.imds.serving(), self.arm.serving(), self.wire.serving():
            yield self


def _tags(scale_set: ScaleSet) -> dict[str, str]:
    return {
        "constellation-uid": scale_set.uid,
        "constellation-role": scale_set.role,
        "constellation-node-group": scale_set.group,
        "constellation-network": f"{RESOURCE_GROUP}/{scale_set.uid}/{scale_set.uid}-nodes",
    }


class _Arm(RestService):
    """management.azure.com: wants a token and the API version that has what is asked."""

    def __init__(self, azure: FakeAzure) -> None:
        super().__init__()
        self._azure = azure
        one = GROUP_PATH + "/{scale_set}"
        self.route("GET", GROUP_PATH, self._sets)
        self.route("GET", one + "/virtualMachines", self._vms)
        self.route("GET", one + "/networkInterfaces", self._interfaces)
        self.route("PATCH", one, self._resize)
        self.route("GET", one + "/virtualMachines/{vm}", self._vm)
        self.route("PUT", one + "/virtualMachines/{vm}", self._update)
        self.route("POST", one + "/delete", self._delete)
        self.route(
            "POST", f"{one}/virtualMachines/{{vm}}/retrieveBootDiagnosticsData", self._console
        )
        subscription = "/subscriptions/{subscription}"
        self.route(
            "GET", f"{subscription}/resourceGroups/{{resource_group}}", lambda _: {"id": "x"}
        )
        usages = f"{subscription}/providers/Microsoft.Compute/locations/{{location}}/usages"
        self.route("GET", usages, self._usages)
        self.route("GET", f"{subscription}/providers/Microsoft.Compute/skus", self._skus)
        permissions = (
            f"{subscription}/resourceGroups/{{resource_group}}"
            "/providers/Microsoft.Authorization/permissions"
        )
        self.route("GET", permissions, self._permissions)
        gallery = (
            f"{subscription}/resourceGroups/{{resource_group}}"
            "/providers/Microsoft.Compute/galleries/{gallery}/images/{image}"
        )
        self.route("GET", gallery, self._image)
        self.route("GET", "/blob", lambda _: web.Response(text="console"))

    def check(self, request: Request) -> None:
        if not request.parts:
            return  # storage: who has the address may read
        wanted = f"Bearer eyJ0.{self._azure.token_serial}"
        if request.headers.get("Authorization") != wanted or not self._azure.accepts_tokens:
            raise Refusal(401, "ExpiredAuthenticationToken: The access token expiry UTC time ...")
        group = request.parts.get("resource_group", RESOURCE_GROUP)
        if "gallery" in request.parts and group == "images":
            group = RESOURCE_GROUP  # the image lies in a resource group of its own
        place = (SUBSCRIPTION, group)
        if (request.parts["subscription"], RESOURCE_GROUP) != place:
            raise Refusal(404, "ResourceGroupNotFound")
        if request.query.get("api-version") not in _VERSIONS:
            raise Refusal(400, "MissingApiVersionParameter")

    def _usages(self, _request: Request) -> Any:
        there = {"cores": self._azure.cores} | self._azure.usages
        return {
            "value": [
                {"name": {"value": name}, "limit": limit, "currentValue": current}
                for name, (limit, current) in there.items()
            ]
        }

    def _image(self, request: Request) -> Any:
        if self._azure.image is None:
            raise Refusal(404, "ResourceNotFound")
        return {"name": request.parts["image"], "properties": self._azure.image}

    def _skus(self, request: Request) -> Any:
        if not request.query.get("$filter", "").startswith("location eq '"):
            raise Refusal(400, "the list of all regions is long")
        location = request.query["$filter"].split("'")[1]
        return {
            "value": [
                {"resourceType": "disks", "name": "Premium_LRS"},
                *(
                    {
                        "resourceType": "virtualMachines",
                        "name": name,
                        "locationInfo": [{"location": location, "zones": zones}],
                        "restrictions": [{"type": "Zone", "restrictionInfo": {"zones": restricted}}]
                        if restricted
                        else [],
                    }
                    for name, (zones, restricted) in self._azure.sizes.items()
                ),
            ]
        }

    def _permissions(self, _request: Request) -> Any:
        if not self._azure.may_look:
            raise Refusal(403, "AuthorizationFailed")
        return {"value": [{"actions": a, "notActions": n} for a, n in self._azure.roles]}

    def _console(self, request: Request) -> Any:
        self._one(request)
        return {"serialConsoleLogBlobUri": f"{self.url}/blob?sig=x"}

    def _set(self, request: Request) -> ScaleSet:
        try:
            return self._azure.sets[request.parts["scale_set"]]
        except KeyError:
            raise Refusal(404, "ResourceNotFound") from None

    def _one(self, request: Request) -> SetVm:
        try:
            return self._set(request).vms[request.parts["vm"]]
        except KeyError:
            raise Refusal(404, "InstanceIdsListNotFound") from None

    def _sets(self, request: Request) -> Any:
        shown = [
            {
                "name": name,
                "location": "westeurope",
                "tags": _tags(s),
                "sku": {"name": "Standard_DC4as_v5", "tier": "Standard", "capacity": len(s.vms)},
            }
            for name, s in self._azure.sets.items()
        ]
        shown.append({"name": "somebody-elses", "location": "westeurope"})
        return self._page(request, shown)

    def _vms(self, request: Request) -> Any:
        self._set(request)
        name, shown = request.parts["scale_set"], []
        for vm in self._set(request).vms.values():
            full = f"{name}_{vm.number}"
            if self._azure.hidden.get(full, 0) > 0:
                self._azure.hidden[full] -= 1
                continue
            properties: dict[str, Any] = {"provisioningState": vm.provisioning}
            if request.query.get("$expand") == "instanceView":
                code = "PowerState/running"
                properties["instanceView"] = {
                    "statuses": [{"code": "ProvisioningState/x"}, {"code": code}]
                }
            shown.append({"name": full, "instanceId": vm.number, "properties": properties})
        return self._page(request, shown)

    def _interfaces(self, request: Request) -> Any:
        if request.query.get("api-version") != "2018-10-01":
            raise Refusal(400, "InvalidApiVersionParameter")
        base = f"/x/virtualMachineScaleSets/{request.parts['scale_set']}/virtualMachines"
        shown = [
            {
                "name": "nic",
                "properties": {
                    "primary": True,
                    "virtualMachine": {
                        "id": f"/x/virtualMachineScaleSets/{base}/virtualMachines/{n}"
                    },
                    "ipConfigurations": [{"properties": {"privateIPAddress": vm.address}}],
                },
            }
            for n, vm in self._set(request).vms.items()
        ]
        return self._page(request, shown)

    def _page(self, request: Request, shown: list[dict[str, Any]]) -> Any:
        start, size = int(request.query.get("$skiptoken", "0")), self._azure.page_size
        answer: dict[str, Any] = {"value": shown[start : start + size]}
        if start + size < len(shown):
            version = request.query["api-version"]
            parts = dict(request.parts)
            path = GROUP_PATH.format(**parts)
            if "scale_set" in parts:
                kind = "networkInterfaces" if version == "2018-10-01" else "virtualMachines"
                path += f"/{parts['scale_set']}/{kind}"
            expand = "&$expand=instanceView" if "$expand" in request.query else ""
            answer["nextLink"] = (
                f"{self.url}{path}?api-version={version}&$skiptoken={start + size}{expand}"
            )
        return answer

    def _resize(self, request: Request) -> Any:
        scale_set, sku = self._set(request), request.json()["sku"]
        total = sum(len(s.vms) for s in self._azure.sets.values())
        if total - len(scale_set.vms) + sku["capacity"] > self._azure.quota:
            raise Refusal(409, "OperationNotAllowed: exceeding approved Total Regional Cores quota")
        while len(scale_set.vms) < sku["capacity"]:
            self._azure.hidden[self._azure.add(request.parts["scale_set"])] = 1
        return web.json_response({"sku": sku}, status=202)

    def _vm(self, request: Request) -> Any:
        vm = self._one(request)
        if vm.updating:
            vm.updating -= 1
        return _model(vm, "Updating" if vm.updating else "Succeeded")

    def _update(self, request: Request) -> Any:
        vm, body = self._one(request), request.json()
        if "location" not in body:
            raise Refusal(400, "LocationRequired")
        if body["properties"].get("vmId") != f"id-{vm.number}":
            raise Refusal(400, "PropertyChangeNotAllowed: vmId")
        profile = body["properties"]["networkProfileConfiguration"]
        (interface,) = profile["networkInterfaceConfigurations"]
        (configuration,) = interface["properties"]["ipConfigurations"]
        vm.pools = configuration["properties"]["loadBalancerBackendAddressPools"]
        vm.updating = self._azure.slow_updates + 1
        return _model(vm, "Updating")

    def _delete(self, request: Request) -> Any:
        scale_set = self._set(request)
        for number in request.json()["instanceIds"]:
            vm = scale_set.vms.pop(number, None)
            if vm is None:
                raise Refusal(404, "InstanceIdsListNotFound")
            name = f"{request.parts['scale_set']}_{number}"
            self._azure.deleted.append((name, bool(vm.pools)))
        return web.Response(status=202)


def _model(vm: SetVm, state: str) -> dict[str, Any]:
    configuration = {
        "name": "ip",
        "properties": {"primary": True, "loadBalancerBackendAddressPools": list(vm.pools)},
    }
    interface = {
        "name": "nic",
        "properties": {"primary": True, "ipConfigurations": [configuration]},
    }
    return {
        "name": f"x_{vm.number}",
        "instanceId": vm.number,
        "location": "westeurope",
        "properties": {
            "provisioningState": state,
            "vmId": f"id-{vm.number}",
            "networkProfileConfiguration": {"networkInterfaceConfigurations": [interface]},
        },
    }
