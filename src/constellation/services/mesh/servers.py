"""Which JoinServices a node that runs asks for certificates: those it knows, in a good order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError
from constellation.providers.select import metadata
from constellation.services.join_addresses import join_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from constellation.kube.node_record import NodeRecord
    from constellation.providers.protocols import Metadata

__all__ = ["KnownServers", "known_servers"]

_LISTED_WITHIN_S = 5.0
"""A cloud that does not answer holds up nobody whom the signed list names."""
_log = logging.getLogger(__name__)


def known_servers(record: NodeRecord, signed: Callable[[], Iterable[str]]) -> KnownServers:
    """Give them for a node of this record, whose provider is the one of its command line.

    Raises:
        FormatError: this build knows no such provider.
    """
    return KnownServers(
        signed,
        metadata=metadata(record.provider),
        own_address=record.address,
        within_s=_LISTED_WITHIN_S,
    )


class KnownServers:
    """Where a node that runs asks: control planes of its signed list, then others of the provider.

    `signed` gives the list's addresses; the provider is waited for `within_s`. This node comes last
    of the list: a control plane that has lost its JoinService is not its own way to certificates.
    """

    def __init__(
        self,
        signed: Callable[[], Iterable[str]],
        *,
        metadata: Metadata,
        own_address: str,
        within_s: float,
    ) -> None:
        self._signed, self._own_address, self._within_s = signed, own_address, within_s
        self.metadata = metadata

    async def __call__(self) -> tuple[str, ...]:
        """Give the addresses; those of the list alone where the provider does not answer."""
        signed = sorted(self._signed(), key=lambda address: address == self._own_address)
        try:
            async with asyncio.timeout(self._within_s):
                peers = await self.metadata.peers()
            claimed = join_servers(peers, own_address=self._own_address)
        except (ConstellationError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            _log.info("no peers from the provider", extra={"reason": reason})
            claimed = ()
        return tuple(dict.fromkeys((*signed, *claimed)))
