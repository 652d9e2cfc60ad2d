"""Which loopback address a new cloud gets: 127.0.0.1, or the next that nothing else uses."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import Conflict, FormatError
from constellation.providers.local.daemon.records import CloudRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["choose", "load", "taken"]

# the API server, the first nodes' ports (20000 + 10 * index), every NodePort
_PROBED_PORTS = (6443, *range(20000, 20100), *range(30100, 32768))
_MAX_STATE_BYTES = 4 * 1024 * 1024


def load(path: Path) -> CloudRecord | None:
    """Read a cloud's record; None where there is none. Raises FormatError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return decode.load(CloudRecord, data, what=str(path), max_bytes=_MAX_STATE_BYTES)


def taken(state_root: Path) -> frozenset[str]:
    """List the addresses that clouds of this machine have, running or not."""
    found = set()
    for path in state_root.glob("*/state.json"):
        with contextlib.suppress(FormatError, OSError):
            if (cloud := load(path)) is not None:
                found.add(cloud.address)
    return frozenset(found)


def choose(used: frozenset[str], free: Callable[[str], bool] | None = None) -> str:
    """Give the first address that no cloud has and where our ports can be bound.

    Raises:
        Conflict: none of 254.
    """
    for number in range(1, 255):
        address = f"127.0.0.{number}"
        if address not in used and (free or _free)(address):
            return address
    raise Conflict(
        "no loopback address is free for the load balancer (127.0.0.1 to 127.0.0.254): a program "
        "listens on one of the ports 6443, 20000-20099, 30100-32767 of all addresses",
        hint="`ss -ltnp` names it; end it, or let it listen on 127.0.0.1 only",
    )


def _free(address: str) -> bool:
    for port in _PROBED_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # a connection that just ended does not make a port taken, a listener does
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
