"""The cloud of one cluster: what exists, what is wanted, and how one becomes the other.

One list of steps makes it (`Cloud.start`), each idempotent; `sweep` undoes them all, also without
this program's memory. Everything that changes the cloud holds `_busy`; the record is written after
each change, so that the next daemon goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import Conflict, ConstellationError, UserError
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.providers.local.daemon import (
    address,
    authority,
    balancer,
    cgroups,
    dns,
    image_store,
    images,
    kernel,
    layout,
    machine,
    metadata_server,
    network,
    pull_through,
    records,
    registry,
    scaling,
)

if TYPE_CHECKING:
    from aiohttp import web

    from constellation.base.progress import Report
    from constellation.providers.protocols import Desired

__all__ = ["Cloud"]

_log = logging.getLogger(__name__)
_WATCH_S = 0.5
_LOG_MAX_BYTES = 16 * 1024 * 1024
_LOG_KEPT_BYTES = 1024 * 1024
_ABREAST = 4  # nodes that boot at the same time


class Cloud:
    """A running local cloud. `record` is what is true now; nobody else writes it."""

    def __init__(self, where: layout.Layout, *, tools_root: Path) -> None:
        self.layout = where
        self.record = records.CloudRecord(id=where.id, address="")
        self.ca_der = b""
        self.store = image_store.ImageStore(where.state / "registry")
        self._cgroups = cgroups.Cgroups.find(where.name)
        self._images = images.Images()
        self._tools_root = tools_root
        self._busy = asyncio.Lock()
        self._starting: set[str] = set()
        self._runners: list[web.AppRunner] = []
        self._resolver: dns.Resolver | None = None
        self._host: machine.Host | None = None

    async def start(self) -> None:
        """Make or adopt the cloud, short of its nodes. Every step may be repeated."""
        self._cgroups.ensure("services")
        await network.ensure_bridge(self.layout)
        ca = authority.ensure(self.layout.state)
        self.ca_der = ca.certificate_der
        self._host = machine.Host(
            layout=self.layout,
            cgroups=self._cgroups,
            tools_root=self._tools_root,
            images=self._images,
            certify=ca.certify,
        )
        known = address.load(self.layout.state_file)
        self.record = known or replace(
            self.record, address=address.choose(address.taken(layout.STATE_ROOT))
        )
        self._save()
        await self._serve()
        await self._balance()

    async def _serve(self) -> None:
        """Answer on 169.254.169.254: metadata, names, images."""
        netns = self.layout.netns()
        metadata = metadata_server.application(lambda: self.record, self.state)
        scaling.add_routes(
            metadata,
            cloud=lambda: self.record,
            describe=lambda node: metadata_server.instance(node, self.state(node)),
            token=self._token,
            scales=self,
        )
        self._runners.append(await metadata_server.serve(metadata, netns))
        self._resolver = await dns.serve(lambda: self.record, netns)
        await asyncio.to_thread(self.store.open)
        upstream = pull_through.PullThrough(self.store, where=pull_through.origin)
        app = registry.application(lambda: self.record, self.store, upstream)
        self._runners.append(await registry.serve(app, netns))

    async def stop(self) -> None:
        """End what lives in this process; nodes go on."""
        for runner in self._runners:
            await runner.cleanup()
        if self._resolver is not None:
            await self._resolver.close()
        self._images.close()

    def state(self, node: records.NodeRecord) -> str:
        """Give a node's state: "starting", "running", "off" or "crashed"."""
        if node.instance_id in self._starting:
            return "starting"
        if kernel.alive(node.init.pid, node.init.started):
            return "running"
        return "crashed" if node.wanted_on and node.keeper.pid else "off"

    async def apply(self, desired: Desired, *, offline: bool, report: Report) -> None:
        """Bring the groups to their sizes and every wanted node to life.

        `offline`: the image registry asks no other one.

        Raises:
            UserError, Conflict, Unavailable: what could not be done; the rest was.
        """
        async with self._busy:
            lacking = records.missing(self.record, desired.groups)
            surplus = records.surplus(self.record, desired.groups)
            self.record = replace(
                self.record,
                image_path=desired.image_path,
                node_document=desired.node_document,
                artifacts_path=desired.artifacts_path,
                disk_bytes=desired.state_disk_bytes,
                offline=offline,
                api_ca=desired.api_ca or self.record.api_ca,
                groups=desired.groups,
            )
            for group in lacking:
                for _ in range(group.size):
                    self.record, _node = records.with_node(self.record, group)
            self._save()
            for node in surplus:
                await self._delete(node, report)
            await self._balance()
            await self._power_on_all(report)

    async def power(self, instance_id: str, action: str, *, image_path: str = "") -> None:
        """Switch a node: "on", "off", "cycle", "kill" (off without a word to the node).

        With another image for this power-on if named.
        """
        if action not in ("on", "off", "cycle", "kill"):
            raise UserError(f"{action[:20]!r} is no power action", hint="on, off, cycle, kill")
        async with self._busy:
            node = self.record.node(instance_id)
            if action != "on":
                node = await self._off(node, graceful=action != "kill")
            if action in ("on", "cycle"):
                own = node.image_path or self.record.image_path
                await self._on(node, image_path or own)
                # another image is for this power-on only
                self.record = self.record.put(
                    replace(self.record.node(instance_id), image_path=own)
                )
                self._save()

    async def create(self, group: str) -> records.NodeRecord:
        """Add one node to a group and boot it.

        Raises:
            Conflict: there is no such group, or no number is left for a node.
            ConstellationError: it did not boot; it has been removed again.
        """
        async with self._busy:
            known = next((g for g in self.record.groups if g.name == group), None)
            if known is None:
                raise Conflict(f"there is no group {group[:40]!r} in {self.record.id}")
            self.record, node = records.with_node(replace(self.record, scaled=True), known)
            self._save()
            try:
                await self._balance()
                await self._on(node, self._image())
            except BaseException:
                await self._delete(node, lambda _: None)
                raise
            return self.record.node(node.instance_id)

    async def delete(self, instance_id: str) -> None:
        """Remove a node, first from the load balancer; one that is not there is no error."""
        async with self._busy:
            for node in self.record.nodes:
                if node.instance_id == instance_id:
                    await self._delete(node, lambda _: None)

    async def scale_in(self, instance_id: str) -> None:
        """Remove a node as control planes do, who have drained it: off at once, not asked to end.

        One that is not there is no error.
        """
        async with self._busy:
            self.record = replace(self.record, scaled=True)
            for node in self.record.nodes:
                if node.instance_id == instance_id:
                    await self._delete(node, lambda _: None, graceful=False)

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a node's console, 1 MiB at most."""
        path = self.layout.node_state(self.record.node(instance_id).instance_id) / "console.log"
        return await asyncio.to_thread(_tail, path, _LOG_KEPT_BYTES)

    async def watch(self) -> None:
        """For ever: restart what rebooted itself, note what ended, bound consoles and log."""
        while True:
            await asyncio.sleep(_WATCH_S)
            async with self._busy:
                for node in self.record.nodes:
                    await self._look_after(node)
                await asyncio.to_thread(_bound, self.layout.balancer_log)
                haproxy = self.record.haproxy
                if not kernel.alive(haproxy.pid, haproxy.started):
                    with contextlib.suppress(ConstellationError):
                        await self._balance()

    async def _look_after(self, node: records.NodeRecord) -> None:
        console = self.layout.node_state(node.instance_id) / "console.log"
        await asyncio.to_thread(_bound, console)
        gone = node.keeper.pid and not kernel.alive(node.keeper.pid, node.keeper.started)
        if not node.wanted_on or not gone:
            return
        code = machine.exit_code(self.layout, node.instance_id)
        if code == machine.REBOOT:
            _log.info("a node rebooted itself", extra={"node": node.instance_id})
            node = await self._off(node, graceful=False)
            try:
                await self._on(node, node.image_path)
            except ConstellationError:
                _log.exception("a node did not come back", extra={"node": node.instance_id})
        elif code == 0:
            _log.info("a node switched itself off", extra={"node": node.instance_id})
            await self._off(node, graceful=False)

    async def _power_on_all(self, report: Report) -> None:
        abreast = asyncio.Semaphore(_ABREAST)

        async def one(node: records.NodeRecord) -> None:
            async with abreast:
                step = f"node {node.instance_id}"
                report(Progress(step=step, detail="power on"))
                await self._on(
                    await self._off(node, graceful=False), node.image_path or self._image()
                )
                report(Progress(step=step, detail=node.address, finished=True))

        dead = [n for n in self.record.nodes if self.state(n) != "running"]
        results = await asyncio.gather(*(one(n) for n in dead), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _on(self, node: records.NodeRecord, image_path: str) -> None:
        if self.state(node) == "running":
            return
        assert self._host is not None  # noqa: S101 - start() comes first
        self._starting.add(node.instance_id)
        try:
            artifacts = _existing(
                Path(self.record.artifacts_path or "/nowhere"),
                self.layout.host_folder(node.instance_id) / "artifacts",
            )
            node = await machine.power_on(
                self._host,
                node,
                image=Path(image_path),
                artifacts=artifacts,
                disk_bytes=self.record.disk_bytes,
            )
            self.record = self.record.put(node)
            self._save()
        finally:
            self._starting.discard(node.instance_id)

    async def _off(self, node: records.NodeRecord, *, graceful: bool) -> records.NodeRecord:
        assert self._host is not None  # noqa: S101 - start() comes first
        # written first: the watcher of the next daemon must not start it again
        self.record = self.record.put(replace(node, wanted_on=False))
        self._save()
        node = await machine.power_off(
            self._host, replace(node, wanted_on=False), graceful=graceful
        )
        self.record = self.record.put(node)
        self._save()
        return node

    async def _delete(
        self, node: records.NodeRecord, report: Report, *, graceful: bool = True
    ) -> None:
        assert self._host is not None  # noqa: S101 - start() comes first
        step = f"node {node.instance_id}"
        report(Progress(step=step, detail="remove"))
        await self._balance(without=node.instance_id)
        node = await self._off(node, graceful=graceful)
        await machine.remove(self._host, node)
        self.record = records.without_node(self.record, node.instance_id)
        self._save()
        report(Progress(step=step, detail="removed", finished=True))

    async def _balance(self, *, without: str = "") -> None:
        shown = records.without_node(self.record, without)
        haproxy = await balancer.reload(
            self.layout, shown, cgroups=self._cgroups, tools_root=self._tools_root
        )
        self.record = replace(self.record, haproxy=haproxy)
        self._save()

    def _token(self, instance_id: str) -> bytes:
        try:
            return (self.layout.host_folder(instance_id) / scaling.TOKEN_FILE).read_bytes()
        except OSError:
            return b""

    def _image(self) -> str:
        return self.record.image_path

    def _save(self) -> None:
        write_atomic(self.layout.state_file, decode.dump(self.record), mode=0o600)


def _existing(folder: Path, otherwise: Path) -> Path:
    return folder if (folder / "sha256").is_dir() else otherwise


def _tail(path: Path, size_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size_bytes))
            return file.read(size_bytes)
    except FileNotFoundError:
        return b""


def _bound(log: Path) -> None:
    """Keep the end of a log or console in a second file, start it anew; its writer appends."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_MAX_BYTES:
            write_atomic(log.with_suffix(".old"), _tail(log, _LOG_KEPT_BYTES))
            os.truncate(log, 0)
