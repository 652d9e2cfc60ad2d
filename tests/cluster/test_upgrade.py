"""`upgrade apply` and `upgrade rollback` on a real 1+1 cluster, to a second release and back.

The second release's image has other bytes and the same content: what differs is its digest, and
with it register 4. It is published in a copy of this machine's repository, so that nobody else's
clusters see it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.base import clock
from constellation.config.state import read_state
from constellation.config.workspace import Workspace as Files
from constellation.config.workspace import cache_folder
from constellation.config.writer import set_fields
from constellation.image.measure.local import predict
from constellation.image.release_key import ensure_development_key
from constellation.releases.repository import LIFETIMES, Repository
from constellation.trust.cluster_policy import ClusterPolicy, parse_policy
from constellation.trust.release import dump_release, sign_release, version_order
from tests.cluster.conftest import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.trust.release import Release

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

_REGISTER = 4


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
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    workspace = Workspace(folder=tmp_path_factory.mktemp("upgrade"))
    extra = cache_folder() / "image" / f"second-{workspace.folder.name}"
    up = workspace.constellation("mini", "up", "--yes", timeout_s=2400)
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        # has this machine publish what it has
        checked = workspace.constellation("upgrade", "check", timeout_s=300)
        assert checked.returncode == 0, checked.stderr
        first, second = publish_second(workspace, extra)
        yield Upgraded(workspace=workspace, first=first, second=second)
    finally:
        shutil.rmtree(extra, ignore_errors=True)
        down = workspace.constellation("mini", "down", "--yes", timeout_s=300)
    assert down.returncode == 0, f"{down.stdout}\n{down.stderr}"


def publish_second(workspace: Workspace, folder: Path) -> tuple[str, str]:
    """Give the versions of the release that the cluster was made of and of one after it."""
    own = cache_folder() / "releases" / "development"
    site = workspace.folder / "site"
    shutil.copytree(own, site)
    key = ensure_development_key(cache_folder())
    repository = Repository(folder=site, keys=(key,), now=clock.now(), lifetimes=LIFETIMES)
    first = repository.newest()
    assert first is not None
    second = second_release(workspace, first, folder)
    data = dump_release(second)
    repository.publish(data, sign_release(data, key))
    conf = workspace.folder / "constellation-conf.yaml"
    fields = {"releases.repository": "site", "releases.root": "site/metadata/1.root.json"}
    conf.write_text(set_fields(conf.read_text(), fields))
    return first.version, second.version


def second_release(workspace: Workspace, first: Release, folder: Path) -> Release:
    state = read_state(Files(folder=workspace.folder).state)
    assert state is not None
    assert state.image is not None
    image = Path(state.image.path).read_bytes() + bytes(4096)
    folder.mkdir()
    (folder / "image.squashfs").write_bytes(image)
    digest = hashlib.sha256(image).digest()
    values = tuple(v.hex() for v in predict(digest, b"")[_REGISTER])
    (old,) = first.images
    reference = tuple(
        dataclasses.replace(r, registers={**r.registers, _REGISTER: values}) for r in old.reference
    )
    major, minor, patch, _, number = version_order(first.version)
    return dataclasses.replace(
        first,
        version=f"{major}.{minor}.{patch}-dev.{number + 1}",
        images=(
            dataclasses.replace(
                old, sha256=digest.hex(), size_bytes=len(image), reference=reference
            ),
        ),
    )


def test_following_the_release_of_the_same_image_replaces_no_node(upgraded: Upgraded) -> None:
    before = upgraded.machines()
    upgraded.to(upgraded.first)
    assert upgraded.machines() == before
    assert upgraded.policy.release is not None
    assert upgraded.policy.release.version == upgraded.first


def test_another_image_replaces_every_node_and_only_it_is_accepted_at_the_end(
    upgraded: Upgraded,
) -> None:
    before = upgraded.machines()
    upgraded.to(upgraded.second)
    after = upgraded.machines()
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
