"""Where do package lists, units and the programs' sources lie? In this package."""

from __future__ import annotations

from pathlib import Path

import constellation

__all__ = ["os_folder", "package_folder"]


def package_folder() -> Path:
    """Give the folder of the `constellation` package itself."""
    return Path(constellation.__file__).parent


def os_folder() -> Path:
    """Give `os/`: package lists, units and files of the node image (package data)."""
    return (package_folder() / "os").resolve()
