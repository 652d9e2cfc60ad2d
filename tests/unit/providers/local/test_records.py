from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import Conflict, UserError
from constellation.providers.local.daemon.records import (
    CloudRecord,
    missing,
    surplus,
    with_node,
    without_node,
)
from constellation.providers.protocols import Group, Role

CONTROL = Group(name="control", role=Role.CONTROL_PLANE, size=1)
WORKERS = Group(name="workers", role=Role.WORKER, size=2)


def _cloud(*groups: Group) -> CloudRecord:
    cloud = CloudRecord(id="mini", address="127.0.0.1")
    for group in groups:
        for _ in range(group.size):
            cloud, _node = with_node(cloud, group)
    return cloud


def test_nodes_get_the_addresses_and_ports_of_their_role() -> None:
    control, first, second = _cloud(CONTROL, WORKERS).nodes
    assert (control.instance_id, control.address) == ("mini-control-0", "10.42.1.10")
    assert (first.address, second.address) == ("10.42.2.11", "10.42.2.12")
    assert (second.init_port, second.recovery_port, second.verify_port) == (20020, 20021, 20022)


def test_an_instance_id_is_a_host_name() -> None:
    default = Group(name="worker_default", role=Role.WORKER, size=1)
    assert _cloud(default).nodes[0].instance_id == "mini-worker-default-0"


def test_only_what_a_group_lacks_is_missing() -> None:
    cloud = _cloud(CONTROL)
    assert missing(cloud, (CONTROL, WORKERS)) == (WORKERS,)
    assert missing(_cloud(CONTROL, WORKERS), (CONTROL, WORKERS)) == ()


def test_the_newest_node_of_a_shrunken_group_goes_first() -> None:
    cloud = _cloud(CONTROL, WORKERS)
    extra = surplus(cloud, (CONTROL, Group(name="workers", role=Role.WORKER, size=1)))
    assert [n.instance_id for n in extra] == ["mini-workers-2"]


def test_a_group_that_is_no_longer_named_goes() -> None:
    assert len(surplus(_cloud(CONTROL, WORKERS), (CONTROL,))) == 2


def test_where_control_planes_scale_the_workstation_neither_adds_nor_removes() -> None:
    cloud = dataclasses.replace(_cloud(CONTROL, WORKERS), scaled=True, groups=(CONTROL, WORKERS))
    wanted = (CONTROL, dataclasses.replace(WORKERS, size=1))
    assert (missing(cloud, wanted), surplus(cloud, wanted)) == ((), ())
    assert missing(cloud, (CONTROL, dataclasses.replace(WORKERS, size=9))) == ()
    another = Group(name="tampered", role=Role.WORKER, size=1)
    assert missing(cloud, (CONTROL, WORKERS, another)) == (another,)
    with pytest.raises(UserError):
        missing(cloud, (dataclasses.replace(CONTROL, role=Role.WORKER),))


def test_a_removed_nodes_id_is_never_given_again() -> None:
    cloud = _cloud(CONTROL, WORKERS)
    cloud, node = with_node(without_node(cloud, "mini-workers-2"), WORKERS)
    assert node.instance_id == "mini-workers-3"
    assert cloud.nodes[-1] is node


def test_a_group_cannot_change_its_role() -> None:
    with pytest.raises(UserError, match="another role"):
        missing(_cloud(CONTROL), (Group(name="control", role=Role.WORKER, size=1),))


@pytest.mark.parametrize("name", ["", "-a", "a/b", "A", "x" * 31])
def test_a_groups_name_must_fit_into_paths_and_host_names(name: str) -> None:
    with pytest.raises(UserError, match="cannot name"):
        missing(_cloud(), (Group(name=name, role=Role.WORKER, size=1),))


def test_there_is_an_end_to_addresses() -> None:
    with pytest.raises(Conflict, match="no address left"):
        _cloud(Group(name="workers", role=Role.WORKER, size=242))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(min_value=0, max_value=30)), max_size=60),
)
def test_no_two_nodes_ever_share_address_or_port(steps: list[tuple[bool, int]]) -> None:
    cloud = _cloud(CONTROL)
    for add, position in steps:
        if add:
            cloud, _node = with_node(cloud, WORKERS)
        elif position < len(cloud.nodes):
            cloud = without_node(cloud, cloud.nodes[position].instance_id)
        assert len({n.address for n in cloud.nodes}) == len(cloud.nodes)
        assert len({n.init_port for n in cloud.nodes}) == len(cloud.nodes)


def test_what_is_written_is_what_is_read() -> None:
    cloud = _cloud(CONTROL, WORKERS)
    again = decode.load(CloudRecord, decode.dump(cloud), what="state", max_bytes=65536)
    assert again == cloud


def test_an_unknown_instance_is_named() -> None:
    with pytest.raises(Conflict, match="no instance 'x'"):
        _cloud().node("x")
