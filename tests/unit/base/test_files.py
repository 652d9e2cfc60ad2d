"""A file is whole, old or new; a full disk is said in our words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from constellation.base.files import write_atomic

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
FULL = """
import sys
from pathlib import Path
from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
path = Path(sys.argv[1]) / "file"
write_atomic(path, b"old")
try:
    write_atomic(path, bytes(1 << 20))
except Unavailable as error:
    assert "file: no room is left on its disk" in str(error), error
else:
    raise AssertionError("written?")
assert path.read_bytes() == b"old"
assert [p.name for p in path.parent.iterdir()] == ["file"], "no half file either"
"""


KEEPS = """
import asyncio, sys
from pathlib import Path
from constellation.services.node_time import NodeTime
folder = Path(sys.argv[1])
(folder / "filler").write_bytes(bytes(60 << 10))
try:
    while True:
        (folder / f"more-{len(list(folder.iterdir()))}").write_bytes(b"x")
except OSError:
    pass
times = NodeTime(image=folder / "image", said=folder / "said", kept=folder / "time" / "kept")
async def some_time():
    try:
        await asyncio.wait_for(times.keep(), 0.2)
    except TimeoutError:
        print("it goes on")
asyncio.run(some_time())
"""


def _own_mounts() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _own_mounts(), reason="this machine lets nobody mount for himself")
@pytest.mark.parametrize(
    ("script", "says"), [(FULL, ""), (KEEPS, "it goes on")], ids=["a file", "the node's time"]
)
def test_on_a_full_disk_the_old_file_stays_and_programs_go_on(
    tmp_path: Path, script: str, says: str
) -> None:
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    done = subprocess.run(
        [
            *UNSHARE,
            "sh",
            "-ec",
            f'{mount}; exec "$@"',
            "sh",
            sys.executable,
            "-c",
            script,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={
            "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src"),
            "PATH": "/usr/bin:/bin",
        },
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def test_another_fault_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "file" / "x", b"")
    write_atomic(tmp_path / "folder" / "x", b"new", mode=0o600)
    assert (tmp_path / "folder" / "x").read_bytes() == b"new"
    assert (tmp_path / "folder" / "x").stat().st_mode & 0o777 == 0o600
