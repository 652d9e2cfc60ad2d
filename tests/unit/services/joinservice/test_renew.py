"""Tests of constellation.services.joinservice.renew: the live record alone decides."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Rejected, Unavailable
from constellation.kube import membership as members
from constellation.services.joinservice.admit import admit
from constellation.services.joinservice.renew import Renewals, RenewFacts, renew
from tests.fakes.members import DOCUMENT, asks, attested, founded, machine, td_of_google

if TYPE_CHECKING:
    from constellation.kube.membership import Membership

WORKER = machine(0)
GIVEN = attested(WORKER, pcr15=b"\1" * 32)
FACTS = RenewFacts(
    node_name="worker-default-0", role="worker", instance_id="w-0", address=WORKER.address
)


def reserved() -> Membership:
    before = founded()
    admission = admit(
        before, asks(WORKER), document=DOCUMENT, result=attested(WORKER), instances=(WORKER,), now=1
    )
    return members.reserve(before, admission.member, expires_at=301)


SETTLED = members.settle(reserved(), "worker-default-0")


def test_a_live_member_gets_certificates_for_its_record() -> None:
    assert renew(SETTLED, FACTS, document=DOCUMENT, result=GIVEN) == SETTLED.nodes[1]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("node_name", "control-plane-default-0"),
        ("node_name", "worker-default-1"),
        ("role", "control-plane"),
        ("instance_id", "cp-0"),
        ("address", "10.42.1.10"),
    ],
)
def test_whoever_believes_to_be_somebody_else_gets_none(field: str, said: str) -> None:
    with pytest.raises(Rejected, match=f"found '{said}', expected"):
        renew(SETTLED, dataclasses.replace(FACTS, **{field: said}), document=DOCUMENT, result=GIVEN)


def test_every_finding_is_said() -> None:
    facts = RenewFacts(node_name="a", role="b", instance_id="c", address="d")
    with pytest.raises(Rejected) as caught:
        renew(SETTLED, facts, document=DOCUMENT, result=attested(WORKER))
    assert [f.partition(":")[0] for f in caught.value.findings] == [
        *("pcr15", "name", "role", "instance id", "address")
    ]


def test_another_ak_a_removed_node_and_one_without_its_place_get_none() -> None:
    with pytest.raises(Rejected, match="never joined"):
        renew(
            SETTLED, FACTS, document=DOCUMENT, result=attested(WORKER, ak="thief", pcr15=b"\1" * 32)
        )
    with pytest.raises(Rejected, match="was removed"):
        renew(members.remove(SETTLED, "worker-default-0"), FACTS, document=DOCUMENT, result=GIVEN)
    with pytest.raises(Rejected, match="not settled"):
        renew(reserved(), FACTS, document=DOCUMENT, result=GIVEN)


def test_a_node_that_was_not_given_to_the_cluster_gets_none() -> None:
    with pytest.raises(Rejected, match="pcr15: found zero"):
        renew(SETTLED, FACTS, document=DOCUMENT, result=attested(WORKER))
    without = dataclasses.replace(GIVEN, claims={"pcr4": bytes(32)})
    with pytest.raises(Rejected, match="pcr15: found nothing"):
        renew(SETTLED, FACTS, document=DOCUMENT, result=without)


def test_a_td_whose_register_holds_its_document_alone_gets_none() -> None:
    fresh, given = (td_of_google(WORKER, given=g) for g in (False, True))
    with pytest.raises(Rejected, match=r"rtmr3: found .*expected this cluster's"):
        renew(SETTLED, FACTS, document=DOCUMENT, result=fresh)
    assert renew(SETTLED, FACTS, document=DOCUMENT, result=given) == SETTLED.nodes[1]


def test_a_node_renews_four_times_at_once_and_then_each_quarter_of_an_hour() -> None:
    rates, (first, worker) = Renewals(), SETTLED.nodes
    for _ in range(4):
        rates.take(worker, membership=SETTLED, now_s=1000)
    with pytest.raises(Unavailable, match="too often"):
        rates.take(worker, membership=SETTLED, now_s=1000)
    rates.take(first, membership=SETTLED, now_s=1000)
    with pytest.raises(Unavailable, match="too often"):
        rates.take(worker, membership=SETTLED, now_s=1899)
    rates.take(worker, membership=SETTLED, now_s=1901)
    with pytest.raises(Unavailable, match="too often"):
        rates.take(worker, membership=SETTLED, now_s=1901)


def test_the_log_tells_of_new_evidence_and_once_a_week() -> None:
    book, week = Renewals(), 7 * 86_400.0
    assert book.is_news(GIVEN, policy_serial=1, now_s=0)
    book.tell(GIVEN, policy_serial=1, now_s=0)
    assert not book.is_news(GIVEN, policy_serial=1, now_s=week - 1)
    assert book.is_news(GIVEN, policy_serial=1, now_s=week)
    assert book.is_news(GIVEN, policy_serial=2, now_s=1)
    changed = dataclasses.replace(GIVEN, claims={**GIVEN.claims, "pcr4": bytes(32)})
    assert book.is_news(changed, policy_serial=1, now_s=1)
    other = dataclasses.replace(GIVEN, attester_id=bytes(32))
    assert book.is_news(other, policy_serial=1, now_s=1), "each node for itself"
    without = members.remove(SETTLED, "worker-default-0")
    book.take(SETTLED.nodes[0], membership=without, now_s=2)
    assert book.is_news(GIVEN, policy_serial=1, now_s=3), "who is gone is forgotten"
