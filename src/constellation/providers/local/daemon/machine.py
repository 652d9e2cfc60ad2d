"""Switching one node on and off: the firmware's part, then systemd-nspawn, then its undoing.

Power on, in order (each step may be repeated; `power_off` undoes them all):
 1. folders
 2. TPM: a fresh swtpm; on the first power-on it is manufactured and started once more
 3. image: hashed, attached read-only, mounted
 4. measurements of that image and of the command line into the TPM, with the event log
 5. state disk: a sparse file on a loop device, never looked into
 6. network: namespace and link
 7. cgroup, with the devices that the node may touch
 8. systemd-nspawn; its init's pid; what only can be done inside
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.base.tools_root import command
from constellation.providers.local.daemon import (
    cgroups,
    home,
    images,
    inotify,
    kernel,
    loops,
    network,
    nspawn,
    scaling,
    spawn,
    tpms,
    tunables,
)
from constellation.providers.local.daemon.records import NodeRecord, Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.providers.local.daemon.layout import Layout

__all__ = ["REBOOT", "Host", "exit_code", "power_off", "power_on", "remove"]

REBOOT = 133
"""nspawn's exit code when the node rebooted itself (EXIT_FORCE_RESTART with --keep-unit)."""

_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), SIGNALS: poweroff.target
_OFF_DEADLINE_S = 8.0
_INIT_DEADLINE_S = 30.0
_SYSTEMD = "/systemd/systemd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What every node of this cloud needs of the machine."""

    layout: Layout
    cgroups: cgroups.Cgroups
    tools_root: Path
    images: images.Images
    certify: Callable[[bytes], bytes]


async def power_on(
    host: Host, node: NodeRecord, *, image: Path, artifacts: Path, disk_bytes: int
) -> NodeRecord:
    """Boot a node that is off; gives its record with the processes that now run.

    Raises:
        Unavailable: a step failed; what was started has been stopped again.
    """
    try:
        return await _power_on(host, node, image, artifacts, disk_bytes)
    except BaseException:
        await power_off(host, node, graceful=False)
        raise


async def _power_on(
    host: Host, node: NodeRecord, image: Path, artifacts: Path, disk_bytes: int
) -> NodeRecord:
    layout, name = host.layout, node.instance_id
    inotify.raise_limit()
    layout.node_state(name).mkdir(parents=True, exist_ok=True)
    folder = layout.host_folder(name)
    scaling.write_token(folder)
    tunables.write(folder)
    (folder / "artifacts" / "sha256").mkdir(parents=True, exist_ok=True)
    swtpm = await _tpm(host, name)
    if not node.manufactured:
        await tpms.manufacture(layout, name, host.certify)
        spawn.end(swtpm)
        swtpm = await _tpm(host, name)
    opened = await host.images.get(image)
    root = layout.node_run(name) / "root"
    opened.mount(root)
    await host.images.mount_artifacts(artifacts, folder / "mounted")
    init = nspawn.command_line(host.cgroups.version)
    await tpms.measure(
        layout,
        name,
        image_digest=opened.digest,
        command_line=init,
        os_release=images.os_release(root),
    )
    disk = await _state_disk(layout, name, disk_bytes)
    try:
        await network.ensure_node(layout, name, node.index, node.address)
        for part in (_keeper_part(name), name):
            host.cgroups.ensure(part)
        own = f"b {disk.major}:{disk.minor} rwm"
        host.cgroups.restrict_devices(name, (*cgroups.NODE_DEVICES, own))
        keeper = _start(host, name, artifacts=artifacts, init=init, disk=disk)
    finally:
        disk.close()
    process = await _init(keeper, layout.node_state(name) / "console.log")
    # read out here: the node's own /proc does not know our threads
    mounts = await asyncio.to_thread(Path(f"/proc/{process.pid}/mountinfo").read_text)
    await kernel.inside(lambda: _open_up(mounts), mnt=Path(f"/proc/{process.pid}/ns/mnt"))
    return replace(
        node,
        manufactured=True,
        wanted_on=True,
        image_path=str(image),
        image_digest=opened.digest.hex(),
        keeper=keeper,
        init=process,
        swtpm=swtpm,
    )


def _start(host: Host, name: str, *, artifacts: Path, init: str, disk: loops.LoopDevice) -> Process:
    layout = host.layout
    arguments = nspawn.arguments(
        root=layout.node_run(name) / "root",
        instance_id=name,
        netns=layout.netns(name),
        host=layout.host_folder(name),
        artifacts=artifacts,
        init=init,
    )
    return spawn.start(
        (*command(host.tools_root, "systemd-nspawn"), *arguments),
        cgroups=host.cgroups,
        part=name,
        log=layout.node_state(name) / "console.log",
        exit_file=_exit_file(layout, name),
        keeper_part=_keeper_part(name),
        env=nspawn.environment(),
        # the node may not have mounted its disk when this daemon ends
        keep=(disk.handle,),
    )


async def power_off(host: Host, node: NodeRecord, *, graceful: bool) -> NodeRecord:
    """Switch a node off, and take away what its next power-on makes anew; off is no error."""
    layout, name = host.layout, node.instance_id
    if graceful and kernel.alive(node.init.pid, node.init.started):
        spawn.end(node.init, signal_number=_POWER_OFF)
        await kernel.until(
            lambda: not kernel.alive(node.keeper.pid, node.keeper.started),
            deadline_s=_OFF_DEADLINE_S,
        )
    for part in (name, _keeper_part(name), _tpm_part(name)):
        await host.cgroups.kill(part, deadline_s=10)
        await host.cgroups.remove(part)
    kernel.umount(layout.node_run(name) / "root")
    for folder in ("unix-export", "propagate"):
        kernel.umount(home.NSPAWN / folder / name)
        shutil.rmtree(home.NSPAWN / folder / name, ignore_errors=True)
    images.unmount_artifacts(layout.host_folder(name) / "mounted")
    _exit_file(layout, name).unlink(missing_ok=True)
    return replace(node, keeper=Process(), init=Process(), swtpm=Process())


async def remove(host: Host, node: NodeRecord) -> None:
    """Remove a node that is off: its network, disk, TPM and folders."""
    layout, name = host.layout, node.instance_id
    await network.remove_node(layout, name)
    await asyncio.to_thread(shutil.rmtree, layout.node_run(name), ignore_errors=True)
    await asyncio.to_thread(shutil.rmtree, layout.node_state(name), ignore_errors=True)


def exit_code(layout: Layout, instance_id: str) -> int | None:
    """Give how nspawn ended last; None where it was killed or never ran."""
    try:
        return int(_exit_file(layout, instance_id).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _exit_file(layout: Layout, instance_id: str) -> Path:
    return layout.node_run(instance_id) / "exit"


def _tpm_part(name: str) -> str:
    return f"{name}.tpm"


def _keeper_part(name: str) -> str:
    return f"{name}.keeper"


async def _tpm(host: Host, name: str) -> Process:
    part = _tpm_part(name)
    await host.cgroups.kill(part, deadline_s=10)
    host.cgroups.ensure(part)
    return await tpms.power_on(
        host.layout, name, part=part, cgroups=host.cgroups, tools_root=host.tools_root
    )


async def _state_disk(layout: Layout, name: str, size_bytes: int) -> loops.LoopDevice:
    path = layout.node_state(name) / "state-disk"
    # two devices on one file would be two caches of one file system
    if not await kernel.until(
        lambda: not loops.backing_devices(layout.node_state(name)), deadline_s=_OFF_DEADLINE_S
    ):
        raise Unavailable(f"the last power-on of {name} still has its disk")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size < size_bytes:
            os.ftruncate(file, size_bytes)
        device = loops.attach(file, name=name, read_only=False)
    finally:
        os.close(file)
    text = f"{device.major}:{device.minor}\n".encode()
    write_atomic(layout.host_folder(name) / "state-disk", text, mode=0o444)
    return device


async def _init(keeper: Process, console: Path) -> Process:
    def ready() -> bool:
        return bool(_init_of(keeper)) or not kernel.alive(keeper.pid, keeper.started)

    await kernel.until(ready, deadline_s=_INIT_DEADLINE_S)
    if pid := _init_of(keeper):
        return Process(pid=pid, started=kernel.start_time(pid))
    words = (await asyncio.to_thread(console.read_bytes))[-1000:].decode(errors="replace").strip()
    raise Unavailable(f"systemd-nspawn started no init: {words}")


def _init_of(keeper: Process) -> int:
    return next((pid for pid in _descendants(keeper.pid) if _is_init(pid)), 0)


def _descendants(pid: int) -> tuple[int, ...]:
    found: list[int] = []
    todo = [pid]
    while todo:
        with contextlib.suppress(OSError):
            current = todo.pop()
            children = Path(f"/proc/{current}/task/{current}/children").read_text().split()
            found += map(int, children)
            todo += map(int, children)
    return tuple(found)


def _is_init(pid: int) -> bool:
    """Say whether this is pid 1 of its own namespace and has become systemd."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        program = str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return False
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return len(numbers) > 1 and numbers[-1] == "1" and program.endswith(_SYSTEMD)


def _open_up(mounts: str) -> None:
    """In the node's mount namespace: what its containerd and kubelet need to find there."""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        target = left.split(" ")[4]
        if right.startswith("cgroup") and target.startswith("/sys/fs/cgroup"):
            # without MS_BIND the whole file system would be remounted: busy
            kernel.mount("none", Path(target), flags=kernel.MS_REMOUNT | kernel.MS_BIND)
    tunables.show()
    kernel.mount("none", Path("/"), flags=kernel.MS_SHARED | kernel.MS_REC)
