"""A cluster on hosts of one's own: create, init, verify, join, terminate, in one process.

The hosts boot with what `create` wrote for them and read it by the client that nodes have; attested
TLS is real. What is made up: chips and vTPMs, Kubernetes, and other ports than a node has.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from grpclib.exceptions import GRPCError

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, Rejected, Unavailable, Untrusted, UserError
from constellation.cluster.apply import create, initialise, make_plan
from constellation.cluster.context import Context
from constellation.cluster.terminate import terminate
from constellation.cluster.verify import verify_machines
from constellation.config.schema import Config
from constellation.config.workspace import Workspace
from constellation.providers.baremetal.infrastructure import (
    PORTS,
    BaremetalInfrastructure,
    takes_connections,
)
from constellation.providers.baremetal.metadata import BaremetalMetadata
from constellation.releases.export import export
from constellation.releases.store import Store
from constellation.trust import artifact_list
from constellation.trust.cluster_policy import parse_policy
from tests.fakes.cloud_node import CloudNode
from tests.fakes.clouds import NOW, Machine
from tests.fakes.file_servers import FileServer, door_to, file_server, gives
from tests.fakes.joining import ask, join_service
from tests.fakes.machine_shelf import MachineShelf, one_of_each
from tests.fakes.owner_world import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Progress
    from constellation.config.state import State

PLANE, WORKER = "host-127-0-0-1", "host-10-42-2-10"


@dataclass(kw_only=True)
class Hosts:
    """Two hosts and a workspace before them."""

    workspace: Workspace
    config: Config
    first: CloudNode
    second: CloudNode
    ports: dict[str, int]
    files: FileServer
    progress: list[Progress] = field(default_factory=list)

    def infrastructure(self, uid: str) -> BaremetalInfrastructure:
        block = self.config.provider.baremetal
        assert block is not None
        roots = {r for n in (self.first, self.second) for r in n.machine.verifier.trust_roots}  # type: ignore[attr-defined] # a fake's
        return BaremetalInfrastructure(
            uid,
            addresses=block.hosts,
            endpoint=block.endpoint,
            trust_roots=tuple(sorted(roots)),
            folder=self.workspace.hosts,
            state_disk=block.state_disk,
            ports=self.ports,
            answers=_on_this_machine,
        )

    def metadata(self, name: str) -> BaremetalMetadata:
        """Give what a host reads, from the folder that its owner has put before it."""
        return BaremetalMetadata(folders=(self.workspace.hosts / name,))

    async def power_on(self) -> None:
        for node, name in ((self.first, PLANE), (self.second, WORKER)):
            await node.power_on(await self.metadata(name).user_data())

    def context(self) -> Context:
        return Context(
            workspace=self.workspace,
            config=self.config,
            supplies=MachineShelf(
                cache=self.workspace.folder / "cache", machine=self.first.machine
            ),
            infrastructure=self.infrastructure,
            owned=tuple,
            list_nodes=one_of_each("127.0.0.1"),
            now=lambda: NOW,
            report=self.progress.append,
            wait_s=2.0,
            keeps_machines=True,
            door=door_to(),
        )

    async def publish(self, state: State) -> None:
        """Serve what hosts need, as `artifacts mirror --to` writes it; the cache is emptied."""
        cache = self.workspace.folder / "cache"
        listed = artifact_list.parse(state.artifact_list).artifacts
        assert self.files.folder is not None
        await export(
            listed, store=Store(cache), folder=self.files.folder, report=self.progress.append
        )
        for path in (cache / "sha256").iterdir():
            path.unlink()

    def fetched(self, node: CloudNode) -> set[str]:
        assert node.fetches is not None
        return {path.name for path in (node.fetches / "sha256").glob("*")}


async def _on_this_machine(address: str, port: int) -> bool:
    """Look at loopback addresses alone: the worker's is of a network that is not here."""
    return address.startswith("127.") and await takes_connections(address, port)


def _config(*sources: str, **hosts: list[str]) -> Config:
    usual = {"control_plane_default": ["127.0.0.1"], "worker_default": ["10.42.2.10"]}
    return Config.model_validate(
        {
            "provider": {"baremetal": {"hosts": usual | hosts, "endpoint": "127.0.0.1:6443"}},
            "attestation": {"variant": "qemu-vtpm", "acceptWeaker": "a test"},
            "artifacts": {"sources": sources},
        }
    )


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    first, second = (CloudNode.of(Machine.make(Variant.QEMU_VTPM)) for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        init, verification = await stack.enter_async_context(serving(first))
        files = await stack.enter_async_context(file_server())
        (tmp_path / "workspace").mkdir()
        files.folder = tmp_path / "www"
        first.fetches, second.fetches = tmp_path / "first", tmp_path / "second"
        yield Hosts(
            workspace=Workspace(folder=tmp_path / "workspace"),
            config=_config(files.url),
            files=files,
            first=first,
            second=second,
            ports=PORTS | {"init": init, "verify": verification},
        )


async def test_a_cluster_of_hosts_is_made_proven_joined_and_left(
    hosts: Hosts, tmp_path: Path
) -> None:
    state = await create(hosts.context())
    assert state.infrastructure is not None
    assert {m.instance_id for m in state.infrastructure.instances} == {PLANE, WORKER}
    await hosts.power_on()
    assert hosts.first.document == state.node_document

    await hosts.publish(state)
    state, _ = await initialise(hosts.context())
    assert hosts.first.secrets_received == 1
    names = {a.sha256 for a in artifact_list.parse(state.artifact_list).artifacts}
    assert hosts.fetched(hosts.first) == names
    assert hosts.workspace.kubectl.read_bytes() == b"kubectl", "from there too: no cache has it"
    (node,) = await _verified(hosts, state)
    assert node.error is None

    await _joins(hosts, state, tmp_path)

    done = await terminate(hosts.context())
    assert not hosts.workspace.hosts.exists()
    assert hosts.workspace.master_secret in done.kept
    assert not [r for r in done.removed if "machines" in r], "they are their owner's"


async def _verified(hosts: Hosts, state: State) -> tuple[object, ...]:
    """Ask the control plane alone: the worker serves nothing in this world."""
    assert state.infrastructure is not None
    planes = tuple(i for i in state.infrastructure.instances if i.instance_id == PLANE)
    seen = dataclasses.replace(
        state, infrastructure=dataclasses.replace(state.infrastructure, instances=planes)
    )
    return await verify_machines(hosts.context(), seen, cluster_id=state.cluster_id, deadline_s=5)


async def _joins(hosts: Hosts, state: State, folder: Path) -> None:
    """Let the worker join by a JoinService that compares with what the control plane reads."""
    worker = await hosts.metadata(WORKER).self_()
    listed = await hosts.metadata(PLANE).peers()
    assert (worker.instance_id, worker.address) in {(i.instance_id, i.address) for i in listed}
    provider = hosts.metadata(PLANE)
    async with join_service(hosts, state, folder / "control-plane", provider=provider) as port:
        for changed in ({"instance_id": "host-10-42-2-11"}, {"address": "10.42.2.11"}):
            with pytest.raises(GRPCError, match=r"instance id|address"):
                await ask(hosts, state, port, dataclasses.replace(worker, **changed))
        ticket = await ask(hosts, state, port, worker)
        assert ticket.group == "worker_default"
        assert ticket.disk_key
        assert state.policy is not None
        sources = parse_policy(state.policy.policy).artifact_sources
        await hosts.second.fetch(ticket.artifact_list, sources)
        assert hosts.fetched(hosts.second) == hosts.fetched(hosts.first)
        await hosts.second.give(state.cluster_id)
        with pytest.raises(Rejected, match=r"PCR 15|pcr15"):
            await ask(hosts, state, port, worker)


async def test_hosts_that_do_not_run_yet_are_waited_for_by_init_alone(hosts: Hosts) -> None:
    answering, hosts.ports = hosts.ports, dict(PORTS)
    state = await create(hosts.context())
    assert state.infrastructure is not None
    assert {m.state for m in state.infrastructure.instances} == {"off"}
    said = [p.detail for p in hosts.progress if p.step == "Hosts" and p.finished]
    assert said == [f"not up yet: {WORKER}, {PLANE}"]
    assert [p.step for p in await make_plan(hosts.context())][0:1] == ["machines"]
    with pytest.raises(Unavailable):
        await initialise(hosts.context())
    assert hosts.first.secrets_received == 0
    # the owner boots them; the same commands go on
    hosts.ports = answering
    await hosts.power_on()
    await hosts.publish(await create(hosts.context()))
    await initialise(hosts.context())
    assert hosts.first.secrets_received == 1


async def test_a_source_that_lies_stops_init_and_another_one_lets_it_go_on(hosts: Hosts) -> None:
    state = await create(hosts.context())
    await hosts.power_on()
    await hosts.publish(state)
    hosts.files.lie = gives(lambda data: bytes(len(data)))
    with pytest.raises(Untrusted, match=r"artifact (kubectl|services) from http://files\.example"):
        await initialise(hosts.context())
    assert not hosts.fetched(hosts.first)
    assert hosts.first.secrets_received == 1
    async with file_server() as honest:
        honest.folder = hosts.files.folder
        hosts.config = _config(hosts.files.url, honest.url)
        await initialise(hosts.context())
        assert len(honest.asked) == 3, "two of the node's and the user's kubectl"
    assert hosts.first.secrets_received == 1


async def test_without_a_source_create_warns_and_init_gives_nothing_away(hosts: Hosts) -> None:
    hosts.config = _config()
    await create(hosts.context())
    (said,) = [p.detail for p in hosts.progress if p.step == "Artifact sources"]
    assert said.startswith("warning: none is named (artifacts.sources)")
    await hosts.power_on()
    with pytest.raises(UserError, match=r"constellation-conf\.yaml: artifacts\.sources") as caught:
        await initialise(hosts.context())
    assert "artifacts mirror --to" in caught.value.hint
    assert hosts.first.secrets_received == 0


async def test_a_host_that_booted_with_another_document_gets_nothing(hosts: Hosts) -> None:
    state = await create(hosts.context())
    await hosts.first.power_on(state.node_document.replace(b'"minimum', b' "minimum'))
    with pytest.raises(Rejected, match=r"pcr8|PCR 8"):
        await initialise(hosts.context())
    assert hosts.first.secrets_received == 0


async def test_a_cluster_keeps_the_hosts_that_it_was_made_of(hosts: Hosts) -> None:
    await create(hosts.context())
    before = {p: p.read_bytes() for p in hosts.workspace.hosts.rglob("*") if p.is_file()}
    hosts.config = _config(worker_default=["10.42.2.19"])
    with pytest.raises(Conflict, match="other hosts than the configuration"):
        await create(hosts.context())
    assert {p: p.read_bytes() for p in hosts.workspace.hosts.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"worker_default": []}, "worker_default: expected 1 hosts, found 0"),
        ({"worker_default": ["10.42.2.10", "10.42.2.11"]}, "expected 1 hosts, found 2"),
        ({"others": ["10.42.2.11"]}, "hosts of others: there is no such node group"),
        ({"worker_default": ["127.0.0.1"]}, "an address stands in two groups"),
    ],
)
async def test_hosts_that_are_not_what_the_groups_want_are_refused(
    changed: dict[str, list[str]], said: str, hosts: Hosts
) -> None:
    hosts.config = _config(**changed)
    with pytest.raises(Conflict, match=said):
        await create(hosts.context())
    assert not hosts.workspace.hosts.exists()
