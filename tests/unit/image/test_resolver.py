"""Whom a node asks for names: what its image says, or, where it says nothing, DHCP's answer."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from constellation.image.node_layers import NodeLayers
from constellation.image.programs import file_entries
from constellation.image.sources import os_folder

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = os_folder() / "machine/tree/usr/lib/constellation/bin/resolver"
CONF = "etc/resolv.conf"


def asked(folder: Path, lease: str) -> str:
    leases = folder / "leases"
    leases.mkdir()
    (leases / "2").write_text(lease)
    (folder / "conf").write_text("nameserver 169.254.169.254\n")
    subprocess.run(["sh", PROGRAM, leases, folder / "conf"], check=True, timeout=20)
    assert sorted(path.name for path in folder.iterdir()) == ["conf", "leases"]
    return (folder / "conf").read_text()


def test_the_resolvers_of_the_lease_are_asked(tmp_path: Path) -> None:
    lease = "# private\nADDRESS=10.0.2.15\nROUTER=10.0.2.2\nDNS=10.0.2.3 10.0.2.4\nNTP=10.0.2.9\n"
    assert asked(tmp_path, lease) == "nameserver 10.0.2.3\nnameserver 10.0.2.4\n"


@pytest.mark.parametrize(
    "lease",
    [
        "",
        "ADDRESS=10.0.2.15\n",
        "DNS=\n",
        "DNS=resolver.example\n",
        "DNS=10.0.2.3;options\n",
        "DNS=fe80::1 10.0.2\n",
        "XDNS=10.0.2.3\n",
        "DNS=$(reboot)\n",
    ],
)
def test_what_is_no_address_changes_nothing(lease: str, tmp_path: Path) -> None:
    assert asked(tmp_path, lease) == "nameserver 169.254.169.254\n"


def test_three_are_asked_at_most(tmp_path: Path) -> None:
    lease = "DNS=" + " ".join(f"10.0.2.{n}" for n in range(9)) + "\n"
    assert asked(tmp_path, lease).count("nameserver") == 3


@pytest.mark.parametrize(
    ("provider", "address"),
    [
        ("aws", "169.254.169.253"),
        ("azure", "168.63.129.16"),
        ("gcp", "169.254.169.254"),
        ("openstack", "169.254.169.254"),  # until DHCP has answered
    ],
)
def test_a_clouds_image_names_the_clouds_resolver(provider: str, address: str) -> None:
    nothing: Any = None
    layers = NodeLayers(
        tools=nothing, base=nothing, wheels=(), wheel_stream=nothing, programs=(),
        private_key=nothing, release_root=b"",
    )  # fmt: skip
    more = file_entries(os_folder() / "machine" / provider, below="")
    (found,) = [e.data.decode() for e in layers.system("", more=more) if e.path == CONF]
    lines = [line for line in found.splitlines() if not line.startswith("#")]
    assert lines == [f"nameserver {address}"]
