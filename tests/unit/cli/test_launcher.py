"""How `./constellation` gets an environment on a host that has Python and little else."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from constellation.config.workspace import cache_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def launcher() -> Any:
    """Give the launcher's module, as if it were imported."""
    loader = SourceFileLoader("launcher", str(ROOT / "constellation"))
    spec = importlib.util.spec_from_loader("launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


class Host:
    """A host where some programs work; notes what was run."""

    def __init__(self, *works: str) -> None:
        self.works, self.ran = works, list[str]()

    def attempt(self, argv: list[str], cwd: str | None = None) -> bool:
        del cwd
        return any(work in " ".join(argv) for work in self.works)

    def run(self, argv: list[str], what: str) -> None:
        del what
        self.ran.append(" ".join(argv))


def _on(launcher: Any, host: Host, monkeypatch: pytest.MonkeyPatch, *, uv: str | None) -> None:
    monkeypatch.setattr(launcher, "attempt", host.attempt)
    monkeypatch.setattr(launcher, "run", host.run)
    monkeypatch.setattr(launcher.shutil, "which", lambda name: uv if name == "uv" else None)


def test_a_whole_python_makes_its_own_environment(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on(launcher, Host("-m venv"), monkeypatch, uv=None)
    assert launcher.make_venv(tmp_path / "e")[1:] == ["-I", "-m", "pip"]


def test_without_python3_venv_the_hosts_pip_fills_it(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host("-m pip --python")
    _on(launcher, host, monkeypatch, uv=None)
    python = str(tmp_path / "e" / "bin" / "python")
    words = launcher.make_venv(tmp_path / "e")
    assert words == [sys.executable, "-I", "-m", "pip", "--python", python]
    assert host.ran == [f"{sys.executable} -m venv --without-pip {tmp_path / 'e'}"]


def test_without_pip_too_uv_will_do(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on(launcher, Host(), monkeypatch, uv="/usr/bin/uv")
    assert launcher.make_venv(tmp_path / "e") == ["/usr/bin/uv", "pip"]


def test_a_host_with_nothing_is_told_what_to_install(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on(launcher, Host(), monkeypatch, uv=None)
    with pytest.raises(launcher.Failed, match="sudo apt-get install python3-venv"):
        launcher.make_venv(tmp_path / "e")


@pytest.mark.parametrize("damage", ["none", "stamp", "package", "python"])
def test_an_environment_from_which_something_is_missing_is_not_whole(
    launcher: Any, tmp_path: Path, damage: str
) -> None:
    packages = tmp_path / "lib" / "python3" / "site-packages"
    (packages / "click").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.touch(mode=0o755)
    stamp = tmp_path / launcher.STAMP
    stamp.write_text(json.dumps({"entries": ["click"], "packages": "lib/python3/site-packages"}))
    {
        "none": lambda: None,
        "stamp": lambda: os.truncate(stamp, 5),
        "package": (packages / "click").rmdir,
        "python": python.unlink,
    }[damage]()
    assert launcher.whole(tmp_path) == (damage == "none")


def test_the_cache_folder_is_the_programs_own(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "relative", "/there"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert launcher.cache() == cache_folder()
