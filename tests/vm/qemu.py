"""One machine under QEMU: started, spoken to over a virtio port, ended; never without a bound.

The processor is emulated (TCG): no KVM is asked for, so that it runs inside other machines too, an
order of magnitude slower. The kernel is started directly, without firmware or boot loader. Disks
are not changed: what the machine writes goes to files that end with QEMU; and QEMU ends with the
program that started it, however that ends.
Sources: qemu-system-x86_64(1); docs/system/invocation, docs/interop/qmp-intro of QEMU 10.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.tools_root import command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINE_BYTES = 2 * 1024 * 1024
KEPT_LINES = 100_000
LATE_S = 120.0  # what the agent may be late: the machine has one slow processor
MEMORY_MIB = 6144
# jobs of a first boot that only make caches: minutes here, and nothing waits for their result
_NOT_NEEDED = ("ldconfig", "systemd-hwdb-update", "systemd-journal-catalog-update")


class Gone(Exception):
    """The machine went away or does not answer: there is nothing more to ask it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a program in the machine ended, and what it printed (both outputs)."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Give what it printed as one text."""
        return "\n".join(self.lines)


def words(
    emulator: Path,
    *,
    kernel: Path,
    initrd: Path,
    disks: tuple[Path, ...],
    folder: Path,
    processors: int,
) -> tuple[str, ...]:
    """Give QEMU's command line; console and port lie in `folder`."""
    share = emulator / "usr/share"
    line = (
        *("root=/dev/vda", "rw", "console=ttyS0", "loglevel=4", "mitigations=off", "audit=0"),
        # timers at the tick only: each change of process costs an emulated processor its caches of
        # addresses and of translated code, and Go's runtime sleeps for microseconds
        "highres=off",
        "panic=-1",  # with -no-reboot: a kernel that panics ends QEMU, at once
        *(f"systemd.mask={name}.service" for name in _NOT_NEEDED),
    )
    console = f"file,id=console,path={folder / 'console.log'}"
    drives = (
        word
        for number, disk in enumerate(disks)
        for word in (
            *("-drive", f"if=none,id=d{number},file={disk},format=raw,snapshot=on,cache=unsafe"),
            *("-device", f"virtio-blk-pci,drive=d{number},num-queues=1"),
        )
    )
    return (
        # the kernel ends it with this program (prctl(2), PR_SET_PDEATHSIG)
        *("setpriv", "--pdeathsig", "KILL"),
        *command(emulator, "qemu-system-x86_64"),
        *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
        *("-nodefaults", "-no-user-config"),
        *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=1024"),
        *("-cpu", "max", "-smp", str(processors), "-m", f"{MEMORY_MIB}M", "-display", "none"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", " ".join(line)),
        *drives,
        # few queues: QEMU's main loop looks at each of them at every timer of the guest's
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=2"),
        *("-chardev", console, "-serial", "chardev:console"),
        *("-chardev", f"socket,id=port,path={folder / 'port'},server=on,wait=off"),
        *("-device", "virtserialport,chardev=port,name=constellation.test"),
        "-no-reboot",
    )  # fmt: skip


class Machine:
    """A running machine. Make it with `start`."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process, self._folder = process, folder
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0

    @classmethod
    async def start(cls, argv: tuple[str, ...], *, folder: Path, deadline_s: float) -> Machine:
        """Start QEMU and wait until the agent inside is ready.

        Raises:
            Gone: not by the deadline; the message has the console's end.
        """
        (folder / "port").unlink(missing_ok=True)
        with (folder / "qemu.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)}, start_new_session=True,
            )  # fmt: skip
        machine = cls(process, folder)
        try:
            async with asyncio.timeout(deadline_s):
                await machine.connect()
                await machine._read()
        except TimeoutError:
            await machine.end()
            raise Gone(f"the machine did not boot: {machine.console()}") from None
        except BaseException:
            await machine.end()
            raise
        return machine

    async def connect(self) -> None:
        """Open the port, once QEMU has made it. Raises Gone if QEMU ends before."""
        while True:
            if self._process.returncode is not None:
                words_ = (self._folder / "qemu.log").read_text(errors="replace")[-1500:]
                raise Gone(f"QEMU ended with {self._process.returncode}: {words_}")
            with contextlib.suppress(OSError):
                self._reader, self._writer = await asyncio.open_unix_connection(
                    str(self._folder / "port"), limit=LINE_BYTES
                )
                return
            await asyncio.sleep(0.1)

    async def run(
        self,
        *argv: str,
        timeout_s: float,
        stdin: bytes = b"",
        on_line: Callable[[str], None] = lambda _: None,
    ) -> Done:
        """Run a program inside to its end or deadline, which the agent keeps.

        Raises:
            Gone: the machine went away, or its agent does not answer.
        """
        assert self._writer is not None
        self._number += 1
        order = {
            "number": self._number,
            "argv": argv,
            "stdin": base64.b64encode(stdin).decode(),
            "timeout_s": timeout_s,
        }
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        try:
            async with asyncio.timeout(timeout_s + LATE_S):
                self._writer.write(json.dumps(order).encode() + b"\n")
                await self._writer.drain()
                while True:
                    word = await self._read()
                    if word["number"] != self._number:
                        continue  # of an order that was given up
                    if "code" in word:
                        return Done(code=int(str(word["code"])), lines=tuple(lines))
                    lines.append(str(word["line"]))
                    on_line(lines[-1])
        except TimeoutError:
            raise Gone(f"{argv[0]} in the machine: no end: {self.console()}") from None
        except OSError as error:
            raise Gone(f"the machine went away ({error}): {self.console()}") from error

    async def _read(self) -> dict[str, object]:
        assert self._reader is not None
        line = await self._reader.readline()
        if not line:
            raise Gone(f"the machine went away: {self.console()}")
        word: dict[str, object] = json.loads(line)
        return word

    def console(self) -> str:
        """Give the end of what the machine said on its console."""
        with contextlib.suppress(OSError):
            return (self._folder / "console.log").read_text(errors="replace")[-3000:]
        return ""

    async def end(self) -> None:
        """End QEMU, and with it the machine and what it wrote."""
        if self._writer is not None:
            self._writer.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            await self._process.wait()
        (self._folder / "port").unlink(missing_ok=True)
