"""Runs in a node, before it is in a cluster: its mesh program's own code makes wg0 for one peer.

The test puts a line `ORDER = {...}` in front: this node's place, its key, the peer, and whether to
ping. Prints one line of JSON. Everything it made is taken away again by `END`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import time
from typing import Any

sys.path.insert(0, "/usr/lib/constellation/python")

from constellation.base.proc import run
from constellation.base.secret import Secret
from constellation.kube.peers import Peer
from constellation.services.mesh.device import Device
from constellation.services.mesh.firewall import Place

ORDER: dict[str, Any] = globals().get("ORDER", {})
WITHIN_S, EACH_S = 120.0, 10.0
ECHO, REPLY = 8, 0  # RFC 792


def checksum(data: bytes) -> int:
    """Add up words as RFC 1071 says."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ping(address: str) -> float:
    """Send echo requests until one is answered; gives the seconds of that one."""
    end = time.monotonic() + WITHIN_S
    body = os.urandom(56)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(EACH_S)
        while time.monotonic() < end:
            empty = struct.pack("!BBHHH", ECHO, 0, 0, 7, 1) + body
            began = time.monotonic()
            raw.sendto(empty[:2] + struct.pack("!H", checksum(empty)) + empty[4:], (address, 0))
            try:
                while time.monotonic() < began + EACH_S:
                    packet, (sender, _) = raw.recvfrom(2048)
                    header = (packet[0] & 15) * 4
                    if sender == address and packet[header] == REPLY and packet.endswith(body):
                        return time.monotonic() - began
            except TimeoutError:
                continue
    raise SystemExit(f"{address} does not answer")


async def main() -> None:
    """Make the device, and ping the peer if asked."""
    place = Place(**ORDER["place"])
    device = await Device.up(place, private_key=Secret(bytes.fromhex(ORDER["key"])))
    peer = Peer(**{**ORDER["peer"], "mesh_public_key": bytes.fromhex(ORDER["peer_key"])})
    await device.apply((peer,), before=None)
    seconds = ping(peer.mesh_address) if ORDER["ping"] else None
    link = await run("ip", "-j", "-d", "link", "show", "wg0", timeout_s=EACH_S)
    transfer = await run("wg", "show", "wg0", "transfer", timeout_s=EACH_S)
    found = {
        "kernel": device.kernel,
        "kind": json.loads(link.stdout)[0]["linkinfo"]["info_kind"],
        "received_bytes": int(transfer.stdout.split()[1]),
        "ping_s": seconds,
    }
    sys.stdout.write(json.dumps(found) + "\n")


asyncio.run(main())
