"""Google's Compute Engine as a store of disks, and of the machines that they are attached to.

compute = ComputeStore(); compute.instances["a-node"] = …; app = compute.app()
compute.requests                  # (method, path) of each
compute.permissions               # what a role must allow for them: "compute.disks.get"
compute.refuse = {"compute.disks.create"}   # a role that does not

Operations are done when they are asked for. Source: Compute Engine API v1, reference of zones,
disks, instances, zoneOperations, with the permission that each method names.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.fakes.gce import PROJECT, ZONE

__all__ = ["ComputeStore"]

_URL: Final = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}"
_PREFIX: Final = rf"/compute/(?:v1|beta|alpha)/projects/{PROJECT}"
_IN_ZONE: Final = rf"{_PREFIX}/zones/{ZONE}"
_NAME: Final = r"(?P<name>[a-z0-9-]+)"
_ROUTES: Final = (
    ("GET", rf"{_PREFIX}/zones", "zones.list", "zones"),
    ("GET", rf"{_IN_ZONE}/disks", "disks.list", "list_disks"),
    ("POST", rf"{_IN_ZONE}/disks", "disks.create", "make"),
    ("GET", rf"{_IN_ZONE}/disks/{_NAME}", "disks.get", "disk"),
    ("DELETE", rf"{_IN_ZONE}/disks/{_NAME}", "disks.delete", "remove"),
    ("POST", rf"{_IN_ZONE}/disks/{_NAME}/resize", "disks.resize", "resize"),
    ("GET", rf"{_IN_ZONE}/instances/{_NAME}", "instances.get", "instance"),
    ("POST", rf"{_IN_ZONE}/instances/{_NAME}/attachDisk", "instances.attachDisk", "attach"),
    ("POST", rf"{_IN_ZONE}/instances/{_NAME}/detachDisk", "instances.detachDisk", "detach"),
    ("POST", rf"{_IN_ZONE}/operations/{_NAME}/wait", "zoneOperations.get", "done"),
    ("GET", rf"{_IN_ZONE}/operations/{_NAME}", "zoneOperations.get", "done"),
)


@dataclass(slots=True, kw_only=True)
class ComputeStore:
    """One project, one zone; `instances`: the disks of each, by device name."""

    instances: dict[str, dict[str, str]] = field(default_factory=dict)
    disks: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    permissions: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def app(self) -> web.Application:
        """Give the API; it wants a token of the machine's service account."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        if not request.headers.get("Authorization", "").startswith("Bearer ya29."):
            return _refusal(401, "Request had invalid authentication credentials.")
        for method, pattern, permission, what in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if method != request.method or match is None:
                continue
            self.permissions.add(f"compute.{permission}")
            if f"compute.{permission}" in self.refuse:
                self.refused.add(f"compute.{permission}")
                return _refusal(403, f"Required 'compute.{permission}' permission")
            body = await request.read()
            given = (json.loads(body) if body else {}) | dict(request.query)
            answer = getattr(self, f"_{what}")(match.groupdict().get("name", ""), given)
            return _refusal(404, "notFound") if answer is None else web.json_response(answer)
        self.unknown.append(f"{request.method} {request.path}")
        return _refusal(404, "no such method here")

    def _zones(self, _name: str, _given: dict[str, Any]) -> Any:
        return {"items": [{"name": ZONE, "status": "UP"}]}

    def _list_disks(self, _name: str, _given: dict[str, Any]) -> Any:
        return {"items": [self._disk(name, {}) for name in self.disks]}

    def _make(self, _name: str, given: dict[str, Any]) -> Any:
        if "labels" in given:
            self.permissions.add("compute.disks.setLabels")
        self.disks[given["name"]] = given
        return _operation("make")

    def _disk(self, name: str, _given: dict[str, Any]) -> Any:
        if name not in self.disks:
            return None
        link = f"{_URL}/zones/{ZONE}/disks/{name}"
        users = [
            f"{_URL}/zones/{ZONE}/instances/{instance}"
            for instance, attached in self.instances.items()
            if name in attached.values()
        ]
        where = {"zone": f"{_URL}/zones/{ZONE}", "selfLink": link, "status": "READY"}
        return self.disks[name] | where | {"users": users}

    def _remove(self, name: str, _given: dict[str, Any]) -> Any:
        return _operation("remove") if self.disks.pop(name, None) else None

    def _resize(self, name: str, given: dict[str, Any]) -> Any:
        self.disks[name]["sizeGb"] = given["sizeGb"]
        return _operation("resize")

    def _instance(self, name: str, _given: dict[str, Any]) -> Any:
        if name not in self.instances:
            return None
        attached = [
            {"deviceName": device, "mode": "READ_WRITE", "source": self._disk(disk, {})["selfLink"]}
            for device, disk in self.instances[name].items()
        ]
        kind = f"{_URL}/zones/{ZONE}/machineTypes/n2d-standard-4"
        link = f"{_URL}/zones/{ZONE}/instances/{name}"
        where = {"name": name, "status": "RUNNING", "selfLink": link, "machineType": kind}
        return where | {"disks": attached}

    def _attach(self, name: str, given: dict[str, Any]) -> Any:
        self.permissions.add("compute.disks.use")
        self.instances[name][given["deviceName"]] = given["source"].rpartition("/")[2]
        return _operation("attach")

    def _detach(self, name: str, given: dict[str, Any]) -> Any:
        self.instances[name].pop(given["deviceName"], None)
        return _operation("detach")

    def _done(self, name: str, _given: dict[str, Any]) -> Any:
        return _operation(name) | {"status": "DONE"}


def _operation(name: str) -> dict[str, Any]:
    link = f"{_URL}/zones/{ZONE}/operations/{name}"
    where = {"zone": f"{_URL}/zones/{ZONE}", "selfLink": link}
    return {"kind": "compute#operation", "name": name, "status": "RUNNING"} | where


def _refusal(status: int, message: str) -> web.Response:
    reason = {404: "notFound", 403: "forbidden"}.get(status, "authError")
    errors = [{"reason": reason, "message": message}]
    body = {"error": {"code": status, "message": message, "errors": errors}}
    return web.json_response(body, status=status)
