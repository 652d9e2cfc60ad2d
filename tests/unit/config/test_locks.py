"""The lock files: whatever pyproject.toml asks for is locked, with digests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = ("services", "workstation")


def _wanted(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    names = (re.split(r"[<>=\[; ]", line)[0].lower() for line in asked)
    return {re.sub(r"[-_.]+", "-", name) for name in names}


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", (*RUNTIME, "dev")), ("requirements-runtime.lock", RUNTIME)],
)
def test_every_dependency_is_locked_with_its_digest(lock: str, extras: tuple[str, ...]) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.partition("\n")[2])
    locked = {e.partition("==")[0]: e for e in entries if "==" in e.splitlines()[0]}
    assert _wanted(*extras) <= locked.keys()
    assert all("--hash=sha256:" in entry for entry in locked.values())
