"""`make test-vm`: what no other test runs, since it needs a systemd host with cgroup v2.

A Debian 13 machine under QEMU (no KVM needed) gets this clone and this cache, and does what a user
does there. Each step is printed with its time; results are kept in bench/results. Needs root. No
run takes longer than `--minutes`; QEMU and its disks go with the run, however it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.run import RESULTS
from bench.run import machine as describe_host
from constellation.base import proc
from constellation.base.errors import ConstellationError
from constellation.base.files import lock
from constellation.cli.output import Steps
from constellation.cli.world import LocalSupplies, ensure_artifacts
from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.config.workspace import cache_folder
from constellation.image import packages
from constellation.image.tools import ensure_tools_root
from tests.vm import qemu
from tests.vm.content import make_content
from tests.vm.root import HERE, ensure_root
from tests.vm.steps import MAY_FAIL, STEPS, WITHIN_S
from tests.vm.world import BOOT_S, Failed, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from constellation.base.progress import Report

RESULT = "vm-debian-13.json"
SAY_EVERY_S = 60.0
TELL_S = 180.0
REST_S = 900.0  # for the steps after the one that may fail
_TELL = """
journalctl --boot --no-pager --lines 400
tail -n 200 /var/lib/constellation/*/*.log || true
for pid in $(pgrep -f "^/usr/lib/systemd/systemd constellation.provider=local"); do
  echo "== node $pid"
  nsenter -t $pid -a sh -c 'ps -eo pid,etimes,times,args; journalctl --no-pager --lines 400
    for log in /var/log/pods/*/*/*.log; do echo "= $log"; tail -n 40 $log; done' || true
done
"""


@dataclass(kw_only=True)
class Run:
    """What one run is to do, and what it has found."""

    folder: Path
    names: tuple[str, ...]
    end_s: float
    """When all of it has to have ended, by the monotonic clock."""
    note: Callable[[dict[str, Any]], None]
    """Told after each step: what an interrupted run found stays in the folder."""
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Say whether all was done that may not fail."""
        needed = [name for name in ("boot", *self.names) if name not in MAY_FAIL]
        return all(self.results.get(name, {}).get("ok") for name in needed)

    def end_of(self, name: str) -> float:
        """Give when a step that begins now has to have ended; one that may fail leaves a rest."""
        end_s = self.end_s - (REST_S if name in MAY_FAIL else 0)
        return min(end_s, time.monotonic() + WITHIN_S.get(name, BOOT_S))

    @contextlib.asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Time a step, tell of it while it lasts, and keep its facts or why it failed."""
        began, facts = time.monotonic(), dict[str, Any](ok=False)
        print(f"{name} …", flush=True)
        telling = asyncio.create_task(_tell(name, began))
        try:
            yield facts
            facts["ok"] = True
        except (Failed, qemu.Gone, ConstellationError) as error:
            facts["error"] = str(error)
            if isinstance(error, qemu.Gone):
                raise
        except BaseException as error:
            facts["error"] = f"interrupted ({type(error).__name__})"
            raise
        finally:
            telling.cancel()
            facts["seconds"] = round(time.monotonic() - began, 1)
            self.results[name] = facts
            said = "ok" if facts["ok"] else f"FAILED: {facts['error']}"
            print(f"{name}: {said} in {facts['seconds']} s", flush=True)
            self.note(self.results)


async def _tell(name: str, began: float) -> None:
    while True:
        await asyncio.sleep(SAY_EVERY_S)
        print(f"{name}: for {time.monotonic() - began:.0f} s", flush=True)


async def emulator(folder: Path, report: Report) -> Path:
    """Give the folder with QEMU, unpacked from Debian's packages on first use."""
    names = packages.parse_names((HERE / "qemu.txt").read_text())
    found = await packages.fetch(names, folder=folder / "apt-qemu", step="QEMU", report=report)
    root = folder / f"qemu-{packages.digest(found).hex()[:16]}"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".qemu-") as work:
            unpacked = Path(work) / "root"
            for deb in found.debs:
                await proc.run(
                    "dpkg-deb", "--extract", found.folder / deb.file, unpacked, timeout_s=120
                )
            unpacked.rename(root)
    return root


async def prepare(folder: Path, report: Report, *, processors: int) -> tuple[str, ...]:
    """Have everything that the machine is made of; gives QEMU's command line."""
    cache = cache_folder()
    await ensure_artifacts(DEFAULT_KUBERNETES_VERSION, cache=cache, report=report)
    supplies = LocalSupplies(cache=cache)
    image, bundle, _ = await supplies.built(report=report)
    tools = await ensure_tools_root(cache, report)
    program = await emulator(folder, report)
    root = await ensure_root(folder, tools=tools, clone=HERE.parents[1], report=report)
    for made in (*folder.glob("qemu-*/"), *folder.glob("root-*/")):  # of other recipes
        if made not in (program, root.disk.parent):
            await asyncio.to_thread(shutil.rmtree, made)
    content = await make_content(
        folder,
        cache=cache,
        built=(image.path.parent, bundle.path.parent, tools),
        environment=root.environment,
        tools=tools,
        report=report,
    )
    return qemu.words(
        program, kernel=root.kernel, initrd=root.initrd, disks=(root.disk, content), folder=folder,
        processors=processors,
    )  # fmt: skip


async def test(argv: tuple[str, ...], run: Run) -> None:
    """Boot the machine and go through the steps until one fails that may not."""
    machine: qemu.Machine | None = None
    try:
        async with run.step("boot"):
            machine = await qemu.Machine.start(
                argv, folder=run.folder, deadline_s=run.end_of("boot") - time.monotonic()
            )
        assert machine is not None
        world = World(machine=machine, end_s=run.end_s)
        for name in run.names:
            world.end_s = run.end_of(name)
            async with run.step(name) as facts:
                facts.update(await STEPS[name](world))
            if not run.results[name]["ok"]:
                await _keep_journals(machine, run.folder / f"failed-{name}.log")
                if name not in MAY_FAIL:
                    break
    except qemu.Gone:
        pass  # the step has it
    finally:
        if machine is not None:
            await machine.end()


async def _keep_journals(machine: qemu.Machine, file: Path) -> None:
    done = await machine.run("sh", "-c", _TELL, timeout_s=TELL_S)
    file.write_text(done.text + "\n")
    print(f"what the machine and its nodes said: {file}", flush=True)


def revision() -> str:
    """Name the commit that is tested, with a + if files differ from it."""
    git = ("git", "-C", str(HERE), "-c", f"safe.directory={HERE.parents[1]}")
    said = [
        subprocess.run(
            (*git, *words), check=True, capture_output=True, text=True, timeout=60
        ).stdout.strip()
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    return said[0] + ("+" if said[1] else "")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make test-vm")
    parser.add_argument("--without", action="append", default=[], choices=sorted(MAY_FAIL),
                        help="leave out a step that needs a fast machine")  # fmt: skip
    parser.add_argument("--processors", type=int, choices=(1, 2, 4), default=2,
                        help="emulated processors; each takes one of this machine's")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=150,
                        help="what the machine may run in all")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where disks and logs lie")
    return parser.parse_args()


async def main() -> int:
    """Prepare, run, keep the result."""
    chosen = arguments()
    if os.geteuid() != 0:
        words = ("sudo", "--preserve-env=PYTHONPATH", sys.executable, "-m", "tests.vm.run")
        os.execvp(words[0], [*words, *sys.argv[1:]])  # noqa: S606 - this program, as root
    folder = chosen.folder or cache_folder() / "vm"
    folder.mkdir(parents=True, exist_ok=True)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C does: the machine is ended
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with lock(folder / "run.lock", what="the test machine"), contextlib.ExitStack() as gone:
        gone.callback((folder / "content.ext4").unlink, missing_ok=True)
        for unfinished in folder.glob(".*-*"):  # of a run that was killed
            shutil.rmtree(unfinished)
        host = {"revision": await asyncio.to_thread(revision), **describe_host()}
        with Steps() as steps:
            argv = await prepare(folder, steps.report, processors=chosen.processors)
        about = await proc.run(*argv[: argv.index("-L")], "--version", timeout_s=30)
        host["emulator"] = about.stdout.decode().splitlines()[0]
        host["emulated"] = f"{chosen.processors} processors (TCG), {qemu.MEMORY_MIB} MiB"

        def note(results: dict[str, Any]) -> None:
            kept = {"machine": host, "passed": run.passed, "without": chosen.without,
                    "result": results}  # fmt: skip
            (folder / RESULT).write_text(json.dumps(kept, indent=1) + "\n")

        run = Run(
            folder=folder,
            names=tuple(name for name in STEPS if name not in chosen.without),
            end_s=time.monotonic() + chosen.minutes * 60,
            note=note,
        )
        await test(argv, run)
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / RESULT, RESULTS / RESULT)  # not of an interrupted run
    print("passed" if run.passed else f"FAILED; console: {folder / 'console.log'}")
    return 0 if run.passed else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
