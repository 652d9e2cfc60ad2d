"""Tests of constellation.kube.live_nodes: what is asked, and when a list is written over."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.kube import live_nodes
from constellation.kube import membership as members
from constellation.services.joinservice.admit import admit
from tests.fakes.members import DOCUMENT, asks, attested, founded, machine

if TYPE_CHECKING:
    from constellation.kube.membership import Membership

NOW = 1000


def with_ticket() -> Membership:
    instance, before = machine(0), founded()
    admission = admit(
        before,
        asks(instance),
        document=DOCUMENT,
        result=attested(instance),
        instances=(instance,),
        now=NOW,
    )
    after = members.reserve(before, admission.member, expires_at=NOW + 300)
    return dataclasses.replace(after, sequence=before.sequence + 1)


def test_who_has_a_ticket_is_live_and_who_was_removed_is_not() -> None:
    assert set(live_nodes.names(founded())) == {"control-plane-default-0"}
    both = with_ticket()
    assert set(live_nodes.names(both)) == {"control-plane-default-0", "worker-default-0"}
    gone = members.remove(members.settle(both, "worker-default-0"), "worker-default-0")
    assert "worker-default-0" in {m.name for m in gone.retired}, "its name is not free yet"
    assert set(live_nodes.names(gone)) == {"control-plane-default-0"}


def test_a_join_service_that_is_behind_writes_nothing_over() -> None:
    behind, ahead = founded(), with_ticket()
    annotation = str(ahead.sequence)
    assert not live_nodes.newer(behind, data=live_nodes.names(ahead), annotation=annotation)
    assert not live_nodes.newer(ahead, data=live_nodes.names(ahead), annotation=annotation)
    assert live_nodes.newer(ahead, data=live_nodes.names(behind), annotation=str(behind.sequence))


@pytest.mark.parametrize("annotation", ["", "x", "-1", "1e9", "²"])
def test_a_list_without_a_number_is_written_over(annotation: str) -> None:
    assert live_nodes.newer(founded(), data={"thief": ""}, annotation=annotation)


def test_without_a_list_kubelets_are_refused() -> None:
    policy, binding = live_nodes.gate()
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"]["paramRef"]["parameterNotFoundAction"] == "Deny"
    asked = {r["resources"][0] for r in policy["spec"]["matchConstraints"]["resourceRules"]}
    assert asked == {"nodes", "certificatesigningrequests"}
