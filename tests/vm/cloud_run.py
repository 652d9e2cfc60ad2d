"""`make test-vm-clouds`: node images of clouds, each in a machine like its cloud's, under QEMU.

The image is built twice, then started with the disks that its cloud attaches and a metadata service
of ours at 169.254.169.254. It has to get an address, read its node document there and measure it,
wait on port 9000 with evidence that is accepted against the values that the build predicted, find
its state disk among others, make it in `init`, and find it again after a power cut. What only the
cloud has is a fake (NitroTPM), or is not there (chips, Google's and Azure's TPM): then the machine
has to say on its console what it waits for.
Needs root: for the image's lowest layer and a network namespace. Results are kept in bench/results.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.run import RESULTS
from bench.run import machine as describe_host
from constellation.attestation.model import Variant
from constellation.attestation.node_rules import is_given_to_cluster
from constellation.base import clock, proc
from constellation.base.errors import ConstellationError
from constellation.base.progress import silent
from constellation.cli.output import Steps
from constellation.config.workspace import cache_folder
from constellation.disk.superblock import State
from constellation.image.flavours import FLAVOURS, flavour_of
from constellation.image.formats import FORMATS, DiskFormat, write_disk
from constellation.image.machine import ensure_machine_image
from constellation.image.measure.unified import REGISTERS
from constellation.image.tools import ensure_tools_root, ensure_unpacked
from tests.fakes.arm import FakeAzure
from tests.fakes.aws_nitro import NitroWorld
from tests.fakes.aws_query import FakeAws
from tests.fakes.gce import FakeGce
from tests.fakes.openstack import FakeOpenStack
from tests.vm import state_disk
from tests.vm.cloud_vm import METADATA, CloudOwner, Hardware, metadata_service, started
from tests.vm.image_run import LEFT_OUT
from tests.vm.image_vm import ADDRESS, DidNotStart, Owner, Programs, give_tpm
from tests.vm.run import emulator, revision
from tests.vm.world import Failed, equal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from constellation.base.progress import Report
    from constellation.image.store import NodeImage

RESULT = "vm-clouds.json"
OTHER_DISK_BYTES = 2 * 1024**3
FOREIGN = b"somebody's own content, which is never formatted\n" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One machine: its pair, its disks; `until`: what its console says where it has to stop."""

    provider: str
    variant: Variant
    disks: str
    until: str = ""

    @property
    def name(self) -> str:
        """Give the pair as one word."""
        return f"{self.provider}-{self.variant}"


STEPS = (
    Step(provider="aws", variant=Variant.AWS_NITRO_TPM, disks="nvme"),
    Step(provider="openstack", variant=Variant.QEMU_VTPM, disks="virtio"),
    Step(
        provider="aws",
        variant=Variant.AWS_SEV_SNP,
        disks="nvme",
        until="neither /sys/kernel/config/tsm/report nor /dev/sev-guest is there",
    ),
    Step(
        provider="gcp",
        variant=Variant.GCP_SEV_ES,
        disks="nvme",
        until="this vTPM has no certified AK",
    ),
    Step(
        provider="azure",
        variant=Variant.AZURE_TRUSTEDLAUNCH,
        disks="nvme",
        until="TPM2_ReadPublic: the TPM refused",
    ),
)
NAMES = tuple(step.name for step in STEPS)


class CloudRun:
    """What one run needs."""

    def __init__(self, folder: Path, cache: Path, *, within_s: float, processors: int) -> None:
        self.folder, self.cache = folder, cache
        self.within_s, self.processors = within_s, processors
        self.nitro = NitroWorld(clock.now())
        self.images: dict[str, NodeImage] = {}
        self.programs: Programs

    async def prepare(self, names: tuple[str, ...], report: Report) -> None:
        """Build the images, have emulator and tools: all that may need the network."""
        machine, _ = await ensure_unpacked(self.cache, "machine", step="tools", report=report)
        self.programs = Programs(
            emulator=await emulator(self.cache / "vm", report),
            tools=await ensure_tools_root(self.cache, report),
            machine=machine,
        )
        for step in STEPS:
            if step.name in names:
                flavour = flavour_of(step.provider, step.variant)
                self.images[step.name] = await ensure_machine_image(self.cache, flavour, report)

    async def build_again(self, step: Step) -> str:
        """A second build has only the packages of the first, and no network: the same bytes."""
        other, image = self.folder / f"{step.name}-cache", self.images[step.name]
        shutil.copytree(
            self.cache / "image", other / "image", symlinks=True, copy_function=os.link,
            ignore=lambda _, names: [n for n in names if n.startswith(LEFT_OUT)],
        )  # fmt: skip
        for name in ("keys", "releases"):
            shutil.copytree(self.cache / name, other / name)
        flavour = flavour_of(step.provider, step.variant)
        second = await ensure_machine_image(other, flavour, silent)
        equal("another file", second.path.samefile(image.path), False)
        equal("SHA-256", second.manifest.sha256, image.manifest.sha256)
        equal("values", second.reference_values, image.reference_values)
        await asyncio.to_thread(shutil.rmtree, other)
        return second.manifest.sha256

    async def run(self, step: Step) -> dict[str, Any]:
        """Start a machine and have it go as far as it can."""
        image, owner, began = self.images[step.name], Owner.new(), clock.monotonic_s()
        roots = (self.nitro.root.der,) if step.provider == "aws" else (owner.root,)
        cloud = CloudOwner.of(owner, step.variant, roots=roots)
        if step.variant is Variant.QEMU_VTPM:
            await give_tpm(self.folder / f"tpm-{step.name}", owner, tools=self.programs.tools)
        else:
            (self.folder / f"tpm-{step.name}").mkdir()
        foreign, blank, state = (
            self.folder / f"{step.name}-{name}.raw" for name in ("foreign", "blank", "state")
        )
        for path, content in ((foreign, FOREIGN), (blank, b"")):
            with path.open("wb") as file:
                file.write(content)
                file.truncate(OTHER_DISK_BYTES)
        facts: dict[str, Any] = {
            "image": {
                "sha256": image.manifest.sha256,
                "built_again": await self.build_again(step),
                "bytes": image.manifest.size_bytes,
                "reference_values": {
                    f"pcr{n}": v[0].hex() for n, v in image.reference_values.items()
                },
            }
        }
        async with self.powered(step, cloud, "first", (foreign, state)) as talk:
            if step.until:
                facts["waits"] = await self._waits(talk, step.until)
            else:
                facts |= await self._joined(talk, cloud, state)
        if not step.until:
            # a volume of a pod that nobody has formatted yet is there when the node starts again
            async with self.powered(step, cloud, "again", (foreign, blank, state)) as talk:
                facts["again"] = await self._again(talk, state, facts["disk"])
        facts["seconds"] = round(clock.monotonic_s() - began, 1)
        return facts

    @contextlib.asynccontextmanager
    async def powered(
        self, step: Step, cloud: CloudOwner, name: str, more: tuple[Path, ...]
    ) -> AsyncIterator[state_disk.Talk]:
        """Power a machine of the step on with these disks beside its image's."""
        image = self.images[step.name]
        disk = image.path
        if FORMATS[step.provider] is DiskFormat.VHD:
            disk = self.folder / f"{step.name}.vhd"
            await asyncio.to_thread(
                write_disk, image.path, disk, as_=DiskFormat.VHD, unique_id=bytes(16)
            )
        async with contextlib.AsyncExitStack() as stack:
            fake = _FAKES[step.provider](cloud.document)
            url, instance_id = await stack.enter_async_context(fake)
            await stack.enter_async_context(metadata_service(url))
            vm = await stack.enter_async_context(
                started(
                    self.programs,
                    Hardware(disks=step.disks),
                    disks=(disk, *more),
                    tpm=self.folder / f"tpm-{step.name}",
                    folder=self.folder / f"{step.name}-{name}",
                    processors=self.processors,
                    nitro=self.nitro if step.provider == "aws" else None,
                )
            )
            speaker: Any = _Speaker(cloud)
            yield state_disk.Talk(
                vm=vm,
                owner=speaker,
                reference=image.reference_values,
                within_s=self.within_s,
                instance_id=instance_id,
            )

    async def _waits(self, talk: state_disk.Talk, words: str) -> str:
        """It measures its document, and then says what it has not."""
        said = await talk.console_says(words)
        measured = "Finished constellation-measure.service" in talk.vm.console()
        equal("the document was measured", measured, True)
        return _shortened(said)

    async def _joined(
        self, talk: state_disk.Talk, cloud: CloudOwner, state: Path
    ) -> dict[str, Any]:
        """Its evidence is accepted; `init` makes the state disk that it found."""
        began = clock.monotonic_s()
        evidence, binding = await talk.vm.evidence(within_s=self.within_s)
        seconds = round(clock.monotonic_s() - began, 1)
        result = cloud.appraise(evidence, binding, talk.reference)
        for number in REGISTERS:
            predicted = talk.reference[number]
            equal(f"pcr{number}", result.claims[f"pcr{number}"] in predicted, True)
        equal("given", is_given_to_cluster(result, document=cloud.document), False)
        done, failed = await talk.init(again=False)
        equal("steps", done, ("state disk",))
        found, _ = await asyncio.to_thread(state_disk.state, state)
        equal("state disk", found.state, State.KNOWN)
        return {
            "evidence_after_s": seconds,
            "evidence_bytes": len(evidence.data),
            "attester_id": result.attester_id.hex(),
            "unchecked": sorted(line.partition(":")[0] for line in result.unchecked),
            "steps": list(done),
            "then": failed.message,
            "disk": found.uuid.hex(),
        }

    async def _again(self, talk: state_disk.Talk, state: Path, uuid: str) -> dict[str, Any]:
        """After a power cut the owner opens the same disk, not the blank one beside it."""
        equal("name", await talk.recover(), "")
        done, failed = await talk.init(again=True)
        equal("steps", done, ("state disk",))
        found, _ = await asyncio.to_thread(state_disk.state, state)
        equal("the same disk", found.uuid.hex(), uuid)
        return {"steps": list(done), "then": failed.message}


class _Speaker:
    """An `Owner` to `Talk`: one's own keys, the cloud's way to judge."""

    def __init__(self, cloud: CloudOwner) -> None:
        self.key, self.master = cloud.owner.key, cloud.owner.master
        self.cluster_id, self.appraise = cloud.owner.cluster_id, cloud.appraise


@contextlib.asynccontextmanager
async def _aws(document: bytes) -> AsyncIterator[tuple[str, str]]:
    aws = FakeAws(user_data=document)
    machine = aws.add(1, "control_plane_default", "control-plane")
    aws.me, machine.address = machine.instance_id, ADDRESS
    async with aws.serving():
        yield aws.url, aws.me


@contextlib.asynccontextmanager
async def _openstack(document: bytes) -> AsyncIterator[tuple[str, str]]:
    cloud = FakeOpenStack(user_data=document)
    cloud.servers[cloud.me].address = ADDRESS
    async with cloud.metadata.serving():
        yield cloud.metadata.url, cloud.me


@contextlib.asynccontextmanager
async def _gcp(document: bytes) -> AsyncIterator[tuple[str, str]]:
    cloud = FakeGce(user_data=document)
    cloud.vms[cloud.me].address = ADDRESS
    async with cloud.serving():
        yield cloud.metadata_url, cloud.me


@contextlib.asynccontextmanager
async def _azure(document: bytes) -> AsyncIterator[tuple[str, str]]:
    cloud = FakeAzure(user_data=document)
    set_name, _, number = cloud.me.rpartition("_")
    cloud.sets[set_name].vms[number].address = ADDRESS
    async with cloud.serving():
        yield cloud.imds.url, cloud.me


_FAKES: dict[str, Callable[[bytes], contextlib.AbstractAsyncContextManager[tuple[str, str]]]] = {
    "aws": _aws,
    "azure": _azure,
    "gcp": _gcp,
    "openstack": _openstack,
}


def _shortened(line: str) -> str:
    return line[line.find("{") :][:400] if "{" in line else line[:400]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make test-vm-clouds")
    parser.add_argument("--processors", type=int, choices=(1, 2, 4), default=2,
                        help="emulated processors; each takes one of this machine's")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10, help="what one machine may take")
    parser.add_argument("--only", action="append", default=[], choices=NAMES, help="some pairs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


async def own_network() -> None:
    """Give this namespace its loopback, with the address of clouds' metadata."""
    await proc.run("ip", "link", "set", "lo", "up", timeout_s=20)
    await proc.run("ip", "address", "add", f"{METADATA}/32", "dev", "lo", timeout_s=20)


async def main() -> int:
    """Build with the network; then again inside a namespace without one: run, keep the result."""
    chosen, cache = arguments(), cache_folder()
    (cache / "vm").mkdir(parents=True, exist_ok=True)
    names = tuple(name for name in NAMES if not chosen.only or name in chosen.only)
    with tempfile.TemporaryDirectory(dir=cache / "vm", prefix="clouds-") as name:
        run = CloudRun(
            Path(name), cache, within_s=chosen.minutes * 60, processors=chosen.processors
        )
        with Steps() as steps:
            await run.prepare(names, steps.report)
        if not chosen.inside:
            return await inside()
        await own_network()
        results: dict[str, Any] = {}
        found = await asyncio.to_thread(revision)
        for step in STEPS:
            if step.name in names:
                results[step.name] = await attempt(run, step)
                keep(results, processors=chosen.processors, revision_=found)
        for log in Path(name).glob("*/console.log"):
            shutil.copyfile(log, cache / "vm" / f"console-{log.parent.name}.log")
    passed = all(facts["ok"] for facts in results.values())
    print("passed" if passed else f"FAILED; consoles: {cache / 'vm'}/console-*.log")
    return 0 if passed else 1


async def inside() -> int:
    """Run this program in a network namespace; gives its exit code."""
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "setpriv", "--pdeathsig", "TERM"),
        *(sys.executable, "-m", "tests.vm.cloud_run", *sys.argv[1:], "--inside"),
        env=dict(os.environ),
    )
    return await process.wait()


async def attempt(run: CloudRun, step: Step) -> dict[str, Any]:
    """Run a step, keep its facts or why it failed."""
    print(f"{step.name} …", flush=True)
    facts: dict[str, Any] = {"ok": False}
    try:
        facts |= await run.run(step)
        facts["ok"] = True
    except (Failed, DidNotStart, ConstellationError) as error:
        facts["error"] = str(error)
    print(f"{step.name}: {'ok' if facts['ok'] else facts['error']}", flush=True)
    return facts


def keep(results: dict[str, Any], *, processors: int, revision_: str) -> None:
    """Write what was seen beside what earlier runs saw of other pairs, if it went well."""
    host = {"revision": revision_, **describe_host(), "emulated": f"{processors} processors (TCG)"}
    path = RESULTS / RESULT
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept |= {name: {"machine": host, **facts} for name, facts in results.items() if facts["ok"]}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    assert set(FLAVOURS) >= {step.provider for step in STEPS}
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
