from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from grpclib.exceptions import GRPCError

from constellation.base import clock, decode
from constellation.base.errors import FormatError, Rejected, Untrusted
from constellation.base.secret import Secret
from constellation.base.time_bounds import Said, TimeBounds
from constellation.crypto.derive import MasterSecret
from constellation.crypto.signing import dump_private_key, generate_key, spki
from constellation.crypto.x509 import uris
from constellation.kms.master_secret import dump_master_secret
from constellation.kube.etcd import EtcdMember
from constellation.kube.join_log import Kind, SignedRecord, load_record, replay
from constellation.kube.membership import NodeRole, load_membership, member_by_name
from constellation.kube.service_identity import ServiceIdentity, dump_identity, parse_identity
from constellation.providers.protocols import Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import PeerServiceStub
from constellation.services.joinservice.housekeep import Observed
from constellation.trust.channel_proof import JOIN_CHANNEL_LABEL, verify_join_channel
from constellation.trust.cluster_policy import parse_policy, sign_policy
from tests.fakes.cluster_machines import OURS
from tests.fakes.cluster_machines import Cluster as Owned
from tests.fakes.join_world import (
    CLUSTER_ID,
    NODE_TIME,
    Chip,
    Provider,
    SharedLog,
    World,
    channel_to,
    ledger_of,
    request_of,
    server_of,
    write_control_plane,
)
from tests.fakes.members import ARTIFACT_LIST, asks, machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.providers.protocols import Instance
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.services.joinservice.server import Ports

ALL = (
    machine(0),
    machine(1),
    machine(1, role=Role.CONTROL_PLANE),
    machine(2, role=Role.CONTROL_PLANE),
)


class Cluster:
    def __init__(self, files: NodeFiles, log: SharedLog, ledger: Ledger) -> None:
        self.files, self.log, self.ledger = files, log, ledger
        self.provider, self.world = Provider(instances=ALL), World()
        self.port = self.peer_port = 0

    def kinds(self) -> list[Kind]:
        return [load_record(r).entry.kind for _, r in sorted(self.log.records.items())]

    async def join(self, instance: Instance, *, life: int = 0) -> join_pb2.JoinTicket:
        chip = Chip(name=instance.instance_id)
        async with channel_to(self.port, chip, purpose="join-client") as (_, stub):
            return await stub.Join(request_of(asks(instance, life=life)), timeout=10)

    async def rejoin(
        self, instance: Instance, chip: Chip | None = None, *, time: int = NODE_TIME
    ) -> join_pb2.RejoinTicket:
        facts = asks(instance)
        chip = chip or Chip(name=instance.instance_id)
        async with channel_to(self.port, chip, purpose="rejoin-client") as (_, stub):
            request = join_pb2.RejoinRequest(
                instance_id=facts.instance_id,
                disk_uuid=facts.disk_uuid,
                address=facts.address,
                time=time,
            )
            return await stub.Rejoin(request, timeout=10)


@contextlib.asynccontextmanager
async def running(
    root: Path, *, owned: Owned | None = None, now: datetime | None = None
) -> AsyncIterator[Cluster]:
    files, log = write_control_plane(root, cluster=owned, now=now), SharedLog()
    cluster = Cluster(files, log, ledger_of(files, log))
    started = asyncio.Event()

    def listens(ports: Ports) -> None:
        cluster.port, cluster.peer_port = ports.join, ports.peers
        started.set()

    server = server_of(files, cluster.ledger, cluster.provider, cluster.world)
    task = asyncio.create_task(server.run(started=listens))
    waits = asyncio.create_task(started.wait())
    await asyncio.wait({task, waits}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waits.cancel()
        task.result()
    try:
        yield cluster
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_worker_gets_a_ticket_with_everything_it_needs(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        ticket = await cluster.join(ALL[0])
        kinds = cluster.kinds()
    assert ticket.node_name == "worker-default-0"
    assert ticket.disk_key == hashlib.sha512(asks(ALL[0]).disk_uuid).digest()
    assert [p.node_name for p in ticket.peers.peers] == [
        "control-plane-default-0",
        "worker-default-0",
    ]
    assert not ticket.HasField("control_plane")
    certificate = x509.load_pem_x509_certificate(ticket.kubelet_client_certificate)
    assert certificate.subject.rfc4514_string() == "CN=system:node:worker-default-0,O=system:nodes"
    service = x509.load_pem_x509_certificate(ticket.service_certificate)
    assert parse_identity(uris(service), cluster_id=CLUSTER_ID).name == "worker-default-0"
    assert kinds == [Kind.FOUNDED, Kind.RESERVED]


async def test_a_clock_that_jumped_ahead_makes_no_certificate_that_is_good_only_later(
    tmp_path: Path,
) -> None:
    real = datetime.now(UTC)
    # what a trusted party said a moment ago is an hour below what this machine's clock says
    said = Said(seconds=int(real.timestamp()) - 3600, boot_s=int(clock.boot_s()))
    async with running(tmp_path, now=real - timedelta(hours=2)) as cluster:
        before = await cluster.join(ALL[0])
        clock.bound(TimeBounds(floor_s=0, said=said))
        try:
            after = await cluster.join(ALL[1])
        finally:
            clock.bound(TimeBounds(floor_s=0, said=None))
        last = load_record(cluster.log.records[max(cluster.log.records)]).entry
    for ticket, late_s in ((before, 0), (after, 3600)):
        for pem in (
            ticket.kubelet_client_certificate,
            ticket.kubelet_serving_certificate,
            ticket.service_certificate,
        ):
            found = x509.load_pem_x509_certificate(pem)
            begins = (found.not_valid_before_utc - real).total_seconds() + late_s
            assert -330 < begins < -200, "five minutes before what is believed"
            assert found.not_valid_after_utc > real + timedelta(hours=23)
    assert abs(last.time - said.seconds) < 60, "reservations lapse by what is believed"


async def test_in_a_roll_out_tickets_name_the_oldest_api_servers_version(tmp_path: Path) -> None:
    async with running(tmp_path, owned=OURS) as cluster:
        kept, settled = cluster.files.kept_policy(), parse_policy(OURS.policy(serial=2).policy)
        lists = {**settled.artifact_lists, "v1.36.3": bytes(32)}
        rolling = dataclasses.replace(settled, artifact_lists=lists, kubernetes_version="v1.36.3")
        kept.keep_first(sign_policy(rolling, OURS.owner))
        ticket = await cluster.join(ALL[0])  # no API server answers in this test
        assert (ticket.kubernetes_version, ticket.artifact_list) == ("v1.36.2", ARTIFACT_LIST)
        with pytest.raises(GRPCError, match="no control plane joins before all are"):
            await cluster.join(ALL[2])
        kept.keep_first(sign_policy(settled, OURS.owner))
        assert (await cluster.join(ALL[2])).kubernetes_version == "v1.36.2"


async def test_the_owners_policy_says_how_many_slots_a_group_has(tmp_path: Path) -> None:
    async with running(tmp_path, owned=OURS) as cluster:
        kept, plain = cluster.files.kept_policy(), parse_policy(OURS.policy(serial=2).policy)
        await cluster.join(ALL[0])
        one = dataclasses.replace(plain, slots={ALL[1].group: 1})
        kept.keep_first(sign_policy(one, OURS.owner))
        with pytest.raises(GRPCError, match="1 of 1 slots are taken"):
            await cluster.join(ALL[1])
        two = dataclasses.replace(plain, slots={ALL[1].group: 2})
        kept.keep_first(sign_policy(two, OURS.owner))
        assert (await cluster.join(ALL[1])).node_name == "worker-default-1"


async def test_a_control_plane_gets_keys_and_membership_beyond_that(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        ticket = (await cluster.join(ALL[2])).control_plane
        assert set(ticket.pki) >= {"ca.key", "etcd/ca.key", "sa.key", "front-proxy-ca.key"}
        membership = load_membership(ticket.membership, what="ticket")
        assert membership == cluster.ledger.membership
        assert member_by_name(membership, "control-plane-default-1") is not None
        reserved = cluster.log.records[membership.sequence]
        assert (ticket.grant, ticket.grant_signature) == (reserved.data, reserved.signature)


async def test_no_ticket_carries_master_secret_or_join_key(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        carried = (await cluster.join(ALL[2])).SerializeToString()
        keys = cluster.files.state / "keys"
        secret = MasterSecret(key=Secret(b"K" * 32), salt=Secret(b"S" * 32))
        (keys / "master-secret.json").write_bytes(dump_master_secret(secret).reveal())
        carried += (await cluster.join(ALL[2], life=1)).SerializeToString()
        assert (keys / "services-ca.key").read_bytes() in carried, "the search finds what is there"
        assert (keys / "join.pem").read_bytes() not in carried
        for part in (secret.key.reveal(), secret.salt.reveal()):
            assert part not in carried
            assert base64.b64encode(part) not in carried


async def test_the_introduction_proves_the_join_key_on_this_channel(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        chip = Chip(name="w-0")
        async with channel_to(cluster.port, chip, purpose="join-client") as (one, stub):
            shown = await stub.Introduce(join_pb2.IntroduceRequest(), timeout=10)
            exporter = one.exporter(JOIN_CHANNEL_LABEL)
        policy = cluster.files.kept_policy().verified()
        verify_join_channel(
            policy.join_public_key,
            shown.channel_signature,
            exporter=exporter,
            cluster_id=CLUSTER_ID,
        )
        with pytest.raises(Untrusted):
            verify_join_channel(
                policy.join_public_key,
                shown.channel_signature,
                exporter=bytes(32),
                cluster_id=CLUSTER_ID,
            )


async def test_a_changed_image_is_refused_and_stands_in_the_log(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        chip = Chip(name="w-0", image=bytes(32))
        with pytest.raises(Rejected, match="pcr4"):
            async with channel_to(cluster.port, chip, purpose="join-client"):
                pass
        for _ in range(100):
            if Kind.REFUSED in cluster.kinds():
                break
            await asyncio.sleep(0.02)
        entry = load_record(cluster.log.records[2]).entry
    assert entry.kind is Kind.REFUSED
    assert "pcr4" in entry.reasons[0]
    assert entry.address == "127.0.0.1"


async def test_an_unknown_machine_is_refused_with_all_findings(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        cluster.provider.instances = ()
        with pytest.raises(GRPCError, match="lists 0 of it"):
            await cluster.join(ALL[0])


async def test_a_channel_for_one_purpose_is_not_good_for_another(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        chip = Chip(name="w-0")
        async with channel_to(cluster.port, chip, purpose="rejoin-client") as (_, stub):
            with pytest.raises(GRPCError, match="purpose"):
                await stub.Join(request_of(asks(ALL[0])), timeout=10)


async def test_a_rejoin_needs_no_api_and_is_recorded_later(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.join(ALL[0])
        cluster.log.away = cluster.provider.away = True
        ticket = await cluster.rejoin(ALL[0])
        assert len(ticket.disk_key) == 64
        with pytest.raises(GRPCError, match="away"):
            await cluster.join(ALL[1])
        cluster.log.away = False
        for _ in range(200):
            if Kind.REJOINED in cluster.kinds():
                break
            await asyncio.sleep(0.02)
        assert Kind.REJOINED in cluster.kinds()


async def test_a_node_that_does_not_say_its_time_gets_no_key(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.join(ALL[0])
        with pytest.raises(FormatError, match="did not say its time"), raise_ours("JoinService"):
            await cluster.rejoin(ALL[0], time=0)
        await cluster.rejoin(ALL[0])
        said = [load_record(r).entry for r in cluster.log.records.values()]
    assert [e.node_time for e in said if e.kind is Kind.REJOINED] == [NODE_TIME]


async def test_a_rejoin_does_not_wait_for_an_api_that_hangs(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.join(ALL[0])
        cluster.log.answers = answers = asyncio.Event()
        await asyncio.sleep(1.2)  # now the loop that follows the log hangs too, and holds its lock
        before = time.monotonic()
        ticket = await cluster.rejoin(ALL[0])
        assert time.monotonic() - before < 4
        assert len(ticket.disk_key) == 64
        answers.set()
        for _ in range(200):
            if Kind.REJOINED in cluster.kinds():
                break
            await asyncio.sleep(0.02)
        assert cluster.kinds().count(Kind.REJOINED) == 1


async def test_a_second_control_plane_waits_for_the_one_before_it(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        name = (await cluster.join(ALL[2])).node_name
        waiting = asyncio.create_task(cluster.join(ALL[3]))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        request = join_pb2.SettledRequest(node_name=name)
        chip = Chip(name=ALL[2].instance_id)
        async with channel_to(cluster.port, chip, purpose="join-client") as (_, stub):
            await stub.Settled(request, timeout=10)
        assert (await waiting).node_name == "control-plane-default-2"


async def test_a_learner_that_a_dead_control_plane_left_is_removed(tmp_path: Path) -> None:
    learner = EtcdMember(member_id=7, address="10.42.1.19", learner=True)
    async with running(tmp_path) as cluster:
        cluster.world.seen = Observed(
            nodes=frozenset(), ready=frozenset(), instances=frozenset({"cp-0"}), etcd=(learner,)
        )
        for _ in range(400):
            if cluster.world.removed:
                break
            await asyncio.sleep(0.02)
        assert cluster.world.removed == [learner]


async def test_a_stranger_does_not_get_a_disk_key(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.join(ALL[0])
        with pytest.raises(GRPCError, match="never joined"):
            await cluster.rejoin(ALL[0], Chip(name="thief"))
        with pytest.raises(GRPCError, match="pcr15"):
            await cluster.rejoin(ALL[0], Chip(name="w-0", pcr15=b"\1" * 32))


async def test_a_node_settles_on_its_channel_and_only_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        name = (await cluster.join(ALL[0])).node_name
        request = join_pb2.SettledRequest(node_name=name)
        other, own = Chip(name="w-1"), Chip(name="w-0")
        async with channel_to(cluster.port, other, purpose="join-client") as (_, stub):
            with pytest.raises(GRPCError, match="not this node's name"):
                await stub.Settled(request, timeout=10)
        async with channel_to(cluster.port, own, purpose="join-client") as (_, stub):
            await stub.Settled(request, timeout=10)
        assert [m.name for m in cluster.ledger.membership.nodes][1:] == [name]


async def test_a_channel_that_is_held_open_gives_no_ticket_on_old_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot_s, held_s = clock.boot_s, 0.0
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + held_s)
    async with running(tmp_path) as cluster:
        chip = Chip(name=ALL[0].instance_id)
        async with channel_to(cluster.port, chip, purpose="join-client") as (_, stub):
            ticket = await stub.Join(request_of(asks(ALL[0])), timeout=10)
            held_s = 61.0
            before = cluster.kinds()
            with pytest.raises(GRPCError, match=r"evidence of 6\d s ago"):
                await stub.Join(request_of(asks(ALL[0])), timeout=10)
            assert cluster.kinds() == before
            await stub.Settled(join_pb2.SettledRequest(node_name=ticket.node_name), timeout=10)
        async with channel_to(cluster.port, chip, purpose="rejoin-client") as (_, stub):
            await stub.Introduce(join_pb2.IntroduceRequest(), timeout=10)
            held_s += 61.0
            own = asks(ALL[0])
            again = join_pb2.RejoinRequest(
                instance_id=own.instance_id,
                disk_uuid=own.disk_uuid,
                address=own.address,
                time=NODE_TIME,
            )
            with pytest.raises(GRPCError, match=r"evidence of 6\d s ago"):
                await stub.Rejoin(again, timeout=10)
        assert (await cluster.rejoin(ALL[0])).disk_key == ticket.disk_key


async def test_a_ready_node_settles_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        name = (await cluster.join(ALL[0])).node_name
        seen = frozenset({name})
        cluster.world.seen = Observed(
            nodes=seen, ready=seen, instances=frozenset({"cp-0", "w-0"}), etcd=()
        )
        for _ in range(400):
            if Kind.SETTLED in cluster.kinds():
                break
            await asyncio.sleep(0.02)
        assert Kind.SETTLED in cluster.kinds()


async def test_peers_are_told_of_a_new_node_while_they_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        keys = cluster.files.state / "keys"
        tls = ServiceTls(
            certificate=keys / "service.crt",
            private_key=keys / "service.pem",
            ca=keys / "services-ca.crt",
        )
        peers = channel("127.0.0.1", cluster.peer_port, tls=tls)
        stub = PeerServiceStub(peers)
        first = await stub.Peers(join_pb2.PeersRequest(known_serial=0), timeout=30)
        waiting = asyncio.create_task(
            stub.Peers(join_pb2.PeersRequest(known_serial=first.serial), timeout=30)
        )
        await asyncio.sleep(0.05)
        assert not waiting.done()
        ticket = await cluster.join(ALL[0])
        told = await waiting
        peers.close()
    assert told.serial == ticket.peers.serial > first.serial
    assert len(told.peers) == 2


async def test_a_certificate_of_an_earlier_life_of_a_member_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        key, own = generate_key(), cluster.files.service_tls()
        who = ServiceIdentity(
            cluster_id=CLUSTER_ID, role=NodeRole.CONTROL_PLANE, name="control-plane-default-0"
        )
        (tmp_path / "before.pem").write_bytes(dump_private_key(key).reveal())
        (tmp_path / "before.crt").write_bytes(
            cluster.files.services_ca().issue(
                spki(key.public_key()),
                common_name=who.name,
                ips=("127.0.0.1",),
                uris=(dump_identity(who),),
                usage="peer",
                now=clock.now(),
                lifetime=timedelta(hours=1),
            )
        )
        before = ServiceTls(
            certificate=tmp_path / "before.crt", private_key=tmp_path / "before.pem", ca=own.ca
        )
        for tls, refused in ((before, True), (own, False)):
            peers = channel("127.0.0.1", cluster.peer_port, tls=tls)
            request = join_pb2.PeersRequest(known_serial=0)
            try:
                if refused:
                    with pytest.raises(GRPCError, match="another life of this name"):
                        await PeerServiceStub(peers).Peers(request, timeout=30)
                else:
                    assert (await PeerServiceStub(peers).Peers(request, timeout=30)).peers
            finally:
                peers.close()


async def test_two_join_services_share_one_log(tmp_path: Path) -> None:
    files, log = write_control_plane(tmp_path), SharedLog()
    one, two = ledger_of(files, log), ledger_of(files, log, copy="other")
    await one.follow(now=1)
    await two.follow(now=1)
    assert one.membership == two.membership
    assert one.membership.sequence == 1
    log.records.clear()
    await one.follow(now=2)
    assert sorted(log.records) == [1], "what the API lost comes back from the copy"
    again = ledger_of(files, log)
    assert again.membership == one.membership
    public = files.kept_policy().verified().join_public_key
    assert (
        replay(log.records.values(), join_public_key=public, cluster_id=CLUSTER_ID)
        == one.membership
    )


async def test_a_file_beside_the_copy_is_no_record_and_no_bug(tmp_path: Path) -> None:
    files, log = write_control_plane(tmp_path), SharedLog()
    one = ledger_of(files, log)
    await one.follow(now=1)
    for name in ("1x.json", "7.json", "0000000002.json.old"):
        (files.state / "join-log" / name).write_bytes(b"{}")
    assert ledger_of(files, log).membership == one.membership


async def test_a_replaced_record_in_the_api_stops_the_ledger(tmp_path: Path) -> None:
    files, log = write_control_plane(tmp_path), SharedLog()
    one = ledger_of(files, log)
    await one.follow(now=1)
    other, other_log = ledger_of(files, SharedLog(), copy="fork"), SharedLog()
    other._records = other_log
    await other.follow(now=99)
    log.records[1] = other_log.records[1]
    with pytest.raises(Untrusted, match="not the verified one"):
        await one.follow(now=2)


async def test_a_changed_copy_on_disk_is_untrusted(tmp_path: Path) -> None:
    files, log = write_control_plane(tmp_path), SharedLog()
    await ledger_of(files, log).follow(now=1)
    (path,) = (files.state / "join-log").glob("0*.json")
    record = decode.load(SignedRecord, path.read_bytes(), what="copy", max_bytes=1 << 20)
    changed = record.data.replace(b'"writer":"join-log"', b'"writer":"somebody"')
    assert changed != record.data
    path.write_bytes(decode.dump(SignedRecord(data=changed, signature=record.signature)))
    with pytest.raises(Untrusted):
        ledger_of(files, log)


async def test_a_node_that_has_to_wait_is_not_recorded_as_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.join(ALL[0])
        cluster.provider.away = True
        with pytest.raises(GRPCError, match="away"):
            await cluster.join(ALL[1])
        await asyncio.sleep(0.1)
        assert Kind.REFUSED not in cluster.kinds()


async def test_a_nodes_kubelet_may_register_before_its_ticket_is_given(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        cluster.world.deaf = True
        with pytest.raises(GRPCError, match="nobody listens"):
            await cluster.join(ALL[0])
        assert not cluster.world.live, "no ticket without it"
        cluster.world.deaf = False
        ticket = await cluster.join(ALL[0])
        assert ticket.node_name in cluster.world.live
