"""Where nodes may fetch artifacts: web servers that the owner names, and that nobody trusts.

A source is the address of a folder with files by digest, `sha256/HEX` below it, as `constellation
artifacts mirror --to` writes it. Any web server or bucket can hold it: what comes from there counts
only by the digest in the signed artifact list. The owner's signed policy carries the addresses to
nodes; they hold no secret, so none of the places of a URL where secrets travel is taken. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from constellation.base.errors import FormatError

__all__ = ["MAX_SOURCES", "NEVER_ASKED", "Source", "parse_source", "parse_sources"]

MAX_SOURCES = 4
"""A node asks one after the other, each within its deadline."""

NEVER_ASKED = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host: Linux takes it for 127.0.0.1
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: every cloud's metadata service
        "168.63.129.16/32",  # Azure's wire server
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
"""Where no file server of other people's is."""


_LONGEST = 256
_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# no user, no query, no fragment, nothing escaped: what is left has one reading
_SOURCE = re.compile(
    rf"(https?)://({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?((?:/[A-Za-z0-9_~.-]+)*)/?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One web server's folder; `path` begins with a slash or is empty, and ends with none."""

    scheme: str
    host: str
    port: int
    path: str

    def url_of(self, sha256: str) -> str:
        """Give the address of the file with this SHA-256 (64 hexadecimal digits)."""
        return f"{self}/sha256/{sha256}"

    @property
    def address(self) -> ipaddress.IPv4Address | None:
        """Give the host as an address; None where it is a name."""
        try:
            return ipaddress.IPv4Address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Give the address of the folder."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"


def parse_source(text: str) -> Source:
    """Read one address: http or https, a host's name or IPv4 address, a port, a path.

    Raises:
        FormatError: anything else, or longer than 256 characters.
    """
    found = _SOURCE.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise FormatError(
            f"artifact source {text[:80]!r}: want http(s)://HOST[:PORT][/PATH], lower case, "
            f"without user, query or escapes, at most {_LONGEST} characters"
        )
    scheme, host, port, path = found.groups()
    source = Source(scheme=scheme, host=host, port=int(port) if port else _PORTS[scheme], path=path)
    if source.port > _HIGHEST_PORT or {"..", "."} & set(path.split("/")):
        raise FormatError(f"artifact source {text[:80]!r}: no such port, or a path with dots")
    # 2130706433 and 127.1 are addresses to a resolver, in an older spelling (inet_aton)
    if host.rpartition(".")[2].isdigit() and source.address is None:
        raise FormatError(f"artifact source {text[:80]!r}: neither a name nor an IPv4 address")
    return source


def parse_sources(texts: tuple[str, ...]) -> tuple[Source, ...]:
    """Read all addresses of a policy or configuration, in their order.

    Raises:
        FormatError: one cannot be read, stands there twice, or there are more than four.
    """
    if len(texts) > MAX_SOURCES:
        raise FormatError(f"artifact sources: {len(texts)}, at most {MAX_SOURCES}")
    sources = tuple(parse_source(text) for text in texts)
    if len(set(sources)) != len(sources):
        raise FormatError("artifact sources: one stands there twice")
    return sources
