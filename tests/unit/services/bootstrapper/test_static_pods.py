"""Static pods get what they mount of the machine's gifts, also where a provider gives none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError
from constellation.image.sources import os_folder
from constellation.kube.membership import NodeRole
from constellation.services.bootstrapper.paths import REAL, Paths
from constellation.services.bootstrapper.runtime import place_static_pods

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(
        state=tmp_path / "state",
        kubernetes=tmp_path / "kubernetes",
        kubelet=tmp_path / "kubelet",
        run=tmp_path / "run",
        host=tmp_path / "run/host",
    )
    for folder, name in (("all", "verification"), ("control-plane", "operator")):
        place = made.services / "manifests" / folder / f"{name}.json"
        place.parent.mkdir(parents=True)
        place.write_text(name)
    made.keys.mkdir(parents=True)
    made.manifests.mkdir(parents=True)
    return made


def test_each_role_gets_its_own_pods(paths: Paths) -> None:
    place_static_pods(NodeRole.WORKER, paths=paths)
    assert {p.name for p in paths.manifests.iterdir()} == {"verification.json"}
    assert not paths.gifts.exists(), "a worker has no operator, and needs no token"
    place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
    assert {p.name for p in paths.manifests.iterdir()} == {"verification.json", "operator.json"}


def test_where_no_token_is_given_the_operator_finds_an_empty_one(paths: Paths) -> None:
    paths.host.mkdir()
    place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
    token = paths.gifts / "instance-token"
    assert (token.read_bytes(), token.stat().st_mode & 0o777) == (b"", 0o400)
    assert not list(paths.host.iterdir()), "an owner's medium is mounted read-only"
    assert not paths.access.parent.exists()


def test_a_token_of_the_local_cloud_is_that_of_this_power_on(paths: Paths) -> None:
    paths.host.mkdir()
    for token in (b"token", b"another"):
        (paths.host / "instance-token").write_bytes(token)
        place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
        copy = paths.gifts / "instance-token"
        assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (token, 0o400)


@pytest.mark.parametrize("name", ["instance-token", "hosts.json"])
def test_no_gift_fills_memory_or_the_state_disk(paths: Paths, name: str) -> None:
    paths.host.mkdir()
    with (paths.host / name).open("wb") as file:
        file.truncate(256 * 1024 + 1)
    with pytest.raises(FormatError, match=name):
        place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
    assert not (paths.access.parent / name).exists()


def test_the_operators_pod_mounts_the_copy() -> None:
    folder = os_folder() / "services/manifests/control-plane"
    spec = json.loads((folder / "constellation-operator.json").read_text())["spec"]
    mounted = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
    assert mounted["instance-token"] == str(REAL.gifts / "instance-token")
    assert not [path for path in mounted.values() if path.startswith(f"{REAL.host}/")]


def test_the_owners_list_of_hosts_is_copied_to_where_pods_see_it(paths: Paths) -> None:
    paths.host.mkdir()
    for content in (b"the owner's list", b"a newer one"):
        (paths.host / "hosts.json").write_bytes(content)
        place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
        copy = paths.access.parent / "hosts.json"
        assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (content, 0o600)
