"""Keystone: a token for an application credential, and the addresses of the other services.

Source: OpenStack Identity API v3, "Authenticating with an application credential", service catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from constellation.base import rest
from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError, Unavailable
from constellation.base.rest import Denied, Missing
from constellation.providers import answers
from constellation.providers.calls import MOST_LIFETIME_S, Caller, Token
from constellation.providers.openstack.calls import ASKED, AUTHENTICATE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from constellation.providers.answers import Fields
    from constellation.providers.calls import Signer
    from constellation.providers.openstack.access import Access

__all__ = ["Cloud"]

_EXPIRED: Final = (
    "the application credential was revoked or has expired: make another (infra/iam/openstack) "
    "and give it to the cluster with `constellation apply`"
)
_COMPUTE_VERSION: Final = {"OpenStack-API-Version": "compute 2.67"}
_MOST_SERVICES = 200
_UNAUTHORIZED = 401


@dataclass(slots=True, kw_only=True)
class _Session:
    token: Token
    endpoints: Mapping[str, str]
    project: str


class Cloud:
    """One region of an OpenStack cloud with our credential; a `Signer` of its calls."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tls: ssl.SSLContext | None = None
        if access.certificates:
            self._tls = rest.trusting(access.certificates.encode())
        self._session: _Session | None = None

    async def caller(self, service: str) -> Caller:
        """Make the caller of a service (its type in the catalog).

        Raises:
            FormatError: the catalog has no such service in our region, or not one only.
            Denied: the credential is not accepted. Unavailable: Keystone does not answer.
        """
        session = await self._current(fresh=False)
        if service not in session.endpoints:
            raise FormatError(
                f"Keystone's catalog has no public endpoint of {service} in {self._access.region}"
            )
        return Caller(
            service=f"OpenStack {service}",
            base_url=session.endpoints[service],
            signer=self,
            expired_hint=_EXPIRED,
            headers=_COMPUTE_VERSION if service == "compute" else {},
            tls=self._tls,
        )

    async def project(self) -> str:
        """Give the id of the credential's project. Raises as `caller`."""
        return (await self._current(fresh=False)).project

    async def headers(
        self, *, method: str, url: str, body: bytes, fresh: bool
    ) -> Mapping[str, str]:
        """Give the header with the token; see `calls.Signer`."""
        del method, body
        session = await self._current(fresh=fresh)
        if not any(url.startswith(base + "/") for base in session.endpoints.values()):
            # the catalog came anew with the token, and names other places: ask for the caller again
            raise Unavailable(f"{url[:80]} is no service in Keystone's catalog any more")
        return {"X-Auth-Token": session.token.value.reveal().decode()}

    async def _current(self, *, fresh: bool) -> _Session:
        session = self._session
        if fresh or session is None or monotonic_s() >= session.token.until_s:
            self._session = session = await self._authenticate()
        return session

    async def _authenticate(self) -> _Session:
        credential = {
            "id": self._access.credential_id,
            "secret": self._access.credential_secret.reveal().decode(),
        }
        identity = {"methods": ["application_credential"], "application_credential": credential}
        caller = Caller(
            service="Keystone",
            base_url=self._access.auth_url.rstrip("/"),
            signer=_NOBODY,
            expired_hint=_EXPIRED,
            tls=self._tls,
        )
        try:
            answer = await caller.call(
                AUTHENTICATE, parts={}, body={"auth": {"identity": identity}}
            )
        except Missing as error:
            # Keystone says of a credential that was deleted that it is not there, not that it is
            # refused (seen with Keystone 30)
            raise Denied(str(error), status=_UNAUTHORIZED, hint=_EXPIRED) from None
        token = answers.parse(answer.body, what="Keystone: token").fields("token")
        text = answer.headers.get("x-subject-token", "")
        if not text or len(text) > 8192:  # noqa: PLR2004 - Fernet tokens have about 300 characters
            raise FormatError("Keystone: the answer has no X-Subject-Token")
        return _Session(
            token=Token.lasting(text, lifetime_s=_lifetime_s(token)),
            endpoints=_endpoints(token, region=self._access.region, auth_url=self._access.auth_url),
            project=token.fields("project").name("id"),
        )


class _Nobody:
    """Signs nothing: who asks for a token has none."""

    async def headers(
        self, *, method: str, url: str, body: bytes, fresh: bool
    ) -> Mapping[str, str]:
        del method, url, body, fresh
        return {}


_NOBODY: Final = _Nobody()


def _lifetime_s(token: Fields) -> float:
    # both times are Keystone's own: a node's clock need not be right
    issued, expires = (_time(token, key) for key in ("issued_at", "expires_at"))
    seconds = (expires - issued).total_seconds()
    if not seconds > 0:
        raise Unavailable("Keystone: the token had expired when it came")
    return min(seconds, MOST_LIFETIME_S)


def _time(token: Fields, key: str) -> datetime:
    text = token.text(key, longest=40)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise FormatError(f"{token.where}.{key}: {text!r} is no time")
    return found


def _endpoints(token: Fields, *, region: str, auth_url: str) -> dict[str, str]:
    """Give the address of each service that we ask; what else the catalog names is its own."""
    found: dict[str, str] = {}
    for service in token.items("catalog", most=_MOST_SERVICES):
        kind = service.text_or("type", "")
        if kind not in ASKED:
            continue
        for endpoint in service.items("endpoints", most=_MOST_SERVICES):
            if endpoint.text_or("interface", "") != "public":
                continue
            if endpoint.text_or("region", "") != region:
                continue
            where = f"{endpoint.where}.url"
            base = _base(endpoint.text("url"), where=where, auth_url=auth_url)
            if found.setdefault(kind, base) != base:
                raise FormatError(f"Keystone's catalog has two public endpoints of {kind}")
    return found


def _base(url: str, *, where: str, auth_url: str) -> str:
    """Give a service's address without the version that some catalogs put at its end.

    By https only, unless Keystone itself is asked by plain http: then at the same place. A catalog
    must not lead requests to what listens on this machine.
    """
    try:
        parts, keystone = urlsplit(url), urlsplit(auth_url)
        _ = parts.port
    except ValueError:
        raise FormatError(f"{where}: {url[:80]!r} is no address") from None
    plain = parts.scheme == keystone.scheme == "http" and parts.netloc == keystone.netloc
    if not (parts.scheme == "https" or plain) or not parts.hostname or parts.query:
        raise FormatError(f"{where}: {url[:80]!r} is no address of a service")
    if parts.username is not None:
        raise FormatError(f"{where}: an address with a user's name")
    path = [p for p in parts.path.split("/") if p]
    versions = [i for i, p in enumerate(path) if p[0] == "v" and p[1:2].isdigit()]
    if versions:
        # .../v2.1, and .../v2.1/PROJECT of old catalogs
        path = path[: versions[0]]
    return "/".join([f"{parts.scheme}://{parts.netloc}", *path])


if TYPE_CHECKING:
    _: type[Signer] = Cloud
