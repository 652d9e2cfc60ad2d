"""AWS' instance metadata: who this machine is, its user data, the credentials of its role.

Version 2 only: every question carries a session token that was asked for with PUT, which a request
that was led here by mistake does not have. Source: Amazon EC2 User Guide, "Use IMDSv2", "Instance
identity documents", "Access tags using instance metadata", "Retrieve security credentials".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from constellation.base import clock, rest
from constellation.base.errors import FormatError, Unavailable
from constellation.base.rest import Denied, Missing
from constellation.base.secret import Secret
from constellation.providers import answers, tags
from constellation.providers.aws.signature import Credentials
from constellation.providers.protocols import Instance

if TYPE_CHECKING:
    from constellation.providers.answers import Fields

__all__ = ["URL", "Imds", "Place", "credentials_of", "place_of"]

URL: Final = "http://169.254.169.254"
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]")
_SESSION_S = 6 * 3600
_TIMEOUT_S = 5.0
_MAX_BYTES = 64 * 1024
# credentials are used until they have this long to live; AWS has new ones 5 minutes before the end
_MARGIN_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this machine is."""

    instance_id: str
    address: str
    region: str
    zone: str
    machine_type: str = ""


@dataclass(slots=True, kw_only=True)
class Imds:
    """The metadata service; also the `CredentialSource` of a node's calls."""

    url: str = URL
    _session: str = ""
    _session_until: float = 0.0
    _credentials: Credentials | None = field(default=None, repr=False)

    async def place(self) -> Place:
        """Say which machine this is and where. Raises Unavailable, FormatError."""
        document = answers.parse(
            await self._get("/latest/dynamic/instance-identity/document"), what="identity document"
        )
        return place_of(document)

    async def self_(self) -> Instance:
        """Say what this machine is, by its tags. Raises Unavailable, FormatError."""
        place = await self.place()
        return Instance(
            instance_id=place.instance_id,
            group=tags.checked_group(await self._tag(tags.GROUP), where=tags.GROUP),
            role=answers.role_of(await self._tag(tags.ROLE), where=tags.ROLE),
            address=place.address,
            state="running",
        )

    async def uid(self) -> str:
        """Give the uid of the cluster that this machine was made for."""
        return tags.checked_uid(await self._tag(tags.UID), where=tags.UID)

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        return await self._get("/latest/user-data")

    async def credentials(self, *, fresh: bool) -> Credentials:
        """Give the credentials of this machine's role; see `query.CredentialSource`."""
        there = self._credentials
        if fresh or there is None or _left_s(there) < _MARGIN_S:
            there = self._credentials = await self._fetch_credentials()
        return there

    async def _fetch_credentials(self) -> Credentials:
        base = "/latest/meta-data/iam/security-credentials/"
        listed = (await self._get(base)).decode("ascii", "replace").split()
        if len(listed) != 1 or not answers.NAME.fullmatch(listed[0]):
            raise FormatError(f"instance metadata: {listed!r:.80} names no one role")
        return credentials_of(
            answers.parse(await self._get(base + listed[0]), what="role credentials")
        )

    async def _tag(self, name: str) -> str:
        path = f"/latest/meta-data/tags/instance/{name}"
        return (await self._get(path)).decode("utf-8", "replace").strip()

    async def _get(self, path: str) -> bytes:
        try:
            return await self._ask(path)
        except Denied:
            self._session = ""  # the session ended, e.g. with a stopped machine
            return await self._ask(path)
        except Missing as error:
            # a fresh machine has its tags and role a moment later
            raise Unavailable(str(error)) from None

    async def _ask(self, path: str) -> bytes:
        if not self._session or clock.monotonic_s() > self._session_until:
            await self._open()
        answer = await rest.send(
            "GET",
            self.url + path,
            headers={"X-aws-ec2-metadata-token": self._session},
            body=None,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
        )
        return rest.accept(answer, what=f"instance metadata {path}").body

    async def _open(self) -> None:
        answer = await rest.send(
            "PUT",
            f"{self.url}/latest/api/token",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_SESSION_S)},
            body=None,
            timeout_s=_TIMEOUT_S,
            max_bytes=1024,
        )
        token = rest.accept(answer, what="instance metadata session").body.decode(
            "ascii", "replace"
        )
        if not token or not token.isascii() or not token.isprintable():
            raise FormatError("instance metadata session: no token")
        self._session, self._session_until = token, clock.monotonic_s() + _SESSION_S / 2


def place_of(document: Fields) -> Place:
    """Read an identity document. Raises FormatError."""
    return Place(
        instance_id=document.name("instanceId"),
        address=document.address("privateIp"),
        region=_region(document.name("region")),
        zone=document.name("availabilityZone"),
        machine_type=document.text_or("instanceType", "", longest=63),
    )


def credentials_of(found: Fields) -> Credentials:
    """Read what is said of the machine's role. Raises FormatError, Unavailable."""
    if found.text("Code") != "Success":
        raise Unavailable(f"role credentials: {found.text('Code')[:80]}")
    token = found.text("Token")
    if not token.isascii():
        raise FormatError("role credentials: Token has other characters than ASCII")
    return Credentials(
        access_key_id=found.name("AccessKeyId"),
        secret_access_key=Secret(found.text("SecretAccessKey").encode()),
        session_token=Secret(token.encode()),
        expires=_time(found.text("Expiration")),
    )


def _region(text: str) -> str:
    # part of the host's name to which signed requests, with the session's token, go
    if not _REGION.fullmatch(text):
        raise FormatError(f"identity document: {text[:60]!r} is no region")
    return text


def _left_s(credentials: Credentials) -> float:
    if credentials.expires is None:
        return float("inf")
    return (credentials.expires - clock.now()).total_seconds()


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise FormatError(f"role credentials: Expiration {text[:40]!r}") from None
