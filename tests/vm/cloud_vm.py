"""A VM as a cloud makes it: its disks, its network card, its metadata service, its TPM.

It runs in a network namespace of its own (`cloud_run` makes it), in which 169.254.169.254 is this
process: QEMU's user network gives the machine an address by DHCP, and leads what it sends there to
the fake cloud's service. Nothing of the test is inside the machine.
Sources: qemu-system-x86_64(1); docs/system/devices/nvme of QEMU 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.attestation.registry import verifier
from constellation.base import clock
from constellation.base.tools_root import command
from constellation.trust.node_document import dump_node_document, parse_node_document
from tests.fakes.nitro_swtpm import nitro_swtpm
from tests.vm.image_vm import (
    ADDRESS,
    MEMORY_MIB,
    STATE_DISK_BYTES,
    SWTPM_WITHIN_S,
    DidNotStart,
    Owner,
    Programs,
    Vm,
    free_port,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
    from tests.fakes.aws_nitro import NitroWorld

METADATA = "169.254.169.254"
_BRIDGED = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a cloud's machine has: how disks are attached, which network card QEMU has for it."""

    disks: str
    card: str = "virtio-net-pci"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudOwner:
    """An owner of a cluster of another variant; `roots` certify its machines."""

    owner: Owner
    variant: Variant
    document: bytes
    roots: tuple[bytes, ...]

    @classmethod
    def of(cls, owner: Owner, variant: Variant, *, roots: tuple[bytes, ...]) -> CloudOwner:
        """Give the owner a document for the variant."""
        document = replace(parse_node_document(owner.document), variant=variant)
        return cls(owner=owner, variant=variant, document=dump_node_document(document), roots=roots)

    def appraise(
        self,
        evidence: Evidence,
        binding: Binding,
        reference: Mapping[int, tuple[bytes, ...]],
        *,
        joined: bool = False,
    ) -> AttestationResult:
        """Judge evidence by the policy that a cluster of this owner has for a fresh node."""
        policy = node_policy(
            self.variant,
            ReferenceValues(registers=reference, launch={}),
            demands=None,
            identity=NodeIdentity(
                document=self.document, cluster_id=self.owner.cluster_id if joined else None
            ),
        )
        judge = verifier(self.variant, policy=policy, trust_roots=self.roots)
        return judge.appraise(evidence, binding=binding, now=clock.now())


def words(
    programs: Programs,
    hardware: Hardware,
    *,
    disks: tuple[Path, ...],
    folder: Path,
    ports: tuple[int, int],
    processors: int,
) -> tuple[str, ...]:
    """Give QEMU's command line. The first disk is the image; the last keeps what is written."""
    share = programs.emulator / "usr/share"
    attached: list[str] = ["-device", "virtio-scsi-pci,id=scsi"] if hardware.disks == "scsi" else []
    for number, file in enumerate(disks):
        written = "off" if number == len(disks) - 1 else "on"
        kind = "vpc" if file.suffix == ".vhd" else "raw"  # QEMU's name of it
        attached += ["-drive", f"if=none,id=d{number},file={file},format={kind},snapshot={written}"]
        device = {
            "nvme": f"nvme,drive=d{number},serial=vol{number:017x}",
            "virtio": f"virtio-blk-pci,drive=d{number},num-queues=1",
            "scsi": f"scsi-hd,bus=scsi.0,drive=d{number},lun={number + 1}",
        }[hardware.disks]
        attached += ["-device", f"{device},bootindex={number}"]
    forward = ",".join(
        f"hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:{inside}"
        for port, inside in zip(ports, (9000, 9999), strict=True)
    )
    firmware = "if=pflash,format=raw,unit"
    return (
        # the kernel ends it with this program (prctl(2), PR_SET_PDEATHSIG)
        *("setpriv", "--pdeathsig", "KILL"),
        *command(programs.emulator, "qemu-system-x86_64"),
        *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512"),
        *("-cpu", "max", "-smp", str(processors), "-m", f"{MEMORY_MIB}M"),
        *("-drive", f"{firmware}=0,readonly=on,file={share / 'OVMF/OVMF_CODE_4M.fd'}"),
        *("-drive", f"{firmware}=1,file={folder / 'vars.fd'}"),
        *attached,
        *("-chardev", f"socket,id=tpm,path={folder / 'tpm.ctl'}"),
        *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"),
        # what leaves it ends in this namespace, which has nothing but its own loopback
        *("-netdev", f"user,id=n0,{forward}", "-device", f"{hardware.card},netdev=n0,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={folder / 'console.log'}"),
        *("-serial", "chardev:console"),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def started(
    programs: Programs,
    hardware: Hardware,
    *,
    disks: tuple[Path, ...],
    tpm: Path,
    folder: Path,
    processors: int,
    nitro: NitroWorld | None,
) -> AsyncIterator[Vm]:
    """Power a machine on; it ends with the block. `nitro`: its TPM is Nitro's."""
    folder.mkdir()
    shutil.copyfile(programs.emulator / "usr/share/OVMF/OVMF_VARS_4M.fd", folder / "vars.fd")
    if not disks[-1].exists():
        with disks[-1].open("wb") as file:
            file.truncate(STATE_DISK_BYTES)
    ports = (free_port(), free_port())
    argv = words(programs, hardware, disks=disks, folder=folder, ports=ports, processors=processors)
    control, real = folder / "tpm.ctl", folder / "swtpm.ctl"
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            swtpm(tpm, control if nitro is None else real, tools=programs.tools)
        )
        if nitro is not None:
            await stack.enter_async_context(
                nitro_swtpm(control, real=real, world=nitro, folder=folder)
            )
        with (folder / "qemu.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)}, start_new_session=True,
            )  # fmt: skip
        try:
            yield Vm(process=process, folder=folder, port=ports[0], recovery_port=ports[1])
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                await process.wait()


@contextlib.asynccontextmanager
async def swtpm(state: Path, control: Path, *, tools: Path) -> AsyncIterator[None]:
    """Run a TPM whose state is in a folder; QEMU speaks to its control socket."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL"), *command(tools, "swtpm"),
        *("socket", "--tpm2", "--tpmstate", f"dir={state},mode=0600"),
        *("--ctrl", f"type=unixio,path={control}"),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = clock.monotonic_s() + SWTPM_WITHIN_S
        while not control.exists():
            if process.returncode is not None or clock.monotonic_s() > end:
                raise DidNotStart(f"swtpm offers no socket ({process.returncode})")
            await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def metadata_service(url: str) -> AsyncIterator[None]:
    """Lead 169.254.169.254:80 of this namespace to a fake at `url` (http://127.0.0.1:PORT)."""
    port = int(url.rpartition(":")[2])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_BRIDGED):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(lead, METADATA, 80)
    try:
        yield
    finally:
        server.close()
