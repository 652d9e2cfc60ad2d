"""Token services of Google and Microsoft: they check what is presented, and give a token for it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fakes.rest_service import Refusal, Request, RestService

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TokenService"]

_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class TokenService(RestService):
    """Accepts one service account's key, one refresh token, and one application's secret."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token, self.expired = token, False
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.route("POST", "/token", self._google)
        self.route("POST", "/{tenant}/oauth2/v2.0/token", self._microsoft)

    def write_key(self, path: Path) -> None:
        """Write the service account's key file."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        data = {"type": "service_account", "client_email": "me@project", "private_key": pem}
        path.write_text(json.dumps(data))

    def _google(self, request: Request) -> Any:
        form = _form(request)
        if self.expired:
            raise Refusal(400, "invalid_grant")
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != "1//refresh":
                raise Refusal(400, "invalid_grant")
        elif form["grant_type"] == _JWT:
            self._check_assertion(form["assertion"])
        else:
            raise Refusal(400, "unsupported_grant_type")
        return {"access_token": self._token, "expires_in": 3599, "token_type": "Bearer"}

    def _check_assertion(self, text: str) -> None:
        head, claims, signature = text.split(".")
        try:
            self.key.public_key().verify(
                _decode(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), SHA256()
            )
        except InvalidSignature:
            raise Refusal(400, "invalid_grant: Invalid JWT Signature.") from None
        said = json.loads(_decode(claims))
        if json.loads(_decode(head)) != {"alg": "RS256", "typ": "JWT"}:
            raise Refusal(400, "invalid_grant")
        if said["iss"] != "me@project" or said["aud"] != f"{self.url}/token":
            raise Refusal(400, "invalid_grant")
        if not 0 < said["exp"] - said["iat"] <= 3600 or "cloud-platform" not in said["scope"]:
            raise Refusal(400, "invalid_grant: Invalid JWT: lifetime or scope")

    def _microsoft(self, request: Request) -> Any:
        form = _form(request)
        wanted = {
            "grant_type": "client_credentials",
            "client_id": "app",
            "client_secret": "sesame",
            "scope": "https://management.azure.com/.default",
        }
        if form != wanted or self.expired:
            raise Refusal(401, "invalid_client: AADSTS7000222: The provided client secret keys ...")
        return {"access_token": self._token, "expires_in": 3599, "token_type": "Bearer"}


def _form(request: Request) -> dict[str, str]:
    if request.headers.get("Content-Type") != "application/x-www-form-urlencoded":
        raise Refusal(415, "want a form")
    return {k: v[0] for k, v in parse_qs(request.body.decode()).items()}


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
