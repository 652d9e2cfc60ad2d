"""The user's credentials for Google Cloud on the workstation, from where Terraform takes them.

In this order: an access token in the environment; a service account's key file or `gcloud`'s own
file that GOOGLE_APPLICATION_CREDENTIALS names; `gcloud`'s file in its usual place. A key signs an
assertion (RFC 7523) that is exchanged for a token of an hour. Nothing is stored or logged.
Source: Google, "How Application Default Credentials works"; "Using OAuth 2.0 for Server to Server
Applications".
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from constellation.base import clock, rest
from constellation.base.errors import FormatError, UserError
from constellation.base.secret import Secret
from constellation.providers import answers
from constellation.providers.calls import MOST_LIFETIME_S, Token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.answers import Fields
    from constellation.providers.calls import Signer

__all__ = ["HINT", "WorkstationToken", "assertion"]

HINT: Final = (
    "log in to Google Cloud again (`gcloud auth application-default login`), or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS; the same command goes on"
)
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_USUAL: Final = ".config/gcloud/application_default_credentials.json"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TIMEOUT_S = 20.0
_MAX_BYTES = 64 * 1024
_LIFETIME_S = 3600


@dataclass(slots=True)
class WorkstationToken:
    """The `Signer` of the workstation's calls; `token_url` is for tests."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    token_url: str = _TOKEN_URL
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
        given = self.environment.get("GOOGLE_OAUTH_ACCESS_TOKEN", "")
        if given:
            return Token.lasting(given, lifetime_s=_LIFETIME_S)
        home = Path(self.environment.get("HOME") or Path.home())
        named = self.environment.get("GOOGLE_APPLICATION_CREDENTIALS")
        path = Path(named) if named else home / _USUAL
        data = answers.parse(await asyncio.to_thread(_read, path), what=str(path))
        kind = data.text("type", longest=40)
        if kind == "service_account":
            form = {"grant_type": _GRANT, "assertion": _of_key(data, self.token_url)}
        elif kind == "authorized_user":
            form = {
                "grant_type": "refresh_token",
                "client_id": data.text("client_id"),
                "client_secret": data.text("client_secret"),
                "refresh_token": data.text("refresh_token"),
            }
        else:
            raise UserError(f"credentials of type {kind!r} are not known", where=str(path))
        return await self._exchange(form)

    async def _exchange(self, form: Mapping[str, str]) -> Token:
        answer = await rest.send(
            "POST",
            self.token_url,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
        )
        try:
            rest.accept(answer, what="Google's token service")
        except rest.Refused:
            # RFC 6749, section 5.2: what was presented is not accepted (any more)
            raise UserError("Google does not accept the credentials", hint=HINT) from None
        found = answers.parse(answer.body, what="Google's token service")
        return Token.lasting(
            found.text("access_token", longest=8192),
            lifetime_s=found.number("expires_in", most=MOST_LIFETIME_S),
        )


def assertion(email: str, key: rsa.RSAPrivateKey, *, audience: str, now: int) -> str:
    """Sign a service account's assertion (RFC 7523, RS256) that lives for an hour from `now`."""
    claims = {"iss": email, "scope": _SCOPE, "aud": audience, "iat": now, "exp": now + _LIFETIME_S}
    signed = b".".join(_base64url(p) for p in ({"alg": "RS256", "typ": "JWT"}, claims))
    signature = key.sign(signed, padding.PKCS1v15(), SHA256())
    return (signed + b"." + _encode(signature)).decode()


def _of_key(data: Fields, audience: str) -> str:
    pem = Secret(str(data.raw("private_key")).encode())
    try:
        key = load_pem_private_key(pem.reveal(), password=None)
    except (ValueError, TypeError):
        raise FormatError(f"{data.where}: private_key is no key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise FormatError(f"{data.where}: private_key is no RSA key")
    now = int(clock.now().timestamp())
    return assertion(data.text("client_email"), key, audience=audience, now=now)


def _base64url(value: Mapping[str, object]) -> bytes:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"no credentials for Google Cloud: {path}: {error.strerror}", hint=HINT
        ) from None
    if len(data) > _MAX_BYTES:
        raise UserError(f"more than {_MAX_BYTES} bytes", where=str(path))
    return data


if TYPE_CHECKING:
    _: type[Signer] = WorkstationToken
