"""A joining node gets the oldest API server's version; what does not answer counts as old."""

from __future__ import annotations

import dataclasses

import pytest

from constellation.base.errors import FormatError, Unavailable
from constellation.kube.membership import NodeRole
from constellation.services.joinservice.kubernetes_version import joining_version, kubernetes_for
from constellation.trust.cluster_policy import ClusterPolicy, parse_policy
from tests.fakes.cluster_machines import OURS
from tests.fakes.members import founded

OLD, NEW = "v1.36.1", "v1.36.2"
ONE = parse_policy(OURS.policy(serial=1).policy)
ROLLING = dataclasses.replace(ONE, artifact_lists={OLD: bytes(32), NEW: bytes(32)})
WORKER, PLANE = NodeRole.WORKER, NodeRole.CONTROL_PLANE


@pytest.mark.parametrize(
    ("answers", "worker", "plane_joins"),
    [
        ({"a": NEW, "b": NEW}, NEW, True),
        ({"a": NEW, "b": OLD}, OLD, False),
        ({"a": OLD, "b": OLD}, OLD, False),
        ({"a": NEW, "b": None}, OLD, False),  # powered off: it may come back with its old version
        ({"a": None}, OLD, False),
    ],
)
def test_workers_get_the_oldest_version_and_control_planes_wait_until_all_are_new(
    answers: dict[str, str | None], worker: str, plane_joins: bool
) -> None:
    assert joining_version(WORKER, answers, ROLLING) == worker
    if plane_joins:
        assert joining_version(PLANE, answers, ROLLING) == NEW
    else:
        with pytest.raises(Unavailable, match="no control plane joins before all are"):
            joining_version(PLANE, answers, ROLLING)


def test_an_api_server_older_than_all_that_the_policy_names_lets_nobody_join() -> None:
    with pytest.raises(
        Unavailable, match=r"v1\.35\.3, and the cluster policy has no artifact list"
    ):
        joining_version(WORKER, {"a": "v1.35.3", "b": NEW}, ROLLING)
    three = dataclasses.replace(
        ROLLING, artifact_lists={**ROLLING.artifact_lists, "v1.35.3": bytes(32)}
    )
    assert joining_version(WORKER, {"a": "v1.35.3", "b": NEW}, three) == "v1.35.3"


class Servers:
    """API servers that say `version`, and who asked them."""

    def __init__(self, version: str) -> None:
        self.version, self.asked = version, list[str]()

    async def __call__(self, address: str) -> str:
        self.asked.append(address)
        if not self.version:
            raise Unavailable("off")
        if self.version == "junk":
            raise FormatError("junk")
        return self.version


async def test_each_control_plane_of_the_log_is_asked_at_its_own_address() -> None:
    membership = founded()
    (first,) = membership.nodes
    for said, version in ((NEW, NEW), (OLD, OLD), ("", OLD), ("junk", OLD)):
        servers = Servers(said)
        found = await kubernetes_for(WORKER, membership, ROLLING, ask=servers)
        assert (found, servers.asked) == (version, [first.address])


async def test_outside_a_roll_out_nobody_is_asked_and_control_planes_join() -> None:
    def policy_of(version: str) -> ClusterPolicy:
        return dataclasses.replace(
            ONE, artifact_lists={version: bytes(32)}, kubernetes_version=version
        )

    for version in (OLD, NEW):
        servers = Servers("")
        found = await kubernetes_for(PLANE, founded(), policy_of(version), ask=servers)
        assert (found, servers.asked) == (version, [])
