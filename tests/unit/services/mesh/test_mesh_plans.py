import dataclasses
from pathlib import Path

import pytest

from constellation.base.errors import FormatError, Unavailable, Untrusted
from constellation.base.secret import Secret
from constellation.crypto import signing
from constellation.kube.cni import MTU
from constellation.kube.peers import Peer, SignedPeers, load_peers, sign_peers
from constellation.rpc.mutual_tls import ServiceTls
from constellation.services.joinservice.tickets import peer_message
from constellation.services.mesh.firewall import Place, ruleset
from constellation.services.mesh.follow import Follower, from_message
from constellation.services.mesh.wireguard import (
    others,
    routes,
    tool_configuration,
    uapi_configuration,
)
from tests.fakes.members import CLUSTER_ID, founded

KEY = signing.generate_key()
PRIVATE = Secret(b"\x01" * 32)


def test_a_whole_packet_of_the_mesh_fits_into_every_clouds_network() -> None:
    # WireGuard over IPv4: 20 + 8 + 32 bytes; links: os/machine, 80-constellation.network
    assert all(link >= MTU + 60 for link in (1500, 1460, 1450))


def peer(index: int) -> Peer:
    return Peer(
        node_name=f"worker-default-{index}",
        address=f"10.42.2.{10 + index}",
        mesh_public_key=bytes([index + 1]) * 32,
        mesh_address=f"10.43.0.{2 + index}",
        pod_cidr=f"10.244.{1 + index}.0/24",
        role="worker",
    )


PLACE = Place(
    address="10.42.1.10",
    mesh_address="10.43.0.1",
    pod_cidr="10.244.0.0/24",
    pod_network="10.244.0.0/16",
    mesh_cidr="10.43.0.0/16",
)


def test_a_peer_may_use_its_own_addresses_and_no_others() -> None:
    lines = (
        uapi_configuration((peer(0), peer(1)), before=None, private_key=PRIVATE)
        .reveal()
        .decode()
        .splitlines()
    )
    start = lines.index(f"public_key={peer(1).mesh_public_key.hex()}")
    assert lines[start + 1 :] == [
        "endpoint=10.42.2.11:51820",
        "replace_allowed_ips=true",
        "allowed_ip=10.244.2.0/24",
        "allowed_ip=10.43.0.3/32",
        "",
    ]


def test_peers_that_stay_keep_their_sessions_and_others_go() -> None:
    first = uapi_configuration((), before=None, private_key=PRIVATE).reveal()
    assert b"replace_peers=true" in first
    later = uapi_configuration((peer(0),), before=(peer(0), peer(1)), private_key=PRIVATE).reveal()
    assert b"replace_peers" not in later
    assert f"public_key={peer(1).mesh_public_key.hex()}\nremove=true".encode() in later
    assert later.count(b"remove=true") == 1


def test_the_private_key_does_not_print() -> None:
    for made in (
        uapi_configuration((), before=None, private_key=PRIVATE),
        tool_configuration((peer(0),), private_key=PRIVATE),
    ):
        assert "01" * 8 not in repr(made)
        assert "secret bytes" in str(made)


def test_routes_lead_to_the_pods_of_others_only() -> None:
    listed = (peer(0), peer(1))
    assert others(listed, own_name="worker-default-0") == (peer(1),)
    assert routes(listed) == {"10.244.1.0/24", "10.244.2.0/24"}


def test_the_filter_knows_all_nodes_and_starts_with_itself() -> None:
    assert "elements = { 10.42.1.10 }" in ruleset(PLACE, ())
    assert "elements = { 10.42.1.10, 10.42.2.10 }" in ruleset(PLACE, (peer(0),))


class Net:
    """A `Device` that remembers; `broken` makes it fail."""

    def __init__(self) -> None:
        self.peers: tuple[Peer, ...] = ()
        self.before: list[tuple[Peer, ...] | None] = []
        self.broken = False

    async def apply(self, peers: tuple[Peer, ...], *, before: tuple[Peer, ...] | None) -> None:
        if self.broken:
            raise Unavailable("no network")
        self.peers = peers
        self.before.append(before)


def signed(serial: int) -> SignedPeers:
    return sign_peers(dataclasses.replace(founded(), peers_serial=serial), join_private_key=KEY)


def follower(net: Net, path: Path) -> Follower:
    nowhere = Path("/nonexistent")
    return Follower(
        net,
        path=path,
        own_name="worker-default-0",
        join_public_key=signing.spki(KEY.public_key()),
        cluster_id=CLUSTER_ID,
        tls=ServiceTls(certificate=nowhere, private_key=nowhere, ca=nowhere),
    )


async def test_a_newer_list_is_applied_and_kept(tmp_path: Path) -> None:
    net, path = Net(), tmp_path / "peers.json"
    mesh = follower(net, path)
    await mesh._take(signed(3))
    await mesh._take(signed(4))
    assert [p.node_name for p in net.peers] == ["control-plane-default-0"]
    assert net.before[0] is None
    assert net.before[1] == net.peers
    assert load_peers(path.read_bytes(), what="test").serial == 4
    again = Net()
    await follower(again, path).start()
    assert again.peers == net.peers


async def test_an_older_or_forged_list_changes_nothing(tmp_path: Path) -> None:
    net, path = Net(), tmp_path / "peers.json"
    mesh = follower(net, path)
    await mesh._take(signed(3))
    for bad in (signed(2), dataclasses.replace(signed(4), peers=())):
        with pytest.raises(Untrusted):
            await mesh._take(bad)
    assert len(net.before) == 1
    assert load_peers(path.read_bytes(), what="test").serial == 3


async def test_a_list_that_could_not_be_applied_is_not_kept(tmp_path: Path) -> None:
    net, path = Net(), tmp_path / "peers.json"
    net.broken = True
    with pytest.raises(Unavailable):
        await follower(net, path)._take(signed(3))
    assert not path.exists()


async def test_a_damaged_list_on_disk_is_said(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(b"{}")
    with pytest.raises(FormatError):
        await follower(Net(), path).start()


def test_a_list_survives_the_wire() -> None:
    one = signed(5)
    assert from_message(peer_message(one)) == one
