"""Makes containerd's unpacked images in a user's cache, as root: `VERSION ORIGIN CACHE TOOLS`.

The only argument of weight is the cache folder; everything in it is checked by digest before use,
and what is made belongs to the folder's owner.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from constellation.base.errors import ConstellationError
from constellation.base.progress import silent
from constellation.releases import mirror

__all__ = ["main"]


def main() -> int:
    """Run; gives the exit code."""
    version, origin, cache, tools = sys.argv[1:]
    try:
        asyncio.run(
            mirror.ensure(
                version, origin=origin, cache=Path(cache), report=silent, tools=Path(tools)
            )
        )
    except ConstellationError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
