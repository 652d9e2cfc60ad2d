"""A running node renews its certificates: real aTLS, real quotes, a real join log.

The JoinService runs as on a control plane, the node's side as in its mesh program, on folders.
After every refusal an honest node gets its certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from constellation.atls import client
from constellation.attestation.model import AttestationResult
from constellation.base import clock
from constellation.base.errors import ConstellationError, Rejected, Unavailable, Untrusted
from constellation.base.secret import Secret
from constellation.base.time_bounds import TimeBounds
from constellation.crypto.signing import dump_private_key, generate_key, load_private_key, spki
from constellation.crypto.x509 import CertificateAuthority, load_certificate
from constellation.kube.join_log import Entry, Kind, load_record
from constellation.kube.node_certificates import certify
from constellation.providers.protocols import Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import JoinServiceStub
from constellation.services import join_channel
from constellation.services.joinservice.admit import admit
from constellation.services.joinservice.judge import fresh_node, given_node
from constellation.services.kept_policy import KeptPolicy
from constellation.services.mesh.renew import NodePaths, Renewal
from constellation.services.node_time import NodeTime
from tests.fakes.cluster_machines import OTHER, OURS, Node, machine
from tests.fakes.join_world import (
    NODE_TIME,
    Provider,
    SharedLog,
    World,
    ledger_of,
    request_of,
    server_of,
    write_control_plane,
)
from tests.fakes.members import DOCUMENT, asks, node_record
from tests.fakes.members import machine as instance_of
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.attestation.model import Binding, Evidence
    from constellation.crypto.signing import ec
    from constellation.kube.membership import Member, Membership
    from constellation.providers.protocols import Instance
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.services.joinservice.server import Ports

WORKER, SECOND = instance_of(0), instance_of(1)
PLANE = instance_of(1, role=Role.CONTROL_PLANE)
HOUR, DAY = 3600, 86_400


@dataclass(kw_only=True)
class Cluster:
    """One control plane, on the machine `on`; `later_s` puts everybody's clock forward."""

    on: Node
    files: NodeFiles
    ledger: Ledger
    log: SharedLog
    port: int = 0
    later_s: int = 0

    def entries(self, kind: Kind) -> list[Entry]:
        found = (load_record(r).entry for _, r in sorted(self.log.records.items()))
        return [e for e in found if e.kind is kind]

    async def enrol(self, node: Node, instance: Instance, *, settled: bool = True) -> _Enrolled:
        """Make a node's record, and the certificates and keys that its join left it with."""
        keys = {name: generate_key() for name in ("client", "serving", "service")}
        facts = asks(instance)

        def reserve(membership: Membership) -> Entry:
            result = AttestationResult(
                variant=node.variant,
                attester_id=ak,
                claims={"pcr15": bytes(32)},
                unchecked=(),
                warnings=(),
            )
            asked = dataclasses.replace(
                facts,
                kubelet_client_public_key=spki(keys["client"].public_key()),
                kubelet_serving_public_key=spki(keys["serving"].public_key()),
                service_public_key=spki(keys["service"].public_key()),
            )
            admission = admit(
                membership,
                asked,
                document=DOCUMENT,
                result=result,
                instances=(instance,),
                now=int(NOW.timestamp()),
            )
            return Entry(
                kind=Kind.RESERVED, time=1, member=admission.member, expires_at=2_000_000_000
            )

        ak = await node.attester_id()
        membership = await self.ledger.write(reserve, now=1)
        member = next(r.member for r in membership.reservations if r.member.attester_id == ak)
        if settled:
            settle = Entry(kind=Kind.SETTLED, time=1, name=member.name)
            await self.ledger.write(lambda _: settle, now=1)
        return _Enrolled(node=node, member=member, keys=keys, cluster=self)

    async def ask(
        self, node: Node, request: join_pb2.RenewRequest, *, purpose: str = "renew-client"
    ) -> join_pb2.RenewTicket:
        """Ask as an attacker does: whatever the server is, whatever is said."""
        async with self.channel(node, purpose=purpose) as stub:
            return await stub.Renew(request, timeout=10)

    @contextlib.asynccontextmanager
    async def channel(self, node: Node, *, purpose: str) -> AsyncIterator[JoinServiceStub]:
        with raise_ours("JoinService"):
            channel = await client.connect(
                "127.0.0.1",
                self.port,
                purpose=purpose,
                server_purpose="join-server",
                attester=node,
                appraise=_anybody,
                deadline_s=10,
            )
            try:
                yield JoinServiceStub(channel.grpc)
            finally:
                channel.close()

    async def refuses(
        self, node: Node, request: join_pb2.RenewRequest, because: str, **more: str
    ) -> None:
        renewed = len(self.entries(Kind.RENEWED))
        with pytest.raises(ConstellationError, match=because):
            await self.ask(node, request, **more)
        assert len(self.entries(Kind.RENEWED)) == renewed, "nothing was given, nothing is recorded"

    async def recorded(self, kind: Kind, *, reason: str = "") -> bool:
        """Wait for a record; refusals are written by a loop."""
        for _ in range(250):
            for entry in self.entries(kind):
                if reason in " ".join(entry.reasons):
                    return True
            await asyncio.sleep(0.02)
        return False


def _anybody(evidence: Evidence, _binding: Binding) -> AttestationResult:
    return AttestationResult(
        variant=evidence.variant, attester_id=bytes(32), claims={}, unchecked=(), warnings=()
    )


@dataclass(kw_only=True)
class _Enrolled:
    """A node of the cluster. `kubelet_starts` counts kubelet's restarts."""

    node: Node
    member: Member
    keys: dict[str, ec.EllipticCurvePrivateKey]
    cluster: Cluster
    kubelet_starts: list[int] = field(default_factory=list)

    @property
    def request(self) -> join_pb2.RenewRequest:
        return join_pb2.RenewRequest(
            node_name=self.member.name,
            role=str(self.member.role),
            instance_id=self.member.instance_id,
            address=self.member.address,
            time=NODE_TIME,
        )

    async def renews(self) -> None:
        """The control case: the honest node gets its certificates."""
        ticket = await self.cluster.ask(self.node, self.request)
        certificate = load_certificate(ticket.service_certificate)
        assert certificate.not_valid_after_utc > clock.now()

    def on_disk(self, root: Path) -> Renewal:
        """Write what join left, dated now; gives the node's program."""
        files, member = self.cluster.files, self.member
        paths = NodePaths(
            keys=root / "state" / "keys",
            cluster_pki=root / "pki",
            kubelet_pki=root / "kubelet" / "pki",
        )
        made = certify(
            member,
            cluster_ca=files.cluster_ca(),
            services_ca=files.services_ca(),
            cluster_id=OURS.document.cluster_id,
            now=clock.now(),
        )
        pem = {name: dump_private_key(key).reveal() for name, key in self.keys.items()}
        for path, data in {
            paths.keys / "service.pem": pem["service"],
            paths.keys / "kubelet-client.pem": pem["client"],
            paths.keys / "kubelet-serving.pem": pem["serving"],
            paths.keys / "services-ca.crt": files.services_ca().certificate_pem,
            paths.cluster_pki / "ca.crt": files.cluster_ca().certificate_pem,
            paths.service: made.service,
            paths.serving: made.kubelet_serving,
            paths.kubelet_pki / "kubelet-client-first.pem": made.kubelet_client + pem["client"],
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        paths.client.symlink_to(paths.kubelet_pki / "kubelet-client-first.pem")
        kept = KeptPolicy(state=root / "state", document=OURS.document)
        kept.keep_first(OURS.policy(serial=1))

        @contextlib.asynccontextmanager
        async def attester() -> AsyncIterator[Node]:
            yield self.node

        async def addresses() -> tuple[str, ...]:
            return ("127.0.0.1",)

        async def restart_kubelet() -> None:
            self.kubelet_starts.append(self.cluster.later_s)

        return Renewal(
            record=node_record(member, cluster_id=OURS.document.cluster_id),
            kept=kept,
            paths=paths,
            time=NodeTime(
                image=root / "image.json", said=root / "said.json", kept=root / "time.json"
            ),
            attester=attester,
            addresses=addresses,
            restart_kubelet=restart_kubelet,
        )


def serials(renewal: Renewal) -> tuple[int, int, int]:
    paths = renewal.paths
    first, second, third = (
        load_certificate(p.read_bytes()).serial_number
        for p in (paths.service, paths.serving, paths.client)
    )
    return first, second, third


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    async with machine(tmp_path / "cp") as on:
        files = write_control_plane(
            tmp_path / "disk", cluster=OURS, attester_id=await on.attester_id(), now=NOW
        )
        log = SharedLog()
        one = Cluster(on=on, files=files, ledger=ledger_of(files, log), log=log)
        monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(seconds=one.later_s))
        await one.ledger.follow(now=1)
        started = asyncio.Event()

        def listens(ports: Ports) -> None:
            one.port = ports.join
            monkeypatch.setattr(join_channel, "PORT", ports.join)
            started.set()

        server = dataclasses.replace(
            server_of(files, one.ledger, Provider(instances=()), World()),
            attester=on,
            appraise=fresh_node(files.kept_policy()),
            appraise_given=given_node(files.kept_policy()),
        )
        task = asyncio.create_task(server.run(started=listens))
        async with asyncio.timeout(10):
            await started.wait()
        yield one
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        clock.bound(TimeBounds(floor_s=0, said=None))


@pytest.fixture
async def worker(cluster: Cluster, tmp_path: Path) -> AsyncIterator[_Enrolled]:
    async with machine(tmp_path / "worker") as node:
        yield await cluster.enrol(node, WORKER)


async def test_a_node_renews_at_half_of_a_day_and_the_log_tells(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    renewal = worker.on_disk(tmp_path / "node")
    first = serials(renewal)
    cluster.later_s = 11 * HOUR
    assert not await renewal.once()
    assert serials(renewal) == first
    cluster.later_s = 12 * HOUR
    assert await renewal.once()
    second = serials(renewal)
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True]
    assert not await renewal.once(), "what came is young"
    (entry,) = cluster.entries(Kind.RENEWED)
    assert (entry.name, entry.role) == (worker.member.name, "worker")
    assert entry.evidence is not None
    assert entry.evidence.attester_id == worker.member.attester_id
    assert cluster.ledger.membership.peers_serial < cluster.ledger.membership.sequence
    assert (tmp_path / "node" / "said.json").exists(), "the time in its ticket"
    assert worker.kubelet_starts == []
    cluster.later_s = 26 * HOUR
    assert await renewal.once()
    assert len(cluster.entries(Kind.RENEWED)) == 1, "the same evidence again is no news"
    cluster.files.kept_policy().take_shown(OURS.policy(serial=2))
    cluster.later_s = 40 * HOUR
    assert await renewal.once()
    assert len(cluster.entries(Kind.RENEWED)) == 2, "judged by another policy"


async def test_a_channel_that_is_held_open_renews_nothing_on_old_evidence(
    cluster: Cluster, worker: _Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else root on a node whose image is withdrawn would get certificates for ever."""
    boot_s, held_s = clock.boot_s, 0.0
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + held_s)
    async with cluster.channel(worker.node, purpose="renew-client") as stub:
        with raise_ours("JoinService"):
            assert (await stub.Renew(worker.request, timeout=10)).service_certificate
        held_s = 61.0
        with (
            pytest.raises(Unavailable, match=r"evidence of 6\d s ago"),
            raise_ours("JoinService"),
        ):
            await stub.Renew(worker.request, timeout=10)
    await worker.renews()


async def test_a_laptop_that_slept_for_eight_days_gets_kubelet_s_client_certificate_too(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    renewal = worker.on_disk(tmp_path / "node")
    first = serials(renewal)
    cluster.later_s = 8 * DAY
    assert await renewal.once()
    assert len({*first, *serials(renewal)}) == 6
    pem = renewal.paths.client.read_bytes()
    assert dump_private_key(worker.keys["client"]).reveal() in pem
    assert renewal.paths.client.is_symlink()
    assert renewal.paths.client.stat().st_mode & 0o777 == 0o600
    assert worker.kubelet_starts == [8 * DAY]


async def test_the_only_control_plane_renews_at_itself_and_tells_itself_no_time(
    cluster: Cluster, tmp_path: Path
) -> None:
    (member,) = cluster.ledger.membership.nodes
    key = load_private_key(Secret((cluster.files.state / "keys/service.pem").read_bytes()))
    keys = dict.fromkeys(("client", "serving", "service"), key)
    alone = _Enrolled(node=cluster.on, member=member, keys=keys, cluster=cluster)
    renewal = alone.on_disk(tmp_path / "node")
    cluster.later_s = 30 * HOUR
    renewal.kept.take_shown(OURS.policy(serial=2))
    with pytest.raises(Untrusted, match="serial 1"):  # a JoinService that is behind is not asked
        await renewal.once()
    cluster.files.kept_policy().take_shown(OURS.policy(serial=2))
    assert await renewal.once()
    assert not (tmp_path / "node" / "said.json").exists()


async def test_it_needs_no_kubernetes_and_is_recorded_later(
    cluster: Cluster, worker: _Enrolled
) -> None:
    cluster.log.away = True
    await worker.renews()
    assert cluster.entries(Kind.RENEWED) == []
    cluster.log.away = False
    assert await cluster.recorded(Kind.RENEWED)


async def test_a_node_that_was_not_given_to_this_cluster_gets_none(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with machine(tmp_path / "fresh", given=False) as node:
        fresh = await cluster.enrol(node, WORKER)
        await cluster.refuses(node, fresh.request, "pcr15")
        assert await cluster.recorded(Kind.REFUSED, reason="pcr15")
        await node.give_to_cluster(OURS.document.cluster_id)
        await fresh.renews()


async def test_a_node_of_another_cluster_gets_none(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    async with machine(tmp_path / "theirs", cluster=OTHER) as theirs:
        await cluster.refuses(theirs, worker.request, "pcr8")
    assert await cluster.recorded(Kind.REFUSED, reason="pcr8")
    await worker.renews()


async def test_a_removed_member_and_one_without_its_place_get_none(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    async with machine(tmp_path / "second") as node:
        second = await cluster.enrol(node, SECOND, settled=False)
        await cluster.refuses(node, second.request, "has not settled")
        settle = Entry(kind=Kind.SETTLED, time=1, name=second.member.name)
        await cluster.ledger.write(lambda _: settle, now=1)
        await second.renews()
        gone = Entry(kind=Kind.REMOVED, time=1, name=second.member.name)
        await cluster.ledger.write(lambda _: gone, now=1)
        await cluster.refuses(node, second.request, "was removed from this cluster")
    assert await cluster.recorded(Kind.REFUSED, reason="was removed")
    await worker.renews()


async def test_a_worker_gets_no_control_plane_s_and_no_other_node_s_certificates(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    first = cluster.ledger.membership.nodes[0]
    async with machine(tmp_path / "second") as node:
        second = await cluster.enrol(node, SECOND)
    for name, role, instance, address, because in (
        (first.name, "control-plane", first.instance_id, first.address, "name: found 'control-"),
        (worker.member.name, "control-plane", "w-0", WORKER.address, "role: found 'control-plane'"),
        (second.member.name, "worker", "w-1", SECOND.address, "name: found 'worker-default-1'"),
        (worker.member.name, "worker", "w-0", first.address, "address: found '127.0.0.1'"),
        (worker.member.name, "worker", "cp-0", WORKER.address, "instance id: found 'cp-0'"),
    ):
        request = join_pb2.RenewRequest(
            node_name=name, role=role, instance_id=instance, address=address, time=NODE_TIME
        )
        await cluster.refuses(worker.node, request, because)
    assert await cluster.recorded(Kind.REFUSED, reason="role: found 'control-plane'")
    await worker.renews()


async def test_a_genuine_machine_with_another_ak_gets_none_in_a_member_s_name(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    async with machine(tmp_path / "thief") as thief:
        await cluster.refuses(thief, worker.request, "never joined this cluster")
    assert await cluster.recorded(Kind.REFUSED, reason="never joined")
    await worker.renews()


async def test_a_channel_for_this_is_good_for_nothing_else_nor_another_for_this(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    async with cluster.channel(worker.node, purpose="renew-client") as stub:
        with pytest.raises(Rejected, match="purpose"), raise_ours("JoinService"):
            await stub.Join(request_of(asks(WORKER)), timeout=10)
    async with cluster.channel(worker.node, purpose="renew-client") as stub:
        request = join_pb2.RejoinRequest(instance_id="w-0", disk_uuid=worker.member.disk_uuid)
        with pytest.raises(Rejected, match="purpose"), raise_ours("JoinService"):
            await stub.Rejoin(request, timeout=10)
    async with machine(tmp_path / "fresh", given=False) as node:
        fresh = await cluster.enrol(node, SECOND)
        await cluster.refuses(node, fresh.request, "purpose", purpose="rejoin-client")
        await cluster.refuses(node, fresh.request, "purpose", purpose="join-client")
    await worker.renews()


async def test_a_node_that_asks_again_and_again_fills_no_log(
    cluster: Cluster, worker: _Enrolled
) -> None:
    for _ in range(4):
        await worker.renews()
    for _ in range(3):
        with pytest.raises(Unavailable, match="too often"):
            await worker.renews()
    await asyncio.sleep(0.1)
    assert len(cluster.entries(Kind.RENEWED)) == 1
    assert cluster.entries(Kind.REFUSED) == []


async def test_what_does_not_fit_replaces_nothing(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    renewal = worker.on_disk(tmp_path / "node")
    before = serials(renewal)
    cluster.later_s = 8 * DAY
    keys = cluster.files.state / "keys"
    true = {n: (keys / n).read_bytes() for n in ("services-ca.crt", "services-ca.key")}
    other = CertificateAuthority.create("services", now=clock.now(), lifetime=timedelta(days=9))
    (keys / "services-ca.crt").write_bytes(other.certificate_pem)
    (keys / "services-ca.key").write_bytes(other.key_pem.reveal())
    with pytest.raises(Untrusted, match="CA did not issue"):
        await renewal.once()
    assert serials(renewal) == before
    assert worker.kubelet_starts == []
    for name, data in true.items():
        (keys / name).write_bytes(data)
    assert await renewal.once()


async def test_a_worker_takes_a_newer_policy_and_refuses_an_older_one(
    cluster: Cluster, worker: _Enrolled, tmp_path: Path
) -> None:
    renewal = worker.on_disk(tmp_path / "node")
    cluster.files.kept_policy().take_shown(OURS.policy(serial=3))
    cluster.later_s = 12 * HOUR
    assert await renewal.once()
    assert renewal.kept.verified().serial == 3
    renewal.kept.take_shown(OURS.policy(serial=4))
    cluster.later_s = 30 * HOUR
    before = serials(renewal)
    with pytest.raises(Untrusted, match="serial 3"):
        await renewal.once()
    assert serials(renewal) == before
