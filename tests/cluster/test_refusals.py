"""A changed node gets nothing: not at init, not at join; a changed artifact is refused by name."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.config.workspace import cache_folder
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster


def test_tamper_shows_the_refusal_and_the_event_and_the_join_log_keeps_it(mini: Workspace) -> None:
    before = len(mini.objects("nodes"))
    tampered = mini.constellation("mini", "tamper")
    said = tampered.stdout + tampered.stderr
    assert "pcr4" in said, said
    assert "EV_EFI_BOOT_SERVICES_APPLICATION" in said
    assert len(mini.objects("nodes")) == before
    log = mini.constellation("log", "-o", "json")
    assert log.returncode == 0, log.stderr
    refused = [r for r in json.loads(log.stdout)["records"] if r["kind"] == "refused"]
    assert any("pcr4" in json.dumps(r) for r in refused), log.stdout


def test_after_tamper_every_node_is_whole_again(mini: Workspace) -> None:
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    # the changed one is gone, and the others have one image: the one that `verify` demands
    assert len(nodes) == len(mini.objects("nodes")) == 2
    assert len({n.image for n in nodes}) == 1
    assert not list(mini.folder.glob(".tampered*"))
    verified = mini.constellation("verify")
    assert verified.returncode == 0, verified.stderr


@pytest.fixture
def created(tmp_path: Path) -> Iterator[Workspace]:
    """Give a workspace with machines that wait, and a cache of artifacts that may be spoilt."""
    cache = tmp_path / "cache"
    shutil.copytree(
        cache_folder(),
        cache / "constellation",
        copy_function=os.link,
        symlinks=True,
        ignore=shutil.ignore_patterns("go", "env", "toolchain", "apt-*"),
    )
    workspace = Workspace(folder=tmp_path / "cluster", cache=cache)
    workspace.folder.mkdir()
    for words in (("config", "generate", "local"), ("create", "--yes")):
        done = workspace.constellation(*words)
        assert done.returncode == 0, done.stderr
    try:
        yield workspace
    finally:
        gone = workspace.constellation("terminate", "--yes")
    assert gone.returncode == 0, gone.stderr


def _control_plane(workspace: Workspace) -> str:
    observed = asyncio.run(LocalInfrastructure(workspace.uid).observe())
    assert observed is not None
    return next(i.instance_id for i in observed.instances if i.role == "control-plane")


def _flip_one_bit(path: Path) -> None:
    """Change the last byte of a copy: other names of the file keep the old bytes."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_init_refuses_an_image_with_one_changed_bit_and_takes_the_genuine_one(
    created: Workspace,
) -> None:
    cloud = LocalInfrastructure(created.uid)
    machine = _control_plane(created)
    state = (created.folder / "constellation-state.yaml").read_text()
    image = Path(next(w for w in state.split() if w.endswith(".squashfs")))
    changed = created.folder / "changed.squashfs"
    data = bytearray(image.read_bytes())
    data[8] ^= 1  # the superblock's time stamp: it boots all the same
    changed.write_bytes(data)
    asyncio.run(cloud.power(machine, "cycle", image_path=str(changed)))
    refused = created.constellation("init", "--yes")
    assert refused.returncode == 5, f"{refused.returncode}: {refused.stderr}"
    for word in ("pcr4", "expected", "found", "EV_EFI_BOOT_SERVICES_APPLICATION"):
        assert word in refused.stderr, refused.stderr

    asyncio.run(cloud.power(machine, "cycle"))
    accepted = created.constellation("init", "--yes")
    assert accepted.returncode == 0, accepted.stderr


def test_an_artifact_with_one_changed_bit_is_refused_by_name(created: Workspace) -> None:
    listed = created.constellation("artifacts", "mirror", "-o", "json")
    kubelet = next(a for a in json.loads(listed.stdout)["artifacts"] if a["name"] == "kubelet")
    assert created.cache is not None
    _flip_one_bit(created.cache / "constellation/sha256" / kubelet["sha256"])
    refused = created.constellation("init", "--yes")
    assert refused.returncode == 5, f"{refused.returncode}: {refused.stderr}"
    assert "kubelet" in refused.stderr
    assert kubelet["sha256"] in refused.stderr
    assert not subprocess.run(
        ["pgrep", "--full", f"constellation-{created.uid}.*kubelet"],
        capture_output=True,
        check=False,
    ).stdout
