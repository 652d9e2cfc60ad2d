"""The main job as an ordinary user: what runs as root is what was said; every file is the user's.

A throwaway user who may use sudo, a copy of the clone, a cache of its own that has what would take
long to build, but neither Python environment nor node image: those are made here.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.cli.world import ensure_artifacts
from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.config.workspace import cache_folder
from constellation.providers.local.infrastructure import destroy_command, workspaces
from constellation.releases import lock as locks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.base.progress import Progress

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the user"),
    pytest.mark.skipif(shutil.which("sudo") is None, reason="needs sudo"),
]

ROOT = Path(__file__).resolve().parents[2]
NAME = "constellation-test"
SUDOERS = Path("/etc/sudoers.d") / NAME
_PROGRAMS = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_HANDED_ON = ("PIP_", "SSL_", "UV_", "HTTP", "http", "NO_PROXY", "no_proxy", "REQUESTS_")
# what the question before sudo lists, as programs
_AS_ROOT = (
    "constellation.providers.local.daemon.main --preflight",
    "constellation.image.root_build",
    "constellation.cli.root_content",
    "constellation.providers.local.daemon.main --id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An ordinary user with a clone, a workspace and a cache below one folder."""

    folder: Path
    uid: int
    gid: int

    @property
    def workspace(self) -> Path:
        return self.folder / "mini"

    @property
    def sudo_log(self) -> Path:
        return self.folder / "sudo.log"

    def run(self, *words: str, timeout_s: float = 1200) -> subprocess.CompletedProcess[str]:
        handed = {k: v for k, v in os.environ.items() if k.startswith(_HANDED_ON)}
        return subprocess.run(
            [str(self.folder / "clone" / "constellation"), "-C", str(self.workspace), *words],
            env={
                **handed,
                "HOME": str(self.folder),
                "LOGNAME": NAME,
                "PATH": _PROGRAMS,
                "USER": NAME,
                "XDG_CACHE_HOME": str(self.folder / "cache"),
            },
            cwd=self.folder,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Make the user; take away whatever there is of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="constellation-user-", dir="/var/tmp"))
    _remove_user()
    try:
        _run("useradd", "--no-create-home", "--home-dir", str(folder), NAME)
        entry = pwd.getpwnam(NAME)
        made = User(folder=folder, uid=entry.pw_uid, gid=entry.pw_gid)
        _allow(
            f"Defaults:{NAME} logfile={made.sudo_log}, loglinelen=0\n"
            f"{NAME} ALL=(ALL) NOPASSWD: ALL\n"
        )
        _copy_clone(folder / "clone")
        _copy_cache(folder / "cache" / "constellation")
        _run("chown", "-R", f"{NAME}:", str(folder))
        yield made
    finally:
        for uid, place in workspaces().items():
            if place.is_relative_to(folder):
                _run(*destroy_command(uid))
        _remove_user()
        shutil.rmtree(folder)


def _allow(text: str) -> None:
    """Let the user use sudo, as these lines of sudoers(5) say."""
    SUDOERS.write_text(text)
    SUDOERS.chmod(0o440)


def _remove_user() -> None:
    SUDOERS.unlink(missing_ok=True)
    subprocess.run(["userdel", NAME], capture_output=True, check=False)


def _run(*argv: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _copy_clone(target: Path) -> None:
    target.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", target / "src", ignore=ignored)
    for path in (ROOT / "constellation", *ROOT.glob("requirements*.lock")):
        shutil.copy2(path, target)


def _copy_cache(target: Path) -> None:
    """Copy files of the default version and downloaded packages; image and content are made."""

    def silent(_: Progress) -> None:
        pass

    cache = cache_folder()
    listed = asyncio.run(ensure_artifacts(DEFAULT_KUBERNETES_VERSION, cache=cache, report=silent))
    (target / "sha256").mkdir(parents=True)
    files = {a.sha256 for a in listed.artifacts if a.kind != "content"}
    files |= {a.sha256 for a in locks.load().of(DEFAULT_KUBERNETES_VERSION).source.values()}
    for digest in files:
        if (cache / "sha256" / digest).exists():
            shutil.copy2(cache / "sha256" / digest, target / "sha256")
    shutil.copy2(cache / "index.json", target)
    for name in ("apt-node", "apt-tools", "wheels"):
        if (cache / "image" / name).is_dir():
            shutil.copytree(cache / "image" / name, target / "image" / name, symlinks=True)


def test_an_ordinary_user_gets_a_cluster_and_owns_every_file(user: User) -> None:
    up = user.run("mini", "up", "--yes", "-o", "json")
    assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
    assert len(json.loads(up.stdout)["nodes"]) == 2
    foreign = [
        str(path)
        for folder in (user.workspace, user.folder / "cache")
        for path in folder.rglob("*")
        if path.lstat().st_uid != user.uid
    ]
    assert foreign == []


def test_only_what_was_listed_ran_as_root(user: User) -> None:
    lines = [
        line.partition("COMMAND=")[2]
        for line in user.sudo_log.read_text().splitlines()
        if "COMMAND=" in line and "COMMAND=validate" not in line
    ]
    unlisted = [line for line in lines if not any(known in line for known in _AS_ROOT)]
    assert unlisted == []
    assert all(any(known in line for line in lines) for known in _AS_ROOT), lines


def test_status_and_verify_need_no_root(user: User) -> None:
    allowed = SUDOERS.read_text()
    SUDOERS.unlink()
    try:
        for verb in ("status", "verify"):
            done = user.run(verb)
            assert done.returncode == 0, done.stderr
    finally:
        _allow(allowed)


def test_down_with_purge_leaves_the_user_nothing(user: User) -> None:
    down = user.run("mini", "down", "--purge", "--yes")
    assert down.returncode == 0, f"{down.stdout}\n{down.stderr}"
    assert f"Removed {user.folder / 'cache' / 'constellation'}" in down.stdout
    assert not user.workspace.exists()
    assert list((user.folder / "cache").iterdir()) == []
    assert not any(place.is_relative_to(user.folder) for place in workspaces().values())
