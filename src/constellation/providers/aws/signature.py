"""What makes a request to AWS the caller's own: AWS Signature Version 4.

Source: AWS, "Create a signed AWS API request" (Signature Version 4): canonical request, string to
sign, signing key, Authorization header. Pure: the time is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.base.secret import Secret

__all__ = ["Credentials", "signed_headers"]

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key; `session_token` None: long-lived. `expires` None: not known."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None
    expires: datetime | None


def signed_headers(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Give `headers` with those that sign the request: all of them are covered.

    Args:
        method: in capitals.
        url: without a fragment; its query is `name=value&…`, not encoded twice.
        headers: names in any case; none of ours.
        body: all of it.
        credentials: of the caller.
        region: e.g. "eu-west-1".
        service: e.g. "ec2".
        now: UTC.
    """
    parts = urlsplit(url)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    sent = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    sent |= {"host": parts.netloc, "x-amz-date": stamp}
    if credentials.session_token is not None:
        sent["x-amz-security-token"] = credentials.session_token.reveal().decode()
    names = ";".join(sorted(sent))
    # by name, then value: "a=1" comes before "a1=1", which bytes alone would not say
    pairs = sorted(pair.partition("=") for pair in parts.query.split("&") if pair)
    query = "&".join("".join(pair) for pair in pairs)
    canonical = "\n".join(
        (
            method,
            quote(parts.path or "/", safe="/-_.~%"),
            query,
            *(f"{name}:{sent[name]}" for name in sorted(sent)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4" + credentials.secret_access_key.reveal()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return sent
