"""What may be asked over HTTP: one form of request, everything else is refused with a status. Pure.

`GET /v1/evidence?nonce=HEX`, no body. Source: RFC 9112, sections 3 (request line), 5 (field syntax)
and 6.3 (message body length); RFC 9110, section 15 (status codes).
"""

from __future__ import annotations

import re
from typing import Final

from constellation.base.errors import FormatError

__all__ = ["MAX_HEAD_BYTES", "HttpRefusal", "parse_request"]

MAX_HEAD_BYTES: Final = 4096
"""Of the request line and all fields."""

_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.[01]")
_TARGET: Final = re.compile(rb"/v1/evidence\?nonce=([0-9A-Fa-f]*)")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t\x80-\xff]*)")
_NONCE_DIGITS: Final = 64


class HttpRefusal(FormatError):
    """A request that is not answered; `status` says why in HTTP's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def parse_request(head: bytes) -> bytes:
    """Give the nonce (32 bytes) that a request asks for; `head` ends with its empty line.

    Raises:
        HttpRefusal: any other request, with its status.
    """
    if len(head) > MAX_HEAD_BYTES:
        raise HttpRefusal(431, f"request: more than {MAX_HEAD_BYTES} bytes")
    if not head.endswith(b"\r\n\r\n"):
        raise HttpRefusal(400, "request: does not end with an empty line")
    line, *fields = head[:-4].split(b"\r\n")
    request = _LINE.fullmatch(line)
    if request is None:
        raise HttpRefusal(400, "request line: not HTTP/1.1's")
    method, target = request.groups()
    path = target.partition(b"?")[0]
    if path != b"/v1/evidence":
        raise HttpRefusal(404, "path: expected /v1/evidence")
    if method != b"GET":
        raise HttpRefusal(405, "method: expected GET")
    _require_no_body(fields, old=line.endswith(b"1.0"))
    asked = _TARGET.fullmatch(target)
    if asked is None or len(asked[1]) != _NONCE_DIGITS:
        raise HttpRefusal(400, f"nonce: expected {_NONCE_DIGITS} hexadecimal digits alone")
    return bytes.fromhex(asked[1].decode())


def _require_no_body(fields: list[bytes], *, old: bool) -> None:
    """Check the fields: what follows the head is never read, so nobody may announce a body."""
    hosts = 0
    for field in fields:
        parsed = _FIELD.fullmatch(field)
        if parsed is None:
            raise HttpRefusal(400, "field: not name and value")
        name, value = parsed[1].lower(), parsed[2].strip()
        hosts += name == b"host"
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            raise HttpRefusal(400, "request: expected no body")
    if hosts > 1 or (hosts == 0 and not old):  # RFC 9112, section 3.2
        raise HttpRefusal(400, f"request: {hosts} host fields, expected 1")
