"""How does a VM's node image come about? The local image's layers and a kernel, on one raw disk.

The disk has three partitions: an EFI system partition whose only program is one unified kernel
image; the node's root (squashfs), the same programs as in the local cloud; and the root's dm-verity
tree. The program's command line, which is measured, names the root by its root digest: whoever
changes one byte of the disk changes a register, or has a disk that does not start. Nothing in it
depends on clock, path or machine: two builds are equal bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.tools_root import command
from constellation.disk.verity import BLOCK_BYTES, hash_tree
from constellation.image import gpt, pe, programs
from constellation.image.flavours import command_line, flavour_of
from constellation.image.layers import squash
from constellation.image.machine_files import machine_files, make_initrd
from constellation.image.measure.unified import predict
from constellation.image.node_layers import contents, node_layers, os_release
from constellation.image.sources import os_folder
from constellation.image.store import RAW_DISK, NodeImage, Plan, ensure
from constellation.image.tree import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.tpm.structures import Alg
    from constellation.base.progress import Report
    from constellation.image.flavours import MachineFlavour
    from constellation.image.machine_files import MachineFiles
    from constellation.image.node_layers import NodeLayers
    from constellation.image.tree import Entry

__all__ = ["ensure_machine_image", "make_disk"]

_RECIPE = b"2"
_PROGRAM = "EFI/BOOT/BOOTX64.EFI"
_ESP_SLACK_BYTES = 4 * 1024 * 1024
_LEAST_ESP_BYTES = 36 * 1024 * 1024  # 65,525 clusters of 512 bytes: below that it is no FAT32
_FAT_TIMEOUT_S = 60.0


async def ensure_machine_image(
    cache: Path,
    flavour: MachineFlavour,
    report: Report,
    *,
    extra: tuple[str, ...] = (),
    release_root: bytes | None = None,
) -> NodeImage:
    """Give a VM's node image for the present sources, built if the cache has no authentic one.

    `extra` are more words of the command line: another image, with other reference values.
    `release_root` is the root metadata that its nodes pin; None: this machine's, for development.

    Raises:
        Unavailable: packages could not be fetched or installed, or a tool failed.
        UserError: no image is built for the flavour, or the host lacks what packages need.
        FormatError: a source, list or lock cannot be read.
    """
    flavour_of(flavour.provider, flavour.variant)
    layers = await node_layers(cache, report)
    if release_root is not None:
        layers = replace(layers, release_root=release_root)
    files = await machine_files(cache, layers.base.packages.debs, report)
    folder = os_folder() / "machine"
    parts = _Parts(
        name=f"constellation-node-{flavour.provider}-{flavour.variant}",
        bank=flavour.bank,
        words=(*extra, *command_line(flavour)),
        layers=layers,
        files=files,
        system=layers.system(
            (os_folder() / "units.txt").read_text() + (folder / "units.txt").read_text(),
            more=(
                *programs.file_entries(folder / "units", below="usr/lib/systemd/system"),
                *programs.file_entries(folder / "tree", below=""),
                *programs.file_entries(folder / flavour.provider, below=""),
            ),
        ),
        more=await files.entries(),
        initrd=await asyncio.to_thread(make_initrd, files),
    )
    with tempfile.TemporaryDirectory(dir=cache / "image", prefix=".machine-") as work:
        await asyncio.to_thread(layers.copy_sources, Path(work), without=flavour.left_out)
        plan = await parts.plan(Path(work))
        return await ensure(plan, cache / "image", layers.private_key, report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """All that one image is made of, but the programs' sources."""

    name: str
    bank: Alg
    words: tuple[str, ...]
    layers: NodeLayers
    files: MachineFiles
    system: tuple[Entry, ...]
    more: tuple[Entry, ...]
    initrd: bytes

    async def plan(self, work: Path) -> Plan:
        """Say what is to be built of these parts and the sources in `work`."""
        inputs = (
            *await asyncio.to_thread(self.layers.key_parts, work, self.system),
            self.files.root.name.encode(),
            self.initrd,
            " ".join(self.words).encode(),
        )
        debs = {*self.layers.base.packages.debs, *self.files.packages.debs}

        async def make(output: Path, version: str) -> Mapping[int, tuple[bytes, ...]]:
            return await self._make(work, output, version)

        return Plan(
            name=self.name,
            file=RAW_DISK,
            key=_key(inputs),
            time=self.layers.time,
            debs=contents(tuple(sorted(debs, key=lambda deb: deb.name))),
            wheels=self.layers.wheel_contents,
            make=make,
        )

    async def _make(
        self, work: Path, output: Path, version: str
    ) -> Mapping[int, tuple[bytes, ...]]:
        layers = self.layers
        streams = await layers.streams(work, self.system, name=self.name, version=version)
        top = pack(self.more, time=layers.time, existing=layers.base.folders)
        root = output.with_name(".root")
        await squash((*streams, top), root, tools=layers.tools, time=layers.time)
        unified, disk = await make_disk(
            await asyncio.to_thread(root.read_bytes),
            files=self.files,
            initrd=self.initrd,
            os_release=os_release(self.name, version),
            words=self.words,
            time=layers.time,
        )
        await asyncio.to_thread(root.unlink)
        await asyncio.to_thread(output.write_bytes, disk)
        return predict(unified, bank=self.bank)


async def make_disk(
    root: bytes,
    *,
    files: MachineFiles,
    initrd: bytes,
    os_release: bytes,
    words: tuple[str, ...],
    time: int,
) -> tuple[bytes, bytes]:
    """Give the unified image and the whole disk for a root file system.

    Raises:
        Unavailable: a tool failed.
        FormatError: stub or kernel is not what it has to be.
    """
    root += bytes(-len(root) % BLOCK_BYTES)
    tree = await asyncio.to_thread(hash_tree, root)
    line = (
        *words,
        f"constellation.root={tree.root_digest.hex()}",
        f"constellation.root_blocks={tree.data_blocks}",
    )
    stub = pe.parse(await asyncio.to_thread(files.stub.read_bytes))
    sections = (
        (".osrel", os_release),
        (".cmdline", " ".join(line).encode()),
        (".uname", files.release.encode()),
        (".initrd", initrd),
        (".linux", await asyncio.to_thread(files.kernel.read_bytes)),
    )
    unified = pe.add_sections(stub, sections)
    short, digest = tree.root_digest.hex()[:16], hashlib.sha256(unified).digest()
    partitions = (
        gpt.Partition(
            type=gpt.EFI_SYSTEM,
            guid=uuid.UUID(bytes=digest[:16]),
            name="esp",
            content=await _system_partition(unified, files.root, time=time),
        ),
        # Discoverable Partitions Specification: both GUIDs are the root digest's halves
        gpt.Partition(
            type=gpt.ROOT_X86_64,
            guid=uuid.UUID(bytes=tree.root_digest[:16]),
            name=f"root-{short}",
            content=root,
        ),
        gpt.Partition(
            type=gpt.ROOT_X86_64_VERITY,
            guid=uuid.UUID(bytes=tree.root_digest[16:]),
            name=f"verity-{short}",
            content=tree.blocks,
        ),
    )
    return unified, gpt.pack_disk(partitions, guid=uuid.UUID(bytes=digest[16:]))


async def _system_partition(unified: bytes, tools: Path, *, time: int) -> bytes:
    """Make a FAT32 file system with the unified image as its only program."""
    size = max(_LEAST_ESP_BYTES, len(unified) + _ESP_SLACK_BYTES)
    size += -size % gpt.ALIGNMENT_BYTES
    environment = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(time),
        "MTOOLS_SKIP_CHECK": "1",
    }

    async def tool(name: str, *arguments: str | Path) -> None:
        await proc.run(*command(tools, name), *arguments, timeout_s=_FAT_TIMEOUT_S, env=environment)

    with tempfile.TemporaryDirectory(prefix="constellation-esp-") as work:
        image, program = Path(work, "esp"), Path(work, "program")
        await asyncio.to_thread(program.write_bytes, unified)
        await asyncio.to_thread(image.write_bytes, bytes(size))
        await tool("mkfs.fat", "-F", "32", "-s", "1", "-i", "c057e11a", "--invariant",
                   "-n", "ESP", image)  # fmt: skip
        await tool("mtools", "-c", "mmd", "-i", image, "::EFI", "::EFI/BOOT")
        await tool("mtools", "-c", "mcopy", "-i", image, program, f"::{_PROGRAM}")
        return await asyncio.to_thread(image.read_bytes)


def _key(parts: tuple[bytes, ...]) -> str:
    digests = b"".join(hashlib.sha256(data).digest() for data in (_RECIPE, *parts))
    return hashlib.sha256(digests).hexdigest()
