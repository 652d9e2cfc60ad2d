"""The block `artifacts`: where nodes fetch Kubernetes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from constellation.base.errors import FormatError
from constellation.config.section import Section
from constellation.trust.artifact_sources import NEVER_ASKED, parse_sources

__all__ = ["Artifacts"]


def _sources(found: tuple[str, ...]) -> tuple[str, ...]:
    try:
        sources = parse_sources(found)
    except FormatError as error:
        raise ValueError(f"expected addresses of web servers, found another: {error}") from None
    for source in sources:
        address = source.address
        if address is not None and any(address in network for network in NEVER_ASKED):
            raise ValueError(f"expected an address that nodes can reach, found {address}")
    return tuple(str(source) for source in sources)


class Artifacts(Section):
    """Where nodes fetch Kubernetes, its images and the services from."""

    sources: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_sources)] = ()
    """Folders on web servers (http or https, four at most), asked in turn; each holds what
    `constellation artifacts mirror --to` writes. Nobody has to trust them: every file is checked
    against the signed list. For every provider but local, whose nodes get this machine's files."""
