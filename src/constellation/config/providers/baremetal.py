"""The block `provider.baremetal`: hosts of one's own, named by address."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from constellation.config.section import Section

__all__ = ["BaremetalProvider"]


def _addresses(found: tuple[str, ...]) -> tuple[str, ...]:
    for text in found:
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            raise ValueError(f"expected IPv4 addresses like 192.0.2.7, found {text!r}") from None
    if len(set(found)) != len(found):
        raise ValueError("expected each address once")
    return found


class BaremetalProvider(Section):
    """Hosts that you boot with the node image yourself; nobody logs in to them."""

    hosts: dict[str, Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_addresses)]]
    """Addresses (IPv4) of the hosts, by node group; a group has as many hosts as its size says."""

    trust_roots: str = ""
    """File (PEM, from here) with the authorities that certify attestation keys of the hosts' vTPMs.
    For "qemu-vtpm" only: chips have their makers' authorities."""

    state_disk: Annotated[str, Field(pattern=r"^[A-Za-z0-9_:+=@-][A-Za-z0-9_.:+=@-]{0,127}$")] = (
        "virtio-state-disk"
    )
    """Name of each host's state disk, as udev lists it in /dev/disk/by-id: of a virtio disk it is
    `virtio-` and its serial number. A node formats it if it is blank, and refuses it if it is
    another's."""

    endpoint: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}:\d{1,5}$")]
    """Address of the API server as users and nodes reach it (host:port): a load balancer before the
    control planes, or the one control plane's own."""
