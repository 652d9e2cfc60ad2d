"""Telling systemd that a program is ready to serve, so that what needs it starts after it.

Source: sd_notify(3), "READY=1" to the datagram socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import os
import socket

__all__ = ["tell_service_manager"]


def tell_service_manager() -> None:
    """Say "ready"; does nothing when no service manager asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        # "@" stands for the NUL byte of an abstract address (unix(7))
        channel.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        channel.send(b"READY=1")
