"""Where the cloud's own components of a control plane read where their cluster lies: in memory.

The folder is root's, of one group that may read it. Pods see it by a mount for reading
(`kube.cloud_objects`). It is made at each boot of what the machine's metadata say, which hold no
secret: a node is not kept from starting by metadata that do not say it. Source: ADR 126.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError, Unavailable
from constellation.base.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.placement import Configures

__all__ = ["FOLDER", "GROUP", "configure_components"]

FOLDER: Final = Path("/run/constellation/cloud")
GROUP: Final = 65534
"""As whom the components' pods run: nobody of the node's own reads there."""
_log = logging.getLogger(__name__)


async def configure_components(
    metadata: Configures, *, folder: Path = FOLDER, group: int = GROUP
) -> None:
    """Write what they read; what speaks against it is logged.

    Raises:
        Unavailable: the metadata service does not answer, or there is no room.
    """
    try:
        files = await metadata.component_config()
    except FormatError as error:
        _log.error("the cloud's own components get no configuration", extra={"reason": str(error)})
        return
    try:
        await asyncio.to_thread(_write, files, folder, group)
    except OSError as error:
        raise Unavailable(f"{folder}: {error.strerror}") from error


def _write(files: Mapping[str, bytes], folder: Path, group: int) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chown(folder, -1, group)
    folder.chmod(0o2750)  # new files get the folder's group
    for name, content in files.items():
        write_atomic(folder / name, content, mode=0o640)
