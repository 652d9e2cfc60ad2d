"""A joining control plane redeems its grant: real aTLS, real quotes, a real join log.

The KeyService runs as it does on a node, beside the files that its JoinService writes. After every
refusal the machine that the grant is for gets the secrets.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from constellation.atls import client
from constellation.atls import server as atls_server
from constellation.atls.limits import USUAL
from constellation.attestation.model import AttestationResult, Variant
from constellation.base import clock
from constellation.base.errors import (
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)
from constellation.base.time_bounds import Said, TimeBounds
from constellation.crypto.signing import dump_private_key, generate_key, load_private_key, spki
from constellation.kube.join_log import Entry, Kind, SignedRecord, append, load_record
from constellation.providers.openstack.access import dump_access
from constellation.providers.protocols import Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import channel
from constellation.rpc.stubs.key_grpc import GrantServiceBase, GrantServiceStub, KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyRequest, RedeemReply, RedeemRequest
from constellation.services.bootstrapper.redeem import ControlPlaneSecrets, redeem
from constellation.services.joinservice import admit, entries
from constellation.services.joinservice.admit import LeaseTaken
from constellation.services.keyservice.grant_service import joined_node
from constellation.services.keyservice.server import KeyServer
from constellation.trust.cluster_policy import parse_policy
from tests.fakes.cluster_machines import OTHER, OURS, Cluster, Node, machine
from tests.fakes.join_world import SharedLog, ledger_of, write_control_plane
from tests.fakes.members import DOCUMENT, asks
from tests.fakes.members import machine as instance_of
from tests.fakes.openstack import FakeOpenStack
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.attestation.model import Binding, Evidence
    from constellation.kube.membership import Membership
    from constellation.providers.protocols import Instance
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles

PLANE, WORKER = instance_of(1, role=Role.CONTROL_PLANE), instance_of(1)
OWN_NAME = "control-plane-default-0"
HOUR = 3600
BACK_S = -280
"""The made-up machines' certificates reach back 300 s."""


@dataclass(kw_only=True)
class Giver:
    """The control plane that gave a ticket; `clock_off_s` moves its clock, `passed_s` passes."""

    files: NodeFiles
    ledger: Ledger
    on: Node
    clock_off_s: int = 0
    passed_s: int = 0
    booted_s: float = 1000.0
    port: int = 0
    data_port: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def now(self) -> int:
        return int(NOW.timestamp()) + self.passed_s + self.clock_off_s

    async def start(self) -> None:
        """Run KeyService; again: a new process on the same disk."""
        started: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        async def attester() -> Node:
            return self.on

        server = KeyServer(
            state=self.files.state,
            node_document=self.files.node_document,
            socket=self.files.state / "kms.sock",
            attester=attester,
            port=0,
            grant_port=0,
        )
        running = server.run(
            plugin_ready=lambda: None,
            listening=lambda what, endpoint: started.put_nowait((what, endpoint)),
        )
        self.tasks.append(asyncio.create_task(running))
        async with asyncio.timeout(30):
            endpoints = dict([await started.get(), await started.get()])
        self.port = int(endpoints["grants"].rpartition(":")[2])
        self.data_port = int(endpoints["disk keys"].rpartition(":")[2])

    async def stop(self) -> None:
        while self.tasks:
            task = self.tasks.pop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def reserve(self, node: Node, instance: Instance = PLANE) -> SignedRecord:
        """Admit a machine as JoinService does; gives the record of its reservation."""
        result = AttestationResult(
            variant=Variant.LOCAL_VTPM,
            attester_id=await node.attester_id(),
            claims={"pcr15": bytes(32)},
            unchecked=(),
            warnings=(),
        )

        now = clock.seconds_for_windows()

        def decide(membership: Membership) -> Entry:
            admission = admit.admit(
                membership,
                asks(instance),
                document=DOCUMENT,
                result=result,
                instances=(instance,),
                now=now,
            )
            return entries.reserved(
                admission,
                result,
                policy=parse_policy(OURS.policy().policy),
                now=now,
                node_time=now,
            )

        membership = await self.ledger.write(decide, now=now)
        return self.ledger.record(membership.sequence)

    async def look(self) -> None:
        """Ask for the machine's own disk key, as JoinService asks for keys before each ticket."""
        own = self.ledger.membership.nodes[0]
        request = GetDataKeyRequest(id=f"state-disk/{own.disk_uuid.hex()}", size_bytes=64)
        keys = channel("127.0.0.1", self.data_port, tls=self.files.service_tls())
        try:
            with raise_ours("KeyService"):
                await KeyServiceStub(keys).GetDataKey(request, timeout=5)
        finally:
            keys.close()

    async def redeem(
        self, grant: SignedRecord, node: Node, *, provider: str = "local"
    ) -> ControlPlaneSecrets:
        return await redeem(
            grant,
            address="127.0.0.1",
            port=self.port,
            attester=node,
            document=OURS.document,
            policy=self.files.kept_policy().verified(),
            provider=provider,
        )

    async def refuses(self, grant: SignedRecord, node: Node, because: str) -> ConstellationError:
        with pytest.raises(ConstellationError) as caught:
            await self.redeem(grant, node)
        assert because in str(caught.value)
        return caught.value


def ours(secrets: ControlPlaneSecrets) -> bool:
    public = spki(load_private_key(secrets.join_key).public_key())
    return secrets.master == OURS.master and public == spki(OURS.join.public_key())


@pytest.fixture
async def giver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Giver]:
    async with machine(tmp_path / "giver") as on:
        files = write_control_plane(
            tmp_path / "disk", cluster=OURS, attester_id=await on.attester_id()
        )
        one = Giver(files=files, ledger=ledger_of(files, SharedLog(), writer=OWN_NAME), on=on)
        monkeypatch.setattr(clock, "now", lambda: datetime.fromtimestamp(one.now, UTC))
        monkeypatch.setattr(clock, "boot_s", lambda: one.booted_s + one.passed_s)
        await one.start()
        yield one
        await one.stop()


@pytest.fixture
async def joining(tmp_path: Path) -> AsyncIterator[Node]:
    async with machine(tmp_path / "joining") as node:
        yield node


async def test_a_joining_control_plane_gets_both_secrets_once(giver: Giver, joining: Node) -> None:
    grant = await giver.reserve(joining)
    assert ours(await giver.redeem(grant, joining))
    await giver.refuses(grant, joining, "used before")
    await giver.stop()
    await giver.start()
    await giver.refuses(grant, joining, "given before this KeyService started")
    assert ours(await giver.redeem(await giver.reserve(joining), joining)), "a new ticket is good"


async def test_it_gets_what_the_owner_gave_for_the_clouds_api_and_judges_it(
    giver: Giver, joining: Node
) -> None:
    assert (await giver.redeem(await giver.reserve(joining), joining)).access is None
    access = dump_access(FakeOpenStack().access())
    path = giver.files.state / "keys/provider/access.json"
    path.parent.mkdir()
    path.write_bytes(access.reveal())
    secrets = await giver.redeem(await giver.reserve(joining), joining, provider="openstack")
    assert ours(secrets)
    assert secrets.access == access
    # a giver that sends what this cloud does not know
    with pytest.raises(FormatError, match="take no access"):
        await giver.redeem(await giver.reserve(joining), joining, provider="aws")
    path.write_bytes(b"{}")
    with pytest.raises(FormatError, match="OpenStack access"):
        await giver.redeem(await giver.reserve(joining), joining, provider="openstack")


async def test_evidence_that_is_old_redeems_nothing(giver: Giver, joining: Node) -> None:
    grant = await giver.reserve(joining)
    request = RedeemRequest(record=grant.data, signature=grant.signature)
    held = await client.connect(
        "127.0.0.1",
        giver.port,
        purpose="grant-client",
        server_purpose="grant-server",
        attester=joining,
        appraise=joined_node(giver.files.kept_policy()),
        deadline_s=10,
    )
    try:
        with pytest.raises(ConstellationError, match="signature"), raise_ours("KeyService"):
            await GrantServiceStub(held.grpc).Redeem(RedeemRequest(), timeout=10)
        giver.passed_s = 61
        with pytest.raises(Unavailable, match=r"evidence of 6\d s ago"), raise_ours("KeyService"):
            await GrantServiceStub(held.grpc).Redeem(request, timeout=10)
    finally:
        held.close()
    assert ours(await giver.redeem(grant, joining))


async def test_another_machine_gets_nothing_for_it(
    giver: Giver, joining: Node, tmp_path: Path
) -> None:
    grant = await giver.reserve(joining)
    async with machine(tmp_path / "another") as another:
        await giver.refuses(grant, another, "found AK")
    assert ours(await giver.redeem(grant, joining))


async def test_it_is_void_once_its_lease_has_passed(giver: Giver, joining: Node) -> None:
    grant = await giver.reserve(joining)
    await giver.look()
    giver.passed_s = admit.RESERVATION_S
    await giver.refuses(grant, joining, "lease of control-plane-default-1 has ended")
    giver.passed_s = admit.RESERVATION_S - 1
    assert ours(await giver.redeem(grant, joining))


@pytest.mark.parametrize("off_s", [HOUR, 400, -300])
async def test_a_clock_that_was_moved_after_the_ticket_voids_no_grant(
    giver: Giver, joining: Node, off_s: int
) -> None:
    grant = await giver.reserve(joining)
    await giver.look()
    giver.clock_off_s, giver.passed_s = off_s, 20
    assert ours(await giver.redeem(grant, joining))


async def test_a_grant_dated_by_what_is_believed_is_good_on_a_machine_whose_clock_jumped(
    giver: Giver, joining: Node
) -> None:
    giver.clock_off_s = HOUR
    said = Said(seconds=int(NOW.timestamp()), boot_s=int(clock.boot_s()))
    clock.bound(TimeBounds(floor_s=0, said=said))
    try:
        grant = await giver.reserve(joining)
        assert load_record(grant).entry.time == said.seconds, "JoinService's own way"
        assert ours(await giver.redeem(grant, joining))
    finally:
        clock.bound(TimeBounds(floor_s=0, said=None))


async def test_no_clock_makes_a_used_grant_good_again(
    giver: Giver, joining: Node, tmp_path: Path
) -> None:
    grant = await giver.reserve(joining)
    assert ours(await giver.redeem(grant, joining))
    for off_s in (admit.RESERVATION_S, 0, BACK_S, HOUR):
        giver.clock_off_s = off_s
        await giver.refuses(grant, joining, "used before")
    # nor does one that was put ahead give the lease to somebody else meanwhile
    async with machine(tmp_path / "another") as another:
        with pytest.raises(LeaseTaken):
            await giver.reserve(another, instance_of(2, role=Role.CONTROL_PLANE))


async def test_no_clock_makes_a_grant_good_after_its_time(giver: Giver, joining: Node) -> None:
    grant = await giver.reserve(joining)
    await giver.look()
    giver.passed_s = admit.RESERVATION_S
    for off_s in (-admit.RESERVATION_S, BACK_S - admit.RESERVATION_S, HOUR):
        giver.clock_off_s = off_s
        await giver.refuses(grant, joining, "has ended")
    giver.clock_off_s = 0
    assert ours(await giver.redeem(await giver.reserve(joining), joining))


async def test_no_clock_makes_a_grant_good_after_a_restart_of_its_giver(
    giver: Giver, joining: Node
) -> None:
    unused = await giver.reserve(joining)
    await giver.stop()
    giver.booted_s = 5.0
    await giver.start()
    for off_s in (0, BACK_S, HOUR):
        giver.clock_off_s = off_s
        await giver.refuses(unused, joining, "given before this KeyService started")
    giver.clock_off_s = 0
    assert ours(await giver.redeem(await giver.reserve(joining), joining))


async def test_a_copy_of_the_log_that_is_put_back_brings_no_grant_back(
    giver: Giver, joining: Node
) -> None:
    grant = await giver.reserve(joining)
    assert ours(await giver.redeem(grant, joining))
    record = giver.files.state / "join-log" / "0000000002.json"
    kept = record.read_bytes()
    record.unlink()
    await giver.look()
    record.write_bytes(kept)
    await giver.refuses(grant, joining, "used before")


async def test_it_is_void_once_the_node_has_settled_lapsed_or_has_a_newer_one(
    giver: Giver, joining: Node
) -> None:
    for kind in (Kind.LAPSED, Kind.SETTLED):
        old = await giver.reserve(joining)
        new = await giver.reserve(joining)
        await giver.refuses(old, joining, "has ended")
        end = Entry(kind=kind, time=giver.now, name="control-plane-default-1")
        if kind is Kind.LAPSED:
            assert ours(await giver.redeem(new, joining))
            new = await giver.reserve(joining)
        await giver.ledger.write(lambda _, end=end: end, now=giver.now)  # type: ignore[misc]
        await giver.refuses(new, joining, "has ended")


async def test_a_worker_s_reservation_is_no_grant(
    giver: Giver, joining: Node, tmp_path: Path
) -> None:
    async with machine(tmp_path / "worker") as worker:
        await giver.refuses(await giver.reserve(worker, WORKER), worker, "is a worker")
    assert ours(await giver.redeem(await giver.reserve(joining), joining))


async def test_a_machine_that_was_not_given_to_this_cluster_gets_no_channel(
    giver: Giver, tmp_path: Path
) -> None:
    async with machine(tmp_path / "fresh", given=False) as fresh:
        grant = await giver.reserve(fresh)
        assert isinstance(await giver.refuses(grant, fresh, "pcr15"), Rejected)
        await fresh.give_to_cluster(OURS.document.cluster_id)
        assert ours(await giver.redeem(grant, fresh)), "the same machine, given to this cluster"


async def test_a_machine_of_another_cluster_gets_no_channel(
    giver: Giver, joining: Node, tmp_path: Path
) -> None:
    grant = await giver.reserve(joining)
    async with machine(tmp_path / "theirs", cluster=OTHER) as theirs:
        error = await giver.refuses(grant, theirs, "pcr8")
        assert isinstance(error, Rejected)
    assert ours(await giver.redeem(grant, joining))


async def test_only_what_the_join_key_signed_is_a_grant(giver: Giver, joining: Node) -> None:
    grant = await giver.reserve(joining)
    settings = giver.ledger.membership.settings
    for forged in (
        dataclasses.replace(grant, data=grant.data.replace(b'"worker-', b'"w0rker-') + b" "),
        dataclasses.replace(grant, signature=bytes(64)),
    ):
        assert isinstance(await giver.refuses(forged, joining, ""), Untrusted)
    before = dataclasses.replace(
        giver.ledger.membership, settings=settings, sequence=1, head=bytes(32), reservations=()
    )
    entry = Entry(kind=Kind.REFUSED, time=giver.now)
    other, _ = append(before, entry, writer=OWN_NAME, join_private_key=OURS.join)
    await giver.refuses(other, joining, "expected a reservation")
    assert ours(await giver.redeem(grant, joining))


async def test_it_is_good_at_the_control_plane_that_gave_it_alone(
    giver: Giver, joining: Node
) -> None:
    own, giver.ledger._writer = giver.ledger._writer, "control-plane-default-2"
    elsewhere = await giver.reserve(joining)
    await giver.refuses(elsewhere, joining, "control-plane-default-2 gave it")
    giver.ledger._writer = own
    assert ours(await giver.redeem(await giver.reserve(joining), joining))


class False_(GrantServiceBase):  # noqa: N801 - `False` is taken
    """A KeyService that gives what it has; `asked` counts the grants that it was shown."""

    def __init__(self, cluster: Cluster, *, join_key: bytes) -> None:
        self._cluster, self._join_key = cluster, join_key
        self.asked = 0

    async def Redeem(  # noqa: N802 - the name in key.proto
        self, stream: Stream[RedeemRequest, RedeemReply]
    ) -> None:
        await stream.recv_message()
        self.asked += 1
        master = self._cluster.master
        await stream.send_message(
            RedeemReply(
                master_key=master.key.reveal(),
                master_salt=master.salt.reveal(),
                join_private_key=self._join_key,
            )
        )


def anybody(evidence: Evidence, _binding: Binding) -> AttestationResult:
    return AttestationResult(
        variant=evidence.variant, attester_id=bytes(32), claims={}, unchecked=(), warnings=()
    )


async def test_a_false_key_service_is_shown_no_grant_or_its_gifts_are_refused(
    giver: Giver, joining: Node, tmp_path: Path
) -> None:
    grant = await giver.reserve(joining)
    true_port = giver.port
    own_key, another = (dump_private_key(k).reveal() for k in (OURS.join, generate_key()))

    async def meet(service: False_, on: Node, because: str) -> None:
        listening = await atls_server.serve(
            [service],
            host="127.0.0.1",
            port=0,
            purpose="grant-server",
            attester=on,
            appraisers={"grant-client": anybody},
            limits=USUAL,
        )
        giver.port = listening.port
        try:
            assert isinstance(await giver.refuses(grant, joining, because), Rejected)
        finally:
            listening.close()
            await listening.wait_closed()

    async with machine(tmp_path / "theirs", cluster=OTHER) as theirs:
        service = False_(OURS, join_key=own_key)
        await meet(service, theirs, "pcr8")
        assert service.asked == 0
    # a genuine worker of this cluster: it learns a grant that is of no use to it
    async with machine(tmp_path / "worker") as worker:
        await meet(False_(OTHER, join_key=own_key), worker, "clusterID")
        await meet(False_(OURS, join_key=another), worker, "another join key")
    giver.port = true_port
    assert ours(await giver.redeem(grant, joining))
