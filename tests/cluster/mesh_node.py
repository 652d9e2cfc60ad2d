"""One node's mesh for test_mesh.py: brings wg0 up in this namespace, follows orders on stdin."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from constellation.base import decode
from constellation.base.secret import Secret
from constellation.kube.peers import SignedPeers
from constellation.services.mesh.device import Device
from constellation.services.mesh.firewall import Place


async def main() -> None:
    place = decode.load(Place, Path(sys.argv[1]).read_bytes(), what="place", max_bytes=4096)
    key = Secret(Path(sys.argv[2]).read_bytes())
    device = await Device.up(place, private_key=key)
    print("up", flush=True)  # noqa: T201 - the answer to the test
    before = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        listed = decode.load(SignedPeers, line.encode(), what="peers", max_bytes=1 << 20)
        await device.apply(listed.peers, before=before)
        before = listed.peers
        print("applied", flush=True)  # noqa: T201 - the answer to the test


if __name__ == "__main__":
    asyncio.run(main())
