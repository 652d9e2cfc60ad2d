"""`python -m constellation.providers.local.daemon.main`: wiring of the local cloud's daemon.

Runs as root. It detaches from its caller, takes the cloud's lock, enters the cloud's mount
namespace (a living one of an earlier daemon, else a new one), and serves until Destroy or SIGTERM.
Nodes outlive it. `--destroy` removes a cloud without a daemon; `--preflight` checks the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.atls.grpc_bounds import MAX_MESSAGE_BYTES, LocalServer
from constellation.base import logs
from constellation.base.errors import Conflict, ConstellationError, UserError
from constellation.base.files import lock, write_atomic
from constellation.base.progress import silent
from constellation.base.told import tell
from constellation.providers.local import preflight
from constellation.providers.local.daemon import home, launch
from constellation.providers.local.daemon.cloud import Cloud
from constellation.providers.local.daemon.layout import Layout
from constellation.providers.local.daemon.service import LocalCloud
from constellation.providers.local.daemon.sweep import sweep

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.providers.local.daemon.cgroups import Cgroups

__all__ = ["main"]

_log = logging.getLogger(__name__)


def main() -> None:
    """Do what the arguments say; errors go to standard error, with their exit code."""
    arguments = _arguments()
    try:
        if arguments.preflight:
            sys.stdout.write(json.dumps(preflight.as_json(preflight.run())) + "\n")
            return
        where = Layout.of(arguments.id)
        if os.geteuid() != 0:
            raise UserError("the local cloud's daemon needs root", hint="start it through sudo")
        if arguments.destroy:
            _destroy(where, keep_disks=arguments.keep_disks)
            return
        if not arguments.foreground:
            if arguments.workspace is not None:
                write_atomic(where.workspace, os.fsencode(arguments.workspace))
            launch.detached(where, sys.argv[1:])
            return
        _serve(where, arguments)
    except ConstellationError as error:
        sys.stderr.write(tell(error))
        sys.exit(error.exit_code)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="constellation-local-daemon")
    parser.add_argument("--id", default="", help="name of the cloud")
    parser.add_argument("--tools-root", type=Path, help="folder with swtpm, haproxy, nspawn")
    parser.add_argument("--uid", type=int, default=0, help="user who may use the socket")
    parser.add_argument("--workspace", type=Path, help="the user's folder; removals look for it")
    parser.add_argument("--foreground", action="store_true", help="stay attached (for units)")
    parser.add_argument("--destroy", action="store_true", help="remove the cloud, then end")
    parser.add_argument("--keep-disks", action="store_true", help="with --destroy: keep the state")
    parser.add_argument("--preflight", action="store_true", help="print as JSON what is missing")
    return parser.parse_args()


def _serve(where: Layout, arguments: argparse.Namespace) -> None:
    if arguments.tools_root is None:
        raise UserError("--tools-root is missing", where="--tools-root")
    logs.set_up("local-daemon")
    where.state.mkdir(parents=True, exist_ok=True, mode=0o755)
    with lock(where.lock, what=f"local cloud {where.id}"):
        groups = home.settle(where)
        try:
            asyncio.run(_run(where, groups, arguments))
        except ConstellationError as error:
            _log.error("the daemon could not start", extra={"reason": str(error)})
            raise


async def _run(where: Layout, groups: Cgroups, arguments: argparse.Namespace) -> None:
    cloud = Cloud(where, tools_root=arguments.tools_root)
    await cloud.start()
    ended = asyncio.Event()
    watcher = asyncio.create_task(cloud.watch())

    async def destroy(keep_disks: bool, report: Report) -> None:
        watcher.cancel()
        inits = tuple(n.init.pid for n in cloud.record.nodes if cloud.state(n) == "running")
        await cloud.stop()
        await sweep(where, groups, keep_disks=keep_disks, inits=inits, report=report)
        groups.leave()
        await groups.remove()
        ended.set()

    server = LocalServer([LocalCloud(cloud, destroy)], max_message_bytes=MAX_MESSAGE_BYTES)
    where.socket.unlink(missing_ok=True)
    # mode 0600 from the first moment on: who may use it is root on this machine, so it is one user
    # and no group, which may have members that nobody asked
    old_mask = os.umask(0o177)
    try:
        await server.start(path=str(where.socket))
    finally:
        os.umask(old_mask)
    os.chown(where.socket, arguments.uid, 0)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    _log.info("the local cloud is served", extra={"id": where.id, "address": cloud.record.address})
    await ended.wait()
    await asyncio.sleep(0.2)  # the last answer leaves
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            await server.wait_closed()
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    await cloud.stop()


def _destroy(where: Layout, *, keep_disks: bool) -> None:
    """Remove a cloud whose daemon may be dead, hung or alive."""
    groups = home.settle(where, adopt_only=True)
    inits = home.inits(groups)

    async def work() -> None:
        await sweep(where, groups, keep_disks=keep_disks, inits=inits, report=silent)
        await groups.remove()

    asyncio.run(work())
    if groups.processes():
        raise Conflict(f"processes of {where.name} are still there: {groups.processes()[:5]}")


if __name__ == "__main__":
    main()
