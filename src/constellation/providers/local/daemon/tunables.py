"""Kernel settings that kubelet demands: a node finds them set, and the machine keeps its own.

They have no namespace. A kubelet that finds another value writes its own, for the whole machine
(panic and restart at an oops, for one), and does not start where it may not. So a file with the
value that it wants is bound over each, read-only.
Source: kubelet, pkg/kubelet/cm setupKernelTunables; component-helpers, node/util/sysctl.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base.files import write_atomic
from constellation.providers.local.daemon import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TUNABLES", "show", "write"]

TUNABLES: Final[Mapping[str, str]] = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
_FOLDER = "sysctl"
_SHOWN = Path("/run/constellation/host") / _FOLDER
_SYSCTLS = Path("/proc/sys")


def write(host_folder: Path) -> None:
    """Write the files into what the node sees as /run/constellation/host."""
    for name, value in TUNABLES.items():
        path = host_folder / _FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, f"{value}\n".encode(), mode=0o444)


def show() -> None:
    """Bind them over the settings; to be called inside the node's mount namespace."""
    for name in TUNABLES:
        if (_SYSCTLS / name).exists():
            # read-only, as the mount that it is taken from
            kernel.mount(str(_SHOWN / name), _SYSCTLS / name, flags=kernel.MS_BIND)
