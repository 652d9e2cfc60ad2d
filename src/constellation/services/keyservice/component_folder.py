"""Where the cloud's own components of a control plane read what they ask its API with: in memory.

FOLDER is root's, of one group that may read it; pods see it by a mount for reading, on control
planes alone (`kube.cloud_objects`). It is made again at each boot of what lies encrypted on the
disk, and when the owner gives another; without `cloudIntegration` there is none. Source: ADR 122.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.providers.select import component_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from constellation.base.secret import Secret

__all__ = ["FOLDER", "GROUP", "ComponentFolder"]

FOLDER: Final = Path("/run/constellation/cloud")
GROUP: Final = 65534
"""As whom the components' pods run: nobody of the node's own reads there."""
_FOLDER_MODE, _FILE_MODE = 0o2750, 0o640


class ComponentFolder:
    """The folder of one control plane; `group` owns its files (tests: one's own)."""

    def __init__(self, *, folder: Path = FOLDER, group: int = GROUP) -> None:
        self._folder, self._group = folder, group
        self._shown: Secret | None = None

    def follow(self, access: Secret | None, *, provider: Callable[[], str]) -> None:
        """Let it say what this access says; None: the owner gave none.

        Raises:
            FormatError: it is no access to this node's provider.
            Unavailable: there is no room, or `provider` does not know it yet.
        """
        if access == self._shown:
            return
        files = component_files(provider(), access) if access is not None else {}
        try:
            self._write(files)
        except OSError as error:
            raise Unavailable(f"{self._folder}: {error.strerror}") from error
        self._shown = access

    def _write(self, files: Mapping[str, Secret]) -> None:
        there = {p.name for p in self._folder.iterdir()} if self._folder.is_dir() else set()
        for name in sorted(there - files.keys()):
            (self._folder / name).unlink()
        if not files:
            with contextlib.suppress(FileNotFoundError):
                self._folder.rmdir()
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chown(self._folder, -1, self._group)
        # new files get the folder's group
        self._folder.chmod(_FOLDER_MODE)
        for name, content in files.items():
            path = self._folder / name
            if not path.exists() or path.read_bytes() != content.reveal():
                write_atomic(path, content.reveal(), mode=_FILE_MODE)
