"""How a cgroup v1 device group refuses all devices but a few, yet lets "all" be asked (pure).

A list of what is allowed would do, but below it runc may not write "a" for a privileged container,
which then does not start. So the group allows by default and names what it refuses: reading and
writing of every major number that Linux gives out (below 512: CHRDEV_MAJOR_MAX, BLKDEV_MAJOR_MAX),
and, of the majors with an allowed device, every other minor. A group below inherits all of that.
Source: Documentation/admin-guide/cgroup-v1/devices.rst; security/device_cgroup.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["refusals"]

_MAJORS = 512
_MINORS = 512
"""Minors that are named of a major with an allowed device: loop and misc devices have no bound, but
no machine has so many."""
_MINORS_OF = {"c 1": 16, "c 5": 128}  # mem.c has 11; ttyaux and the first cua


def refusals(allowed: Iterable[str]) -> tuple[str, ...]:
    """Give the lines for devices.deny that leave only `allowed` ("c 1:3 rwm", "c 136:* rwm").

    Making a device node stays possible everywhere: it is no access to the device, and container
    runtimes ask for it. An allowed device may be read and written.
    """
    kept: dict[str, set[str]] = {}
    for rule in allowed:
        kind, numbers, access = rule.split(" ")
        of, _, minor = numbers.partition(":")
        if access != "m":
            kept.setdefault(f"{kind} {of}", set()).add(minor)
    lines = []
    for kind in "bc":
        for major in range(_MAJORS):
            name = f"{kind} {major}"
            minors = kept.get(name, set())
            if not minors:
                lines.append(f"{name}:* rw")
            elif "*" not in minors:
                lines += [
                    f"{name}:{number} rw"
                    for number in range(_bound(name, minors))
                    if str(number) not in minors
                ]
    return tuple(lines)


def _bound(name: str, minors: set[str]) -> int:
    return max(_MINORS_OF.get(name, _MINORS), *(int(minor) + 1 for minor in minors))
