"""Azure's instance metadata service: what this machine is, its user data, and an identity's token.

It answers at the link-local address only, and refuses a request without the header `Metadata`,
which nobody can make a redirect or a browser send.
Source: "Azure Instance Metadata Service", API version 2021-12-13; "How to use managed identities
on a virtual machine", API version 2018-02-01.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

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

__all__ = ["IMDS_URL", "Imds", "Self", "self_of"]

IMDS_URL: Final = "http://169.254.169.254"
_HEADERS: Final = {"Metadata": "true"}
_INSTANCE: Final = {"api-version": "2021-12-13"}
_TOKEN: Final = {"api-version": "2018-02-01", "resource": "https://management.azure.com/"}
_TIMEOUT_S = 5.0
_MAX_BYTES = 256 * 1024
_MAX_USER_DATA = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Self:
    """What the metadata service says about this machine; `name` is its own in its scale set.

    `resource_id` begins with /subscriptions; `zone` is a number, empty in a region without zones;
    `network`: GROUP/NETWORK/SUBNET as its tag says, empty without one.
    """

    name: str
    subscription: str
    resource_group: str
    uid: str
    role: Role
    group: str
    address: str
    resource_id: str = ""
    location: str = ""
    zone: str = ""
    machine_type: str = ""
    network: str = ""


@dataclass(slots=True, kw_only=True)
class Imds:
    """The metadata service, and the machine's identity as a `Signer` of calls.

    `client_id` names which of the machine's identities; empty where it has one.
    """

    url: str = IMDS_URL
    client_id: str = ""
    _token: Token | None = None

    async def self_(self) -> Self:
        """Say what this machine is. Raises Unavailable, FormatError."""
        answer = await self._get("/metadata/instance", _INSTANCE)
        return self_of(answer)

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        compute = (await self._get("/metadata/instance", _INSTANCE)).fields("compute")
        text = compute.text("userData", longest=_MAX_USER_DATA * 4 // 3 + 4)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise FormatError("IMDS: userData is not base64") from None

    async def headers(
        self, *, method: str, url: str, body: bytes, fresh: bool
    ) -> Mapping[str, str]:
        """Give the header that proves this machine's identity; see `calls.Signer`."""
        del method, url, body  # a bearer token is for every call
        if fresh or self._token is None or monotonic_s() >= self._token.until_s:
            self._token = await self._fetch_token()
        return {"Authorization": f"Bearer {self._token.value.reveal().decode()}"}

    async def _fetch_token(self) -> Token:
        query = _TOKEN | ({"client_id": self.client_id} if self.client_id else {})
        answer = await self._get("/metadata/identity/oauth2/token", query)
        if answer.text("token_type") != "Bearer" or answer.text("resource") != _TOKEN["resource"]:
            raise FormatError("IMDS: the token is no bearer token for the resource manager")
        return Token.lasting(
            answer.text("access_token", longest=8192),
            lifetime_s=answer.number("expires_in", most=MOST_LIFETIME_S),
        )

    async def _get(self, path: str, query: Mapping[str, str]) -> Fields:
        answer = await rest.send(
            "GET",
            f"{self.url}{path}?{urlencode(query)}",
            headers=_HEADERS,
            body=None,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
        )
        return answers.parse(rest.accept(answer, what=f"IMDS: {path}").body, what=f"IMDS: {path}")


def self_of(answer: Fields) -> Self:
    """Read what the service says about a machine. Raises FormatError."""
    compute = answer.fields("compute")
    found = {t.text("name"): t.text_or("value", "") for t in compute.items("tagsList")}
    return Self(
        name=compute.name("name"),
        subscription=compute.name("subscriptionId"),
        resource_group=compute.text("resourceGroupName", longest=90),
        uid=tags.checked_uid(found.get(tags.UID, ""), where=f"IMDS: {tags.UID}"),
        role=answers.role_of(found.get(tags.ROLE, ""), where=f"IMDS: {tags.ROLE}"),
        group=tags.checked_group(found.get(tags.GROUP, ""), where=f"IMDS: {tags.GROUP}"),
        address=_address(answer.fields("network")),
        resource_id=compute.text_or("resourceId", "", longest=400),
        location=compute.text_or("location", "", longest=63),
        zone=compute.text_or("zone", "", longest=16),
        machine_type=compute.text_or("vmSize", "", longest=63),
        network=found.get(tags.NETWORK, ""),
    )


def _address(network: Fields) -> str:
    for interface in network.items("interface", most=16):
        for address in interface.fields("ipv4").items("ipAddress", most=16):
            return address.address("privateIpAddress")
    raise FormatError("IMDS: the machine has no address")


if TYPE_CHECKING:
    _: type[Signer] = Imds
