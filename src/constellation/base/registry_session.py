"""How one repository of an image registry is asked, with the token that it wants first.

Source: OCI Distribution Specification 1.1 (pulling) and the registry token flow (RFC 6750's Bearer
challenge with realm, service and scope). Nothing is believed here: who calls knows digests, or
takes what comes as a claim.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from constellation.base.errors import FormatError, Unavailable
from constellation.base.fetch import Document, HttpStatus, download, get_bounded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["RegistrySession", "parse_challenge"]

_MAX_TOKEN_BYTES = 64 * 1024
_DOCUMENT_TIMEOUT_S = 60.0
_BLOB_TIMEOUT_S = 1800.0
_UNAUTHORIZED = 401
_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"')


class RegistrySession:
    """One repository, `https://HOST/v2/NAME`, and the token that it asked for last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._token: dict[str, str] = {}

    async def document(self, path: str, *, accept: tuple[str, ...], max_bytes: int) -> Document:
        """Get a small answer at `URL/path`. Raises HttpStatus, TooLarge, FormatError, Unavailable.

        `accept` are media types, best first; none: whatever comes.
        """
        wanted = {"Accept": ", ".join(accept)} if accept else {}

        async def get() -> Document:
            return await get_bounded(
                f"{self._url}/{path}",
                max_bytes=max_bytes,
                timeout_s=_DOCUMENT_TIMEOUT_S,
                headers={**wanted, **self._token},
            )

        try:
            return await get()
        except HttpStatus as error:
            await self._authorize(error)
            return await get()

    async def blob(
        self,
        sha256: str,
        target: Path,
        *,
        max_bytes: int,
        on_bytes: Callable[[int, int], None] | None = None,
    ) -> int:
        """Download a blob; give its size. Raises WrongDigest, and as `document`."""

        async def get() -> int:
            return await download(
                f"{self._url}/blobs/sha256:{sha256}",
                target,
                sha256=sha256,
                max_bytes=max_bytes,
                timeout_s=_BLOB_TIMEOUT_S,
                headers=self._token,
                on_bytes=on_bytes,
            )

        try:
            return await get()
        except HttpStatus as error:
            await self._authorize(error)
            return await get()

    async def _authorize(self, error: HttpStatus) -> None:
        """Get a token if that is what `error` asks for, and raise it again if not."""
        if error.status != _UNAUTHORIZED:
            raise error
        challenge = parse_challenge(error.headers.get("www-authenticate", ""))
        realm = challenge.pop("realm")
        if urlsplit(realm).scheme != urlsplit(self._url).scheme:
            raise FormatError(f"{self._url}: its tokens come from {realm[:120]!r}") from error
        answer = await get_bounded(
            f"{realm}?{urlencode(challenge)}",
            max_bytes=_MAX_TOKEN_BYTES,
            timeout_s=_DOCUMENT_TIMEOUT_S,
        )
        token = _token(answer.body)
        if not token.isascii() or not token.isprintable() or not token:
            raise Unavailable(f"{realm} gave no token")
        self._token = {"Authorization": f"Bearer {token}"}


def parse_challenge(header: str) -> dict[str, str]:
    """Read a Bearer challenge; give its parameters, `realm` always among them.

    Raises:
        FormatError: another scheme, or no realm.
    """
    scheme, _, rest = header.partition(" ")
    parameters = dict(_PARAMETER.findall(rest))
    if scheme.lower() != "bearer" or "realm" not in parameters:
        raise FormatError(f"registry: challenge {header[:80]!r}, want Bearer with a realm")
    kept = {name: parameters[name] for name in ("service", "scope") if name in parameters}
    return {"realm": parameters["realm"], **kept}


def _token(body: bytes) -> str:
    # another's document: unknown fields are theirs, so base.decode is too strict
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise FormatError("registry token: not JSON") from None
    if not isinstance(fields, dict):
        raise FormatError("registry token: not an object")
    token = fields.get("token") or fields.get("access_token")
    return token if isinstance(token, str) else ""
