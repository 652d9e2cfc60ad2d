"""The user's credentials for Azure on the workstation, from where Terraform takes them.

In this order: an application and its secret in the environment (ARM_CLIENT_ID, ARM_TENANT_ID,
ARM_CLIENT_SECRET); else `az account get-access-token`. Nothing is stored or logged.
Source: Microsoft identity platform, "OAuth 2.0 client credentials flow"; azurerm provider,
"Authenticating".
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from constellation.base import clock, proc, rest
from constellation.base.errors import FormatError, UserError
from constellation.providers import answers
from constellation.providers.calls import MOST_LIFETIME_S, Token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.calls import Signer

__all__ = ["HINT", "WorkstationToken"]

HINT: Final = "log in to Azure again (`az login`); the same command goes on"
_LOGIN_URL: Final = "https://login.microsoftonline.com"
_RESOURCE: Final = "https://management.azure.com/"
_AZ: Final = ("account", "get-access-token", "--output", "json", "--resource", _RESOURCE)
_TIMEOUT_S, _AZ_S = 20.0, 60.0
_MAX_BYTES = 64 * 1024
# `az` gives a time in the machine's own zone: its tokens have at least this long to live
_AZ_LIFETIME_S = 300


@dataclass(slots=True)
class WorkstationToken:
    """The `Signer` of the workstation's calls; `login_url` is for tests."""

    tenant: str
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    login_url: str = _LOGIN_URL
    _token: Token | None = None

    async def headers(
        self, *, method: str, url: str, body: bytes, fresh: bool
    ) -> Mapping[str, str]:
        """Give the header with the token; see `calls.Signer`. Raises UserError: there is none."""
        del method, url, body  # a bearer token is for every call
        if fresh or self._token is None or clock.monotonic_s() >= self._token.until_s:
            self._token = await self._find()
        return {"Authorization": f"Bearer {self._token.value.reveal().decode()}"}

    async def _find(self) -> Token:
        variables = self.environment
        if variables.get("ARM_CLIENT_ID") and variables.get("ARM_CLIENT_SECRET"):
            return await self._of_application(
                variables.get("ARM_TENANT_ID") or self.tenant,
                variables["ARM_CLIENT_ID"],
                variables["ARM_CLIENT_SECRET"],
            )
        program = shutil.which("az", path=variables.get("PATH"))
        if program is None:
            raise UserError(
                "no credentials for Azure: not in the environment, and `az` is not on PATH",
                hint=HINT,
            )
        try:
            done = await proc.run(program, *_AZ, "--tenant", self.tenant, timeout_s=_AZ_S)
        except proc.Failed:
            # what `az` says may hold more than a person should see in a log
            raise UserError("`az account get-access-token` failed", hint=HINT) from None
        found = answers.parse(done.stdout, what="az account get-access-token")
        return Token.lasting(found.text("accessToken", longest=16384), lifetime_s=_AZ_LIFETIME_S)

    async def _of_application(self, tenant: str, client_id: str, secret: str) -> Token:
        if not answers.NAME.fullmatch(tenant):
            raise FormatError(f"tenant {tenant[:60]!r} is no id")
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": secret,
            "scope": f"{_RESOURCE}.default",
        }
        answer = await rest.send(
            "POST",
            f"{self.login_url}/{tenant}/oauth2/v2.0/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
        )
        try:
            rest.accept(answer, what="Azure's token service")
        except (rest.Refused, rest.Denied):
            # RFC 6749, section 5.2: the secret is wrong or has expired
            raise UserError(
                f"Azure does not accept the secret of application {client_id[:40]!r}",
                hint="make a new secret for it, and set ARM_CLIENT_SECRET; or use `az login`",
            ) from None
        found = answers.parse(answer.body, what="Azure's token service")
        return Token.lasting(
            found.text("access_token", longest=16384),
            lifetime_s=found.number("expires_in", most=MOST_LIFETIME_S),
        )


if TYPE_CHECKING:
    _: type[Signer] = WorkstationToken
