import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.base.errors import Conflict, Rejected, Unavailable
from constellation.kube import membership as members
from constellation.kube.membership import Membership
from constellation.providers.protocols import Instance, Role
from constellation.services.joinservice.admit import (
    RESERVATION_S,
    Admission,
    JoinFacts,
    RejoinFacts,
    admit,
    admit_again,
    with_slots,
)
from tests.fakes.members import DOCUMENT, asks, attested, digest, founded, machine, td_of_google

NOW = 1_800_000_000
WORKER = machine(0)
SECOND = machine(1, role=Role.CONTROL_PLANE)
THIRD = machine(2, role=Role.CONTROL_PLANE)
ALL = (machine(0, role=Role.CONTROL_PLANE), SECOND, THIRD, WORKER, machine(1), machine(2))


def join(
    membership: Membership, instance: Instance = WORKER, *, now: int = NOW, life: int = 0
) -> tuple[Admission, Membership]:
    admission = admit(
        membership,
        asks(instance, life=life),
        document=DOCUMENT,
        result=attested(instance),
        instances=ALL,
        now=now,
    )
    after = members.reserve(membership, admission.member, expires_at=admission.expires_at)
    return admission, after


def refusal(membership: Membership, facts: JoinFacts, **changes: object) -> tuple[str, ...]:
    arguments: dict[str, object] = {
        "result": attested(WORKER),
        "document": DOCUMENT,
        "instances": ALL,
        "now": NOW,
        **changes,
    }
    with pytest.raises(Rejected) as caught:
        admit(membership, facts, **arguments)  # type: ignore[arg-type] - keyword by keyword
    return caught.value.findings


def test_a_worker_gets_name_addresses_and_five_minutes() -> None:
    admission, _ = join(founded())
    member = admission.member
    assert (member.name, member.pod_cidr, member.mesh_address) == (
        "worker-default-0",
        "10.244.1.0/24",
        "10.43.0.2",
    )
    assert admission.expires_at == NOW + 300
    assert admission.kubelet_name == "system:node:worker-default-0"
    assert admission.serving_addresses == ("10.42.2.10",)


def test_the_first_node_has_the_first_of_everything() -> None:
    (first,) = founded().nodes
    assert (first.name, first.pod_cidr, first.mesh_address) == (
        "control-plane-default-0",
        "10.244.0.0/24",
        "10.43.0.1",
    )


def test_a_node_that_was_given_to_a_cluster_is_refused() -> None:
    found = refusal(founded(), asks(WORKER), result=attested(WORKER, pcr15=digest("x")))
    assert found == (
        f"pcr15: found {digest('x').hex()}, expected zero (a node that was freshly booted)",
    )


def test_a_td_whose_register_holds_its_document_is_fresh_until_it_holds_a_cluster_too() -> None:
    fresh, given = (td_of_google(WORKER, given=g) for g in (False, True))
    (found,) = refusal(founded(), asks(WORKER), result=given)
    assert found.startswith("rtmr3: found")
    assert found.endswith("(a node that was freshly booted)")
    assert admit(
        founded(), asks(WORKER), result=fresh, document=DOCUMENT, instances=ALL, now=NOW
    ).member.name
    (found,) = refusal(founded(), asks(WORKER), result=fresh, document=b"another")
    assert found.startswith("rtmr3: found")


def test_an_instance_that_the_provider_does_not_list_is_refused() -> None:
    (found,) = refusal(founded(), asks(WORKER), instances=ALL[:3])
    assert "lists 0 of it" in found


def test_an_instance_that_the_provider_lists_twice_is_refused() -> None:
    (found,) = refusal(founded(), asks(WORKER), instances=(*ALL, WORKER))
    assert "lists 2 of it" in found


def test_an_address_other_than_the_listed_one_is_refused() -> None:
    (found,) = refusal(founded(), dataclasses.replace(asks(WORKER), address="10.42.2.99"))
    assert "'10.42.2.99', expected '10.42.2.10'" in found


def test_a_worker_that_asks_to_be_a_control_plane_is_refused() -> None:
    (found,) = refusal(founded(), dataclasses.replace(asks(WORKER), role="control-plane"))
    assert "the node says 'control-plane', expected worker" in found


def test_a_provider_that_lists_another_role_than_the_group_has_is_refused() -> None:
    listed = dataclasses.replace(WORKER, role=Role.CONTROL_PLANE)
    (found,) = refusal(founded(), asks(WORKER), instances=(listed,))
    assert "the provider says 'control-plane', expected worker" in found


def test_a_group_unknown_to_the_cluster_is_refused() -> None:
    listed = dataclasses.replace(WORKER, group="guests")
    (found,) = refusal(founded(), asks(WORKER), instances=(listed,))
    assert "no such group" in found


def test_a_full_group_refuses_the_next_node() -> None:
    _, membership = join(founded(workers=1))
    (found,) = refusal(membership, asks(ALL[4]), result=attested(ALL[4]))
    assert "1 of 1 slots" in found


def test_all_findings_come_at_once() -> None:
    facts = dataclasses.replace(
        asks(WORKER), address="10.244.3.3", role="control-plane", disk_uuid=bytes(16)
    )
    found = refusal(founded(workers=0), facts, result=attested(WORKER, pcr15=digest("x")))
    assert len(found) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"disk_uuid": b"short"},
        {"mesh_public_key": bytes(32)},
        {"mesh_public_key": b"short"},
        {"service_public_key": b"no key"},
        {"kubelet_client_public_key": asks(WORKER).kubelet_serving_public_key},
    ],
)
def test_keys_and_ids_of_the_wrong_shape_are_refused(change: dict[str, bytes]) -> None:
    assert len(refusal(founded(), dataclasses.replace(asks(WORKER), **change))) == 1  # type: ignore[arg-type] - bytes fields only


@pytest.mark.parametrize("field", ["disk_uuid", "mesh_public_key", "service_public_key"])
def test_what_another_node_has_is_taken(field: str) -> None:
    admission, membership = join(founded())
    other = ALL[4]
    facts = dataclasses.replace(asks(other), **{field: getattr(admission.member, field)})
    (found,) = refusal(membership, facts, result=attested(other))
    assert "worker-default-0 has the same" in found


def test_an_address_of_another_node_is_taken_even_if_the_provider_lists_it_twice() -> None:
    _, membership = join(founded())
    other = dataclasses.replace(ALL[4], address=WORKER.address)
    (found,) = refusal(membership, asks(other), result=attested(other), instances=(WORKER, other))
    assert found.startswith("address: worker-default-0 has the same")


def test_another_machine_with_a_taken_instance_id_is_refused() -> None:
    _, membership = join(founded())
    found = refusal(membership, asks(WORKER, life=1), result=attested(WORKER, ak="another"))
    assert found == (
        "instance id: worker-default-0 has the same, expected one of its own",
        "address: worker-default-0 has the same, expected one of its own",
    )


def test_the_same_ak_asking_again_gets_the_same_place() -> None:
    first, membership = join(founded(workers=1))
    again, membership = join(membership, now=NOW + 60, life=1)
    assert again.repeated
    for field in ("name", "pod_cidr", "mesh_address"):
        assert getattr(again.member, field) == getattr(first.member, field)
    assert again.expires_at == NOW + 60 + RESERVATION_S
    assert len(membership.reservations) == 1


def test_a_lapsed_reservation_frees_the_slot_but_not_the_name() -> None:
    _, membership = join(founded(workers=1))
    for later in (0, RESERVATION_S, 2 * RESERVATION_S):  # no clock frees a place
        with pytest.raises(Rejected):
            join(membership, ALL[4], now=NOW + later)
    admission, _ = join(members.lapse(membership, "worker-default-0"), ALL[4])
    assert admission.member.name == "worker-default-1"
    assert admission.member.pod_cidr == "10.244.2.0/24"


def test_a_node_whose_reservation_lapsed_gets_its_old_name_back() -> None:
    _, membership = join(founded())
    membership = members.lapse(membership, "worker-default-0")
    admission, membership = join(membership, now=NOW + 900)
    assert admission.member.name == "worker-default-0"
    assert membership.retired == ()


def test_one_control_plane_joins_at_a_time() -> None:
    _, membership = join(founded(), SECOND)
    with pytest.raises(Unavailable, match="one joins at a time"):
        join(membership, THIRD)
    settled = members.settle(membership, "control-plane-default-1")
    admission, _ = join(settled, THIRD)
    assert admission.member.name == "control-plane-default-2"


def test_the_lease_ends_when_the_log_says_so_and_by_no_clock() -> None:
    _, membership = join(founded(), SECOND)
    with pytest.raises(Unavailable, match="one joins at a time"):
        join(membership, THIRD, now=NOW + 2 * RESERVATION_S)
    admission, _ = join(members.lapse(membership, "control-plane-default-1"), THIRD)
    assert admission.member.name == "control-plane-default-2"


def test_a_worker_joins_while_a_control_plane_does() -> None:
    _, membership = join(founded(), SECOND)
    join(membership)


def test_a_live_worker_with_a_new_disk_keeps_its_name() -> None:
    _, membership = join(founded())
    membership = members.settle(membership, "worker-default-0")
    admission, membership = join(membership, life=1)
    assert admission.member.name == "worker-default-0"
    assert len(membership.nodes) == 1


def test_a_live_control_plane_does_not_join_anew() -> None:
    _, membership = join(founded(), SECOND)
    membership = members.settle(membership, "control-plane-default-1")
    (found,) = refusal(membership, asks(SECOND, life=1), result=attested(SECOND))
    assert "expected its removal" in found


def test_a_removed_node_waits_until_it_is_forgotten_and_brings_a_new_disk_for_a_new_name() -> None:
    _, membership = join(founded())
    membership = members.remove(members.settle(membership, "worker-default-0"), "worker-default-0")
    (waits,) = refusal(membership, asks(WORKER, life=1))
    assert "not forgotten yet" in waits
    membership = members.forget(membership, "worker-default-0")
    (fenced,) = refusal(membership, asks(WORKER))
    assert "belonged to a removed node" in fenced
    admission, _ = join(membership, life=1)
    # the removed node's kubelet still has a certificate for the old one
    assert admission.member.name == "worker-default-1"


def test_full_address_space_is_a_conflict() -> None:
    membership = founded(workers=3)
    small = dataclasses.replace(membership.settings, pod_cidr="10.244.0.0/24")
    with pytest.raises(Conflict, match="no block left"):
        join(dataclasses.replace(membership, settings=small))


def returning(member_of: Admission) -> RejoinFacts:
    member = member_of.member
    return RejoinFacts(
        instance_id=member.instance_id, disk_uuid=member.disk_uuid, address=member.address
    )


def test_a_rebooted_node_comes_back_with_its_disk() -> None:
    admission, membership = join(founded())
    live = members.settle(membership, "worker-default-0")
    back = admit_again(
        live, returning(admission), document=DOCUMENT, result=attested(WORKER), instances=ALL
    )
    assert (back.member, back.unsettled) == (admission.member, False)
    early = admit_again(
        membership, returning(admission), document=DOCUMENT, result=attested(WORKER), instances=None
    )
    assert early.unsettled


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"disk_uuid": bytes(16)}, "state disk"),
        ({"instance_id": "w-9"}, "instance id"),
        ({"address": "10.42.2.77"}, "address"),
    ],
)
def test_a_rejoin_that_differs_from_the_record_is_refused(
    change: dict[str, object], finding: str
) -> None:
    admission, membership = join(founded())
    facts = dataclasses.replace(returning(admission), **change)  # type: ignore[arg-type] - field by field
    with pytest.raises(Rejected) as caught:
        admit_again(membership, facts, document=DOCUMENT, result=attested(WORKER), instances=None)
    assert [f for f in caught.value.findings if f.startswith(finding)]
    assert len(caught.value.findings) == 1


def test_a_rejoin_of_another_machine_with_the_same_disk_is_refused() -> None:
    admission, membership = join(founded())
    with pytest.raises(Rejected, match="never joined"):
        admit_again(
            membership,
            returning(admission),
            document=DOCUMENT,
            result=attested(WORKER, ak="thief"),
            instances=None,
        )


def test_a_rejoin_after_removal_or_with_pcr_15_set_is_refused() -> None:
    admission, membership = join(founded())
    live = members.settle(membership, "worker-default-0")
    used = attested(WORKER, pcr15=digest("x"))
    with pytest.raises(Rejected, match="pcr15"):
        admit_again(live, returning(admission), document=DOCUMENT, result=used, instances=None)
    gone = members.remove(live, "worker-default-0")
    with pytest.raises(Rejected, match="was removed"):
        admit_again(
            gone, returning(admission), document=DOCUMENT, result=attested(WORKER), instances=None
        )


def test_a_rejoin_of_a_machine_that_the_provider_does_not_list_is_refused() -> None:
    admission, membership = join(founded())
    with pytest.raises(Rejected, match="lists 0"):
        admit_again(
            membership,
            returning(admission),
            document=DOCUMENT,
            result=attested(WORKER),
            instances=ALL[:3],
        )


_MACHINES = tuple(machine(i) for i in range(6)) + tuple(
    machine(i, role=Role.CONTROL_PLANE) for i in range(1, 6)
)
_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "join", "settle", "lapse", "remove", "forget"]),
        st.sampled_from(range(len(_MACHINES))),
        st.integers(0, 3),
        st.integers(0, 400),
    ),
    max_size=30,
)


@given(_ACTIONS)
@settings(max_examples=60, deadline=None)
def test_no_two_nodes_ever_share_anything_and_no_group_exceeds_its_size(
    actions: list[tuple[str, int, int, int]],
) -> None:
    membership, now = founded(), NOW
    for action, which, life, seconds in actions:
        now += seconds
        membership = _act(membership, action, _MACHINES[which], life, now)
        members.check(membership)
        for group in membership.settings.groups:
            assert members.occupied(membership, group.name) <= group.size
        leases = [r for r in membership.reservations if r.member.role == "control-plane"]
        assert len(leases) <= 1


def _act(
    membership: Membership, action: str, instance: Instance, life: int, now: int
) -> Membership:
    """Do what the service would; what it would not do is skipped."""
    reserved = [r for r in membership.reservations if r.member.instance_id == instance.instance_id]
    name = next(
        (m.name for m in members.everyone(membership) if m.instance_id == instance.instance_id), ""
    )
    try:
        match action:
            case "join":
                a = admit(
                    membership,
                    asks(instance, life=life),
                    document=DOCUMENT,
                    result=attested(instance),
                    instances=_MACHINES,
                    now=now,
                )
                return members.reserve(membership, a.member, expires_at=a.expires_at)
            case "settle" if reserved:
                return members.settle(membership, name)
            case "lapse" if reserved:
                return members.lapse(membership, name)
            case "remove" if name in {m.name for m in membership.nodes}:
                return members.remove(membership, name)
            case "forget" if name in {m.name for m in membership.retired}:
                return members.forget(membership, name)
    except (Rejected, Unavailable):
        pass
    return membership


@pytest.mark.parametrize(
    "address", ["10.42.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "224.0.0.1"]
)
def test_a_worker_gets_no_certificate_for_the_api_servers_address(address: str) -> None:
    # metadata may tell a genuine new worker any address: its serving certificate would be good for
    # whoever speaks to that address, and the cluster's CA is what kubectl and kubelets believe
    liar = dataclasses.replace(WORKER, address=address)
    (finding,) = refusal(
        founded(), dataclasses.replace(asks(WORKER), address=address), instances=(liar,)
    )
    assert address in finding


def test_a_control_plane_may_live_at_an_address_of_the_api_but_not_at_a_loopback_one() -> None:
    at_endpoint = dataclasses.replace(SECOND, address="10.42.0.1")
    admitted = admit(
        founded(),
        asks(at_endpoint),
        document=DOCUMENT,
        result=attested(at_endpoint),
        instances=(at_endpoint,),
        now=NOW,
    )
    assert admitted.serving_addresses == ("10.42.0.1",)
    inside = dataclasses.replace(SECOND, address="127.0.0.1")
    found = refusal(founded(), asks(inside), result=attested(inside), instances=(inside,))
    assert "127.0.0.1" in found[0]


def test_the_owners_policy_says_how_many_slots_a_group_has() -> None:
    none = with_slots(founded(), {"worker_default": 0, "worker-default": 0})
    assert any("0 of 0 slots are taken" in line for line in refusal(none, asks(WORKER)))
    more = with_slots(founded(), {"no such group": 0})
    assert more == founded()
    admission, _ = join(more)
    assert admission.member.name == "worker-default-0"
