"""A node outside the local cloud fetches what it runs, and runs only what its list names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import ConstellationError, FormatError
from constellation.base.file_server import NotServed
from constellation.kube import cni, units
from constellation.providers.protocols import Instance, Role
from constellation.releases.delivery import ArtifactMissing, FalseArtifact
from constellation.rpc.stubs import join_pb2
from constellation.services.artifact_shelf import FetchedShelf, GivenShelf, door_of, shelf_of
from constellation.services.artifacts import used_by_nodes
from constellation.services.bootstrapper import join_loop, main
from constellation.services.bootstrapper.boot import boot_steps
from constellation.services.bootstrapper.paths import Paths
from constellation.services.steps import StepBook, run_steps
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactKind, ArtifactList
from constellation.trust.artifact_sources import parse_sources
from constellation.trust.cluster_policy import ClusterPolicy, parse_policy, sign_policy
from tests.fakes import file_servers
from tests.fakes.cluster_machines import OURS
from tests.fakes.file_servers import FileServer, artifact_of, door_to, file_server
from tests.unit.services.upgradeagent.test_agent import RECORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.file_server import Door
    from constellation.kube.node_record import NodeRecord
    from constellation.services.artifact_shelf import Shelf

FILES = {
    "kubelet": (ArtifactKind.BINARY, b"kubelet's bytes"),
    "content": (ArtifactKind.CONTENT, b"a squashfs of images"),
    "services": (ArtifactKind.ARCHIVE, b"a squashfs of our services"),
}
LIST = ArtifactList(kubernetes_version="v1.36.2", artifacts=()).with_artifacts(
    *(artifact_of(data, name, kind) for name, (kind, data) in FILES.items())
)


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as made:
        made.add(*(data for _, data in FILES.values()))
        yield made


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Give a cloud's machine in a folder; what would be linked and written lies below it too."""
    for place in (units, cni):
        monkeypatch.setattr(place, "BIN_DIR", tmp_path / "bin")
    monkeypatch.setattr(units, "UNIT_DIR", tmp_path / "units")
    return Paths(
        state=tmp_path / "state",
        kubernetes=tmp_path / "kubernetes",
        kubelet=tmp_path / "kubelet",
        run=tmp_path / "run",
        host=tmp_path / "host",
        disk=tmp_path / "disk",
        provider="aws",
    )


def shelf(paths: Paths, *servers: FileServer, door: Door | None = None) -> FetchedShelf:
    made = shelf_of(
        paths.provider,
        host=paths.host,
        disk=paths.disk / "artifacts",
        mounts=paths.run / "mounted",
        sources=tuple(s.url for s in servers),
        door=door or door_to(),
    )
    assert isinstance(made, FetchedShelf)
    return made


async def boot(paths: Paths, shelf: FetchedShelf) -> tuple[list[str], Exception]:
    """Run a later boot as far as it goes; what comes after the artifacts needs a machine."""
    begun: list[str] = []

    async def notify(step: str, done: bool) -> None:
        if not done:
            begun.append(step)

    record = dataclasses.replace(RECORD, artifact_list=artifact_list.dump(LIST), provider="aws")
    steps = boot_steps(record, shelf=shelf, paths=paths)
    with pytest.raises(ConstellationError) as stopped:
        await run_steps(
            steps[:2], book=StepBook(paths.run / "steps.json", kind="join"), notify=notify
        )
    return begun, stopped.value


async def test_a_boot_hashes_what_lies_on_the_disk_and_asks_nobody(
    server: FileServer, paths: Paths
) -> None:
    await shelf(paths, server).have(used_by_nodes(LIST))
    assert {p.name for p in (paths.disk / "artifacts/sha256").iterdir()} == {
        a.sha256 for a in LIST.artifacts
    }
    asked = len(server.asked)
    await shelf(paths).have(used_by_nodes(LIST))
    assert len(server.asked) == asked


async def test_a_boot_fetches_again_what_was_damaged_on_the_disk(
    server: FileServer, paths: Paths
) -> None:
    await shelf(paths, server).have(used_by_nodes(LIST))
    kept = paths.disk / "artifacts/sha256" / LIST.get("kubelet").sha256
    kept.chmod(0o755)
    kept.write_bytes(b"Kubelet's bytes")
    await shelf(paths, server).have(used_by_nodes(LIST))
    assert kept.read_bytes() == FILES["kubelet"][1]
    assert server.asked.count(f"/constellation/sha256/{kept.name}") == 2


@pytest.mark.parametrize("name", FILES)
async def test_a_source_that_lies_about_any_file_starts_nothing(
    name: str, server: FileServer, paths: Paths
) -> None:
    server.lies[LIST.get(name).sha256] = file_servers.gives(
        lambda data: data[:-1] + bytes([data[-1] ^ 1])
    )
    begun, error = await boot(paths, shelf(paths, server))
    assert begun == ["artifacts"]
    assert isinstance(error, FalseArtifact)
    assert str(error).startswith(f"artifact {name}: artifact {name} from {server.url}")
    assert not (paths.run.parent / "bin").exists(), "nothing was linked"


async def test_a_damaged_disk_and_no_source_start_nothing(server: FileServer, paths: Paths) -> None:
    await shelf(paths, server).have(used_by_nodes(LIST))
    (paths.disk / "artifacts/sha256" / LIST.get("services").sha256).unlink()
    begun, error = await boot(paths, shelf(paths))
    assert begun == ["artifacts"]
    assert isinstance(error, ArtifactMissing)
    assert error.artifact.name == "services"


async def test_only_what_was_checked_in_this_boot_is_mounted(
    server: FileServer, paths: Paths
) -> None:
    await shelf(paths, server).have(used_by_nodes(LIST))
    with pytest.raises(ValueError, match="content is mounted before it was checked"):
        await shelf(paths, server).mounted(LIST.get("content"))


@pytest.mark.parametrize(
    "address", ["10.42.1.10", "10.244.9.9", "10.97.0.1", "10.43.0.4", "169.254.169.254"]
)
async def test_no_node_fetches_from_itself_or_from_inside_its_cluster(address: str) -> None:
    door = door_of("10.42.1.10", "10.244.0.0/16", "10.96.0.0/12", "10.43.0.0/16")

    async def ask(_host: str, _port: int) -> tuple[str, ...]:
        return (address,)

    with pytest.raises(NotServed, match="no request goes there"):
        await dataclasses.replace(door, ask=ask).addresses("files.example", 443)
    # a server beside the nodes is one
    assert await door.addresses("10.42.7.7", 443) == ("10.42.7.7",)


def test_the_local_cloud_gives_what_others_fetch(tmp_path: Path) -> None:
    def of(provider: str, *sources: str) -> object:
        return shelf_of(
            provider, host=tmp_path, disk=tmp_path, mounts=tmp_path, sources=sources,
            door=door_to(),
        )  # fmt: skip

    assert isinstance(of("local"), GivenShelf)
    for provider in ("aws", "azure", "gcp", "openstack", "baremetal", "qemu"):
        assert isinstance(of(provider), FetchedShelf)
    with pytest.raises(FormatError, match="artifact source"):
        of("aws", "https://user:secret@files.example")


def test_paths_give_the_shelf_of_this_machine(paths: Paths) -> None:
    inner = ("10.244.0.0/16", "10.96.0.0/12", "10.43.0.0/16")
    made = paths.shelf(("https://files.example",), own_address="10.42.1.10", inner=inner)
    assert made.store == paths.disk / "artifacts"
    with pytest.raises(FormatError, match="network of this cluster"):
        paths.shelf((), own_address="10.42.1.10", inner=("10.244.0.0/99",))
    assert parse_sources(()) == ()


def inner_of(record: NodeRecord) -> tuple[str, ...]:
    """Give sources that no node of this cluster may ask, each for a reason of its own."""
    addresses = (record.address, "10.244.3.3", "10.97.0.1", "10.43.0.9")
    return tuple(f"http://{address}" for address in addresses)


RUNNING = dataclasses.replace(RECORD, address="10.42.1.10", provider="aws")


def owners_policy() -> ClusterPolicy:
    policy = parse_policy(OURS.policy().policy)
    return dataclasses.replace(policy, artifact_sources=inner_of(RUNNING))


async def asks_all_and_reaches_none(shelf: Shelf) -> None:
    with pytest.raises(ArtifactMissing) as missing:
        await shelf.have(used_by_nodes(LIST))
    assert tuple(missing.value.reasons) == inner_of(RUNNING)
    assert all("no request goes there" in said for said in missing.value.reasons.values())


async def test_a_later_boot_asks_what_the_kept_policy_names_and_nothing_inside(
    paths: Paths,
) -> None:
    kept = paths.kept_policy(OURS.document)
    kept.keep_first(sign_policy(owners_policy(), OURS.owner))
    await asks_all_and_reaches_none(main._shelf_of_boot(RUNNING, OURS.document, paths))


async def test_a_joining_node_asks_what_the_judged_policy_names_and_nothing_inside(
    paths: Paths,
) -> None:
    own = Instance(
        instance_id="i", group="workers", role=Role.WORKER, address=RUNNING.address, state="running"
    )
    joiner = join_loop._Joiner(
        document=OURS.document,
        own=own,
        agent=None,  # type: ignore[arg-type] # nothing is attested here
        lock=None,  # type: ignore[arg-type] # nothing is begun here
        paths=paths,
        time=None,  # type: ignore[arg-type] # nobody says one
        placement=None,
    )
    ticket = join_pb2.JoinTicket(
        pod_network=RUNNING.pod_network,
        service_cidr=RUNNING.service_cidr,
        mesh_cidr=RUNNING.mesh_cidr,
    )
    await asks_all_and_reaches_none(joiner._shelf(ticket, owners_policy()))
