"""One network for several emulated machines, which leads nowhere: a namespace with QEMU's router.

A QEMU without a machine joins the machines' wires and answers them as a router of a small network
does (DHCP, 10.0.2.2); it lives on when a machine loses its power. The namespace has the machines'
addresses too: what is started in it reaches their ports at these very addresses, as an owner in the
same network would, and a web server at its 127.0.0.1 is the machines' 10.0.2.2. Nothing else is
there. Needs root. Sources: qemu-system-x86_64(1), network options; network_namespaces(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.tools_root import command
from tests.vm.image_vm import ADDRESS, DidNotStart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.vm.image_vm import Programs

__all__ = ["ROUTER", "Wire", "addresses", "wire"]

ROUTER = "10.0.2.2"
"""What machines reach the namespace's 127.0.0.1 by."""

_PORTS = (6443, 9000, 9999, 30080, 30081, 30091)
_WITHIN_S = 30.0
# The addresses are there before QEMU listens at them. Who connects to one comes from 127.0.0.1,
# which the router translates: else a machine would get packets that come from its own address.
_SCRIPT = """
ip link set lo up
for address in $1; do
    ip address add "$address/32" dev lo
    ip route replace local "$address" dev lo table local proto kernel scope host src 127.0.0.1
done
shift
exec "$@"
"""


def addresses(count: int) -> tuple[str, ...]:
    """Give the addresses of machines, in the order in which they first ask for one."""
    return tuple(str(IPv4Address(ADDRESS) + number) for number in range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """The network: the process that is it, and where machines are plugged in."""

    pid: int
    sockets: tuple[Path, ...]

    def enter(self, *argv: str | Path) -> tuple[str, ...]:
        """Give the words that start a program in the namespace."""
        return ("nsenter", "--target", str(self.pid), "--net", "--", *map(str, argv))

    def plug(self, number: int) -> tuple[str, ...]:
        """Give a machine's words for QEMU: a device, and this wire."""
        place = f"stream,id=n0,server=off,addr.type=unix,addr.path={self.sockets[number]}"
        device = f"virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:12:34:{0x56 + number:02x}"
        return ("-netdev", place, "-device", device)


@contextlib.asynccontextmanager
async def wire(programs: Programs, *, machines: int, folder: Path) -> AsyncIterator[Wire]:
    """Lay a network for so many machines; it ends with the block.

    Raises:
        DidNotStart: QEMU ended.
    """
    sockets = tuple(folder / f"wire-{number}.sock" for number in range(machines))
    own = addresses(machines)
    forward = "".join(
        f",hostfwd=tcp:{address}:{port}-{address}:{port}" for address in own for port in _PORTS
    )
    plugs = (
        word
        for number, path in enumerate(sockets)
        for word in (
            *("-netdev", f"stream,id=s{number},server=on,addr.type=unix,addr.path={path}"),
            *("-netdev", f"hubport,id=h{number},hubid=0,netdev=s{number}"),
        )
    )
    argv = (
        # the kernel ends it with this program (prctl(2), PR_SET_PDEATHSIG)
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--net"),
        *("sh", "-euc", _SCRIPT, "sh", " ".join(own)),
        *command(programs.emulator, "qemu-system-x86_64"),
        *("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-L", str(programs.emulator / "usr/share/qemu")),
        *("-netdev", f"user,id=router{forward}", "-netdev", "hubport,id=r,hubid=0,netdev=router"),
        *plugs,
    )
    with (folder / "wire.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, start_new_session=True,
        )  # fmt: skip
    try:
        end = clock.monotonic_s() + _WITHIN_S
        while not all(path.exists() for path in sockets):
            if process.returncode is not None or clock.monotonic_s() > end:
                said = (folder / "wire.log").read_text(errors="replace")
                raise DidNotStart(f"no network ({process.returncode}): {said[-1000:]}")
            await asyncio.sleep(0.05)
        yield Wire(pid=process.pid, sockets=sockets)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
        await process.wait()
