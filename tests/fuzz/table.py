"""Every target by its name, most exposed first: the order of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz import of_chips, of_clouds, of_cluster, of_machines, of_servers, of_workstation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: Mapping[str, Target] = {
    target.name: target
    for room in (of_servers, of_cluster, of_machines, of_chips, of_clouds, of_workstation)
    for target in room.TARGETS
}
