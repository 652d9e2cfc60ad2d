"""The local cloud alone: nodes of the real image boot, are measured, survive, and leave nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from constellation.attestation.model import Binding, Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import Unavailable
from constellation.base.progress import silent
from constellation.crypto.signing import generate_key, spki
from constellation.image import build, tools
from constellation.image.measure import local as predicted
from constellation.providers.local.daemon import address, kernel, loops, scaling, tunables
from constellation.providers.local.daemon.layout import Layout
from constellation.providers.local.infrastructure import (
    LocalInfrastructure,
    daemon_command,
    destroy_command,
    preflight_command,
)
from constellation.providers.local.metadata import LocalMetadata
from constellation.providers.local.node_groups import LocalNodeGroups
from constellation.providers.protocols import Desired, Group, Role
from constellation.releases import oci
from constellation.trust.node_document import NodeDocument, dump_node_document
from tests.cluster.traces import control_groups

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the nodes"),
    pytest.mark.asyncio(loop_scope="module"),
]

ID = "daemontest"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constellation"
SOURCE = str(Path(__file__).resolve().parents[2] / "src")
_KEY = spki(generate_key().public_key())
DOCUMENT = dump_node_document(
    NodeDocument(
        version=1,
        cluster_id=bytes(range(32)),
        owner_public_key=_KEY,
        release_root=_KEY,
        minimum_release="0.1.0",
        variant=Variant.LOCAL_VTPM,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The cloud under test and what the machine looked like before it."""

    infrastructure: LocalInfrastructure
    desired: Desired
    image: build.NodeImage
    tools_root: Path
    before: dict[str, list[str]]
    routes: str


def _run(*argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


_NSPAWNS = ("payload", "supervisor")


def _machine() -> dict[str, list[str]]:
    """Look at everything that a cloud makes: what must be the same afterwards."""
    groups = [
        str(path)
        for path in control_groups()
        # nspawn that is not in our groups makes its own at the root of a tree
        if f"constellation-{ID}" in str(path)
        or (path.parent.parent == Path("/sys/fs/cgroup") and path.name in _NSPAWNS)
    ]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "links": sorted(name for _, name in socket.if_nameindex()),
        "mounts": [line for line in mounts if "/run/netns/" not in line or ID in line],
        "loops": [str(p) for p in loops.backing_devices(Layout.of(ID).state)],
        "groups": sorted(groups),
        "netns": sorted(p.name for p in Path("/run/netns").glob(f"*{ID}*")),
        "folders": sorted(str(p) for p in Path("/").glob(f"*/*/constellation/{ID}"))
        + sorted(str(p) for p in Path("/run/constellation").glob(ID)),
    }


def _routes() -> str:
    """Give every address and route of this machine itself."""
    return Path("/proc/net/fib_trie").read_text()


def _start(tools_root: Path) -> None:
    started = _run(*daemon_command(ID, tools_root=tools_root))
    assert started.returncode == 0, started.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud() -> AsyncIterator[Running]:
    """Make a cloud with 1+1 nodes; removed by its id alone if a test left it."""
    tools_root = await tools.ensure_tools_root(CACHE, silent)
    image = await build.ensure_node_image(CACHE, silent)
    _run(*destroy_command(ID))
    before, routes = _machine(), _routes()
    desired = Desired(
        groups=(
            Group(name="control", role=Role.CONTROL_PLANE, size=1),
            Group(name="workers", role=Role.WORKER, size=1),
        ),
        image_path=str(image.path),
        node_document=DOCUMENT,
        artifacts_path="",
        state_disk_bytes=256 * 1024**2,
    )
    _start(tools_root)
    infrastructure = LocalInfrastructure(ID)
    try:
        await infrastructure.apply(desired, report=silent)
        yield Running(
            infrastructure=infrastructure,
            desired=desired,
            image=image,
            tools_root=tools_root,
            before=before,
            routes=routes,
        )
    finally:
        removed = _run(*destroy_command(ID))
        assert removed.returncode == 0, removed.stderr


async def _pid(cloud: Running, group: str) -> int:
    (node,) = [n for n in await cloud.infrastructure.nodes() if n.group == group]
    assert node.state == "running"
    return int(node.pid)


def _daemon() -> int:
    groups = Path("/sys/fs/cgroup").glob(f"**/constellation-{ID}/daemon/cgroup.procs")
    return int(next(groups).read_text().split()[0])


def _in_node(pid: int, *argv: str) -> subprocess.CompletedProcess[str]:
    return _run("nsenter", "-t", str(pid), "-a", *argv)


def _document() -> bytes:
    """Ask the metadata API for the node document, as a node does."""
    return asyncio.run(LocalMetadata().user_data())


async def _booted(pid: int) -> str:
    state = ""
    for _ in range(300):
        state = _in_node(pid, "systemctl", "is-system-running").stdout.strip()
        if state in ("running", "degraded"):
            break
        await asyncio.sleep(0.1)
    return state


async def test_preflight_finds_this_machine_good() -> None:
    checks = json.loads(_run(*preflight_command()).stdout)
    assert checks["ok"], [c for c in checks["checks"] if c["problem"]]


async def test_both_nodes_boot_and_reach_metadata_and_each_other(cloud: Running) -> None:
    control, worker = await _pid(cloud, "control"), await _pid(cloud, "workers")
    assert await _booted(control) in ("running", "degraded")
    assert await _booted(worker) in ("running", "degraded")

    net = Path(f"/proc/{worker}/ns/net")
    assert await kernel.inside(_document, net=net) == DOCUMENT
    me = await kernel.inside(lambda: asyncio.run(LocalMetadata().self_()), net=net)
    assert me.role is Role.WORKER
    peers = await kernel.inside(lambda: asyncio.run(LocalMetadata().peers()), net=net)
    assert {p.address.rpartition(".")[0] for p in peers} == {"10.42.1", "10.42.2"}
    (other,) = [p for p in peers if p.role is Role.CONTROL_PLANE]

    def listen() -> socket.socket:
        return socket.create_server((other.address, 7000))

    with await kernel.inside(listen, net=Path(f"/proc/{control}/ns/net")):
        connection = await kernel.inside(
            lambda: socket.create_connection((other.address, 7000), timeout=5), net=net
        )
        assert connection.getpeername()[0] == other.address
        connection.close()


@pytest.mark.usefixtures("cloud")
async def test_nobody_but_its_user_can_use_the_daemon() -> None:
    # who talks to the daemon is root: another user with the same group must not
    path = str(Layout.of(ID).socket)
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
    assert _run(sys.executable, "-c", connect).returncode == 0
    same_group = ("setpriv", "--reuid=65534", f"--regid={os.getgid()}", "--clear-groups")
    refused = _run(*same_group, "/usr/bin/env", "python3", "-c", connect)
    assert "PermissionError" in refused.stderr
    assert Path(path).stat().st_mode & 0o777 == 0o600


async def test_a_node_resolves_the_clouds_names_and_no_other(cloud: Running) -> None:
    worker = await _pid(cloud, "workers")
    (control,) = [n for n in await cloud.infrastructure.nodes() if n.group == "control"]
    for name, wanted in (
        ("api.constellation.internal", "10.42.0.1"),
        (control.instance_id, control.address),
        (f"{control.instance_id}.constellation.internal", control.address),
    ):
        assert _in_node(worker, "getent", "ahostsv4", name).stdout.startswith(f"{wanted} ")
    began = asyncio.get_running_loop().time()
    assert _in_node(worker, "getent", "ahostsv4", "example.org").returncode == 2
    # refused at once: a pod must not wait for a server that never answers
    assert asyncio.get_running_loop().time() - began < 3


async def test_a_loaded_image_is_there_for_a_node(cloud: Running, tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(b"#!/hello\n" * 200_000)
    archive = tmp_path / "image.tar"
    oci.write_image(
        archive,
        reference="docker.io/library/hello:1",
        programs={"hello": program},
        links={},
        entrypoint=("/hello",),
        scratch=tmp_path,
    )
    names = await cloud.infrastructure.load_image(archive, report=silent)
    assert names == ("docker.io/library/hello:1",)
    net = Path(f"/proc/{await _pid(cloud, 'workers')}/ns/net")

    def get(path: str) -> bytes:
        # the environment's proxy is for the host, and is not to be had here
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://169.254.169.254:5000/v2/library/hello/{path}?ns=docker.io"
        with opener.open(url, timeout=10) as answer:
            return bytes(answer.read())

    manifest = json.loads(await kernel.inside(lambda: get("manifests/1"), net=net))
    for described in (manifest["config"], *manifest["layers"]):
        data = await kernel.inside(partial(get, f"blobs/{described['digest']}"), net=net)
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == described["digest"]
        assert len(data) == described["size"]


_WEB = """
import asyncio

async def answer(reader, writer):
    await reader.readline()
    if writer.get_extra_info("sockname")[1] == 30124:
        await asyncio.sleep(0.02)
    writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nhello")
    await writer.drain()
    writer.close()

async def main():
    servers = [await asyncio.start_server(answer, "0.0.0.0", port) for port in (10256, 30124)]
    await asyncio.gather(*(server.serve_forever() for server in servers))

asyncio.run(main())
"""
"""A Service of a node, and kube-proxy's word that it may be used."""


class _Clients:
    """Clients of a NodePort, each on fresh connections, many of them at any moment."""

    def __init__(self) -> None:
        record = address.load(Layout.of(ID).state_file)
        assert record is not None
        self._address = record.address
        self.asked, self.failed = 0, list[str]()

    async def ask(self) -> bool:
        self.asked += 1
        try:
            reader, writer = await asyncio.open_connection(self._address, 30124)
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                said = await asyncio.wait_for(reader.read(), 5)
            finally:
                writer.close()
        except (OSError, TimeoutError) as error:
            self.failed.append(repr(error))
            return False
        if not said.endswith(b"hello"):
            self.failed.append(f"closed after {len(said)} bytes")
            return False
        return True

    async def for_ever(self) -> None:
        while True:
            await self.ask()


async def test_no_request_is_lost_while_the_load_balancer_is_given_other_nodes(
    cloud: Running,
) -> None:
    for group in ("control", "workers"):
        pid = await _pid(cloud, group)
        await _booted(pid)
        started = _in_node(pid, "systemd-run", "--unit=web", "/usr/bin/python3", "-Ic", _WEB)
        assert started.returncode == 0, started.stderr
    clients = _Clients()
    assert await _soon(clients.ask)
    clients.failed.clear()
    more = replace(
        cloud.desired,
        groups=(cloud.desired.groups[0], replace(cloud.desired.groups[1], size=2)),
    )
    tasks = [asyncio.create_task(clients.for_ever()) for _ in range(30)]
    for desired in (more, cloud.desired) * 3:
        await cloud.infrastructure.apply(desired, report=silent)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clients.failed == []
    assert clients.asked > 1000


async def _soon(ask: Callable[[], Awaitable[bool]]) -> bool:
    for _ in range(100):
        if await ask():
            return True
        await asyncio.sleep(0.1)
    return False


async def test_a_group_grows_and_shrinks_until_control_planes_scale(cloud: Running) -> None:
    workers = Group(name="workers", role=Role.WORKER, size=2)
    more = Desired(
        groups=(cloud.desired.groups[0], workers),
        image_path=cloud.desired.image_path,
        node_document=DOCUMENT,
        artifacts_path="",
        state_disk_bytes=cloud.desired.state_disk_bytes,
    )
    grown = await cloud.infrastructure.apply(more, report=silent)
    assert [i.state for i in grown.instances] == ["running"] * 3
    shrunk = await cloud.infrastructure.apply(cloud.desired, report=silent)
    assert len(shrunk.instances) == 2


async def test_a_control_plane_scales_a_group_and_a_worker_may_not(cloud: Running) -> None:
    nodes = {n.group: n for n in await cloud.infrastructure.nodes()}

    def groups(of: str) -> LocalNodeGroups:
        token = Layout.of(ID).host_folder(nodes[of].instance_id) / scaling.TOKEN_FILE
        return LocalNodeGroups(token=token)

    ours = Path(f"/proc/{nodes['control'].pid}/ns/net")
    theirs = Path(f"/proc/{nodes['workers'].pid}/ns/net")
    made = await kernel.inside(lambda: asyncio.run(groups("control").create("workers")), net=ours)
    assert (made.role, made.state) == (Role.WORKER, "running")
    for _ in range(2):
        await kernel.inside(
            lambda: asyncio.run(groups("control").delete(made.instance_id)), net=ours
        )
    left = await kernel.inside(lambda: asyncio.run(groups("control").list_instances()), net=ours)
    assert {i.instance_id for i in left} == {n.instance_id for n in nodes.values()}

    def create(token_of: str) -> None:
        asyncio.run(groups(token_of).create("workers"))

    for token_of, where in (("workers", theirs), ("control", theirs), ("workers", ours)):
        with pytest.raises(Unavailable, match="403"):
            await kernel.inside(partial(create, token_of), net=where)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[loops.LoopDevice]:
    """Give a disk of this machine that its root can read: not every machine's own one is."""
    (tmp_path / "disk").write_bytes(b"theirs\n" * 1024)
    with (tmp_path / "disk").open("rb") as file:
        device = loops.attach(file.fileno(), name="theirs", read_only=True)
    try:
        with device.path.open("rb") as opened:
            assert opened.read(6) == b"theirs"
        yield device
    finally:
        device.close()


async def test_a_privileged_container_may_ask_for_all_devices_and_gets_no_more(
    cloud: Running, disk: loops.LoopDevice
) -> None:
    # what runc writes on cgroup v1, below the node's own group
    script = f"""
        group=/sys/fs/cgroup/devices$(sed -n s/.*devices://p /proc/self/cgroup)
        test -d "$group" || exit 0
        echo a >"$group/devices.allow" || exit 1
        mknod /dev/asked b {disk.major} {disk.minor}
        head -c 1 /dev/asked && exit 2
        head -c 1 /dev/zero
    """
    done = _in_node(
        await _pid(cloud, "workers"),
        *("systemd-run", "--wait", "--pipe", "--quiet", "sh", "-c", script),
    )
    assert done.returncode == 0, done.stderr


async def test_the_host_itself_has_no_way_in(cloud: Running) -> None:
    assert all(n.state == "running" for n in await cloud.infrastructure.nodes())
    assert _routes() == cloud.routes


async def test_a_node_cannot_read_the_machines_disks(
    cloud: Running, disk: loops.LoopDevice
) -> None:
    pid = await _pid(cloud, "workers")
    script = f"mknod /dev/theirs b {disk.major} {disk.minor} && head -c 512 /dev/theirs"
    # as a unit: only what systemd starts is in the node's cgroup
    refused = _in_node(pid, "systemd-run", "--wait", "--pipe", "--quiet", "sh", "-c", script)
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr


async def test_a_node_finds_what_kubelet_demands_and_the_machine_keeps_its_own(
    cloud: Running,
) -> None:
    pid = await _pid(cloud, "workers")
    for name, value in tunables.TUNABLES.items():
        path, before = Path("/proc/sys") / name, (Path("/proc/sys") / name).read_text()
        assert _in_node(pid, "cat", str(path)).stdout.strip() == value
        refused = _in_node(pid, "sh", "-c", f"echo 2 >{path}")
        assert "Read-only file system" in refused.stderr
        assert path.read_text() == before


async def test_a_power_cycled_node_has_the_predicted_registers(cloud: Running) -> None:
    infrastructure = cloud.infrastructure
    (node,) = [n for n in await infrastructure.nodes() if n.group == "workers"]
    pid = await _pid(cloud, "workers")
    # the agent has the TPM's only slot
    _in_node(pid, "systemctl", "stop", "constellation-agent.service", "constellation-*.service")
    await infrastructure.power(node.instance_id, "cycle")
    assert await _pid(cloud, "workers") != pid
    pid = await _pid(cloud, "workers")
    await _booted(pid)
    _in_node(pid, "systemctl", "stop", "constellation-*.service")
    async with await Tpm.connect(Layout.of(ID).host_folder(node.instance_id) / "tpm.sock") as tpm:
        values = await tpm.read_pcrs(predicted.REGISTERS)
        quote = await local_vtpm.LocalVtpmAttester(
            tpm, Layout.of(ID).host_folder(node.instance_id) / "binary_bios_measurements"
        ).attest(Binding(bytes(64)))
    for register in predicted.REGISTERS:
        assert values[register] in cloud.image.reference_values[register], f"PCR {register}"
    assert quote.data


async def test_a_killed_daemon_is_replaced_and_the_nodes_never_notice(cloud: Running) -> None:
    control = await _pid(cloud, "control")
    daemon = _daemon()
    os.kill(daemon, signal.SIGKILL)
    assert await kernel.until(lambda: not kernel.start_time(daemon), deadline_s=5)
    assert kernel.start_time(control)
    _start(cloud.tools_root)
    assert await _pid(cloud, "control") == control
    # what it adopted it can also switch, in the mount namespace of its predecessor
    (node,) = [n for n in await cloud.infrastructure.nodes() if n.group == "control"]
    await cloud.infrastructure.power(node.instance_id, "cycle")
    assert await _pid(cloud, "control") != control
    # and both reach it: the one that it switched, and the one that went on
    for group in ("control", "workers"):
        net = Path(f"/proc/{await _pid(cloud, group)}/ns/net")
        assert await kernel.inside(_document, net=net) == DOCUMENT


async def test_a_node_that_reboots_itself_comes_back(cloud: Running) -> None:
    pid = await _pid(cloud, "workers")
    _in_node(pid, "systemctl", "reboot", "--force")

    for _ in range(200):
        (node,) = [n for n in await cloud.infrastructure.nodes() if n.group == "workers"]
        if node.state == "running" and node.pid != pid:
            break
        await asyncio.sleep(0.1)
    assert await _pid(cloud, "workers") != pid


async def test_destroy_leaves_nothing(cloud: Running) -> None:
    await cloud.infrastructure.destroy(report=silent)
    await _nothing_is_left(cloud)


async def test_a_cloud_without_daemon_and_record_is_removed_by_its_id(cloud: Running) -> None:
    _start(cloud.tools_root)
    await cloud.infrastructure.apply(cloud.desired, report=silent)
    os.kill(_daemon(), signal.SIGKILL)
    Layout.of(ID).state_file.unlink()
    assert _run(*destroy_command(ID)).returncode == 0
    await _nothing_is_left(cloud)


async def _nothing_is_left(cloud: Running) -> None:
    def programs() -> list[str]:
        return [x for x in _run("ps", "-eo", "args").stdout.splitlines() if f"/{ID}" in x]

    def clean() -> bool:
        return _machine() == cloud.before and not programs()

    left = _differences(cloud.before, _machine())
    assert await kernel.until(clean, deadline_s=10), (left, programs())


def _differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, set[str]]:
    return {k: set(before[k]) ^ set(after[k]) for k in before if before[k] != after[k]}
