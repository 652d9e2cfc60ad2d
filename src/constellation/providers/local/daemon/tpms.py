"""The nodes' TPMs: one swtpm a node, made once, started anew at each power-on.

The firmware's part: a fresh process (TPM2_Startup(CLEAR): registers zero), then the measurements of
the power-on, before the node gets the data socket. The control socket, which could reset the
registers, stays with the daemon. Source: swtpm(8); registers: seams.md, "PCRs".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.base.tools_root import command
from constellation.providers.local.daemon import kernel, spawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.providers.local.daemon.cgroups import Cgroups
    from constellation.providers.local.daemon.layout import Layout
    from constellation.providers.local.daemon.records import Process

__all__ = ["manufacture", "measure", "power_on"]

_START_DEADLINE_S = 10.0


async def power_on(
    layout: Layout, instance_id: str, *, cgroups: Cgroups, part: str, tools_root: Path
) -> Process:
    """Start swtpm with startup-clear; its data socket appears in the node's host folder.

    Raises:
        Unavailable: it did not offer its socket in time; the message has its last words.
    """
    state = layout.node_state(instance_id) / "tpm"
    host = layout.host_folder(instance_id)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    host.mkdir(parents=True, exist_ok=True)
    data, control = host / "tpm.sock", layout.node_run(instance_id) / "ctl.sock"
    for path in (data, control):
        path.unlink(missing_ok=True)
    log = layout.node_state(instance_id) / "swtpm.log"
    log.unlink(missing_ok=True)
    process = spawn.start(
        (
            *command(tools_root, "swtpm"),
            *("socket", "--tpm2", "--tpmstate", f"dir={state},mode=0600"),
            *("--server", f"type=unixio,path={data}"),
            *("--ctrl", f"type=unixio,path={control},mode=0600"),
            *("--flags", "not-need-init,startup-clear"),
        ),
        cgroups=cgroups,
        part=part,
        log=log,
    )
    end = asyncio.get_running_loop().time() + _START_DEADLINE_S
    while not (data.exists() and control.exists()):
        late = asyncio.get_running_loop().time() > end
        if late or not kernel.alive(process.pid, process.started):
            spawn.end(process)
            words = log.read_text(errors="replace").strip()[-500:]
            raise Unavailable(f"swtpm of {instance_id} offers no socket: {words}")
        await asyncio.sleep(0.01)
    return process


async def manufacture(layout: Layout, instance_id: str, certify: Callable[[bytes], bytes]) -> None:
    """Give a powered TPM its AK and the certificate for it (`certify`: SPKI DER -> DER)."""
    tpm = await Tpm.connect(layout.host_folder(instance_id) / "tpm.sock")
    try:
        await local_vtpm.manufacture(tpm, certify)
    finally:
        await tpm.close()


async def measure(
    layout: Layout, instance_id: str, *, image_digest: bytes, command_line: str, os_release: bytes
) -> None:
    """Extend a fresh TPM by this power-on and write the TCG event log that explains it."""
    log, extends = local_vtpm.firmware_log(image_digest, command_line, os_release)
    tpm = await Tpm.connect(layout.host_folder(instance_id) / "tpm.sock")
    try:
        for pcr, digest in extends:
            await tpm.extend(pcr, digest)
    finally:
        await tpm.close()
    write_atomic(layout.host_folder(instance_id) / "binary_bios_measurements", log, mode=0o444)
