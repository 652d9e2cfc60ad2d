"""What this machine is, as its measured command line says, and where its programs meet.

Names of paths: docs/architecture/seams.md. In a container the command line is that of PID 1.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError
from constellation.base.proc import run

__all__ = [
    "EVENT_LOG",
    "NODE_DOCUMENT",
    "MachineSettings",
    "TpmPlaces",
    "machine_settings",
    "parse_settings",
    "reboot_soon",
    "tpm_places",
]

NODE_DOCUMENT = Path("/run/constellation/node-document.json")
EVENT_LOG = Path("/run/constellation/event-log")

_COMMAND_LINES = (Path("/proc/cmdline"), Path("/proc/1/cmdline"))
_PREFIX = "constellation."
_REBOOT_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """`constellation.provider` and `constellation.variant` of the command line."""

    provider: str
    variant: Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPlaces:
    """Where a machine's TPM is (socket or device node), and its firmware's log of this boot."""

    tpm: Path
    firmware_log: Path


def tpm_places(variant: Variant) -> TpmPlaces:
    """Give where this machine's TPM is: a local node's is a socket, a VM's a device node.

    Source: Linux, Documentation/security/tpm/tpm_event_log.rst and drivers/char/tpm/tpmrm-dev.c.
    """
    if variant is Variant.LOCAL_VTPM:
        host = Path("/run/constellation/host")
        return TpmPlaces(tpm=host / "tpm.sock", firmware_log=host / "binary_bios_measurements")
    return TpmPlaces(
        tpm=Path("/dev/tpmrm0"),
        firmware_log=Path("/sys/kernel/security/tpm0/binary_bios_measurements"),
    )


def machine_settings() -> MachineSettings:
    """Read the settings of this machine.

    Raises:
        FormatError: a setting is missing or stands there twice with different values.
    """
    words: list[str] = []
    for path in _COMMAND_LINES:
        words += path.read_text("utf-8", "replace").replace("\0", " ").split()
    return parse_settings(tuple(words))


async def reboot_soon() -> None:
    """Start this machine again, in 10 seconds: a fault that stays must not spin it.

    There is no logind to ask, so the target is started directly.
    """
    await asyncio.sleep(_REBOOT_PAUSE_S)
    words = ("--job-mode=replace-irreversibly", "--no-block", "reboot.target")
    await run("systemctl", "start", *words, timeout_s=30)


def parse_settings(words: tuple[str, ...]) -> MachineSettings:
    """Read the settings from the words of a command line.

    Raises:
        FormatError: see `machine_settings`.
    """
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name.startswith(_PREFIX) and found.setdefault(name, value) != value:
            raise FormatError(f"command line: {name} is both {found[name]!r} and {value!r}")
    try:
        return MachineSettings(
            provider=found[_PREFIX + "provider"], variant=Variant(found[_PREFIX + "variant"])
        )
    except KeyError as error:
        raise FormatError(f"command line: {error.args[0]} is missing") from None
    except ValueError as error:
        raise FormatError(f"command line: {error}") from None
