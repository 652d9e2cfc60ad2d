import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.kube import membership as members
from constellation.kube.join_log import (
    Entry,
    Kind,
    Record,
    SignedRecord,
    advance,
    append,
    load_record,
    replay,
)
from constellation.kube.membership import Member, Membership
from constellation.kube.refusals import RefusalBudget, admit_refusal, close_minute
from tests.fakes.members import CLUSTER_ID, WORKERS, digest, founded

KEY = signing.generate_key()
PUBLIC = signing.spki(KEY.public_key())


def worker(sequence: int, index: int = 0) -> Member:
    (first,) = founded().nodes
    return dataclasses.replace(
        first,
        name=f"worker-default-{index}",
        instance_id=f"w-{index}",
        role=members.NodeRole.WORKER,
        group=WORKERS,
        attester_id=digest(f"ak {index}"),
        address=f"10.42.2.{10 + index}",
        mesh_address=f"10.43.0.{2 + index}",
        pod_cidr=f"10.244.{1 + index}.0/24",
        disk_uuid=digest(f"disk {index}")[:16],
        mesh_public_key=digest(f"mesh {index}"),
        joined=sequence,
    )


def write(membership: Membership, *entries: Entry) -> tuple[list[SignedRecord], Membership]:
    records = []
    for entry in entries:
        record, membership = append(membership, entry, writer="cp", join_private_key=KEY)
        records.append(record)
    return records, membership


ENTRIES = (
    Entry(kind=Kind.FOUNDED, time=1, state=founded()),
    Entry(kind=Kind.RESERVED, time=2, member=worker(2), expires_at=302),
    Entry(kind=Kind.REFUSED, time=3, address="10.42.2.99", reasons=("pcr4: found 00",)),
    Entry(kind=Kind.SETTLED, time=4, name="worker-default-0"),
    Entry(kind=Kind.REJOINED, time=5, name="worker-default-0"),
    Entry(kind=Kind.RESERVED, time=6, member=worker(6, 1), expires_at=306),
    Entry(kind=Kind.LAPSED, time=400, name="worker-default-1"),
    Entry(kind=Kind.REMOVED, time=500, name="worker-default-0"),
    Entry(kind=Kind.FORGOTTEN, time=600, name="worker-default-0"),
)
LOG, END = write(founded(), *ENTRIES)


def read(records: list[SignedRecord]) -> Membership:
    return replay(records, join_public_key=PUBLIC, cluster_id=CLUSTER_ID)


def test_the_log_leads_to_the_membership_that_was_written() -> None:
    assert read(LOG) == END
    assert END.sequence == len(LOG)
    assert [m.name for m in END.nodes] == ["control-plane-default-0"]
    assert [m.name for m in END.retired] == ["worker-default-1"]


def test_peers_get_a_new_serial_only_when_they_change() -> None:
    serials, membership = [], founded()
    for record in LOG:
        membership = advance(membership, record, join_public_key=PUBLIC)
        serials.append(membership.peers_serial)
    assert serials == [1, 2, 2, 2, 2, 6, 7, 8, 8]


@given(st.sampled_from(range(len(LOG) - 1)))
def test_a_missing_record_is_found(which: int) -> None:
    with pytest.raises(Untrusted):
        read(LOG[:which] + LOG[which + 1 :])


@given(st.sampled_from(range(len(LOG) - 1)))
def test_two_swapped_records_are_found(which: int) -> None:
    swapped = [*LOG]
    swapped[which], swapped[which + 1] = swapped[which + 1], swapped[which]
    with pytest.raises(Untrusted):
        read(swapped)


@given(st.sampled_from(LOG), st.data())
def test_any_flipped_bit_is_found(record: SignedRecord, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(record.data) * 8 - 1))
    flipped = bytearray(record.data)
    flipped[bit // 8] ^= 1 << bit % 8
    index = LOG.index(record)
    forged = dataclasses.replace(record, data=bytes(flipped))
    with pytest.raises(Untrusted):
        read([*LOG[:index], forged, *LOG[index + 1 :]])


def test_a_record_of_another_cluster_is_untrusted() -> None:
    with pytest.raises(Untrusted):
        replay(LOG, join_public_key=PUBLIC, cluster_id=bytes(32))


def test_a_fork_signed_by_the_join_key_does_not_follow() -> None:
    (_, fork), _ = write(founded(), ENTRIES[0], Entry(kind=Kind.REFUSED, time=9))
    with pytest.raises(Untrusted, match="join log: record 3, expected 2"):
        read([LOG[0], LOG[2]])
    with pytest.raises(Untrusted, match="follows"):
        read([LOG[0], fork, *LOG[2:]])


def test_an_empty_log_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="no records"):
        read([])


def test_a_second_founding_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="second time"):
        write(END, Entry(kind=Kind.FOUNDED, time=9, state=END))


def test_a_log_goes_on_from_a_checkpoint_alone() -> None:
    (checkpoint, more), end = write(
        END,
        Entry(kind=Kind.CHECKPOINT, time=700, state=END),
        Entry(kind=Kind.FORGOTTEN, time=701, name="worker-default-1"),
    )
    assert read([*LOG, checkpoint, more]) == end
    assert read([checkpoint, more]) == end


def test_a_checkpoint_that_says_something_else_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="another membership"):
        write(END, Entry(kind=Kind.CHECKPOINT, time=700, state=founded()))


def test_a_reservation_names_its_own_record() -> None:
    with pytest.raises(FormatError, match="no member of this record"):
        write(founded(), ENTRIES[0], Entry(kind=Kind.RESERVED, time=2, member=worker(9)))


def test_a_signed_record_of_another_version_or_spelling_is_a_format_error() -> None:
    record = load_record(LOG[0])
    newer = decode.dump(dataclasses.replace(record, version=2))
    for data in (newer, LOG[0].data.replace(b",", b", ")):
        with pytest.raises(FormatError):
            load_record(SignedRecord(data=data, signature=b""))


@given(st.binary(max_size=100))
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        load_record(SignedRecord(data=junk, signature=b""))


def test_records_are_readable() -> None:
    record: Record = load_record(LOG[2])
    assert record.entry.reasons == ("pcr4: found 00",)


def test_ten_refusals_a_minute_of_one_address_are_recorded_and_the_rest_counted() -> None:
    budget = RefusalBudget(since_s=0.0, recorded={}, uncounted=0)
    said = []
    for _ in range(13):
        recorded, budget = admit_refusal(budget, "10.0.0.1")
        said.append(recorded)
    assert said == [True] * 10 + [False] * 3
    assert admit_refusal(budget, "10.0.0.2")[0]
    assert close_minute(budget, now_s=59.0)[0] == 0
    count, budget = close_minute(budget, now_s=60.0)
    assert count == 3
    assert admit_refusal(budget, "10.0.0.1")[0]


def test_many_addresses_share_one_bound() -> None:
    budget = RefusalBudget(since_s=0.0, recorded={}, uncounted=0)
    recorded = 0
    for i in range(200):
        yes, budget = admit_refusal(budget, f"10.0.0.{i}")
        recorded += yes
    assert recorded == 60


def test_a_node_that_comes_back_with_another_image_is_known_by_it() -> None:
    again = Entry(kind=Kind.REJOINED, time=6, name="worker-default-0", image=b"i" * 32)
    _, after = write(write(founded(), *ENTRIES[:4])[1], again)
    images = {m.name: m.image for m in after.nodes}
    assert images == {"control-plane-default-0": b"", "worker-default-0": b"i" * 32}
    silent = dataclasses.replace(again, image=b"")
    assert write(after, silent)[1].nodes == after.nodes
