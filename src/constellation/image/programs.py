"""Which programs come with a node, which with the services bundle, and how each is started.

A program NAME is `constellation.services.NAME.main.main`. A launcher starts it isolated from the
user's environment and from site-packages (`python3 -ISB`), with one folder of ours in front.
Source: Python's command line, -I -S -B; design, section 10; seams.md, "Node file system".
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError
from constellation.image.closure import closure
from constellation.image.tree import Entry

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BUNDLE_PROGRAMS",
    "NODE_PROGRAMS",
    "copy_sources",
    "file_entries",
    "launcher",
    "present",
    "system_entries",
]

NODE_PROGRAMS = ("agent", "bootstrapper", "diskmapper", "mesh", "upgradeagent")
"""Started by systemd on a node: part of the measured image."""

BUNDLE_PROGRAMS = ("joinservice", "keyservice", "operator", "verificationservice")
"""Part of the services bundle: replaced without replacing nodes."""

NODE_PYTHON = "/usr/lib/constellation/python"
BUNDLE_PYTHON = "/run/constellation/services/python"


def present(package: Path, programs: tuple[str, ...]) -> tuple[str, ...]:
    """Give those of `programs` that have a main module."""
    return tuple(p for p in programs if (package / "services" / p / "main.py").is_file())


def copy_sources(
    package: Path,
    programs: tuple[str, ...],
    *,
    target: Path,
    without: frozenset[str] = frozenset(),
) -> None:
    """Copy the import closure of `programs` to `target`/constellation; see `closure`."""
    names = tuple(f"constellation.services.{p}.main" for p in programs)
    for file in closure(package, names, without=without):
        copy = target / "constellation" / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / file, copy)


def launcher(program: str, *, python: tuple[str, ...]) -> bytes:
    """Give the script that starts `program` with `python` in front of the search path."""
    return (
        "#!/usr/bin/python3 -ISB\n"
        "import sys\n"
        f"sys.path[:0] = {list(python)!r}\n"
        f"from constellation.services.{program}.main import main\n"
        "main()\n"
    ).encode()


def file_entries(folder: Path, *, below: str) -> tuple[Entry, ...]:
    """Read the files of a folder as entries below the path `below`; modes come down to one bit."""
    return tuple(
        Entry(
            path=f"{below}/{path.relative_to(folder)}" if below else str(path.relative_to(folder)),
            data=path.read_bytes(),
            executable=bool(path.stat().st_mode & 0o100),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".gitkeep"
    )


def system_entries(text: str, *, units: tuple[str, ...]) -> tuple[Entry, ...]:
    """Read os/units.txt: `default T`, `enable UNIT TARGET`, `mask UNIT`; `#` begins a comment.

    `unmask UNIT` takes a `mask` back that stands above it.

    Raises:
        FormatError: another line, or a unit of ours that is enabled but not there.
    """
    entries: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        match words:
            case []:
                continue
            case ["default", target]:
                path = "usr/lib/systemd/system/default.target"
                entries.append(Entry(path=path, link=target))
            case ["mask", unit]:
                entries.append(Entry(path=f"etc/systemd/system/{unit}", link="/dev/null"))
            case ["unmask", unit] if any(e.path == f"etc/systemd/system/{unit}" for e in entries):
                entries = [e for e in entries if e.path != f"etc/systemd/system/{unit}"]
            case ["enable", unit, target] if unit in units or not unit.startswith("constellation"):
                path = f"usr/lib/systemd/system/{target}.wants/{unit}"
                entries.append(Entry(path=path, link=f"../{unit}"))
            case _:
                raise FormatError(f"unit list, line {number}: {line[:80]!r} is no order we know")
    return tuple(entries)
