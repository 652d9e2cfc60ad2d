"""What a control plane obeys: its own judgement of policy and release; refusals and controls."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base.errors import Conflict, FormatError, Rejected, Untrusted
from constellation.crypto.signing import generate_key, spki
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.policy_acceptance import (
    Acceptance,
    OfferedPolicy,
    SignedAcceptance,
    of_offer,
    sign_acceptance,
    verify_acceptance,
)
from constellation.trust.policy_judgement import judge_first, judge_successor
from tests.fakes.cluster_machines import IMAGE, Cluster, release_of
from tests.fakes.tpm import NOW
from tests.fakes.upgrade_world import Upgrades

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.policy_judgement import Judge, Judged

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
LATER = NOW + timedelta(days=400)
"""By then every timestamp of this repository has expired."""


class Plane:
    """One control plane as far as policies go: what it keeps, and how it judges."""

    def __init__(self, world: Upgrades, kept: OfferedPolicy) -> None:
        self.world, self.kept = world, kept

    def judge(self, offered: OfferedPolicy, *, judge: Judge | None = None) -> Judged | None:
        policy = parse_policy(self.kept.signed.policy)
        return judge_successor(policy, self.kept, offered, judge=judge or self.world.judge())

    def take(self, offered: OfferedPolicy, *, judge: Judge | None = None) -> OfferedPolicy:
        """Judge and keep as a JoinService does; gives what it would pass on."""
        judged = self.judge(offered, judge=judge)
        assert judged is not None
        self.kept = judged.offered
        if judged.own is not None:
            cluster = self.world.cluster
            said = sign_acceptance(judged.own, cluster.join, cluster_id=cluster.document.cluster_id)
            self.kept = dataclasses.replace(self.kept, accepted=said)
        return self.kept

    @property
    def serial(self) -> int:
        return parse_policy(self.kept.signed.policy).serial


@pytest.fixture
def world(tmp_path: Path) -> Upgrades:
    made = Upgrades(cluster=Cluster(name="judged"), folder=tmp_path / "releases")
    made.publish("0.2.0", A)
    return made


@pytest.fixture
def plane(world: Upgrades) -> Plane:
    return first(world)


def first(world: Upgrades) -> Plane:
    return Plane(world, OfferedPolicy(signed=world.cluster.policy(serial=1)))


def said_by(
    world: Upgrades, offered: OfferedPolicy, said: Acceptance, key: object = None
) -> OfferedPolicy:
    signed = sign_acceptance(
        said,
        key or world.cluster.join,  # type: ignore[arg-type] # a key of the right kind
        cluster_id=world.cluster.document.cluster_id,
    )
    return dataclasses.replace(offered, accepted=signed)


# handed in by the owner


async def test_a_release_that_the_pinned_root_leads_to_is_obeyed(
    world: Upgrades, plane: Plane
) -> None:
    offered = await world.to("0.2.0", plane.kept.signed)
    kept = plane.take(offered)
    assert (plane.serial, kept.chain) == (2, offered.chain)
    assert plane.judge(offered) is None  # again: it is the kept one
    assert verify_acceptance(
        kept,
        join_public_key=spki(world.cluster.join.public_key()),
        cluster_id=world.cluster.document.cluster_id,
    ) == of_offer(offered, fresh_at=int(NOW.timestamp()))


async def test_without_its_chain_no_new_release_is_obeyed(world: Upgrades, plane: Plane) -> None:
    offered = await world.to("0.2.0", plane.kept.signed)
    with pytest.raises(Rejected, match="no release came with it"):
        plane.judge(dataclasses.replace(offered, chain=b""))
    plane.take(offered)


async def test_a_chain_of_another_maker_is_untrusted(
    world: Upgrades, plane: Plane, tmp_path: Path
) -> None:
    other = Upgrades(cluster=world.cluster, folder=tmp_path / "other")
    other.publish("0.2.0", A)
    with pytest.raises(Untrusted, match="signature"):
        plane.judge(await other.to("0.2.0", plane.kept.signed))
    plane.take(await world.to("0.2.0", plane.kept.signed))


async def test_an_expired_chain_is_untrusted_however_fresh_the_owner_found_it(
    world: Upgrades, plane: Plane
) -> None:
    offered = await world.to("0.2.0", plane.kept.signed)
    with pytest.raises(Untrusted, match="expired"):
        plane.judge(offered, judge=world.judge(now=LATER))
    plane.take(offered)


async def test_an_older_state_of_the_repository_is_a_replay(world: Upgrades, plane: Plane) -> None:
    old = await world.chain("0.2.0")
    world.publish("0.3.0", B)
    newer = await world.to("0.3.0", plane.kept.signed)
    plane.take(newer)
    world.publish("0.4.0", C)
    again = await world.to("0.4.0", plane.kept.signed)
    with pytest.raises(Untrusted, match="replayed"):
        plane.judge(dataclasses.replace(again, chain=old))
    plane.take(again)


async def test_a_withdrawn_release_is_refused(world: Upgrades, plane: Plane) -> None:
    before = await world.to("0.2.0", plane.kept.signed)
    world.publish("0.3.0", B, withdrawn=("0.2.0",))
    hidden = dataclasses.replace(before, chain=await world.chain("0.2.0"))
    with pytest.raises(Rejected, match=r"0\.2\.0 was withdrawn"):
        plane.judge(hidden)
    plane.take(before)  # the same before it was withdrawn


async def test_a_downgrade_is_refused_but_back_to_the_release_before(
    world: Upgrades, plane: Plane
) -> None:
    world.publish("0.3.0", B)
    first_step = await world.to("0.3.0", plane.kept.signed)
    plane.take(first_step)
    with pytest.raises(Rejected, match="downgrade"):
        await world.to("0.2.0", plane.kept.signed)  # the owner's own program says so
    forged = parse_policy((await world.to("0.2.0", world.cluster.policy(serial=2))).signed.policy)
    offered = OfferedPolicy(
        signed=sign_policy(forged, world.cluster.owner), chain=await world.chain("0.2.0")
    )
    with pytest.raises(Rejected, match="downgrade"):
        plane.judge(offered)
    world.publish("0.4.0", C)
    plane.take(await world.to("0.4.0", plane.kept.signed))
    plane.take(await world.to("0.3.0", plane.kept.signed))
    assert plane.serial == 4


async def test_a_skipped_minor_version_of_kubernetes_is_refused(
    world: Upgrades,
) -> None:
    cluster = world.cluster
    old = parse_policy(cluster.policy(serial=1).policy)
    old = dataclasses.replace(
        old, kubernetes_version="v1.34.0", artifact_lists={"v1.34.0": bytes(32)}
    )
    plane = Plane(world, OfferedPolicy(signed=sign_policy(old, cluster.owner)))
    near = dataclasses.replace(old, kubernetes_version="v1.35.3", artifact_lists={"v1.35.3": A})
    nearer = await world.to("0.2.0", sign_policy(near, cluster.owner), kubernetes="v1.36.1")
    with pytest.raises(Rejected, match="skips a minor version"):
        plane.judge(nearer)
    plane = Plane(world, OfferedPolicy(signed=sign_policy(near, cluster.owner)))
    plane.take(nearer)


async def test_nothing_is_obeyed_that_no_release_says(world: Upgrades, plane: Plane) -> None:
    policy = parse_policy((await world.to("0.2.0", plane.kept.signed)).signed.policy)
    chain = await world.chain("0.2.0")
    stranger = release_of(C)
    for changes, words in (
        ({"releases": (*policy.releases, stranger)}, "longer or otherwise than release"),
        ({"releases": (dataclasses.replace(policy.releases[0], image_digest=C),)}, "otherwise"),
        ({"services_bundle": bytes(32)}, "services bundle is not the release's"),
        ({"artifact_lists": {"v1.36.2": bytes(32)}}, "artifact list is not the release's"),
        ({"release": None}, "says of its release"),
    ):
        changed = dataclasses.replace(policy, **changes)
        offered = OfferedPolicy(signed=sign_policy(changed, world.cluster.owner), chain=chain)
        with pytest.raises(Rejected, match=words):
            plane.judge(offered)
    plane.take(OfferedPolicy(signed=sign_policy(policy, world.cluster.owner), chain=chain))


async def test_what_the_owner_did_not_sign_and_other_keys_and_roots_are_refused(
    world: Upgrades, plane: Plane
) -> None:
    offered = await world.to("0.2.0", plane.kept.signed)
    policy = parse_policy(offered.signed.policy)
    forged = dataclasses.replace(offered, signed=sign_policy(policy, generate_key()))
    with pytest.raises(Untrusted, match="signature"):
        plane.judge(forged)
    for changes, words in (
        ({"join_public_key": spki(generate_key().public_key())}, "another join key"),
        ({"trust_roots": (b"another cloud",)}, "other trust roots"),
    ):
        with pytest.raises(Rejected, match=words):
            plane.judge(await world.to("0.2.0", plane.kept.signed, **changes))
    plane.take(offered)
    with pytest.raises(Conflict, match="another one with serial 2"):
        plane.judge(await world.to("0.2.0", world.cluster.policy(serial=1), slots={"w": 9}))
    with pytest.raises(Untrusted, match="serial 1"):
        plane.judge(OfferedPolicy(signed=world.cluster.policy(serial=1)))


async def test_the_policy_after_a_roll_out_only_takes_away_and_keeps_the_chain(
    world: Upgrades, plane: Plane
) -> None:
    offered = await world.to("0.2.0", plane.kept.signed)
    plane.take(offered)
    done = world.finish(plane.kept.signed)
    with pytest.raises(Rejected, match="longer or otherwise"):
        plane.judge(world.finish(plane.kept.signed, releases=(release_of(IMAGE),)))
    kept = plane.take(done, judge=world.judge(now=LATER))  # no freshness is asked for
    assert kept.chain == offered.chain
    said = verify_acceptance(
        kept,
        join_public_key=spki(world.cluster.join.public_key()),
        cluster_id=world.cluster.document.cluster_id,
    )
    assert said == of_offer(kept, fresh_at=int(NOW.timestamp()))  # when the chain was judged


# passed on by another control plane


async def test_one_that_was_off_takes_what_others_accepted_though_the_chain_has_expired(
    world: Upgrades, plane: Plane
) -> None:
    away = first(world)
    passed_on = plane.take(await world.to("0.2.0", plane.kept.signed))
    late = world.judge(now=LATER)
    with pytest.raises(Untrusted, match="expired"):
        away.judge(dataclasses.replace(passed_on, accepted=None), judge=late)
    away.take(passed_on, judge=late)
    assert away.kept == passed_on


async def test_one_that_missed_several_policies_catches_up_by_the_last(
    world: Upgrades, plane: Plane
) -> None:
    away = first(world)
    for version, image in (("0.3.0", B), ("0.4.0", C)):
        world.publish(version, image)
        plane.take(await world.to(version, plane.kept.signed))
        plane.take(world.finish(plane.kept.signed))
    assert plane.serial == 5
    passed_on = plane.kept
    with pytest.raises(Rejected):
        away.judge(dataclasses.replace(passed_on, accepted=None))
    away.take(passed_on, judge=world.judge(now=LATER))
    assert away.serial == 5
    again = first(world)
    again.take(plane.take(await world.to("0.3.0", plane.kept.signed)))  # in the midst of a way back
    assert again.serial == 6


async def test_an_acceptance_is_the_join_keys_for_this_policy_and_this_chain(
    world: Upgrades, plane: Plane
) -> None:
    away = first(world)
    plain = await world.to("0.2.0", plane.kept.signed)
    passed_on = plane.take(plain)
    assert passed_on.accepted is not None
    now_s = int(NOW.timestamp())
    good = of_offer(passed_on, fresh_at=now_s)
    late = world.judge(now=LATER)
    other = await world.to("0.2.0", plane.kept.signed)
    for offered in (
        said_by(world, plain, good, generate_key()),
        said_by(world, plain, dataclasses.replace(good, policy_digest=bytes(32))),
        said_by(world, plain, dataclasses.replace(good, chain_digest=bytes(32))),
        dataclasses.replace(other, accepted=passed_on.accepted),
    ):
        with pytest.raises(Untrusted):
            away.judge(offered, judge=late)
    for at in (-1, 1 << 40):
        broken = b'{"chain_digest":"","fresh_at":%d,"policy_digest":""}' % at
        said = SignedAcceptance(acceptance=broken, signature=passed_on.accepted.signature)
        with pytest.raises((Untrusted, FormatError)):
            away.judge(dataclasses.replace(plain, accepted=said), judge=late)
    elsewhere = sign_acceptance(good, world.cluster.join, cluster_id=bytes(32))
    with pytest.raises(Untrusted):
        away.judge(dataclasses.replace(plain, accepted=elsewhere), judge=late)
    away.take(said_by(world, plain, good), judge=late)


def test_an_acceptance_of_no_time_of_ours_cannot_be_made() -> None:
    for at in (-1, 1 << 33):
        with pytest.raises(FormatError, match="none of our days"):
            Acceptance(policy_digest=A, chain_digest=B, fresh_at=at)
    Acceptance(policy_digest=A, chain_digest=B, fresh_at=0)


async def test_what_a_control_plane_accepted_is_judged_all_the_same(
    world: Upgrades, plane: Plane, tmp_path: Path
) -> None:
    """The join key stands for time and policies in between, never for signatures and content."""
    now_s = int(NOW.timestamp())
    other = Upgrades(cluster=world.cluster, folder=tmp_path / "other")
    other.publish("0.2.0", A)
    strange = await other.to("0.2.0", plane.kept.signed)
    with pytest.raises(Untrusted, match="signature"):
        plane.judge(said_by(world, strange, of_offer(strange, fresh_at=now_s)))
    plain = await world.to("0.2.0", plane.kept.signed)
    policy = parse_policy(plain.signed.policy)
    open_end = dataclasses.replace(policy.releases[1], not_after=None)
    long_end = dataclasses.replace(policy.releases[1], not_after=now_s + 8 * 24 * 3600)
    stranger = release_of(C)
    for serial in (2, 7):  # the next one, and one with others in between
        for changes, words in (
            ({"releases": (*policy.releases, stranger)}, r"0\.1\.0"),
            ({"releases": (policy.releases[0], open_end)}, r"0\.1\.0"),
            ({"releases": (policy.releases[0], long_end)}, r"0\.1\.0"),
            ({"releases": (dataclasses.replace(policy.releases[0], image_digest=C),)}, "otherwise"),
            ({"services_bundle": bytes(32)}, "services bundle is not the release's"),
            ({"artifact_lists": {"v1.36.2": bytes(32)}}, "artifact list is not the release's"),
        ):
            changed = dataclasses.replace(policy, serial=serial, **changes)
            signed = sign_policy(changed, world.cluster.owner)
            offered = dataclasses.replace(plain, signed=signed)
            with pytest.raises(Rejected, match=words):
                plane.judge(said_by(world, offered, of_offer(offered, fresh_at=now_s)))
        signed = sign_policy(dataclasses.replace(policy, serial=serial), world.cluster.owner)
        offered = dataclasses.replace(plain, signed=signed)
        assert plane.judge(said_by(world, offered, of_offer(offered, fresh_at=now_s))) is not None
    bare = dataclasses.replace(plain, chain=b"")
    with pytest.raises(Untrusted, match="no release chain came with it"):
        plane.judge(said_by(world, bare, of_offer(bare, fresh_at=now_s)))


async def test_a_replayed_chain_does_not_pass_because_somebody_accepted_it_once(
    world: Upgrades, plane: Plane
) -> None:
    old = await world.to("0.2.0", plane.kept.signed)
    world.publish("0.3.0", B)
    plane.take(await world.to("0.3.0", plane.kept.signed))
    policy = dataclasses.replace(parse_policy(old.signed.policy), serial=9)
    again = dataclasses.replace(old, signed=sign_policy(policy, world.cluster.owner))
    with pytest.raises(Untrusted, match="replayed"):
        plane.judge(said_by(world, again, of_offer(again, fresh_at=int(NOW.timestamp()))))


# the first policy of a control plane that joins


async def test_a_joining_control_plane_judges_the_policy_of_its_ticket(
    world: Upgrades, plane: Plane, tmp_path: Path
) -> None:
    late = world.judge(now=LATER)
    assert judge_first(plane.kept, judge=late).serial == 1  # of no release: the owner's word
    passed_on = plane.take(await world.to("0.2.0", plane.kept.signed))
    assert judge_first(passed_on, judge=late).serial == 2
    other = Upgrades(cluster=world.cluster, folder=tmp_path / "other")
    with pytest.raises(Untrusted, match="signature"):
        judge_first(passed_on, judge=world.judge(pinned_root=other.maker.pinned_root))
    with pytest.raises(Untrusted, match="no control plane says"):
        judge_first(dataclasses.replace(passed_on, accepted=None), judge=late)
    now_s = int(NOW.timestamp())
    bare = dataclasses.replace(passed_on, chain=b"")
    with pytest.raises(Untrusted, match="no release chain came with it"):
        judge_first(said_by(world, bare, of_offer(bare, fresh_at=now_s)), judge=late)
    policy = parse_policy(passed_on.signed.policy)
    forged = dataclasses.replace(passed_on, signed=sign_policy(policy, generate_key()))
    with pytest.raises(Untrusted, match="signature"):
        judge_first(forged, judge=late)
    assert policy.release is not None
    for changes, words in (
        ({"releases": (*policy.releases, release_of(C))}, r"0\.1\.0"),
        ({"releases": policy.releases[1:]}, "no image of the release that it follows"),
        ({"release": dataclasses.replace(policy.release, targets_version=9)}, "says of its"),
        ({"release": dataclasses.replace(policy.release, version="0.9.0")}, "says of its"),
    ):
        signed = sign_policy(dataclasses.replace(policy, **changes), world.cluster.owner)
        offered = dataclasses.replace(passed_on, signed=signed)
        with pytest.raises(Rejected, match=words):
            judge_first(said_by(world, offered, of_offer(offered, fresh_at=now_s)), judge=late)
