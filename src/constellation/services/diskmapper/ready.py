"""Whoever runs this machine may wait until it says that it was set up: it says so, until believed.

No part of a node waits for this, and nothing is learned from it: whatever the cloud answers, the
node starts as it would without. A report that is refused is made anew, since what it is about may
have changed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.retry import until_available

if TYPE_CHECKING:
    from constellation.providers.placement import Awaits

__all__ = ["report_ready"]

_log = logging.getLogger(__name__)
_WITHIN_S = 600.0
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 60.0


async def report_ready(
    cloud: Awaits | None, *, within_s: float = _WITHIN_S, pause_s: float = _FIRST_PAUSE_S
) -> None:
    """Report until it was taken, with growing pauses, for `within_s` seconds; None: to nobody.

    Raises:
        Unavailable: it was not taken; the reason is the last one. The unit begins anew.
    """
    if cloud is None:
        return
    told = cloud

    async def attempt() -> None:
        try:
            await told.report_ready()
        except ConstellationError as error:
            _log.warning("the cloud took no report", extra={"reason": str(error)})
            raise Unavailable(f"report ready: {error}") from error

    await until_available(
        attempt, deadline_s=within_s, first_pause_s=pause_s, longest_pause_s=_LONGEST_PAUSE_S
    )
    _log.info("reported ready")
