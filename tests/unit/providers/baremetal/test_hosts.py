"""What a host of one's own reads: strictly parsed, and never more than a list to compare with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import Conflict, FormatError, Unavailable
from constellation.providers.baremetal.hosts import (
    HOSTS_FILE,
    USER_DATA_FILE,
    Host,
    Hosts,
    dump_hosts,
    parse_hosts,
)
from constellation.providers.baremetal.infrastructure import BaremetalInfrastructure, written_for
from constellation.providers.baremetal.metadata import BaremetalMetadata
from constellation.providers.baremetal.node_groups import BaremetalNodeGroups
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from pathlib import Path

PLANE = Host(
    name="host-192-0-2-1",
    group="control_plane_default",
    role=Role.CONTROL_PLANE,
    address="192.0.2.1",
)
WORKER = Host(name="host-192-0-2-2", group="worker_default", role=Role.WORKER, address="192.0.2.2")
HOSTS = Hosts(uid="constell-0a1b2c", me=WORKER.name, hosts=(PLANE, WORKER))


def test_what_was_written_is_read() -> None:
    assert parse_hosts(dump_hosts(HOSTS)) == HOSTS
    assert HOSTS.own() == WORKER


def _changed(host: Host, **changes: str) -> Hosts:
    return dataclasses.replace(HOSTS, hosts=(PLANE, dataclasses.replace(host, **changes)))  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (dataclasses.replace(HOSTS, uid="X"), "no uid of a cluster"),
        (dataclasses.replace(HOSTS, me="host-192-0-2-3"), "none of the hosts"),
        (dataclasses.replace(HOSTS, hosts=(PLANE, WORKER, WORKER)), "a name stands there twice"),
        (_changed(WORKER, group="../x"), "names no node group"),
        (_changed(WORKER, address="2001:db8::1"), "no IPv4 address"),
        (_changed(WORKER, address="192.0.2.9"), "is not the name of 192.0.2.9"),
        (_changed(WORKER, name="worker"), "is not the name of 192.0.2.2"),
        (
            dataclasses.replace(
                HOSTS,
                hosts=tuple(
                    dataclasses.replace(
                        WORKER,
                        name=f"host-10-0-{n // 200}-{n % 200}",
                        address=f"10.0.{n // 200}.{n % 200}",
                    )
                    for n in range(501)
                ),
            ),
            "more than 500 hosts",
        ),
    ],
)
def test_a_list_that_cannot_be_is_refused(found: Hosts, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        parse_hosts(dump_hosts(found))


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_junk_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_hosts(data)


async def test_a_host_learns_who_it_is_and_who_its_peers_are(tmp_path: Path) -> None:
    client = BaremetalMetadata(folders=(tmp_path, tmp_path / "copy"))
    with pytest.raises(Unavailable):
        await client.self_()
    (tmp_path / HOSTS_FILE).write_bytes(dump_hosts(HOSTS))
    (tmp_path / USER_DATA_FILE).write_bytes(b"document")
    own = await client.self_()
    assert (own.instance_id, own.address, own.role) == (WORKER.name, "192.0.2.2", Role.WORKER)
    assert [p.address for p in await client.peers()] == ["192.0.2.1", "192.0.2.2"]
    assert await client.user_data() == b"document"
    # a pod does not see the medium, but the copy that the bootstrapper keeps
    (tmp_path / "copy").mkdir()
    (tmp_path / HOSTS_FILE).rename(tmp_path / "copy" / HOSTS_FILE)
    assert await client.self_() == own
    (tmp_path / USER_DATA_FILE).write_bytes(bytes(64 * 1024 + 1))
    with pytest.raises(FormatError, match="at most"):
        await client.user_data()


async def test_groups_keep_their_size(tmp_path: Path) -> None:
    (tmp_path / HOSTS_FILE).write_bytes(dump_hosts(HOSTS))
    groups = BaremetalNodeGroups(folders=(tmp_path,))
    assert [i.instance_id for i in await groups.list_instances()] == [PLANE.name, WORKER.name]
    with pytest.raises(Conflict, match="no host can be made"):
        await groups.create("worker_default")
    with pytest.raises(Conflict, match="its owner's to remove"):
        await groups.delete(WORKER.name)
    await groups.delete("host-192-0-2-9")  # is not there: done


async def test_a_folder_of_another_cluster_is_not_taken(tmp_path: Path) -> None:
    assert written_for(tmp_path) == ()
    (tmp_path / WORKER.name).mkdir()
    (tmp_path / WORKER.name / HOSTS_FILE).write_bytes(dump_hosts(HOSTS))
    assert written_for(tmp_path) == (HOSTS.uid,)
    other = BaremetalInfrastructure(
        "other-00ffff",
        addresses={},
        endpoint="192.0.2.1:6443",
        trust_roots=(),
        folder=tmp_path,
        state_disk="virtio-state-disk",
    )
    with pytest.raises(Conflict, match="is of constell-0a1b2c"):
        await other.observe()
