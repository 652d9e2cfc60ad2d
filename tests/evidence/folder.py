"""What does a folder of published evidence hold, and how is one entry of it read?

A folder has one subfolder a platform, each with a manifest.json (`items`), and one mutations.json.
An entry is kept as it is written; what is optional is read with a default. Files that an entry
names but its folder lacks are looked up in the folder beside the project.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    Item = dict[str, Any]

__all__ = ["BESIDE", "TIMELESS", "Case", "File", "Folder", "NotKnownError", "at", "same"]

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "evidence"
TIMELESS = datetime(2026, 1, 1, tzinfo=UTC)
"""The time for entries without one: nothing in them ends."""


def at(text: str) -> datetime:
    """Read a time as manifests write it; one without a zone is UTC."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def same(values: dict[str, Any], **ours: Any) -> None:
    """Compare what we found with the values that an entry gives; it need not give all."""
    for name, mine in ours.items():
        if name in values:
            wanted = values[name]
            if isinstance(mine, str) and isinstance(wanted, str):
                fits = mine.lower() == wanted.lower()  # hexadecimal in either case
            else:
                fits = bool(mine == wanted)
            assert fits, f"{name}: {mine!r}, published {wanted!r}"


class NotKnownError(Exception):
    """An entry of a form that is not known here."""


@dataclass(frozen=True)
class File:
    """A file of an entry: role in lower case (may be empty), path in its platform, content."""

    role: str
    path: str
    data: bytes

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Case:
    """One verification to be done: an entry's files, perhaps edited, a time, expectations.

    `expect` has what a caller would ask for instead of what the entry says: nonce, bank, policy.
    """

    folder: Folder
    platform: str
    item: Item
    files: tuple[File, ...]
    now: datetime
    expect: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """The parsed fields that the entry publishes."""
        return self.item.get("values") or {}

    @property
    def expected(self) -> dict[str, Any]:
        """The entry's verdict."""
        return self.item.get("expected") or {}

    def find(self, *roles: str) -> bytes | None:
        """Give the content of the first file whose role begins with one of these."""
        for role in roles:
            for file in self.files:
                if file.role.startswith(role.lower()):
                    return file.data
        return None

    def get(self, *roles: str) -> bytes:
        """Give what `find` finds; none is a fault of the entry."""
        found = self.find(*roles)
        if found is None and len(self.files) == 1:
            return self.files[0].data  # an entry of one file need not name its role
        assert found is not None, f"no file of role {' or '.join(roles)}"
        return found

    def with_files(self, *changed: File) -> Case:
        """Give the case with files of these paths replaced."""
        by_path = {file.path: file for file in changed}
        return replace(self, files=tuple(by_path.get(f.path, f) for f in self.files))


class Folder:
    """A folder of evidence."""

    def __init__(self, path: Path) -> None:
        if not any(path.glob("*/manifest.json")):
            raise AssertionError(f"no evidence in {path}: set CONSTELLATION_EVIDENCE to its folder")
        self.path = path
        self._items = {
            manifest.parent.name: json.loads(manifest.read_bytes()).get("items", [])
            for manifest in sorted(path.glob("*/manifest.json"))
        }

    @classmethod
    def usual(cls) -> Folder:
        """Give the folder that the environment names, or the one beside the project."""
        return cls(Path(os.environ.get("CONSTELLATION_EVIDENCE") or BESIDE))

    def items(self, platform: str | None = None) -> Iterator[tuple[str, Item]]:
        """Give platform and entry of all items."""
        for name, items in self._items.items():
            if platform in (None, name):
                for item in items:
                    yield name, item

    def edits(self) -> list[Item]:
        """Give the entries of mutations.json, if there is one."""
        path = self.path / "mutations.json"
        return json.loads(path.read_bytes()).get("mutations", []) if path.is_file() else []

    def case(self, platform: str, item: Item) -> Case:
        """Read an entry's files; a digest that an entry gives must fit."""
        files = []
        for file in item.get("files") or ():
            data = self.read(platform, file["file"])
            found = hashlib.sha256(data).hexdigest()
            # authorities that were put together from several sources have none of their own
            assert found == file.get("sha256", found), f"{file['file']}: SHA-256 {found}"
            files.append(File((file.get("role") or "").lower(), file["file"], data))
        now = at(item["verify_at"]) if item.get("verify_at") else TIMELESS
        return Case(self, platform, item, tuple(files), now, {})

    def named(self, platform: str, name: str, *, also: str = "") -> Item:
        """Give the entry of an id, or of `also` before the id; a missing one is a fault."""
        for item_id in (name, also + name):
            for _, item in self.items(platform):
                if item["id"] == item_id:
                    return item
        if self.path != BESIDE and BESIDE.is_dir():
            return Folder(BESIDE).named(platform, name, also=also)
        raise NotKnownError(f"no entry {name!r} of {platform}")

    def read(self, platform: str, name: str) -> bytes:
        """Read a file of a platform, or of the platform that the name begins with."""
        for base in (self.path, BESIDE):
            for path in (base / platform / name, base / name):
                if path.is_file():
                    return path.read_bytes()
        raise FileNotFoundError(f"{platform}/{name}")
