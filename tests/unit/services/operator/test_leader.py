"""Who leads, by a Lease; and etcd's answers."""

import pytest

from constellation.base.errors import FormatError
from constellation.kube.etcd import EtcdMember, parse_members
from constellation.services.operator.leader import DURATION_S, Move, move, see


def test_a_lease_is_taken_when_it_stands_still_and_not_before() -> None:
    assert move(None, me="a", now_s=0.0) is Move.CREATE
    seen = see(None, holder="b", version="1", now_s=0.0)
    assert move(seen, me="b", now_s=1.0) is Move.HOLD
    assert move(seen, me="a", now_s=DURATION_S - 1) is Move.WAIT
    same = see(seen, holder="b", version="1", now_s=DURATION_S)
    assert move(same, me="a", now_s=DURATION_S) is Move.HOLD
    renewed = see(seen, holder="b", version="2", now_s=DURATION_S)
    assert move(renewed, me="a", now_s=DURATION_S) is Move.WAIT


def test_etcd_answers_are_read_strictly() -> None:
    reply = {
        "members": [
            {"ID": "18446744073709551615", "peerURLs": ["https://10.42.1.10:2380"]},
            {"ID": "2", "peerURLs": ["https://10.42.1.11:2380"], "isLearner": True},
        ]
    }
    assert parse_members(reply) == (
        EtcdMember(member_id=2**64 - 1, address="10.42.1.10", learner=False),
        EtcdMember(member_id=2, address="10.42.1.11", learner=True),
    )
    for junk in ({}, [], {"members": [{"ID": "x", "peerURLs": ["y"]}]}, {"members": [{}]}):
        with pytest.raises(FormatError):
            parse_members(junk)
