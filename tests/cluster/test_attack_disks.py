"""Another disk in place of a node's own, on a real cluster: refused, and nothing of it is changed.

The operator of the data centre exchanges the disk of a machine that is off: a worker's, which asks
a JoinService, and the only control plane's, whose owner brings the key. Each disk carries a file,
which must be all that is on it afterwards; then the node gets its own disk back and opens it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
import uuid as uuids
from typing import TYPE_CHECKING

import pytest

from constellation.base.secret import Secret
from constellation.disk import fscrypt
from constellation.disk.native import inspect
from constellation.disk.superblock import State
from tests.cluster.conftest import eventually
from tests.cluster.machines import (
    disk_of,
    inside,
    journal,
    machine,
    machine_by_id,
    power,
    ready_again,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

WORD = b"what the operator of the data centre put here"
REFUSED_WITHIN_S = 60.0
NOBODY_WAITS = "No control plane waits for recovery."


def run(*argv: str | Path) -> None:
    subprocess.run([*map(str, argv)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(disk: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", "-o", "loop", disk, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def somebodys(disk: Path, folder: Path, uuid: bytes) -> str:
    """Plain ext4 with files of somebody."""
    del uuid
    run("mkfs.ext4", "-q", "-F", "-L", "photos", disk)
    with mounted(disk, folder):
        (folder / "word").write_bytes(WORD)
    return "label"


def like_ours(disk: Path, uuid: bytes) -> None:
    run(
        *("mkfs.ext4", "-q", "-F", "-O", "encrypt,stable_inodes", "-L", "constellation"),
        *("-U", str(uuids.UUID(bytes=uuid)), disk),
    )


def unencrypted(disk: Path, folder: Path, uuid: bytes) -> str:
    """Everything as on the node's own disk, but the folder's files are readable for everybody."""
    like_ours(disk, uuid)
    with mounted(disk, folder):
        (folder / "encrypted").mkdir()
        (folder / "word").write_bytes(WORD)
    return "not encrypted"


def with_another_key(disk: Path, folder: Path, uuid: bytes) -> str:
    """The same, encrypted with a key that the operator has."""
    like_ours(disk, uuid)
    key = Secret(os.urandom(fscrypt.KEY_BYTES))
    with mounted(disk, folder):
        fscrypt.add_key(folder, key)
        (folder / "encrypted").mkdir()
        fscrypt.protect(folder / "encrypted", key)
        (folder / "word").write_bytes(WORD)
    return "master_key_identifier"


def of_a_node_that_nobody_knows(disk: Path, folder: Path, uuid: bytes) -> str:
    """A disk of the right make, of a node that was never in this cluster."""
    with_another_key(disk, folder, hashlib.sha256(uuid).digest()[:16])
    return "no rejoin ticket"


def test_another_disk_is_refused_and_the_own_one_opens_again(
    mini: Workspace, tmp_path: Path
) -> None:
    node = machine(mini, "worker")
    with without_disk(mini, node.instance_id) as uuid:
        for make in (somebodys, unencrypted, with_another_key, of_a_node_that_nobody_knows):
            _refused(mini, node.instance_id, make, uuid, tmp_path)
    assert ready_again(mini, node, seconds=90), "the control case: its own disk"


def test_the_owners_key_opens_no_other_disk_of_a_control_plane(
    mini: Workspace, tmp_path: Path
) -> None:
    node = machine(mini, "control-plane")

    def owner_brings_the_key() -> None:
        assert "the state disk did not open" in _recover(mini, exit_code=6)

    with without_disk(mini, node.instance_id) as uuid:
        _refused(mini, node.instance_id, somebodys, uuid, tmp_path)
        for make in (unencrypted, with_another_key):
            _refused(mini, node.instance_id, make, uuid, tmp_path, meanwhile=owner_brings_the_key)
    assert node.instance_id in _recover(mini, exit_code=0), "the control case: its own disk"
    assert ready_again(mini, node, seconds=90)


def _recover(mini: Workspace, *, exit_code: int) -> str:
    """Run `recover` until a control plane waits for it; gives what it said."""
    said: list[str] = []

    def waited_for() -> bool:
        done = mini.constellation("recover", timeout_s=90)
        said.append(f"{done.returncode}: {done.stdout}{done.stderr}")
        return NOBODY_WAITS not in done.stdout

    assert eventually(waited_for, seconds=60), said
    assert said[-1].startswith(f"{exit_code}: "), said
    return said[-1]


@contextlib.contextmanager
def without_disk(mini: Workspace, instance_id: str) -> Iterator[bytes]:
    """Take the disk (gives its uuid) of a machine that is then off; then start it with it again."""
    own = disk_of(mini, instance_id)
    power(mini, instance_id, "off")
    kept = own.with_name("own-disk")
    own.rename(kept)
    try:
        found = inspect(kept)
        assert found.state is State.KNOWN
        yield found.uuid
    finally:
        power(mini, instance_id, "kill")
        own.unlink(missing_ok=True)
        kept.rename(own)
        power(mini, instance_id, "on")


def _refused(
    mini: Workspace,
    instance_id: str,
    make: Callable[[Path, Path, bytes], str],
    uuid: bytes,
    folder: Path,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    disk = disk_of(mini, instance_id)
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(disk.with_name("own-disk").stat().st_size)
    word = make(disk, folder / "mounted", uuid)
    before = inspect_or_none(disk)
    power(mini, instance_id, "on")
    meanwhile()
    said = _refusal(mini, instance_id, word)
    power(mini, instance_id, "kill")
    assert inspect_or_none(disk) == before, said
    with mounted(disk, folder / "mounted") as content:
        names = {p.name for p in content.rglob("*")} - {"lost+found"}
        assert names <= {"word", "encrypted"}, f"{make.__name__}: {names}"
        assert (content / "word").read_bytes() == WORD


def _refusal(mini: Workspace, instance_id: str, word: str) -> str:
    """Wait for the refusal in the journal of whichever boot the node is in; it reboots itself."""
    end, said = time.monotonic() + REFUSED_WITHIN_S, ""
    while time.monotonic() < end:
        now = machine_by_id(mini, instance_id)
        said = journal(now, "constellation-diskmapper.service") or said
        assert '"state": "open"' not in said
        if word in said:
            if now.pid:
                record = inside(now.pid, "cat", "/run/constellation/disk.json")
                assert '"open"' not in record, record
            return said
        time.sleep(0.2)
    raise AssertionError(f"no refusal with {word!r} in {REFUSED_WITHIN_S} s: {said[-2000:]}")


def inspect_or_none(disk: Path) -> tuple[State, bytes] | None:
    try:
        found = inspect(disk)
    except Exception:  # noqa: BLE001 - somebody else's: what it is does not matter here
        return None
    return found.state, found.uuid
