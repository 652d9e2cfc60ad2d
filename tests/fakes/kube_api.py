"""A Kubernetes API server in memory: TLS, client certificates, RBAC of real objects, any resource.

api = KubeApi(ca, roles=access_objects())
async with api.serving() as endpoint: ...     # then api.denied, api.used, api.serials

It denies whatever no role allows, and remembers which verb of which rule was needed.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID

from constellation.base import clock
from constellation.crypto.signing import dump_private_key, generate_key, spki

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from constellation.crypto.x509 import CertificateAuthority

__all__ = ["Call", "KubeApi"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """What RBAC decides about; `namespace` and `name` are empty where there is none."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


class _Refusal(Exception):
    def __init__(self, code: int, reason: str, *, name: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason, self.name = code, reason, name


@dataclass(kw_only=True)
class KubeApi:
    """`objects` by (group, namespace, resource, name); `serials` of the certificates shown."""

    ca: CertificateAuthority
    roles: Iterable[dict[str, Any]]
    objects: dict[tuple[str, str, str, str], dict[str, Any]] = field(default_factory=dict)
    denied: list[tuple[str, Call]] = field(default_factory=list)
    used: set[tuple[str, Call]] = field(default_factory=set)
    serials: list[int] = field(default_factory=list)
    _version: int = 0

    def put(self, group: str, resource: str, body: dict[str, Any]) -> None:
        """Put an object there, whatever it is."""
        meta = body["metadata"]
        key = (group, meta.get("namespace", ""), resource, meta["name"])
        self._store(key, body)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Listen on 127.0.0.1; gives host:port."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context()).start()
        try:
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def _context(self) -> ssl.SSLContext:
        key = generate_key()
        certificate = self.ca.issue(
            spki(key.public_key()),
            common_name="kube-apiserver",
            ips=("127.0.0.1",),
            usage="server",
            now=clock.now(),
            lifetime=timedelta(hours=1),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            pem, ca = Path(folder) / "pem", Path(folder) / "ca"
            pem.write_bytes(certificate + dump_private_key(key).reveal())
            ca.write_bytes(self.ca.certificate_pem)
            context.load_cert_chain(pem)
            context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            code, body = 200, self._handle(request, await request.read())
        except _Refusal as refusal:
            details = {"name": refusal.name} if refusal.name else {}
            code, body = (
                refusal.code,
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "message": refusal.reason,
                    "reason": refusal.reason,
                    "code": refusal.code,
                    "details": details,
                },
            )
        # without a charset, as the API server writes it
        return web.Response(
            body=json.dumps(body).encode(),
            status=code,
            headers={"Content-Type": "application/json"},
        )

    def _handle(self, request: web.Request, body: bytes) -> dict[str, Any]:  # noqa: PLR0911 - one a verb
        call, key = _parse(request)
        self._authorise(call, *self._caller(request))
        match call.verb:
            case "list":
                return self._list(key)
            case "get":
                return self._get(key)
            case "create" if call.resource == "pods/eviction":
                return self.objects.pop(key)
            case "create":
                return self._create(key, json.loads(body))
            case "patch":
                return self._update(key, json.loads(body), merged=True)
            case "update":
                return self._update(key, json.loads(body))
            case "delete":
                return self._delete(key)
            case _:
                raise _Refusal(405, call.verb)

    def _caller(self, request: web.Request) -> tuple[str, tuple[str, ...]]:
        """User and groups, as "X.509 client certificates" has it."""
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if der is None:
            return "system:anonymous", ("system:unauthenticated",)
        certificate = x509.load_der_x509_certificate(der)
        if certificate.not_valid_after_utc <= clock.now():
            raise _Refusal(401, "Unauthorized")
        self.serials.append(certificate.serial_number)
        subject = certificate.subject
        (user,) = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return str(user.value), tuple(str(g.value) for g in groups)

    def _authorise(self, call: Call, user: str, groups: tuple[str, ...]) -> None:
        for binding in self.roles:
            if not binding["kind"].endswith("Binding"):
                continue
            if not any(s["kind"] == "Group" and s["name"] in groups for s in binding["subjects"]):
                continue
            if binding["metadata"].get("namespace", "") not in ("", call.namespace):
                continue
            if any(_allows(rule, call) for rule in self._role_of(binding)["rules"]):
                self.used.add((groups[0], call))
                return
        self.denied.append((user, call))
        raise _Refusal(403, f"{user} cannot {call.verb} {call.resource}")

    def _role_of(self, binding: dict[str, Any]) -> dict[str, Any]:
        reference, space = binding["roleRef"], binding["metadata"].get("namespace")
        return next(
            r
            for r in self.roles
            if r["kind"] == reference["kind"]
            and r["metadata"]["name"] == reference["name"]
            and r["metadata"].get("namespace") == space
        )

    def _delete(self, key: tuple[str, str, str, str]) -> dict[str, Any]:
        """Delete an object; one with finalizers is told so, and stays until they are gone."""
        found = self._get(key)
        if found["metadata"].get("finalizers"):
            found["metadata"].setdefault("deletionTimestamp", "2026-11-29T00:00:00Z")
            return self._store(key, found)
        return self.objects.pop(key)

    def let_go(self, key: tuple[str, str, str, str]) -> None:
        """Do as a controller does that has undone what it made: an ending object is gone."""
        assert "deletionTimestamp" in self.objects[key]["metadata"], "nobody deleted it"
        del self.objects[key]

    def _list(self, key: tuple[str, str, str, str]) -> dict[str, Any]:
        group, space, resource, _ = key
        items = [
            o
            for (g, s, r, _), o in sorted(self.objects.items())
            if (g, r) == (group, resource) and space in ("", s)
        ]
        return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}

    def _get(self, key: tuple[str, str, str, str]) -> dict[str, Any]:
        if key not in self.objects:
            raise _Refusal(404, "NotFound", name=key[3])
        return self.objects[key]

    def _create(self, key: tuple[str, str, str, str], body: dict[str, Any]) -> dict[str, Any]:
        key = (*key[:3], body["metadata"]["name"])
        if key in self.objects:
            raise _Refusal(409, "AlreadyExists", name=key[3])
        return self._store(key, body)

    def _update(
        self, key: tuple[str, str, str, str], body: dict[str, Any], *, merged: bool = False
    ) -> dict[str, Any]:
        """Replace an object, or merge into it; a version that is named must be the present one."""
        found = self._get(key)
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, found["metadata"]["resourceVersion"]):
            raise _Refusal(409, "Conflict", name=key[3])
        return self._store(key, _merged(found, body) if merged else body)

    def _store(self, key: tuple[str, str, str, str], body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = body
        return body


def _merged(old: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    made = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made


def _parse(request: web.Request) -> tuple[Call, tuple[str, str, str, str]]:
    """Read the path: /api/v1/… or /apis/GROUP/VERSION/…, [namespaces/NS/]RESOURCE[/NAME[/SUB]]."""
    parts = request.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    space = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        space, rest = rest[1], rest[2:]
    resource, name, *sub = (*rest, "") if len(rest) == 1 else rest
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
        request.method, "get" if name else "list"
    )
    shown = "/".join((resource, *sub))
    call = Call(verb=verb, group=group, resource=shown, namespace=space, name=name)
    return call, (group, space, resource, name)


def _allows(rule: dict[str, Any], call: Call) -> bool:
    return (
        call.verb in rule["verbs"]
        and call.group in rule["apiGroups"]
        and call.resource in rule["resources"]
        and (not rule.get("resourceNames") or call.name in rule["resourceNames"])
    )
