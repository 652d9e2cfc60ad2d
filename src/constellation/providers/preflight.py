"""What speaks against making machines, as lines for people: rights that lack, room that lacks.

Pure: what a cloud has answered goes in. A preflight helps and guards nothing: whoever lacks a right
is refused by the cloud in any case, later and in other words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Room", "refuse", "right_lines", "room_lines"]

_HINT: Final = "nothing was made"
_RIGHTS_SAID: Final = "docs/reference/infrastructure.md lists what Terraform needs, by resource"
_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A quota: how much there may be, how much there is, how much more is wanted."""

    quota: str
    limit: int
    used: int
    more: int


def room_lines(rooms: Iterable[Room]) -> tuple[str, ...]:
    """Say which quotas have no room for what is wanted."""
    return tuple(
        f"quota {r.quota}: {r.limit} of which {r.used} are used, {r.more} more needed"
        for r in rooms
        if r.more > 0 and r.used + r.more > r.limit
    )


def right_lines(
    needs: Mapping[str, tuple[str, ...]], allows: Callable[[str], bool]
) -> tuple[str, ...]:
    """Say which permissions lack, and which resources need each.

    `needs`: by type of resource, as Terraform names it.
    """
    lacks: dict[str, list[str]] = {}
    for resource, permissions in needs.items():
        for permission in permissions:
            if not allows(permission):
                lacks.setdefault(permission, []).append(resource)
    return tuple(
        f"no permission {permission}: {', '.join(resources[:_SHOWN])} need it"
        for permission, resources in sorted(lacks.items())
    )


def refuse(
    where: str,
    *,
    rights: tuple[str, ...],
    others: tuple[str, ...],
    rights_said: str = _RIGHTS_SAID,
) -> None:
    """Refuse with everything that was found; nothing found: nothing happens.

    `rights_said`: where a person reads which rights are needed.

    Raises:
        Conflict: with a line for each finding.
    """
    if rights or others:
        lines = "\n".join(f"  {line}" for line in (*rights, *others))
        raise Conflict(f"{where}:\n{lines}", hint=f"{_HINT}; {rights_said}" if rights else _HINT)
