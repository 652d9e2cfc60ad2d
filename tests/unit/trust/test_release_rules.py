"""Which policy may follow which: the windows of an upgrade, and every refusal with its control."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.model import Variant
from constellation.base.errors import Rejected
from constellation.trust.appraisal import merged_reference
from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy, Versions

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.trust.accept_rules import accept_policy
from constellation.trust.release_chain import SeenVersions, VerifiedRelease
from constellation.trust.release_rules import (
    LONGEST_ROLLOUT_S,
    Target,
    finish_policy,
    next_policy,
    seen_by,
)
from tests.fakes.release_world import NOW_S, artifacts, image, policy, release

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.trust.release import Release

TARGET = Target(
    provider="local",
    variant=Variant.LOCAL_VTPM,
    kubernetes="v1.36.1",
    minimum_release="0.1.0",
    ends_at=NOW_S + 3600,
)
JUDGE = dataclasses.replace(TARGET, provider=None)


def verified(of: Release, *, withdrawn: tuple[str, ...] = (), count: int = 1) -> VerifiedRelease:
    return VerifiedRelease(
        release=of,
        seen=SeenVersions(root=1, timestamp=count, snapshot=count, targets=count),
        offered=(of.version,),
        withdrawn=withdrawn,
    )


def upgraded(*versions: str, kubernetes: str = "v1.36.1") -> ClusterPolicy:
    """Give the policy of a cluster after these upgrades, each finished."""
    current = policy()
    for count, version in enumerate(versions, 1):
        target = dataclasses.replace(TARGET, kubernetes=kubernetes)
        of = verified(release(version), count=count)
        current = finish_policy(next_policy(current, of, target, now=NOW_S))
    return current


def move(
    current: ClusterPolicy,
    of: VerifiedRelease,
    *,
    kubernetes: str | None = None,
    now: int = NOW_S,
) -> ClusterPolicy:
    """Plan as the CLI and judge as a JoinService: both have to say the same."""
    target = dataclasses.replace(TARGET, kubernetes=kubernetes or current.kubernetes_version)
    target = dataclasses.replace(target, ends_at=now + 3600)
    found = next_policy(current, of, target, now=now)
    judge = dataclasses.replace(JUDGE, kubernetes=found.kubernetes_version)
    accept_policy(current, found, of, judge, now=now)
    return found


def images_at(found: ClusterPolicy, now: int) -> set[str]:
    return {entry.name for entry in found.releases if entry.accepted_at(now)}


# windows


def test_old_and_new_are_accepted_until_the_stated_time_then_only_the_new() -> None:
    found = move(policy(), verified(release("0.2.0")))
    assert found.serial == 2
    assert images_at(found, NOW_S) == {"0.0.9+own", "0.2.0"}
    assert images_at(found, NOW_S + 3599) == {"0.0.9+own", "0.2.0"}
    assert images_at(found, NOW_S + 3600) == {"0.2.0"}
    registers = merged_reference(found.releases, now_s=NOW_S).registers
    assert {len(values) for values in registers.values()} == {2, 3}


def test_a_finished_roll_out_accepts_only_the_new_image_and_one_kubernetes() -> None:
    going = move(policy(), verified(release("0.2.0")), kubernetes="v1.36.2")
    assert set(going.artifact_lists) == {"v1.36.1", "v1.36.2"}
    done = finish_policy(going)
    accept_policy(going, done, None, JUDGE, now=NOW_S)
    assert done.serial == 3
    assert images_at(done, NOW_S) == {"0.2.0"}
    assert set(done.artifact_lists) == {"v1.36.2"}
    assert done.release == going.release


def test_a_second_upgrade_before_the_first_ended_never_gives_the_oldest_more_time() -> None:
    first = move(policy(), verified(release("0.2.0")))
    second = move(first, verified(release("0.3.0"), count=2), now=NOW_S + 600)
    ends = {entry.name: entry.not_after for entry in second.releases}
    assert ends == {"0.0.9+own": NOW_S + 3600, "0.2.0": NOW_S + 4200, "0.3.0": None}


def test_reference_values_keep_the_window_that_the_release_gives_them() -> None:
    values = image("0.2.0").reference[0]
    later = dataclasses.replace(values, not_before=NOW_S + 50, not_after=NOW_S + 5000)
    over = dataclasses.replace(values, not_after=NOW_S - 1)
    of = release("0.2.0", images=(image("0.2.0", reference=(values, later, over)),))
    found = move(policy(), verified(of))
    windows = [(e.not_before, e.not_after) for e in found.releases if e.name == "0.2.0"]
    assert windows == [(1000, None), (NOW_S + 50, NOW_S + 5000)]


def test_the_policy_remembers_what_it_has_seen_and_where_it_came_from() -> None:
    found = upgraded("0.2.0", "0.3.0")
    assert seen_by(policy()) == SeenVersions(root=0, timestamp=0, snapshot=0, targets=0)
    assert seen_by(found) == SeenVersions(root=1, timestamp=2, snapshot=2, targets=2)
    assert found.release is not None
    assert found.release.before == Versions(release="0.2.0", kubernetes="v1.36.1")


@pytest.mark.parametrize("ends_at", [NOW_S, NOW_S + LONGEST_ROLLOUT_S + 1])
def test_a_roll_out_without_a_near_end_is_no_plan(ends_at: int) -> None:
    with pytest.raises(ValueError, match="ends within"):
        next_policy(
            policy(),
            verified(release("0.2.0")),
            dataclasses.replace(TARGET, ends_at=ends_at),
            now=NOW_S,
        )


# refusals: both the CLI's and the JoinService's way give them


def refused(
    current: ClusterPolicy, of: VerifiedRelease, *, kubernetes: str | None = None, now: int = NOW_S
) -> str:
    """Give the reasons of the CLI; demand that a JoinService says them too."""
    target = dataclasses.replace(TARGET, kubernetes=kubernetes or current.kubernetes_version)
    with pytest.raises(Rejected) as cli:
        next_policy(current, of, dataclasses.replace(target, ends_at=now + 3600), now=now)
    forged = dataclasses.replace(
        current, serial=current.serial + 1, kubernetes_version=target.kubernetes,
        artifact_lists={target.kubernetes: bytes(32)},
    )  # fmt: skip
    judge = dataclasses.replace(JUDGE, kubernetes=target.kubernetes)
    with pytest.raises(Rejected) as judged:
        accept_policy(current, forged, of, judge, now=now)
    neutral = {f.replace("any provider", "local") for f in judged.value.findings}
    assert set(cli.value.findings) <= neutral
    return str(cli.value)


def test_a_withdrawn_version_is_refused() -> None:
    current = upgraded("0.2.0")
    assert refused(current, verified(release("0.3.0"), withdrawn=("0.3.0",))) == (
        "release 0.3.0 was withdrawn by its publisher"
    )
    move(current, verified(release("0.3.0"), withdrawn=("0.2.5",)))


def test_a_downgrade_is_refused_but_to_what_the_policy_before_named() -> None:
    current = upgraded("0.2.0", "0.3.0", "0.4.0")
    assert refused(current, verified(release("0.2.0"))) == (
        "downgrade: the cluster has release 0.4.0, 0.2.0 is older; back goes only to 0.3.0 with "
        "v1.36.1, by `upgrade rollback`"
    )
    back = move(current, verified(release("0.3.0")))
    assert images_at(back, NOW_S) == {"0.3.0", "0.4.0"}
    assert images_at(back, NOW_S + 3600) == {"0.3.0"}


def test_a_rollback_to_a_withdrawn_version_is_refused() -> None:
    current = upgraded("0.2.0", "0.3.0")
    assert "was withdrawn" in refused(current, verified(release("0.2.0"), withdrawn=("0.2.0",)))
    move(current, verified(release("0.2.0")))


def test_a_release_that_cannot_be_reached_from_here_is_refused() -> None:
    current = upgraded("0.2.0")
    assert refused(current, verified(release("0.4.0", minimum_version="0.3.0"))) == (
        "release 0.4.0 can be reached from 0.3.0 or newer, the cluster has 0.2.0"
    )
    move(current, verified(release("0.4.0", minimum_version="0.2.0")))


def test_a_release_below_the_node_documents_minimum_is_refused() -> None:
    assert "older than 0.1.0, the oldest" in refused(policy(), verified(release("0.0.9")))
    move(policy(), verified(release("0.1.0")))


def test_a_skipped_minor_version_of_kubernetes_is_refused() -> None:
    lists = {v: artifacts(v, services="services 0.2.0") for v in ("v1.34.0", "v1.35.3", "v1.36.2")}
    of = verified(release("0.2.0", kubernetes=lists))
    old = policy(kubernetes_version="v1.34.0", artifact_lists={"v1.34.0": bytes(32)})
    assert refused(old, of, kubernetes="v1.36.2") == (
        "Kubernetes v1.34.0 to v1.36.2 skips a minor version: go to v1.35 first"
    )
    move(old, of, kubernetes="v1.35.3")


def test_an_older_kubernetes_is_refused_but_on_the_way_back() -> None:
    current = move(upgraded("0.2.0"), verified(release("0.3.0")), kubernetes="v1.36.2")
    older = verified(release("0.3.0"), count=2)
    assert "downgrade: the cluster has Kubernetes v1.36.2, v1.36.1 is older" in refused(
        current, older, kubernetes="v1.36.1"
    )
    assert move(current, verified(release("0.2.0")), kubernetes="v1.36.1").kubernetes_version == (
        "v1.36.1"
    )


def test_a_release_without_the_clusters_kubernetes_is_refused() -> None:
    lists = {"v1.36.2": artifacts("v1.36.2", services="services 0.2.0")}
    of = verified(release("0.2.0", kubernetes=lists))
    assert refused(policy(), of, kubernetes="v1.36.2") == (
        "release 0.2.0 has no Kubernetes v1.36.1; it has v1.36.2"
    )


def test_an_image_without_reference_values_for_this_variant_is_refused() -> None:
    of = verified(release("0.2.0", images=(image("0.2.0", reference=()),)))
    assert refused(policy(), of) == (
        "release 0.2.0: its image for local, local-vtpm has no reference values"
    )
    of = verified(release("0.2.0", images=(image("0.2.0", variant=Variant.GCP_SEV_SNP),)))
    assert refused(policy(), of) == "release 0.2.0 has no node image for local, local-vtpm"
    move(policy(), verified(release("0.2.0")))


@pytest.mark.parametrize(("not_before", "not_after"), [(NOW_S + 9, None), (1000, NOW_S)])
def test_reference_values_out_of_their_window_are_refused(
    not_before: int, not_after: int | None
) -> None:
    values = dataclasses.replace(
        image("0.2.0").reference[0], not_before=not_before, not_after=not_after
    )
    of = verified(release("0.2.0", images=(image("0.2.0", reference=(values,)),)))
    assert "no reference values for local, local-vtpm are valid at this time" in refused(
        policy(), of
    )


def test_a_development_release_is_refused_by_every_real_variant() -> None:
    of = release("0.2.0-dev.3", images=(image("0.2.0", variant=Variant.GCP_SEV_SNP),))
    real = dataclasses.replace(TARGET, variant=Variant.GCP_SEV_SNP)
    with pytest.raises(Rejected, match="made for development: refused for gcp-sev-snp"):
        next_policy(policy(), verified(of), real, now=NOW_S)
    next_policy(policy(), verified(dataclasses.replace(of, version="0.2.0")), real, now=NOW_S)
    move(policy(), verified(release("0.2.0-dev.3")))


def test_a_development_release_counts_for_minima_as_the_version_that_it_leads_up_to() -> None:
    one = finish_policy(move(policy(), verified(release("0.2.0-dev.1", minimum_version="0.2.0"))))
    move(one, verified(release("0.2.0-dev.2", minimum_version="0.2.0"), count=2))
    target = dataclasses.replace(TARGET, minimum_release="0.2.0")
    next_policy(policy(), verified(release("0.2.0-dev.1")), target, now=NOW_S)
    with pytest.raises(Rejected, match=r"older than 0\.2\.0"):
        next_policy(policy(), verified(release("0.1.9-dev.1")), target, now=NOW_S)
    with pytest.raises(Rejected, match=r"from 0\.3\.0 or newer"):
        move(one, verified(release("0.3.0-dev.2", minimum_version="0.3.0"), count=2))


# what a JoinService takes from nobody


def _with(found: ClusterPolicy, index: int, **changes: object) -> ClusterPolicy:
    entries = list(found.releases)
    entries[index] = dataclasses.replace(entries[index], **changes)  # type: ignore[arg-type] # by name
    return dataclasses.replace(found, releases=tuple(entries))


STRANGER = AcceptedRelease(
    name="0.2.0", not_before=0, not_after=None, image_digest=bytes(32), reference={4: (bytes(32),)}
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: dataclasses.replace(p, releases=(*p.releases, STRANGER)), "than release and"),
        (lambda p: _with(p, 0, reference={4: (bytes(32),)}), "than release and policy before"),
        (lambda p: _with(p, 0, not_before=0), "than release and policy before"),
        (lambda p: _with(p, 1, not_after=None), "than release and policy before"),
        (lambda p: dataclasses.replace(p, services_bundle=bytes(32)), "services bundle"),
        (
            lambda p: dataclasses.replace(p, artifact_lists={"v1.36.1": bytes(32)}),
            "an artifact list is not the release's",
        ),
        (lambda p: dataclasses.replace(p, release=None), "says of its release"),
        (
            lambda p: dataclasses.replace(
                p, release=dataclasses.replace(p.release, timestamp_version=0)
            ),
            "says of its release",
        ),
        (
            lambda p: dataclasses.replace(
                p,
                release=dataclasses.replace(
                    p.release, before=Versions(release="0.0.1", kubernetes="v1.36.1")
                ),
            ),
            "says of its release",
        ),
    ],
)
def test_a_policy_with_something_that_no_release_says_is_refused(
    change: Callable[[ClusterPolicy], ClusterPolicy], words: str
) -> None:
    current, of = policy(), verified(release("0.2.0"))
    found = next_policy(current, of, TARGET, now=NOW_S)
    accept_policy(current, found, of, JUDGE, now=NOW_S)
    with pytest.raises(Rejected, match=words):
        accept_policy(current, change(found), of, JUDGE, now=NOW_S)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: dataclasses.replace(p, kubernetes_version="v1.36.1"), "another kubernetes"),
        (lambda p: dataclasses.replace(p, services_bundle=bytes(32)), "another services bundle"),
        (lambda p: dataclasses.replace(p, release=None), "another release"),
        (
            lambda p: dataclasses.replace(p, artifact_lists={"v1.36.2": b"9" * 32}),
            "another artifact list",
        ),
        (lambda p: _with(p, 1, not_after=NOW_S + 9999), "than release and policy before"),
        (lambda p: dataclasses.replace(p, releases=(*p.releases, STRANGER)), "than release and"),
    ],
)
def test_without_a_release_a_policy_may_only_take_away(
    change: Callable[[ClusterPolicy], ClusterPolicy], words: str
) -> None:
    current = move(policy(), verified(release("0.2.0")), kubernetes="v1.36.2")
    same = dataclasses.replace(current, serial=current.serial + 1)
    accept_policy(current, same, None, JUDGE, now=NOW_S)
    with pytest.raises(Rejected, match=words):
        accept_policy(current, change(same), None, JUDGE, now=NOW_S)


# properties

steps = st.lists(
    st.tuples(
        st.sampled_from(["next", "finish", "back"]),
        st.integers(1, 6),
        st.sampled_from(["v1.35.3", "v1.36.1", "v1.36.2"]),
        st.integers(0, 5000),
    ),
    max_size=12,
)


@given(steps)
def test_whatever_the_order_serials_grow_and_nothing_old_gains_time(
    walk: list[tuple[str, int, str, int]],
) -> None:
    current, now = policy(), NOW_S
    for count, (verb, number, kubernetes, wait) in enumerate(walk, 1):
        now += wait
        before = current
        version = f"0.{number}.0"
        if verb == "back" and current.release is not None and current.release.before is not None:
            version = current.release.before.release
        try:
            if verb == "finish":
                found = finish_policy(current)
                accept_policy(current, found, None, JUDGE, now=now)
            else:
                of = verified(release(version), count=count)
                found = move(current, of, kubernetes=kubernetes, now=now)
        except Rejected:
            continue
        current = found
        assert current.serial == before.serial + 1
        assert any(entry.accepted_at(now) for entry in current.releases)
        assert current.release is not None
        open_ended = {e.name for e in current.releases if e.not_after is None}
        assert open_ended == {current.release.version}
        ends = {e.image_digest: e.not_after for e in before.releases}
        for entry in current.releases:
            if entry.name != current.release.version:
                old = ends[entry.image_digest]
                assert entry.not_after is not None
                assert old is None or entry.not_after <= old
                assert entry.not_after <= now + LONGEST_ROLLOUT_S
        # the same release and Kubernetes minor versions never jump
        a, b = before.kubernetes_version, current.kubernetes_version
        assert abs(int(a.split(".")[1]) - int(b.split(".")[1])) <= 1
