"""Google's metadata server: what this machine is, its user data, and a token of its identity.

Asked at the link-local address, not by name: a name would be whatever DNS says. Both sides name
the flavor, so that a request that was led here by mistake gets nothing, and an answer of another
server is none.
Source: Compute Engine documentation, "About VM metadata", "Access tokens".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base import rest
from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError
from constellation.providers import answers, tags
from constellation.providers.calls import MOST_LIFETIME_S, Token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.answers import Fields
    from constellation.providers.calls import Signer
    from constellation.providers.protocols import Role

__all__ = ["METADATA_URL", "MetadataServer", "Self", "self_of"]

METADATA_URL: Final = "http://169.254.169.254"
_FLAVOR: Final = {"Metadata-Flavor": "Google"}
_BASE = "/computeMetadata/v1"
_TIMEOUT_S = 5.0
_MAX_USER_DATA = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Self:
    """What the metadata server says about this machine; `zone` is like "europe-west3-b"."""

    name: str
    zone: str
    project: str
    uid: str
    role: Role
    group: str
    address: str
    machine_type: str = ""


@dataclass(slots=True, kw_only=True)
class MetadataServer:
    """The metadata server, and the machine's token as a `Signer` of calls."""

    url: str = METADATA_URL
    _token: Token | None = None

    async def self_(self) -> Self:
        """Say what this machine is. Raises Unavailable, FormatError."""
        instance = answers.parse(
            await self._get("/instance/?recursive=true"), what="metadata server: instance"
        )
        project = (await self._get("/project/project-id")).decode(errors="replace").strip()
        return self_of(instance, project=project)

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._get("/instance/attributes/user-data")

    async def headers(
        self, *, method: str, url: str, body: bytes, fresh: bool
    ) -> Mapping[str, str]:
        """Give the header that proves this machine's identity; see `calls.Signer`."""
        del method, url, body  # a bearer token is for every call
        if fresh or self._token is None or monotonic_s() >= self._token.until_s:
            self._token = await self._fetch_token()
        return {"Authorization": f"Bearer {self._token.value.reveal().decode()}"}

    async def _fetch_token(self) -> Token:
        path = "/instance/service-accounts/default/token"
        answer = answers.parse(await self._get(path), what="metadata server: token")
        if answer.text("token_type") != "Bearer":
            raise FormatError("metadata server: the token is no bearer token")
        return Token.lasting(
            answer.text("access_token", longest=8192),
            lifetime_s=answer.number("expires_in", most=MOST_LIFETIME_S),
        )

    async def _get(self, path: str) -> bytes:
        answer = await rest.send(
            "GET",
            self.url + _BASE + path,
            headers=_FLAVOR,
            body=None,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_USER_DATA,
        )
        rest.accept(answer, what=f"metadata server: {path}")
        if answer.headers.get("metadata-flavor") != "Google":
            raise FormatError(f"metadata server: {path}: the answer is not Google's")
        return answer.body


def self_of(instance: Fields, *, project: str) -> Self:
    """Read what the server says about a machine. Raises FormatError."""
    if not answers.NAME.fullmatch(project.replace(":", ".")):
        raise FormatError(f"metadata server: {project[:60]!r} is no project")
    # labels are not among a machine's own metadata, so the template sets both
    attributes = instance.fields("attributes")
    interfaces = instance.items("networkInterfaces", most=16)
    if not interfaces:
        raise FormatError("metadata server: the machine has no network interface")
    return Self(
        name=instance.name("name"),
        zone=answers.last_part(instance.text("zone"), where="metadata server: zone"),
        machine_type=_last_or_none(instance, "machineType"),
        project=project,
        uid=tags.checked_uid(attributes.text(tags.UID), where=tags.UID),
        role=answers.role_of(attributes.text(tags.ROLE), where=tags.ROLE),
        group=tags.checked_group(attributes.text(tags.GROUP), where=tags.GROUP),
        address=interfaces[0].address("ip"),
    )


def _last_or_none(instance: Fields, key: str) -> str:
    text = instance.text_or(key, "")
    return answers.last_part(text, where=f"metadata server: {key}") if text else ""


if TYPE_CHECKING:
    _: type[Signer] = MetadataServer
