"""The cloud's network: one namespace with a bridge, one namespace a node, veth pairs between them.

Nothing is made in the host's namespace: each pair is born inside and one end moved to its node.
The namespaces are binds below /run/netns, which is a tmpfs of the daemon's own mount namespace.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from constellation.base.errors import Unavailable
from constellation.providers.local.daemon import kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.providers.local.daemon.layout import Layout

__all__ = ["BALANCER", "METADATA", "ensure_bridge", "ensure_node", "remove_node"]

METADATA = "169.254.169.254"
BALANCER = "10.42.0.1"
_BRIDGE = "br0"
_BRIDGE_MAC = "02:00:0a:2a:00:01"
"""Fixed: otherwise a bridge takes the lowest of its ports', and when that port goes with its node,
all other nodes send to an address that nobody has until their neighbour entry is probed again."""
_PREFIX = 16
_LINK = "eth0"


async def ensure_bridge(layout: Layout) -> None:
    """Make the cloud's namespace with its bridge, balancer and metadata addresses, if missing.

    The machine's own namespace gets a name there, too.

    Raises:
        Unavailable: the kernel refused.
    """
    await _ensure_namespace(layout.netns())
    if not kernel.mounted(layout.host_netns):
        layout.host_netns.touch()
        kernel.mount("/proc/self/ns/net", layout.host_netns, flags=kernel.MS_BIND)

    def build() -> None:
        with IPRoute() as ip:
            if not ip.link_lookup(ifname=_BRIDGE):
                ip.link("add", ifname=_BRIDGE, kind="bridge")
            (bridge,) = ip.link_lookup(ifname=_BRIDGE)
            ip.link("set", index=bridge, address=_BRIDGE_MAC)
            _address(ip, bridge, BALANCER, _PREFIX)
            _address(ip, bridge, METADATA, 32)
            ip.link("set", index=bridge, state="up")
            ip.link("set", index=1, state="up")

    await _translated(build, layout.netns())


async def ensure_node(layout: Layout, instance_id: str, index: int, address: str) -> None:
    """Make a node's namespace with `eth0` (its address, default route), if missing.

    The node is off. What its last start left there goes at once: the kernel would take a pod's link
    away later, and with it the route that the next pod of that address found and did not make.

    Raises:
        Unavailable: the kernel refused.
    """
    netns, port = layout.netns(instance_id), f"n{index}"
    await _ensure_namespace(netns)

    def connect() -> None:
        with IPRoute() as ip, netns.open("rb") as target:
            if not ip.link_lookup(ifname=port):
                peer = {"ifname": _LINK, "net_ns_fd": target.fileno()}
                ip.link("add", ifname=port, kind="veth", peer=peer)
            (link,) = ip.link_lookup(ifname=port)
            (bridge,) = ip.link_lookup(ifname=_BRIDGE)
            ip.link("set", index=link, master=bridge, state="up")

    def configure() -> None:
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")
            (link,) = ip.link_lookup(ifname=_LINK)
            for left in ip.get_links():
                if left["index"] not in (1, link):
                    _remove(ip, left["index"])
            _address(ip, link, address, _PREFIX)
            ip.link("set", index=link, state="up")
            ip.route("replace", dst=f"{METADATA}/32", oif=link, scope="link")
            ip.route("replace", dst="0.0.0.0/0", gateway=BALANCER, oif=link)

    await _translated(connect, layout.netns())
    await _translated(configure, netns)


async def remove_node(layout: Layout, instance_id: str) -> None:
    """Remove a node's namespace, and with it both ends of its pair; none is no error."""
    netns = layout.netns(instance_id)
    if not netns.exists():
        return

    def links() -> None:
        with IPRoute() as ip:
            for link in ip.link_lookup(ifname=_LINK):
                ip.link("del", index=link)

    if kernel.mounted(netns):
        await _translated(links, netns)
        kernel.umount(netns)
    netns.unlink(missing_ok=True)


async def _ensure_namespace(path: Path) -> None:
    if kernel.mounted(path):
        return

    def create() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        kernel.unshare(kernel.CLONE_NEWNET)
        kernel.mount("/proc/thread-self/ns/net", path, flags=kernel.MS_BIND)

    await kernel.inside(create)


def _remove(ip: IPRoute, link: int) -> None:
    try:
        ip.link("del", index=link)
    except NetlinkError as error:
        # gone with its peer meanwhile, or one that the kernel itself made
        if error.code not in (errno.ENODEV, errno.EOPNOTSUPP):
            raise


def _address(ip: IPRoute, link: int, address: str, prefix: int) -> None:
    try:
        ip.addr("add", index=link, address=address, prefixlen=prefix)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


async def _translated(work: Callable[[], None], netns: Path) -> None:
    try:
        await kernel.inside(work, net=netns)
    except NetlinkError as error:
        raise Unavailable(f"network of {netns.name}: {error}") from error
