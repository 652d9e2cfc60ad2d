"""Where this node's image starts to judge releases: root metadata that is measured with it.

It lies in the read-only image, so that whoever attested the node knows which root it pins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from constellation.base.errors import Unavailable

__all__ = ["PINNED_ROOT", "pinned_root"]

PINNED_ROOT: Final = Path("/usr/lib/constellation/release-root.json")


def pinned_root(path: Path = PINNED_ROOT) -> bytes:
    """Give the root metadata (TUF). Raises Unavailable: the image has none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
