"""The artifact list of a new Kubernetes version comes from the chain beside the policy."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base.errors import Unavailable
from constellation.services.kept_lists import kept_artifact_list
from constellation.services.kept_policy import KeptPolicy
from constellation.trust import artifact_list
from constellation.trust.cluster_policy import parse_policy, sign_policy
from tests.fakes.cluster_machines import OURS
from tests.fakes.upgrade_world import Upgrades

if TYPE_CHECKING:
    from pathlib import Path


async def test_only_the_bytes_that_the_policy_names_are_given(tmp_path: Path) -> None:
    kept = KeptPolicy(state=tmp_path / "state", document=OURS.document)
    kept.keep_first(OURS.policy(serial=1))
    with pytest.raises(Unavailable, match=r"v1\.36\.2"):
        kept_artifact_list(kept, "v1.36.2")
    world = Upgrades(cluster=OURS, folder=tmp_path / "releases")
    release = world.publish("0.2.0", b"a" * 32)
    offered = await world.to("0.2.0", OURS.policy(serial=1))
    kept.keep(offered)
    found = kept_artifact_list(kept, "v1.36.2")
    assert artifact_list.parse(found) == release.kubernetes["v1.36.2"]
    # a node's own list of that version, of the release before, is not the one
    assert kept_artifact_list(kept, "v1.36.2", own=b"of the release before") == found
    with pytest.raises(Unavailable):  # the release has it, the policy does not name it
        kept_artifact_list(kept, "v1.35.3")
    other = parse_policy(offered.signed.policy)
    own = b"another list"
    digest = hashlib.sha256(own).digest()
    other = dataclasses.replace(other, artifact_lists={"v1.36.2": digest})
    kept.keep(dataclasses.replace(offered, signed=sign_policy(other, OURS.owner)))
    with pytest.raises(Unavailable):
        kept_artifact_list(kept, "v1.36.2")
    assert kept_artifact_list(kept, "v1.36.2", own=own) == own
