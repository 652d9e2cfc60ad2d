"""What a host of one's own reads about itself and its cluster: `hosts.json`, beside its user data.

No cloud says here who a machine is, so the owner does: `create` writes one folder for each host,
and whoever boots the host puts it on a medium that the host reads. None of it is measured or
secret; it is believed as far as a cloud's metadata is (design, section 2): where to look, and what
JoinService compares a node's words with. The node document beside it is measured.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base import decode
from constellation.base.errors import FormatError
from constellation.providers import tags
from constellation.providers.protocols import Instance, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.protocols import Group

__all__ = [
    "HOSTS_FILE",
    "STATE_DISK_FILE",
    "USER_DATA_FILE",
    "Host",
    "Hosts",
    "dump_hosts",
    "hosts_of",
    "parse_hosts",
]

HOSTS_FILE: Final = "hosts.json"
USER_DATA_FILE: Final = "user-data"
STATE_DISK_FILE: Final = "state-disk"
"""The state disk's name below /dev/disk/by-id (`disk.state_disk.device_from_host`)."""
_MAX_BYTES = 256 * 1024
_MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host: `name` is its instance id, `address` IPv4 as the other hosts reach it."""

    name: str
    group: str
    role: Role
    address: str

    def instance(self, *, state: str) -> Instance:
        """Give it as every provider's machines are given."""
        return Instance(
            instance_id=self.name,
            group=self.group,
            role=self.role,
            address=self.address,
            state=state,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """All hosts of a cluster, and which of them reads this."""

    uid: str
    me: str
    hosts: tuple[Host, ...]

    def own(self) -> Host:
        """Give the host that reads this."""
        return next(host for host in self.hosts if host.name == self.me)


def hosts_of(addresses: Mapping[str, tuple[str, ...]], groups: tuple[Group, ...]) -> list[Host]:
    """Give the hosts of node groups, by the configuration's addresses; sorted by name.

    Raises:
        FormatError: a group has another number of hosts than its size, or nobody knows a group.
    """
    known = {group.name: group for group in groups}
    if unknown := sorted(addresses.keys() - known.keys()):
        raise FormatError(f"hosts of {unknown[0]}: there is no such node group")
    for group in groups:
        if (found := len(addresses.get(group.name, ()))) != group.size:
            raise FormatError(f"{group.name}: expected {group.size} hosts, found {found}")
    made = [
        Host(name=_name(address), group=group.name, role=group.role, address=address)
        for group in groups
        for address in addresses.get(group.name, ())
    ]
    if len({host.address for host in made}) != len(made):
        raise FormatError("hosts: an address stands in two groups")
    return sorted(made, key=lambda host: host.name)


def dump_hosts(hosts: Hosts) -> bytes:
    """Write the file's bytes: canonical JSON."""
    return decode.dump(hosts)


def parse_hosts(data: bytes) -> Hosts:
    """Read the file, 256 KiB and 500 hosts at most.

    Raises:
        FormatError: not this file; a host twice; an address or a group that is none; the reader is
            not among the hosts.
    """
    found = decode.load(Hosts, data, what=HOSTS_FILE, max_bytes=_MAX_BYTES)
    tags.checked_uid(found.uid, where=HOSTS_FILE)
    if len(found.hosts) > _MOST:
        raise FormatError(f"{HOSTS_FILE}: more than {_MOST} hosts")
    for host in found.hosts:
        _check(host)
    for what in ("name", "address"):
        values = [getattr(host, what) for host in found.hosts]
        if len(set(values)) != len(values):
            raise FormatError(f"{HOSTS_FILE}: a {what} stands there twice")
    if not any(host.name == found.me for host in found.hosts):
        raise FormatError(f"{HOSTS_FILE}: {found.me[:40]!r} is none of the hosts")
    return found


def _check(host: Host) -> None:
    tags.checked_group(host.group, where=HOSTS_FILE)
    try:
        text = str(ipaddress.IPv4Address(host.address))
    except ValueError:
        raise FormatError(f"{HOSTS_FILE}: {host.address[:40]!r} is no IPv4 address") from None
    if host.name != _name(text):
        raise FormatError(f"{HOSTS_FILE}: {host.name[:40]!r} is not the name of {text}")


def _name(address: str) -> str:
    """Give a host's name: its address, so that nobody has to think of one."""
    return f"host-{address.replace('.', '-')}"
