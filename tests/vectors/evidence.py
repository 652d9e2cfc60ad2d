"""Where published evidence of real machines lies: beside the project, or where a variable says."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["folder", "items", "mutations", "read"]

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "evidence"


def folder() -> Path:
    """Give the folder; a missing one fails the test, since a skip would go unnoticed."""
    path = Path(os.environ.get("CONSTELLATION_EVIDENCE") or _BESIDE)
    if not (path / "mutations.json").is_file():
        raise AssertionError(f"no evidence in {path}: set CONSTELLATION_EVIDENCE to its folder")
    return path


def items(platform: str) -> dict[str, dict[str, Any]]:
    """Give the entries of one platform's manifest by id."""
    manifest = json.loads((folder() / platform / "manifest.json").read_bytes())
    return {item["id"]: item for item in manifest["items"]}


def mutations(platform: str) -> list[dict[str, Any]]:
    """Give the edits of a platform's files, each with its verdict."""
    found = json.loads((folder() / "mutations.json").read_bytes())["mutations"]
    return [m for m in found if m["platform"] == platform]


def read(platform: str, item: dict[str, Any], role: str) -> bytes:
    """Read the file of an entry whose role begins with `role`; its digest must fit."""
    file = next(f for f in item["files"] if f["role"].startswith(role))
    data = (folder() / platform / file["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == file["sha256"], file["file"]
    return data
