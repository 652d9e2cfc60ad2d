"""What Azure's host gives a confidential VM: its chip's certificates, and quotes of its TDREPORT.

 GET  /metadata/THIM/amd/certification (header `Metadata: true`): `vcekCert`, `certificateChain`
      (ASK, then ARK), PEM in JSON. The host has them from AMD; it gives no revocation list.
 POST /acc/tdquote with {"report": TDREPORT, base64url}: {"quote": a TD quote, base64url}. The
      host's quoting enclave makes it; it cannot make one of a TDREPORT that its CPU did not.

Everything is untrusted, and verified elsewhere. Source: Microsoft, "Azure confidential VMs: guest
attestation", "Trusted Hardware Identity Management". The address is link-local: no proxy is asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import httpx2

from constellation.attestation.hcl.report import TDREPORT_BYTES
from constellation.base.errors import FormatError, Unavailable
from constellation.crypto.der import from_pem_or_der

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IMDS", "Imds"]

IMDS = "http://169.254.169.254"

_MAX_ANSWER_BYTES = 64 * 1024
_OK = 200
_END = b"-----END CERTIFICATE-----"


class Imds:
    """The host's service; `base_url` is another one in tests."""

    def __init__(self, *, base_url: str = IMDS, timeout_s: float = 10.0) -> None:
        self._base_url, self._timeout_s = base_url, timeout_s

    async def vcek(self) -> tuple[bytes, bytes]:
        """Give the certificates (DER) of VCEK and ASK.

        Raises:
            Unavailable: the host did not answer.
            FormatError: it answered with something else.
        """
        what = "/metadata/THIM/amd/certification"
        answer = await self._ask("GET", what, headers={"Metadata": "true"})
        texts = [answer.get(name) for name in ("vcekCert", "certificateChain")]
        if not all(isinstance(text, str) for text in texts):
            raise FormatError(f"{what}: vcekCert or certificateChain is missing")
        vcek, ask = (_first(str(text).encode(), what) for text in texts)
        return vcek, ask

    async def td_quote(self, tdreport: bytes) -> bytes:
        """Have a TDREPORT (1024 bytes) made into a quote.

        Raises:
            ValueError: not 1024 bytes.
            Unavailable: the host did not answer.
            FormatError: it answered with something else.
        """
        if len(tdreport) != TDREPORT_BYTES:
            raise ValueError(f"TDREPORT of {len(tdreport)} bytes, want {TDREPORT_BYTES}")
        asked = {"report": base64.urlsafe_b64encode(tdreport).rstrip(b"=").decode()}
        answer = await self._ask("POST", "/acc/tdquote", body=json.dumps(asked).encode())
        text = answer.get("quote")
        try:
            padded = str(text) + "=" * (-len(str(text)) % 4)
            return base64.b64decode(padded, altchars=b"-_", validate=True)
        except ValueError:
            raise FormatError("/acc/tdquote: its quote is not base64url") from None

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Mapping[str, object]:
        url = self._base_url + path
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                httpx2.AsyncClient(trust_env=False) as client,
                client.stream(method, url, headers=sent, content=body) as response,
            ):
                if response.status_code != _OK:
                    raise Unavailable(f"{url} answered with status {response.status_code}")
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > _MAX_ANSWER_BYTES:
                        raise FormatError(f"{url}: more than {_MAX_ANSWER_BYTES} bytes")
        except TimeoutError:
            raise Unavailable(f"{url} did not answer within {self._timeout_s:g} s") from None
        except httpx2.TransportError as error:
            raise Unavailable(f"{url}: {type(error).__name__}: {error}") from error
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise FormatError(f"{url}: its answer is not JSON") from None
        if not isinstance(answer, dict):
            raise FormatError(f"{url}: its answer is not an object")
        return answer


def _first(text: bytes, what: str) -> bytes:
    # by hand: the X.509 library may refuse a VCEK, whose serial number is 0
    block, end, _ = text.partition(_END)
    return from_pem_or_der(block + end, label="CERTIFICATE", what=what)
