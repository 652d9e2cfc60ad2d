"""`make test-vm-image`: a VM's node image, built twice, booted by firmware, judged by its evidence.

Machines under QEMU (no KVM needed), one after another: the genuine image, whose evidence our
verifier accepts against the values that the build predicted; one with another command line, refused
with the events that differ; one with a changed bit in its root, which does not start. Then one that
is given to a cluster: its state disk is made, opened again after a power cut by its owner alone,
and refused with a header or blocks that somebody changed. Each step has an end; results are kept in
bench/results. Needs root for the image's lowest layer alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.run import RESULTS
from bench.run import machine as describe_host
from constellation.attestation.model import Variant
from constellation.attestation.platforms.qemu_vtpm import QemuVtpmEvidence
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.explain import explain
from constellation.attestation.tpm.structures import Alg
from constellation.base import clock, decode
from constellation.base.errors import ConstellationError, Rejected
from constellation.cli.output import Steps
from constellation.config.providers.baremetal import BaremetalProvider
from constellation.config.workspace import cache_folder
from constellation.disk.superblock import State
from constellation.image import gpt
from constellation.image.flavours import MachineFlavour
from constellation.image.machine import ensure_machine_image
from constellation.image.measure.unified import REGISTERS
from constellation.image.tools import ensure_tools_root, ensure_unpacked
from tests.vm import node_steps, state_disk
from tests.vm.image_vm import (
    DidNotStart,
    Hardware,
    Owner,
    Programs,
    first_host,
    give_tpm,
    make_medium,
    started,
)
from tests.vm.owner_cluster import OwnerCluster
from tests.vm.run import emulator, revision
from tests.vm.world import Failed, equal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.attestation.model import Evidence
    from constellation.base.progress import Report
    from constellation.image.store import NodeImage

FLAVOUR = MachineFlavour(provider="baremetal", variant=Variant.QEMU_VTPM)
OTHER_WORD = "constellation.note=changed"
STATE_DISK = BaremetalProvider(hosts={}, endpoint="10.0.2.15:6443").state_disk  # the usual name
READ_ERROR = "INTEGRITY AEAD ERROR"  # dm-crypt's
KEPT = "evidence-genuine.json"  # tests/vectors/qemu_vtpm_boot.json is one
MAX_EVIDENCE_BYTES = 1024 * 1024
LEFT_OUT = (".", "constellation-")
KEPT_IN = {
    "vm-image.json": ("again", "genuine", "other_line", "changed_bit"),
    "vm-image-disk.json": ("state_disk", "changed_disk"),
    "vm-image-node.json": ("node", "node_again"),
    "vm-image-worker.json": ("worker", "worker_again"),
}
# a worker has to join before its control plane is gone for a while
NAMES = (
    "again", "genuine", "other_line", "changed_bit", "state_disk", "changed_disk",
    "node", "worker", "node_again", "worker_again",
)  # fmt: skip


class ImageRun:
    """What one run needs, and what it has found."""

    def __init__(self, folder: Path, cache: Path, *, within_s: float, processors: int) -> None:
        self.folder, self.cache = folder, cache
        self.within_s, self.hardware = within_s, Hardware(processors=processors)
        self.owner = Owner.new()
        self.results: dict[str, Any] = {}
        self.programs: Programs
        self.image: NodeImage
        self.genuine_log: EventLog
        self.cluster: OwnerCluster

    async def prepare(self, report: Report) -> None:
        """Build the image, have emulator and tools, make a TPM and the owner's medium."""
        began = clock.monotonic_s()
        self.image = await ensure_machine_image(self.cache, FLAVOUR, report)
        machine, _ = await ensure_unpacked(self.cache, "machine", step="tools", report=report)
        self.programs = Programs(
            emulator=await emulator(self.cache / "vm", report),
            tools=await ensure_tools_root(self.cache, report),
            machine=machine,
        )
        await give_tpm(self.folder / "tpm", self.owner, tools=self.programs.tools)
        host = first_host(self.owner, state_disk=STATE_DISK)
        await make_medium(self.folder / "medium.raw", host, machine=machine)
        self.results["image"] = {
            "ok": True,
            "seconds": round(clock.monotonic_s() - began, 1),
            "bytes": self.image.manifest.size_bytes,
            "sha256": self.image.manifest.sha256,
            "reference_values": {
                f"pcr{n}": v[0].hex() for n, v in self.image.reference_values.items()
            },
        }

    async def again(self) -> dict[str, Any]:
        """A second build, which has only the packages of the first, gives the same bytes."""
        other = self.folder / "cache"
        shutil.copytree(
            self.cache / "image", other / "image", symlinks=True, copy_function=os.link,
            ignore=lambda _, names: [n for n in names if n.startswith(LEFT_OUT)],
        )  # fmt: skip
        for name in ("keys", "releases"):
            shutil.copytree(self.cache / name, other / name)
        second = await ensure_machine_image(other, FLAVOUR, lambda _: None)
        equal("another file", second.path.samefile(self.image.path), False)
        equal("SHA-256", second.manifest.sha256, self.image.manifest.sha256)
        equal("values", second.reference_values, self.image.reference_values)
        return {"sha256": second.manifest.sha256}

    async def genuine(self) -> dict[str, Any]:
        """The image boots; its evidence is accepted against what the build predicted."""
        evidence, result, seconds = await self.boot("genuine", self.image)
        self.genuine_log = log_of(evidence)
        kept = {
            "evidence": evidence.data,
            "binding": bytes(self.binding),
            "document": self.owner.document,
            "root": self.owner.root,
            "time": int(clock.now().timestamp()),
            "reference": {n: v[0] for n, v in self.image.reference_values.items()},
        }
        (self.cache / "vm" / KEPT).write_bytes(decode.dump(kept) + b"\n")
        for number in REGISTERS:
            predicted = self.image.reference_values[number]
            equal(f"pcr{number}", result.claims[f"pcr{number}"] in predicted, True)
        return {
            "evidence_after_s": seconds,
            "events": len(self.genuine_log.events),
            "evidence_bytes": len(evidence.data),
            "unchecked": sorted(line.partition(":")[0] for line in result.unchecked),
        }

    async def other_line(self) -> dict[str, Any]:
        """One more word in the command line: refused, and said by which events."""
        other = await ensure_machine_image(self.cache, FLAVOUR, lambda _: None, extra=(OTHER_WORD,))
        try:
            await self.boot("other-line", other, judged_by=self.image)
        except Rejected as error:
            findings, evidence = error.findings, self.seen
        else:
            raise Failed("another command line was accepted")
        equal("refused", {f.partition(":")[0] for f in findings}, {"pcr4", "pcr9", "pcr11"})
        events = {
            f"pcr{number}": explain(
                number, bank=Alg.SHA256, found=log_of(evidence), accepted=(),
                expected=self.genuine_log,
            ).event
            for number in REGISTERS
        }  # fmt: skip
        equal("PCR 4's event", "EV_EFI_BOOT_SERVICES_APPLICATION" in events["pcr4"], True)
        equal("PCR 9's event", "Linux: command line" in events["pcr9"], True)
        return {"findings": list(findings), "events": events}

    async def changed_bit(self) -> dict[str, Any]:
        """One bit of the root is another: the machine ends without having started a program."""
        data = bytearray(await asyncio.to_thread(self.image.path.read_bytes))
        root = next(p for p in gpt.parse_disk(bytes(data)) if p.type == gpt.ROOT_X86_64)
        data[root.start + root.size // 2] ^= 1
        data[root.start + 8] ^= 1
        disk = self.folder / "changed.raw"
        await asyncio.to_thread(disk.write_bytes, data)
        async with started(
            self.programs, disk=disk, medium=self.folder / "medium.raw", tpm=self.folder / "tpm",
            folder=self.folder / "changed-bit", hardware=self.hardware,
        ) as vm:  # fmt: skip
            console = await vm.ended(within_s=self.within_s)
        said = [line for line in console.splitlines() if "verity" in line or "panic" in line]
        equal("dm-verity found it", any("is corrupted" in line for line in said), True)
        equal("systemd began", "systemd[1]" in console, False)
        return {"console": said[-4:]}

    async def state_disk(self) -> dict[str, Any]:
        """`init` makes the disk; it is known after a power cut, and shows nothing in plain."""
        disk, secret = self.folder / "state.raw", self.owner.master.key.reveal()
        async with self.powered("disk-made", disk) as talk:
            done, failed = await talk.init(again=False)
        equal("steps", done, ("state disk",))
        found, _ = await asyncio.to_thread(state_disk.state, disk)
        equal("state", found.state, State.KNOWN)
        words = (secret, base64.b64encode(secret), state_disk.NAME.encode())
        size, plain = await asyncio.to_thread(state_disk.allocated, disk, words)
        equal("in plain on the disk", plain, ())
        return {
            "steps": list(done), "then": failed.message, "uuid": found.uuid.hex(),
            "bytes_on_disk": size,
        }  # fmt: skip

    async def changed_disk(self) -> dict[str, Any]:
        """Headers of others are refused; the genuine one opens with its key, changed blocks not."""
        disk = self.folder / "state.raw"
        _, header = await asyncio.to_thread(state_disk.state, disk)
        changed = state_disk.changed_header(header)
        await asyncio.to_thread(state_disk.overwrite, disk, changed)
        async with self.powered("disk-changed", disk) as talk:
            refused = [await talk.console_says("segments.0.encryption is 'cipher_null-ecb'")]
            foreign = state_disk.foreign_header(header)
            await asyncio.to_thread(state_disk.overwrite, disk, foreign)
            refused.append(await talk.console_says("label is b'photos'"))
            await asyncio.to_thread(state_disk.overwrite, disk, header)
            equal("name", await talk.recover(), "")
            done, failed = await talk.init(again=True)
            # once the disk was open: what is said about changed blocks is said of no others
            errors = [line for line in talk.vm.console().splitlines() if READ_ERROR in line]
        equal("steps again", done, ("state disk",))
        equal("read errors of a good disk", errors, [])
        blocks = await asyncio.to_thread(state_disk.damage, disk)
        async with self.powered("disk-damaged", disk) as talk:
            try:
                await talk.recover()
            except ConstellationError as error:
                damaged = str(error)
            else:
                raise Failed("a disk with changed blocks was opened")
            said = await talk.console_says(READ_ERROR)
        return {
            "refused": refused, "opened_again": list(done), "then": failed.message,
            "damaged_blocks": blocks, "damaged": damaged, "kernel": said,
        }  # fmt: skip

    async def make_cluster(
        self, stack: contextlib.AsyncExitStack, *, workers: int, report: Report
    ) -> None:
        """Have a cluster's hosts wait to be powered on; all of it ends with `stack`."""
        self.cluster = OwnerCluster(
            folder=self.folder / "cluster", cache=self.cache, programs=self.programs,
            owner=self.owner, image=self.image, processors=self.hardware.processors,
            workers=workers, stack=stack,
        )  # fmt: skip
        await self.cluster.create(FLAVOUR, report=report)

    async def node(self) -> dict[str, Any]:
        """See `node_steps.first`."""
        return await node_steps.first(self.cluster)

    async def worker(self) -> dict[str, Any]:
        """See `node_steps.worker`."""
        return await node_steps.worker(self.cluster)

    async def node_again(self) -> dict[str, Any]:
        """See `node_steps.again`."""
        return await node_steps.again(self.cluster)

    async def worker_again(self) -> dict[str, Any]:
        """See `node_steps.worker_again`."""
        return await node_steps.worker_again(self.cluster)

    @contextlib.asynccontextmanager
    async def powered(self, name: str, disk: Path) -> AsyncIterator[state_disk.Talk]:
        """Power the genuine image on with a state disk; its power is cut at the end."""
        async with started(
            self.programs, disk=self.image.path, medium=self.folder / "medium.raw",
            tpm=self.folder / "tpm", folder=self.folder / name, hardware=self.hardware,
            state=disk,
        ) as vm:  # fmt: skip
            yield state_disk.Talk(
                vm=vm, owner=self.owner, reference=self.image.reference_values,
                within_s=self.within_s,
            )  # fmt: skip

    async def boot(
        self, name: str, image: NodeImage, *, judged_by: NodeImage | None = None
    ) -> tuple[Evidence, Any, float]:
        """Boot an image, take evidence from port 9000, judge it; keeps the console."""
        began = clock.monotonic_s()
        async with started(
            self.programs, disk=image.path, medium=self.folder / "medium.raw",
            tpm=self.folder / "tpm", folder=self.folder / name, hardware=self.hardware,
        ) as vm:  # fmt: skip
            self.seen, self.binding = await vm.evidence(within_s=self.within_s)
        seconds = round(clock.monotonic_s() - began, 1)
        values = (judged_by or image).reference_values
        return self.seen, self.owner.appraise(self.seen, self.binding, values), seconds

    async def step(self, name: str) -> bool:
        """Run a step, keep its facts or why it failed."""
        began, facts = clock.monotonic_s(), dict[str, Any](ok=False)
        print(f"{name} …", flush=True)
        try:
            facts.update(await getattr(self, name)())
            facts["ok"] = True
        except (Failed, DidNotStart, ConstellationError) as error:
            facts["error"] = str(error)
        facts["seconds"] = round(clock.monotonic_s() - began, 1)
        self.results[name] = facts
        said = "ok" if facts["ok"] else f"FAILED: {facts['error']}"
        print(f"{name}: {said} in {facts['seconds']} s", flush=True)
        return bool(facts["ok"])


def log_of(evidence: Evidence) -> EventLog:
    """Give the event log in a node's evidence."""
    document = decode.load(
        QemuVtpmEvidence, evidence.data, what="evidence", max_bytes=MAX_EVIDENCE_BYTES
    )
    return EventLog.parse(document.tpm.event_log)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make test-vm-image")
    parser.add_argument("--processors", type=int, choices=(1, 2, 4), default=2,
                        help="emulated processors; each takes one of this machine's")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10, help="what one machine may take")
    parser.add_argument("--only", action="append", default=[], choices=NAMES, help="some steps")
    return parser.parse_args()


async def main() -> int:
    """Prepare, run, keep the result."""
    chosen, cache = arguments(), cache_folder()
    (cache / "vm").mkdir(parents=True, exist_ok=True)
    names = tuple(name for name in NAMES if not chosen.only or name in chosen.only)
    if any(name in names for name in NAMES[NAMES.index("node") + 1 :]) and "node" not in names:
        sys.exit("--only: what comes after node needs it")
    with tempfile.TemporaryDirectory(dir=cache / "vm", prefix="image-") as name:
        run = ImageRun(
            Path(name), cache, within_s=chosen.minutes * 60, processors=chosen.processors
        )
        with Steps() as steps:
            await run.prepare(steps.report)
        async with contextlib.AsyncExitStack() as stack:
            if "node" in names:
                with Steps() as steps:
                    workers = int("worker" in names)
                    await run.make_cluster(stack, workers=workers, report=steps.report)
            passed = True
            for step in names:
                passed = passed and await run.step(step)
        host = {"revision": await asyncio.to_thread(revision), **describe_host()}
        host["emulated"] = f"{chosen.processors} processors (TCG)"
        for file, steps_of in KEPT_IN.items():
            if found := {step: run.results[step] for step in steps_of if step in run.results}:
                passed_all = all(found.get(step, {}).get("ok") for step in steps_of)
                kept = {"machine": host, "passed": passed_all,
                        "result": {"image": run.results["image"], **found}}  # fmt: skip
                if set(steps_of) <= set(names):
                    (RESULTS / file).write_text(json.dumps(kept, indent=1) + "\n")
        for log in Path(name).rglob("console.log"):
            shutil.copyfile(log, cache / "vm" / f"console-{log.parent.name}.log")
    print("passed" if passed else f"FAILED; consoles: {cache / 'vm'}/console-*.log")
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
