"""The shared log stays bounded and one, however fast it grows and whoever was away meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Unavailable, Untrusted
from constellation.cluster.log import from_checkpoint
from constellation.crypto import signing
from constellation.kube.join_log import (
    CHECKPOINT_EVERY,
    Entry,
    Kind,
    SignedRecord,
    load_record,
    replay,
)
from constellation.kube.log_copy import LogCopy
from tests.fakes.join_world import SharedLog, ledger_of, write_control_plane
from tests.fakes.members import CLUSTER_ID

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.kube.join_log import Record
    from constellation.kube.membership import Membership
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles


NO_RECORD = SignedRecord(data=b"", signature=b"")


class Log(SharedLog):
    """One that stops answering after so many removals."""

    removals: int = 1 << 30

    async def get(self, sequence: int) -> SignedRecord | None:
        record = await super().get(sequence)
        if record == NO_RECORD:
            raise FormatError("JoinRecord: record or signature is missing")
        return record

    async def delete(self, sequence: int) -> None:
        self.removals -= 1
        if self.removals < 0:
            raise Unavailable("the log is away")
        await super().delete(sequence)


def copy_of(files: NodeFiles, name: str) -> LogCopy:
    return LogCopy(files.state / name, seed=files.state / "keys" / "membership.json")


def junk(number: int) -> Entry:
    return Entry(kind=Kind.REFUSED, time=number, address="192.0.2.7", reasons=("no evidence",))


async def grow(ledger: Ledger, *, to: int) -> None:
    """Write refusals as a flood makes them: nobody follows the log in between."""
    while ledger.membership.sequence < to:
        await ledger.write(lambda _: junk(1), now=1)


def kinds(log: SharedLog) -> dict[int, Kind]:
    return {n: load_record(r).entry.kind for n, r in sorted(log.records.items())}


def shown(files: NodeFiles, log: SharedLog) -> tuple[Record, ...]:
    """What the command line tool shows of it, verified."""
    signed = from_checkpoint(tuple(record for _, record in sorted(log.records.items())))
    public = files.kept_policy().verified().join_public_key
    replay(signed, join_public_key=public, cluster_id=CLUSTER_ID)
    return tuple(load_record(s) for s in signed)


async def test_a_flood_cannot_step_over_a_checkpoint(tmp_path: Path) -> None:
    files, log = write_control_plane(tmp_path), Log()
    one = ledger_of(files, log)
    await one.follow(now=1)
    await grow(one, to=CHECKPOINT_EVERY + 1)
    at = [number for number, kind in kinds(log).items() if kind is Kind.CHECKPOINT]
    assert at == [CHECKPOINT_EVERY]


async def test_the_log_begins_with_a_checkpoint_and_an_interrupted_removal_is_finished(
    tmp_path: Path,
) -> None:
    files, log = write_control_plane(tmp_path), Log()
    one, two = ledger_of(files, log), ledger_of(files, log, copy="two")
    await one.follow(now=1)
    await two.follow(now=1)
    await grow(one, to=2 * CHECKPOINT_EVERY + 1)
    log.removals = 150
    await one.follow(now=1)
    with pytest.raises(Unavailable):
        await one.follow(now=1)
    assert min(log.records) == 151
    assert shown(files, log)[0].sequence == CHECKPOINT_EVERY, "what is left of the old is no gap"
    log.removals = 1 << 30
    for _ in range(9):
        await two.follow(now=1)  # the other one finishes it, and its copy is cut as well
    assert min(log.records) == CHECKPOINT_EVERY
    assert shown(files, log)[0].entry.kind is Kind.CHECKPOINT
    for name in ("join-log", "two"):
        numbers = sorted(int(p.stem) for p in (files.state / name).glob("0*.json"))
        assert numbers == list(range(CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY + 2)), name
        assert ledger_of(files, log, copy=name).membership == one.membership
    log.records.clear()  # an empty etcd gets back a log that has a beginning
    await two.follow(now=1)
    assert shown(files, log)[0].entry.kind is Kind.CHECKPOINT


async def test_who_was_away_while_the_log_was_cut_goes_on_from_a_checkpoint(
    tmp_path: Path,
) -> None:
    """Else it would write a second log after its old head, by who belonged to the cluster then."""
    files, log = write_control_plane(tmp_path), Log()
    one, away = ledger_of(files, log), ledger_of(files, log, copy="away")
    public = files.kept_policy().verified().join_public_key
    await one.follow(now=1)
    await away.follow(now=1)
    before = copy_of(files, "away").load(join_public_key=public)  # as KeyService has it
    await grow(one, to=2 * CHECKPOINT_EVERY + 3)
    for _ in range(9):
        await one.follow(now=1)
    assert min(log.records) == CHECKPOINT_EVERY
    # somebody who may write there puts the genuine first record back, and one of no number of ours
    log.records[0] = copy_of(files, "away").record(1)  # type: ignore[assignment] # it is there
    log.records[9_999_999_999] = NO_RECORD
    await away.write(lambda _: junk(2), now=2)
    assert away.membership.sequence == 2 * CHECKPOINT_EVERY + 4
    del log.records[0]
    assert min(log.records) == CHECKPOINT_EVERY, "nothing old was written again"
    await one.follow(now=2)
    assert one.membership == away.membership
    assert ledger_of(files, log, copy="away").membership == one.membership
    assert copy_of(files, "away").load(join_public_key=public, known=before) == one.membership, (
        "who followed the copy follows over the gap"
    )


async def test_a_log_that_begins_after_the_copy_and_has_no_checkpoint_is_untrusted(
    tmp_path: Path,
) -> None:
    files, log = write_control_plane(tmp_path), Log()
    one, away = ledger_of(files, log), ledger_of(files, log, copy="away")
    await one.follow(now=1)
    await away.follow(now=1)
    await grow(one, to=5)
    for number in (1, 2):
        del log.records[number]
    with pytest.raises(Untrusted, match=r"ends with record 1.*begins with 3"):
        await away.write(lambda _: junk(2), now=2)
    assert min(log.records) == 3
    log.records[2] = one.record(2)
    await away.write(lambda _: junk(2), now=2)
    assert away.membership.sequence == 6, "the control case: cut off right behind the copy"


@pytest.mark.parametrize("what", ["no record", "another key's", "an older record"])
async def test_what_somebody_writes_into_the_log_keeps_nobody_out(
    tmp_path: Path, what: str
) -> None:
    files, log = write_control_plane(tmp_path), Log()
    one = ledger_of(files, log)
    log.records[1] = NO_RECORD  # before there is a log
    await one.follow(now=1)
    await grow(one, to=4)
    genuine = log.records[4]
    junk_ = {
        "no record": NO_RECORD,
        "another key's": SignedRecord(data=genuine.data, signature=bytes(64)),
        "an older record": log.records[3],
    }[what]
    log.records[5] = junk_
    log.records[2] = log.records[4] = junk_  # also where the verified ones stood
    await one.write(lambda _: junk(2), now=2)
    await one.follow(now=2)
    assert one.membership.sequence == 5
    assert log.records[4] == genuine
    assert load_record(log.records[5]).entry.time == 2


async def test_a_record_of_a_later_release_is_not_taken_away(tmp_path: Path) -> None:
    files, log = write_control_plane(tmp_path), Log()
    one = ledger_of(files, log)
    await one.follow(now=1)
    data = log.records[1].data.replace(b'"version":1', b'"version":2')
    signature = signing.sign(
        files.join_key(),
        data,
        label="constellation-join-log-v1",
        cluster_id=CLUSTER_ID,
        purpose="record",
    )
    later = SignedRecord(data=data, signature=signature)
    log.records[2] = later
    with pytest.raises(FormatError, match="version 2"):
        await one.follow(now=2)
    assert log.records[2] == later


class SlowLog(Log):
    """One whose answers take their time; `slow_s` each."""

    slow_s: float = 0.0

    async def get(self, sequence: int) -> SignedRecord | None:
        await asyncio.sleep(self.slow_s)
        return await super().get(sequence)


async def test_who_is_still_reading_decides_nothing_from_what_it_had(tmp_path: Path) -> None:
    """Else a node that was removed meanwhile would get its disk's key: the API does answer."""
    files, log = write_control_plane(tmp_path), SlowLog()
    one, back = ledger_of(files, log), ledger_of(files, log, copy="back")
    await one.follow(now=1)
    await back.follow(now=1)
    await grow(one, to=60)
    seen: list[int] = []

    def decide(membership: Membership) -> Entry:
        seen.append(membership.sequence)
        return Entry(kind=Kind.REJOINED, time=1, name="worker-0")

    log.slow_s = 0.06
    with pytest.raises(Unavailable, match="reads what was written"):
        await back.write_later(decide, now=1)
    assert seen == []
    log.slow_s = 0.0
    await back.write_later(decide, now=1)
    assert seen == [60]
    log.away = True  # the control case: for two seconds nobody has answered, the copy decides
    await asyncio.sleep(2.1)
    await back.write_later(decide, now=1)
    assert seen == [60, 61]


def test_refusals_do_not_push_a_given_key_out_of_the_journal(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path, seed=tmp_path / "none")
    given = Entry(kind=Kind.REJOINED, time=1, name="worker-0")
    kept = copy.save_journal((given, *(junk(n) for n in range(2000))))
    assert (len(kept), kept[0], kept[-1].time) == (1000, given, 1999)
    kept = copy.save_journal(tuple(Entry(kind=Kind.REJOINED, time=n) for n in range(1001)))
    assert (len(kept), kept[0].time) == (1000, 1), "there is a bound all the same"
    assert copy.load_journal() == kept
