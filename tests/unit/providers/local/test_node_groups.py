from __future__ import annotations

import stat
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web

from constellation.base.errors import Conflict, FormatError, Unavailable, UserError
from constellation.providers.local.daemon import metadata_server, scaling
from constellation.providers.local.daemon.records import CloudRecord, NodeRecord, with_node
from constellation.providers.local.node_groups import LocalNodeGroups
from constellation.providers.protocols import Group, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Cloud:
    """A cloud that boots nothing, with one machine at the test's own address."""

    def __init__(self, role: Role) -> None:
        first = Group(name="first", role=role, size=1)
        record, node = with_node(CloudRecord(id="mini", address="127.0.0.1"), first)
        self.first = replace(node, address="127.0.0.1")
        self.record = record.put(self.first)
        self.fails = False

    async def create(self, group: str) -> NodeRecord:
        if group != "workers":
            raise Conflict(f"there is no group {group!r}")
        if self.fails:
            raise Unavailable("it did not boot")
        self.record, node = with_node(self.record, Group(name=group, role=Role.WORKER, size=1))
        return node

    async def scale_in(self, instance_id: str) -> None:
        nodes = tuple(n for n in self.record.nodes if n.instance_id != instance_id)
        self.record = replace(self.record, nodes=nodes)


@asynccontextmanager
async def served(cloud: Cloud, folder: Path) -> AsyncIterator[int]:
    app = metadata_server.application(lambda: cloud.record, lambda _: "running")
    scaling.add_routes(
        app,
        cloud=lambda: cloud.record,
        describe=lambda node: metadata_server.instance(node, "running"),
        token=lambda id_: (folder / scaling.TOKEN_FILE).read_bytes() if "first" in id_ else b"",
        scales=cloud,
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scaling.write_token(tmp_path)
    return tmp_path


def _groups(folder: Path, port: int) -> LocalNodeGroups:
    return LocalNodeGroups(token=folder / scaling.TOKEN_FILE, host="127.0.0.1", port=port)


async def test_a_control_plane_adds_lists_and_removes_machines(folder: Path) -> None:
    cloud = Cloud(Role.CONTROL_PLANE)
    async with served(cloud, folder) as port:
        groups = _groups(folder, port)
        made = await groups.create("workers")
        assert (made.role, made.group, made.state) == (Role.WORKER, "workers", "running")
        assert {i.group for i in await groups.list_instances()} == {"first", "workers"}
        await groups.delete(made.instance_id)
        await groups.delete(made.instance_id)
        assert [i.group for i in await groups.list_instances()] == ["first"]


async def test_a_worker_may_not_scale_even_with_its_token(folder: Path) -> None:
    async with served(Cloud(Role.WORKER), folder) as port:
        with pytest.raises(Unavailable, match="403"):
            await _groups(folder, port).create("workers")


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer " + "0" * 64, "Basic x", "Bearer \xff"])
async def test_without_the_machines_token_nothing_changes(folder: Path, header: str) -> None:
    cloud = Cloud(Role.CONTROL_PLANE)
    calls = (("POST", "groups/workers"), ("GET", "instances"), ("DELETE", "instances/mini-first-0"))
    async with (
        served(cloud, folder) as port,
        ClientSession(f"http://127.0.0.1:{port}", headers={"Authorization": header}) as session,
    ):
        for method, path in calls:
            async with session.request(method, f"/v1/scaling/{path}") as answer:
                assert answer.status == 403
    assert [n.group for n in cloud.record.nodes] == ["first"]


async def test_a_machine_without_a_token_is_not_heard_with_an_empty_one(folder: Path) -> None:
    (folder / scaling.TOKEN_FILE).unlink()
    (folder / scaling.TOKEN_FILE).write_bytes(b"")
    async with (
        served(Cloud(Role.CONTROL_PLANE), folder) as port,
        ClientSession(f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer "}) as session,
        session.get("/v1/scaling/instances") as answer,
    ):
        assert answer.status == 403


async def test_what_cannot_be_is_a_conflict_and_what_may_be_later_is_not(folder: Path) -> None:
    cloud = Cloud(Role.CONTROL_PLANE)
    cloud.fails = True
    async with served(cloud, folder) as port:
        with pytest.raises(Conflict, match="no group 'other'"):
            await _groups(folder, port).create("other")
        with pytest.raises(Unavailable, match="503"):
            await _groups(folder, port).create("workers")


@pytest.mark.parametrize("name", ["", "../v1/self", "a b", "A", "x\r\nHost: y", "a/b"])
async def test_a_name_cannot_change_the_request(folder: Path, name: str) -> None:
    groups = _groups(folder, 1)
    for call in (groups.create, groups.delete):
        with pytest.raises(UserError):
            await call(name)


async def test_a_token_that_is_none_is_not_sent(folder: Path) -> None:
    (folder / scaling.TOKEN_FILE).unlink()
    with pytest.raises(Unavailable):
        await _groups(folder, 1).list_instances()
    (folder / scaling.TOKEN_FILE).write_bytes(b"x\r\ny")
    with pytest.raises(FormatError):
        await _groups(folder, 1).list_instances()


def test_each_token_is_new_and_for_root_only(tmp_path: Path) -> None:
    scaling.write_token(tmp_path)
    path = tmp_path / scaling.TOKEN_FILE
    first = path.read_bytes()
    scaling.write_token(tmp_path)
    assert path.read_bytes() != first
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
