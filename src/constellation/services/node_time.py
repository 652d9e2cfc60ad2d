"""What a node knows about the time, in files that its programs share: floors, and who said what.

`image.json` has the image's build time; what a trusted party said in this boot (JoinService in a
ticket, the owner in init or recovery) lies in /run; the last time on the state disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from constellation.base import clock, decode
from constellation.base.errors import ConstellationError
from constellation.base.files import write_atomic
from constellation.base.time_bounds import Said, TimeBounds

__all__ = ["REAL_TIME", "NodeTime"]

_EVERY_S = 60.0
_MAX_BYTES = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """The three files of one node; absent ones say nothing."""

    image: Path
    said: Path
    kept: Path

    def bound_clock(self) -> None:
        """Bound this process's clock by what the files say now.

        Raises:
            FormatError: a file is something else.
        """
        floor, said = self._build_time(), None
        if (kept := _read(self.kept)) is not None:
            last = decode.load(_Kept, kept, what=str(self.kept), max_bytes=_MAX_BYTES)
            floor = max(floor, last.seconds)
        if (data := _read(self.said)) is not None:
            said = decode.load(Said, data, what=str(self.said), max_bytes=_MAX_BYTES)
        clock.bound(TimeBounds(floor_s=floor, said=said))

    def say(self, seconds: int) -> None:
        """Note that a trusted party said this time (seconds since 1970), and bound the clock."""
        said = Said(seconds=seconds, boot_s=int(clock.boot_s()))
        write_atomic(self.said, decode.dump(said))
        self.bound_clock()

    async def keep(self) -> None:
        """Write the time to the disk every minute, for ever, and say aloud that the clock jumped.

        What is written is the time for windows: a jump ahead must not become a floor.
        """
        while True:
            now = clock.seconds_for_windows()
            try:
                write_atomic(self.kept, decode.dump(_Kept(seconds=now)), mode=0o600)
            except ConstellationError as error:
                _log.warning("the time was not kept", extra={"reason": str(error)})
            if (ahead := clock.ahead()) is not None:
                _log.warning(
                    "the clock has jumped ahead", extra={"seconds": int(ahead.total_seconds())}
                )
            await asyncio.sleep(_EVERY_S)

    def _build_time(self) -> int:
        data = _read(self.image)
        return int(json.loads(data)["build_time"]) if data is not None else 0


REAL_TIME = NodeTime(
    image=Path("/usr/lib/constellation/image.json"),
    said=Path("/run/constellation/time/said.json"),
    kept=Path("/var/lib/constellation/time.json"),
)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
