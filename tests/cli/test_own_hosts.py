"""The command line on machines that it does not make: no root, no cloud, nothing removed."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from tests.cli.test_transcripts import run
from tests.fakes import release_world

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = {"control_plane_default": ["127.0.0.11"], "worker_default": ["127.0.0.12"]}


def _publish(folder: Path, *, provider: str, variant: Variant) -> None:
    maker = release_world.Maker(folder=folder / "releases", now=datetime.now(UTC)).create()
    (folder / "1.root.json").write_bytes(maker.pinned_root)
    image = release_world.image("1.0.0", provider=provider, variant=variant, name="node")
    maker.publish(dataclasses.replace(release_world.release("1.0.0"), images=(image,)))


def _configure(folder: Path, provider: dict[str, object]) -> None:
    conf = {
        "version": 1,
        "name": "own",
        "release": "1.0.0",
        "provider": provider,
        "releases": {"repository": "releases", "root": "1.root.json"},
    }
    (folder / "constellation-conf.yaml").write_text(json.dumps(conf))


def test_a_cluster_on_hosts_of_ones_own_is_begun_and_left(tmp_path: Path) -> None:
    _publish(tmp_path, provider="baremetal", variant=Variant.QEMU_TDX)
    _configure(tmp_path, {"baremetal": {"hosts": HOSTS, "endpoint": "127.0.0.11:6443"}})
    done = run(tmp_path, "create", "--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    machines = json.loads(done.stdout)["machines"]
    assert [(m["id"], m["state"]) for m in machines] == [
        ("host-127-0-0-11", "off"),
        ("host-127-0-0-12", "off"),
    ]
    folder = tmp_path / "constellation-hosts"
    documents = {(folder / m["id"] / "user-data").read_bytes() for m in machines}
    assert len(documents) == 1
    again = run(tmp_path, "create", "--yes")
    assert "2 machines of own-" in again.stdout
    assert "wait; not up yet: host-127-0-0-11, host-127-0-0-12." in again.stdout
    secret = json.loads((tmp_path / "constellation-mastersecret.json").read_text())
    assert not [v for v in secret.values() if isinstance(v, str) and v in str(documents)]

    planned = run(tmp_path, "apply", "--plan", "-o", "json")
    assert [s["step"] for s in json.loads(planned.stdout)["steps"]] == ["machines", "init", "ready"]

    done = run(tmp_path, "terminate", "--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert not folder.exists()
    assert not [r for r in json.loads(done.stdout)["removed"] if "machines" in r]


def test_machines_of_a_state_file_are_left_without_asking_a_cloud_or_root(tmp_path: Path) -> None:
    _publish(tmp_path, provider="aws", variant=Variant.AWS_SEV_SNP)
    _configure(
        tmp_path, {"aws": {"region": "eu-west-1", "zones": ["eu-west-1a"], "image": "ami-12c6146b"}}
    )
    done = run(tmp_path, "apply", "--skip", "infrastructure", "--yes")
    assert done.returncode == 7
    assert "the state file names no machines" in done.stderr
    assert (tmp_path / "constellation-node-document.json").exists()
    done = run(tmp_path, "terminate", "--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [r.rpartition("/")[2] for r in told["removed"]] == ["constellation-state.yaml"]
