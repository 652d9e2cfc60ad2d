"""Google Compute Engine in memory: metadata server, instances and managed instance groups.

cloud = FakeGce(); async with cloud.serving(): …
cloud.hidden["name"] = 2          # this machine is missing in the next two lists
cloud.token_serial += 1           # every token that was given is worth nothing now
cloud.ignores_filter = True       # lists have machines of everybody
cloud.quota = 3                   # the fourth machine is refused, by its operation
cloud.lacks = {"compute.networks.create"}   # permissions that the caller does not hold
cloud.manager_refuses = 403       # Cloud Resource Manager is switched off
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from tests.fakes.rest_service import Refusal, Request, RestService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["FakeGce", "Vm"]

PROJECT, REGION, ZONE = "project", "europe-west3", "europe-west3-b"
_V1 = "/compute/v1/projects/{project}"


@dataclass(slots=True, kw_only=True)
class Vm:
    """One machine; `balanced` says whether the load balancer sends it connections."""

    name: str
    group: str
    role: str
    address: str
    status: str = "RUNNING"
    manager: str = ""
    balanced: bool = True
    uid: str = "constell-ab12cd"


class _Metadata(RestService):
    """169.254.169.254: refuses a request without the flavor, as Google's does."""

    def __init__(self, cloud: FakeGce) -> None:
        super().__init__()
        self._cloud = cloud
        base = "/computeMetadata/v1"
        self.route("GET", f"{base}/instance/", self._instance)
        self.route("GET", f"{base}/project/project-id", lambda _: _text(PROJECT))
        # what Google's own components ask for one by one
        self.route("GET", f"{base}/instance/zone", lambda _: _text(f"projects/123/zones/{ZONE}"))
        self.route("GET", f"{base}/instance/name", lambda _: _text(self._cloud.me))
        self.route("GET", f"{base}/instance/machine-type", self._machine_type)
        self.route("GET", f"{base}/universe/universe-domain", lambda _: _text("googleapis.com"))
        self.route("GET", f"{base}/instance/attributes/user-data", self._user_data)
        self.route("GET", f"{base}/instance/service-accounts/default/token", self._token)

    def check(self, request: Request) -> None:
        if request.headers.get("Metadata-Flavor") != "Google":
            raise Refusal(403, "Missing Metadata-Flavor:Google header.")

    def _instance(self, request: Request) -> Any:
        if request.query.get("recursive") != "true":
            raise Refusal(400, "a folder")
        vm = self._cloud.vms[self._cloud.me]
        return _flavored(
            {
                "id": 4520031799277581759,
                "name": vm.name,
                "zone": f"projects/123/zones/{ZONE}",
                "machineType": f"projects/123/machineTypes/{self._cloud.machine_type}",
                "attributes": {
                    "constellation-uid": vm.uid,
                    "constellation-role": vm.role,
                    "constellation-node-group": vm.group,
                },
                "networkInterfaces": [{"ip": vm.address, "mtu": 1460}],
                "scheduling": {"automaticRestart": "TRUE"},
            }
        )

    def _machine_type(self, _request: Request) -> Any:
        return _text(f"projects/123/machineTypes/{self._cloud.machine_type}")

    def _user_data(self, _request: Request) -> Any:
        return _text(self._cloud.user_data.decode())

    def _token(self, _request: Request) -> Any:
        token = f"ya29.{self._cloud.token_serial}"
        return _flavored({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})


def _text(text: str) -> web.Response:
    return web.Response(text=text, headers={"Metadata-Flavor": "Google"})


def _flavored(value: dict[str, Any]) -> web.Response:
    return web.json_response(value, headers={"Metadata-Flavor": "Google"})


@dataclass(slots=True, kw_only=True)
class FakeGce:
    """One project: machines, groups, operations."""

    me: str = "constell-ab12cd-control-plane-default-0001"
    uid: str = "constell-ab12cd"
    vms: dict[str, Vm] = field(default_factory=dict)
    managers: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> group, role
    roles: dict[str, str] = field(default_factory=dict)  # group -> role
    hidden: dict[str, int] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    token_serial: int = 1
    accepts_tokens: bool = True
    ignores_filter: bool = False
    quota: int = 1000
    page_size: int = 500
    user_data: bytes = b'{"document":1}'
    made: int = 0
    drained: list[str] = field(default_factory=list)
    cpus: tuple[float, float] = (1000.0, 8.0)  # limit and usage of N2D_CPUS
    features: tuple[str, ...] = ("UEFI_COMPATIBLE", "SEV_SNP_CAPABLE")
    machine_types: tuple[str, ...] = ("n2d-standard-4",)
    quotas: dict[str, tuple[float, float]] = field(default_factory=dict)
    machine_type: str = "n2d-standard-4"
    lacks: set[str] = field(default_factory=set)
    manager_refuses: int = 0
    metadata: RestService = field(init=False)
    compute: RestService = field(init=False)

    def __post_init__(self) -> None:
        self.metadata, self.compute = _Metadata(self), _Compute(self)
        for group, role in (
            ("control_plane_default", "control-plane"),
            ("worker_default", "worker"),
        ):
            self.managers[f"{self.uid}-{group.replace('_', '-')}"] = (group, role)
        self.add("control_plane_default", "0001")
        self.add("worker_default", "0001")

    def add(self, group: str, suffix: str, *, uid: str = "") -> Vm:
        manager = next(n for n, (g, _) in self.managers.items() if g == group)
        number, self.made = self.made, self.made + 1
        vm = Vm(
            name=f"{manager}-{suffix}",
            group=group,
            role=self.managers[manager][1],
            address=f"10.42.{1 + number // 200}.{10 + number % 200}",
            manager=manager,
            uid=uid or self.uid,
        )
        self.vms[vm.name] = vm
        return vm

    @property
    def metadata_url(self) -> str:
        return self.metadata.url

    @property
    def compute_url(self) -> str:
        return f"{self.compute.url}/compute/v1"

    @property
    def manager_url(self) -> str:
        return f"{self.compute.url}/manager/v1"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        async with self.metadata.serving(), self.compute.serving():
            yield self


class _Compute(RestService):
    """compute.googleapis.com: wants the current token on every call."""

    def __init__(self, cloud: FakeGce) -> None:
        super().__init__()
        self._cloud = cloud
        region = _V1 + "/regions/{region}"
        manager = region + "/instanceGroupManagers/{group}"
        self.route("GET", f"{_V1}/aggregated/instances", self._list)
        self.route("GET", f"{_V1}/aggregated/instanceGroupManagers", self._managers)
        self.route("POST", f"{manager}/createInstances", self._create)
        self.route("POST", f"{manager}/deleteInstances", self._delete)
        self.route("GET", region + "/operations/{operation}", self._operation)
        zone = _V1 + "/zones/{zone}"
        self.route("GET", region, self._region)
        self.route("GET", zone + "/machineTypes/{kind}", self._machine_type)
        self.route("GET", zone + "/instances/{instance}/serialPort", self._serial_port)
        self.route("GET", _V1 + "/global/images/{image}", self._image)
        manager_path = "/manager/v1/projects/{project}:testIamPermissions"
        self.route("POST", manager_path, self._permissions)

    def check(self, request: Request) -> None:
        wanted = f"Bearer ya29.{self._cloud.token_serial}"
        if request.headers.get("Authorization") != wanted or not self._cloud.accepts_tokens:
            raise Refusal(401, "Request had invalid authentication credentials.")
        if request.parts["project"] != PROJECT:
            raise Refusal(403, "Required permission for another project")

    def _region(self, request: Request) -> Any:
        limit, usage = self._cloud.cpus
        quotas = [
            {"metric": "N2D_CPUS", "limit": limit, "usage": usage},
            {"metric": "C3_CPUS", "limit": 0.0, "usage": 0.0},
            *(
                {"metric": metric, "limit": most, "usage": used}
                for metric, (most, used) in self._cloud.quotas.items()
            ),
        ]
        return {"name": request.parts["region"], "quotas": quotas}

    def _permissions(self, request: Request) -> Any:
        if self._cloud.manager_refuses:
            raise Refusal(self._cloud.manager_refuses, "SERVICE_DISABLED")
        asked = request.json()["permissions"]
        if not 0 < len(asked) <= 100:
            raise Refusal(400, "at most 100 permissions")
        held = [p for p in asked if p not in self._cloud.lacks]
        # without any, the field is left out
        return {"permissions": held} if held else {}

    def _machine_type(self, request: Request) -> Any:
        if request.parts["kind"] not in self._cloud.machine_types:
            raise Refusal(404, "The resource was not found")
        return {"name": request.parts["kind"], "guestCpus": 4}

    def _serial_port(self, request: Request) -> Any:
        if request.query.get("port") != "1":
            raise Refusal(400, "Invalid value for port")
        return {"contents": f"console of {request.parts['instance']}\n", "next": "10"}

    def _image(self, request: Request) -> Any:
        if request.parts["image"] != "node":
            raise Refusal(404, "The resource was not found")
        return {"name": "node", "guestOsFeatures": [{"type": f} for f in self._cloud.features]}

    def _list(self, request: Request) -> Any:
        match = re.fullmatch(r"labels\.([a-z-]+)=([a-z0-9-]+)", request.query.get("filter", ""))
        if match is None or match[1] != "constellation-uid":
            raise Refusal(400, "Invalid value for field 'filter'")
        shown = []
        for vm in self._cloud.vms.values():
            if self._cloud.hidden.get(vm.name, 0) > 0:
                self._cloud.hidden[vm.name] -= 1
            elif vm.uid == match[2] or self._cloud.ignores_filter:
                shown.append(self._instance(vm))
        return self._page(request, "instances", shown)

    def _instance(self, vm: Vm) -> dict[str, Any]:
        interface: dict[str, Any] = {"name": "nic0"}
        if vm.status != "PROVISIONING":
            interface["networkIP"] = vm.address
        return {
            "id": "4520031799277581759",
            "name": vm.name,
            "zone": f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/{ZONE}",
            "status": vm.status,
            "labels": {
                "constellation-uid": vm.uid,
                "constellation-role": vm.role,
                "constellation-node-group": vm.group,
            },
            "networkInterfaces": [interface],
            "metadata": {
                "items": [
                    {
                        "key": "created-by",
                        "value": f"projects/1/regions/{REGION}/instanceGroupManagers/{vm.manager}",
                    }
                ]
                if vm.manager
                else []
            },
        }

    def _managers(self, request: Request) -> Any:
        match = re.fullmatch(r"name eq (.*)", request.query.get("filter", ""))
        if match is None:
            raise Refusal(400, "Invalid value for field 'filter'")
        shown = [
            {
                "name": name,
                "region": f"https://x/projects/{PROJECT}/regions/{REGION}",
                "targetSize": 1,
            }
            for name in self._cloud.managers
            if re.fullmatch(match[1], name)
        ]
        return self._page(request, "instanceGroupManagers", shown)

    def _page(self, request: Request, kind: str, shown: list[dict[str, Any]]) -> Any:
        size = min(int(request.query.get("maxResults", "500")), 500, self._cloud.page_size)
        start = int(request.query.get("pageToken", "p0").removeprefix("p"))
        part = shown[start : start + size]
        empty = {"warning": {"code": "NO_RESULTS_ON_PAGE"}}
        items = {f"zones/{ZONE}": {kind: part} if part else empty, "zones/other-a": empty}
        answer: dict[str, Any] = {"kind": "compute#list", "items": items}
        if start + size < len(shown):
            answer["nextPageToken"] = f"p{start + size}"
        return answer

    def _create(self, request: Request) -> Any:
        group = self._group(request)
        (wanted,) = request.json()["instances"]
        if wanted["name"] in self._cloud.vms:
            raise Refusal(400, f"Instance {wanted['name']} already exists")
        if len(self._cloud.vms) >= self._cloud.quota:
            return self._done([{"code": "QUOTA_EXCEEDED", "message": "Quota 'N2D_CPUS' exceeded."}])
        suffix = wanted["name"].removeprefix(request.parts["group"] + "-")
        self._cloud.add(group, suffix)
        self._cloud.hidden.setdefault(wanted["name"], 1)
        return self._done([])

    def _delete(self, request: Request) -> Any:
        self._group(request)
        body = request.json()
        for path in body["instances"]:
            name = path.rpartition("/")[2]
            vm = self._cloud.vms.get(name)
            if vm is None or vm.manager != request.parts["group"]:
                if not body.get("skipInstancesOnValidationError"):
                    raise Refusal(400, f"{name} is not a member")
                continue
            vm.balanced = False
            self._cloud.drained.append(name)
            del self._cloud.vms[name]
        return self._done([])

    def _group(self, request: Request) -> str:
        if request.parts["region"] != REGION or request.parts["group"] not in self._cloud.managers:
            raise Refusal(404, "The resource was not found")
        return self._cloud.managers[request.parts["group"]][0]

    def _done(self, errors: list[dict[str, str]]) -> Any:
        name = f"operation-{len(self._cloud.operations)}"
        done: dict[str, Any] = {"name": name, "status": "DONE", "progress": 100}
        if errors:
            done["error"] = {"errors": errors}
        self._cloud.operations[name] = done
        return {"name": name, "status": "RUNNING", "progress": 0}

    def _operation(self, request: Request) -> Any:
        try:
            return self._cloud.operations[request.parts["operation"]]
        except KeyError:
            raise Refusal(404, "The resource was not found") from None
