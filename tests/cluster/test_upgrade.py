"""`upgrade apply` and `upgrade rollback` on a real 1+1 cluster, to a second release and back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from constellation.config.state import read_state
from constellation.config.workspace import Workspace as Files
from constellation.config.workspace import cache_folder
from constellation.config.writer import set_fields
from constellation.trust.cluster_policy import ClusterPolicy, parse_policy
from tests.cluster.probes import ApiProbe
from tests.cluster.second_release import publish_second

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upgraded:
    """A cluster, and the two releases of its repository."""

    workspace: Workspace
    first: str
    second: str

    @property
    def policy(self) -> ClusterPolicy:
        state = read_state(Files(folder=self.workspace.folder).state)
        assert state is not None
        assert state.policy is not None
        return parse_policy(state.policy.policy)

    def machines(self) -> set[str]:
        """Give the instance ids of all machines."""
        shown = self.workspace.constellation("status", "-o", "json")
        return {m["id"] for m in json.loads(shown.stdout)["machines"]}

    def to(self, version: str) -> None:
        """Write a release into the configuration and go there."""
        conf = self.workspace.folder / "constellation-conf.yaml"
        conf.write_text(set_fields(conf.read_text(), {"release": version}))
        done = self.workspace.constellation("upgrade", "apply", timeout_s=600)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert f"Every node runs release {version}" in done.stdout


@pytest.fixture(scope="module")
def upgraded(changing: Workspace) -> Iterator[Upgraded]:
    extra = cache_folder() / "image" / f"second-{changing.uid}"
    # has this machine publish what it has
    checked = changing.constellation("upgrade", "check", timeout_s=300)
    assert checked.returncode == 0, checked.stderr
    try:
        first, second = publish_second(changing, extra)
        yield Upgraded(workspace=changing, first=first, second=second)
    finally:
        shutil.rmtree(extra, ignore_errors=True)


def test_following_the_release_of_the_same_image_replaces_no_node(upgraded: Upgraded) -> None:
    before = upgraded.machines()
    upgraded.to(upgraded.first)
    assert upgraded.machines() == before
    assert upgraded.policy.release is not None
    assert upgraded.policy.release.version == upgraded.first


def test_another_image_replaces_every_node_no_request_fails_and_only_it_is_accepted(
    upgraded: Upgraded,
) -> None:
    before = upgraded.machines()
    with ApiProbe(upgraded.workspace) as probe:
        upgraded.to(upgraded.second)
    after = upgraded.machines()
    assert probe.asked > 100
    assert probe.failed == []
    assert len(after) == len(before) == 2
    assert not after & before
    assert [(e.name, e.not_after) for e in upgraded.policy.releases] == [(upgraded.second, None)]
    proven = upgraded.workspace.constellation("verify")
    assert proven.returncode == 0, f"{proven.stdout}\n{proven.stderr}"


def test_rollback_leads_back_to_the_release_before(upgraded: Upgraded) -> None:
    before = upgraded.machines()
    done = upgraded.workspace.constellation("upgrade", "rollback", timeout_s=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert not upgraded.machines() & before
    assert [e.name for e in upgraded.policy.releases] == [upgraded.first]
    conf = (upgraded.workspace.folder / "constellation-conf.yaml").read_text()
    assert upgraded.first in conf
