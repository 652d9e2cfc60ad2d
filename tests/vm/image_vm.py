"""A VM that boots a node image as a cloud's would: firmware, TPM, disks, a network of its own.

OVMF starts the image's one program from its disk; swtpm is the TPM, given an AK beforehand as the
maker of a machine does; a second disk is the owner's medium (`providers.baremetal`), a third the
state disk. Nothing of the test is inside: the machine is spoken to by aTLS on port 9000 alone, and
on 9999 once it has a disk that it knows, as the command line tool does. Its console is kept. No KVM
is asked for. Sources: qemu-system-x86_64(1), swtpm(8), docs/specs/tpm of QEMU 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from constellation.atls import client
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.registry import verifier
from constellation.attestation.tpm.device import Tpm
from constellation.base import clock, decode, proc
from constellation.base.errors import Unavailable
from constellation.base.secret import Secret
from constellation.base.tools_root import command
from constellation.crypto import signing
from constellation.crypto.derive import MasterSecret, cluster_id
from constellation.crypto.x509 import CertificateAuthority
from constellation.providers.baremetal.hosts import (
    HOSTS_FILE,
    STATE_DISK_FILE,
    USER_DATA_FILE,
    Host,
    Hosts,
)
from constellation.providers.protocols import Role
from constellation.trust.node_document import NodeDocument, dump_node_document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

MEMORY_MIB = 2048
ADDRESS = "10.0.2.15"  # the first that QEMU's own DHCP server gives
STATE_DISK_BYTES = 4 * 1024**3
MEDIUM_BYTES = 36 * 1024 * 1024
SWTPM_WITHIN_S, TRY_EVERY_S, HANDSHAKE_S = 30.0, 2.0, 60.0
LABEL = "CONSTHOST"
SERIALS = ("image", "medium", "state-disk")
_KEPT = ("snapshot=on", "snapshot=on", "snapshot=off,cache=unsafe")
"""What happens to writes. A state disk's stay in its file; no flush waits for this machine's own
disk, since a power cut here ends QEMU alone, and what it has written by then stays written."""


class DidNotStart(Exception):
    """The machine ended, or nobody answered in time; the message has the console's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Folders with unpacked packages: QEMU and OVMF, swtpm, tools for file systems."""

    emulator: Path
    tools: Path
    machine: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """How large a machine is; each of its processors takes one of this machine's."""

    processors: int
    memory_mib: int = MEMORY_MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose machine it is to be: the node document, and who vouches for its TPM."""

    key: EllipticCurvePrivateKey
    master: MasterSecret
    document: bytes
    authority: CertificateAuthority

    @classmethod
    def new(cls) -> Owner:
        """Make an owner with a cluster of its own."""
        key = signing.generate_key()
        master = MasterSecret(key=Secret.random(32), salt=Secret.random(32))
        public_key = signing.spki(key.public_key())
        document = NodeDocument(
            version=1,
            cluster_id=cluster_id(master),
            owner_public_key=public_key,
            release_root=public_key,
            minimum_release="0.1.0",
            variant=Variant.QEMU_VTPM,
        )
        return cls(
            key=key,
            master=master,
            document=dump_node_document(document),
            authority=CertificateAuthority.create(
                "AKs of test machines", now=clock.now(), lifetime=timedelta(days=1)
            ),
        )

    @property
    def cluster_id(self) -> bytes:
        """Give the cluster's id."""
        return cluster_id(self.master)

    @property
    def root(self) -> bytes:
        """Give the authority's certificate (DER)."""
        return self.authority.certificate.public_bytes(Encoding.DER)

    def certify(self, spki: bytes) -> bytes:
        """Certify an AK."""
        return self.authority.issue(
            spki, common_name="AK", usage="client", now=clock.now(), lifetime=timedelta(hours=12)
        )

    def appraise(
        self,
        evidence: Evidence,
        binding: Binding,
        reference: Mapping[int, tuple[bytes, ...]],
        *,
        joined: bool = False,
    ) -> AttestationResult:
        """Judge evidence by the policy that a cluster of this owner has for a fresh node.

        `joined`: for one that was given to the cluster in this boot.
        """
        policy = node_policy(
            Variant.QEMU_VTPM,
            ReferenceValues(registers=reference, launch={}),
            demands=None,
            identity=NodeIdentity(
                document=self.document, cluster_id=self.cluster_id if joined else None
            ),
        )
        judge = verifier(Variant.QEMU_VTPM, policy=policy, trust_roots=(self.root,))
        return judge.appraise(evidence, binding=binding, now=clock.now())


async def give_tpm(folder: Path, owner: Owner, *, tools: Path) -> None:
    """Make a TPM's state with an AK and its certificate, in `folder`."""
    folder.mkdir()
    data = folder.with_name("made.sock")
    flags = ("--flags", "not-need-init,startup-clear")
    async with _swtpm(folder, ("--server", f"type=unixio,path={data}", *flags), data, tools=tools):
        tpm = await Tpm.connect(data)
        try:
            await local_vtpm.manufacture(tpm, owner.certify)
        finally:
            await tpm.close()


def first_host(owner: Owner, *, state_disk: str) -> dict[str, bytes]:
    """Give what a host reads that is its cluster's only one; `state_disk` names its disk."""
    name = f"host-{ADDRESS.replace('.', '-')}"
    own = Host(name=name, group="control_plane_default", role=Role.CONTROL_PLANE, address=ADDRESS)
    return {
        HOSTS_FILE: decode.dump(Hosts(uid="vmimage", me=name, hosts=(own,))),
        USER_DATA_FILE: owner.document,
        STATE_DISK_FILE: state_disk.encode(),
    }


async def make_medium(path: Path, files: Mapping[str, bytes], *, machine: Path) -> None:
    """Write the owner's medium: what a host reads, by name."""
    path.write_bytes(bytes(MEDIUM_BYTES))
    make = command(machine, "mkfs.fat")
    await proc.run(*make, "-F", "32", "-s", "1", "-n", LABEL, path, timeout_s=60)
    for file, data in files.items():
        source = path.with_name(f"{path.stem}-{file}")
        source.write_bytes(data)
        copy = (*command(machine, "mtools"), "-c", "mcopy")
        await proc.run(*copy, "-i", path, source, f"::{file}", timeout_s=60)


def words(
    programs: Programs,
    *,
    drives: tuple[Path, Path, Path],
    folder: Path,
    hardware: Hardware,
    network: tuple[str, ...],
) -> tuple[str, ...]:
    """Give QEMU's command line; the console goes to `folder`/console.log.

    `drives`: the image, the owner's medium, the state disk, which alone keeps what is written;
    `network`: words for a network device and what it is connected to.
    """
    share = programs.emulator / "usr/share"
    disks = (
        word
        for number, file in enumerate(drives)
        for word in (
            *(
                "-drive",
                f"if=none,id=d{number},file={file},format=raw,{_KEPT[number]}",
            ),
            "-device",
            f"virtio-blk-pci,drive=d{number},num-queues=1,bootindex={number},serial={SERIALS[number]}",
        )
    )
    firmware = "if=pflash,format=raw,unit"
    return (
        # the kernel ends it with this program (prctl(2), PR_SET_PDEATHSIG)
        *("setpriv", "--pdeathsig", "KILL"),
        *command(programs.emulator, "qemu-system-x86_64"),
        *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512"),
        *("-cpu", "max", "-smp", str(hardware.processors)),
        *("-m", f"{hardware.memory_mib}M"),
        *("-drive", f"{firmware}=0,readonly=on,file={share / 'OVMF/OVMF_CODE_4M.fd'}"),
        *("-drive", f"{firmware}=1,file={folder / 'vars.fd'}"),
        *disks,
        *("-chardev", f"socket,id=tpm,path={folder / 'tpm.ctl'}"),
        *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"),
        *network,
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={folder / 'console.log'}"),
        *("-serial", "chardev:console"),
    )  # fmt: skip


def alone(ports: tuple[int, int]) -> tuple[str, ...]:
    """Give a network of the machine's own; `ports`: where its 9000 and 9999 are reached.

    Nothing goes out; only this machine's loopback reaches the ports.
    """
    forward = ",".join(
        f"hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:{inside}"
        for port, inside in zip(ports, (9000, 9999), strict=True)
    )
    return (
        *("-netdev", f"user,id=n0,restrict=on,{forward}"),
        *("-device", "virtio-net-pci,netdev=n0,romfile="),
    )


@dataclass(kw_only=True)
class Vm:
    """A machine that was started."""

    process: asyncio.subprocess.Process
    folder: Path
    port: int
    recovery_port: int

    def console(self) -> str:
        """Give all that it said on its console."""
        with contextlib.suppress(OSError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""

    async def evidence(self, *, within_s: float) -> tuple[Evidence, Binding]:
        """Take evidence from its port 9000, for a channel that is opened for it and closed again.

        Raises:
            DidNotStart: the machine ended, or nobody answered in time.
        """
        kept: list[tuple[Evidence, Binding]] = []

        def keep(evidence: Evidence, binding: Binding) -> AttestationResult:
            kept.append((evidence, binding))
            return AttestationResult(
                variant=evidence.variant, attester_id=bytes(32), claims={}, unchecked=(),
                warnings=(),
            )  # fmt: skip

        end = clock.monotonic_s() + within_s
        while clock.monotonic_s() < end:
            if self.process.returncode is not None:
                raise DidNotStart(f"QEMU ended with {self.process.returncode}: {self._end()}")
            with contextlib.suppress(Unavailable):
                channel = await client.connect(
                    "127.0.0.1",
                    self.port,
                    purpose="init-client",
                    server_purpose="init-server",
                    attester=None,
                    appraise=keep,
                    deadline_s=HANDSHAKE_S,
                )
                channel.close()
                return kept[-1]
            await asyncio.sleep(TRY_EVERY_S)
        raise DidNotStart(f"nobody answered within {within_s:.0f} s: {self._end()}")

    async def ended(self, *, within_s: float) -> str:
        """Wait until QEMU has ended by itself; gives the console. Raises DidNotStart if not."""
        try:
            async with asyncio.timeout(within_s):
                await self.process.wait()
        except TimeoutError:
            raise DidNotStart(f"still running after {within_s:.0f} s: {self._end()}") from None
        return self.console()

    def _end(self) -> str:
        log = (self.folder / "qemu.log").read_text(errors="replace")[-1000:]
        return f"{log}{self.console()[-3000:]}"


@contextlib.asynccontextmanager
async def started(
    programs: Programs,
    *,
    disk: Path,
    medium: Path,
    tpm: Path,
    folder: Path,
    hardware: Hardware,
    state: Path | None = None,
    network: tuple[str, ...] = (),
) -> AsyncIterator[Vm]:
    """Power a machine on; it ends with the block.

    `state` is its state disk, else a fresh one; `network` is `alone`'s unless given.
    """
    folder.mkdir()
    state = state or folder / "state.raw"
    shutil.copyfile(programs.emulator / "usr/share/OVMF/OVMF_VARS_4M.fd", folder / "vars.fd")
    if not state.exists():
        with state.open("wb") as file:
            file.truncate(STATE_DISK_BYTES)
    control, ports = folder / "tpm.ctl", (free_port(), free_port())
    argv = words(
        programs, drives=(disk, medium, state), folder=folder, hardware=hardware,
        network=network or alone(ports),
    )  # fmt: skip
    ctrl = ("--ctrl", f"type=unixio,path={control}")
    async with _swtpm(tpm, ctrl, control, tools=programs.tools):
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
async def _swtpm(
    state: Path, offers: tuple[str, ...], path: Path, *, tools: Path
) -> AsyncIterator[None]:
    path.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL"), *command(tools, "swtpm"),
        *("socket", "--tpm2", "--tpmstate", f"dir={state},mode=0600"), *offers,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        end = clock.monotonic_s() + SWTPM_WITHIN_S
        while not path.exists():
            if process.returncode is not None or clock.monotonic_s() > end:
                raise DidNotStart(f"swtpm offers no socket ({process.returncode})")
            await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: Any = found.getsockname()[1]
        return int(port)
