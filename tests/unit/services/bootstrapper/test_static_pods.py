"""Static pods get what they mount of the machine's gifts, also where a provider gives none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.kube.membership import NodeRole
from constellation.services.bootstrapper.paths import Paths
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
    assert not paths.host.exists(), "a worker has no operator, and needs no token"
    place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
    assert {p.name for p in paths.manifests.iterdir()} == {"verification.json", "operator.json"}


def test_where_no_token_is_given_the_operator_finds_an_empty_one(paths: Paths) -> None:
    place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
    token = paths.host / "instance-token"
    assert (token.read_bytes(), token.stat().st_mode & 0o777) == (b"", 0o400)
    assert not paths.access.parent.exists()


def test_a_token_of_the_local_cloud_stays_what_it_is(paths: Paths) -> None:
    paths.host.mkdir()
    (paths.host / "instance-token").write_bytes(b"token")
    place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
    assert (paths.host / "instance-token").read_bytes() == b"token"


def test_the_owners_list_of_hosts_is_copied_to_where_pods_see_it(paths: Paths) -> None:
    paths.host.mkdir()
    for content in (b"the owner's list", b"a newer one"):
        (paths.host / "hosts.json").write_bytes(content)
        place_static_pods(NodeRole.CONTROL_PLANE, paths=paths)
        copy = paths.access.parent / "hosts.json"
        assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (content, 0o600)
