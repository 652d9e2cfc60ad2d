"""`./constellation` where python3-venv is missing: the environment is made all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]

# what Debian's python3 without python3-venv does
_VENV = """
import runpy, sys
if "--without-pip" not in sys.argv:
    sys.exit("The virtual environment was not created successfully because ensurepip is not there")
sys.path = [p for p in sys.path if p != {shim!r}]
for name in [n for n in sys.modules if n.partition(".")[0] == "venv"]:
    del sys.modules[name]
runpy.run_module("venv", run_name="__main__", alter_sys=True)
"""


def test_a_host_without_python3_venv_gets_an_environment(tmp_path: Path) -> None:
    shim = tmp_path / "shim"
    (shim / "venv").mkdir(parents=True)
    (shim / "venv" / "__init__.py").touch()
    (shim / "venv" / "__main__.py").write_text(_VENV.format(shim=str(shim)))
    environment = {
        **os.environ,
        "PYTHONPATH": str(shim),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(ROOT / "constellation"), "version"],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("constellation ")
    # the second start made nothing
    assert done.stderr == ""
    (environment_folder,) = (tmp_path / "cache" / "constellation" / "env").glob("*/bin/python")
    assert environment_folder.exists()
