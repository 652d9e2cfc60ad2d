"""`make test-vm`: what no other test runs, since it needs a systemd host with cgroup v2.

A Debian 13 machine under QEMU (no KVM needed) gets this clone and this cache, and does what a user
does there. Each step is printed with its time; results are kept in bench/results. Needs root, and
takes a quarter of an hour on an idle machine of two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.run import RESULTS
from bench.run import machine as describe_host
from constellation.base import proc
from constellation.base.errors import ConstellationError
from constellation.cli.output import Steps
from constellation.cli.world import LocalSupplies, ensure_artifacts
from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.config.workspace import cache_folder
from constellation.image import packages
from constellation.image.tools import ensure_tools_root
from tests.vm import qemu
from tests.vm.content import make_content
from tests.vm.root import HERE, ensure_root
from tests.vm.steps import MAY_FAIL, STEPS, Failed, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.base.progress import Report

    Note = Callable[[dict[str, Any]], None]

BOOT_S = 900.0


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


async def prepare(folder: Path, report: Report) -> tuple[str, ...]:
    """Have everything that the machine is made of; gives QEMU's command line."""
    cache = cache_folder()
    await ensure_artifacts(DEFAULT_KUBERNETES_VERSION, cache=cache, report=report)
    supplies = LocalSupplies(cache=cache)
    await supplies.built(report=report)
    tools = await ensure_tools_root(cache, report)
    program = await emulator(folder, report)
    root = await ensure_root(folder, tools=tools, clone=HERE.parents[1], report=report)
    content = await make_content(
        folder, cache=cache, environment=root.environment, tools=tools, report=report
    )
    return qemu.words(
        program, kernel=root.kernel, initrd=root.initrd, disks=(root.disk, content), folder=folder
    )


async def test(
    argv: tuple[str, ...], folder: Path, *, names: tuple[str, ...], note: Note
) -> dict[str, Any]:
    """Boot the machine and go through the steps until one fails that may not.

    `note` is told after each: what an interrupted run found is kept.
    """
    results: dict[str, Any] = {}
    began = time.monotonic()
    print("boot …", flush=True)
    machine = await qemu.Machine.start(argv, folder=folder, deadline_s=BOOT_S)
    try:
        results["boot"] = {"ok": True, "seconds": round(time.monotonic() - began, 1)}
        print(f"boot: ok in {results['boot']['seconds']} s", flush=True)
        note(results)
        world = World(machine=machine)
        for name in names:
            began = time.monotonic()
            print(f"{name} …", flush=True)
            try:
                facts = await STEPS[name](world)
            except (Failed, ConstellationError) as error:
                results[name] = {"ok": False, "error": str(error)}
            else:
                results[name] = {"ok": True, **facts}
            results[name]["seconds"] = round(time.monotonic() - began, 1)
            said = "ok" if results[name]["ok"] else f"FAILED: {results[name]['error']}"
            print(f"{name}: {said} in {results[name]['seconds']} s", flush=True)
            note(results)
            if not results[name]["ok"] and name not in MAY_FAIL:
                break
    finally:
        await machine.end()
    return results


async def main() -> int:
    """Prepare, run, keep the result."""
    parser = argparse.ArgumentParser(prog="make test-vm")
    parser.add_argument("--without", action="append", default=[], choices=sorted(MAY_FAIL),
                        help="leave out a step that needs a fast machine")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where disks and logs lie")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        words = ("sudo", "--preserve-env=PYTHONPATH", sys.executable, "-m", "tests.vm.run")
        os.execvp(words[0], [*words, *sys.argv[1:]])  # noqa: S606 - this program, as root
    folder = chosen.folder or cache_folder() / "vm"
    folder.mkdir(parents=True, exist_ok=True)
    host = describe_host()
    with Steps() as steps:
        argv = await prepare(folder, steps.report)
    version = await proc.run(argv[0], *argv[1 : argv.index("-L")], "--version", timeout_s=30)
    names = tuple(name for name in STEPS if name not in chosen.without)
    needed = [name for name in ("boot", *names) if name not in MAY_FAIL]
    host["emulator"] = version.stdout.decode().splitlines()[0]
    host["emulated"] = f"{qemu.PROCESSORS} processors (TCG), {qemu.MEMORY_MIB} MiB"

    def passes(results: dict[str, Any]) -> bool:
        return all(results.get(name, {}).get("ok") for name in needed)

    def note(results: dict[str, Any]) -> None:
        kept = {"machine": host, "passed": passes(results), "result": results}
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "vm-debian-13.json").write_text(json.dumps(kept, indent=1) + "\n")

    passed = passes(await test(argv, folder, names=names, note=note))
    print("passed" if passed else f"FAILED; console: {folder / 'console.log'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
