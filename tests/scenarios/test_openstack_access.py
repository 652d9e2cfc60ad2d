"""OpenStack's control planes get their credential by `init`, and admit nodes with it.

Real attested TLS, our clients against services of ours that enforce the access rules; a program in
Terraform's place. `cluster/test_cloud_lifecycle.py` does the same with the real Terraform.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, Unavailable, UserError
from constellation.base.secret import Secret
from constellation.cluster.apply import create, initialise
from constellation.cluster.context import Context
from constellation.cluster.current_policy import current_policy
from constellation.cluster.node_access import with_access
from constellation.cluster.secrets import read_secrets
from constellation.cluster.steps.machines import desired as wanted
from constellation.cluster.terminate import terminate
from constellation.config.cloud_settings import openstack_settings
from constellation.config.clouds_yaml import parse_login
from constellation.config.state import read_state
from constellation.config.workspace import Workspace
from constellation.providers.openstack.access import Components, load_access
from constellation.providers.openstack.cloud import OpenStackCloud, OpenStackInfrastructure
from constellation.providers.openstack.metadata import MetadataService, OpenStackMetadata
from constellation.providers.openstack.node_groups import OpenStackNodeGroups
from constellation.providers.protocols import Role
from constellation.providers.terraform.infrastructure import TerraformInfrastructure
from constellation.providers.terraform.run import TerraformSettings
from constellation.trust.sealed_access import unseal_access
from tests.fakes.cloud_confs import clouds_yaml, conf
from tests.fakes.cloud_node import CloudNode
from tests.fakes.clouds import NOW, Machine
from tests.fakes.joining import ask, join_service
from tests.fakes.machine_shelf import MachineShelf, one_of_each
from tests.fakes.openstack import FakeOpenStack
from tests.fakes.owner_world import serving
from tests.fakes.terraform_program import script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Progress, Report
    from constellation.config.schema import Config
    from constellation.config.state import State
    from constellation.providers.protocols import Desired, InfrastructureState


@dataclass(kw_only=True)
class Stack:
    """A project, a workspace before it, and its two machines."""

    fake: FakeOpenStack
    workspace: Workspace
    first: CloudNode
    second: CloudNode
    ports: tuple[int, int]
    config: Config = field(default_factory=lambda: conf("openstack"))
    theirs: str = "theirs"
    components: str = "components"
    progress: list[Progress] = field(default_factory=list)

    def infrastructure(self, uid: str) -> OpenStackInfrastructure:
        block = self.config.provider.openstack
        assert block is not None
        self.fake.uid = uid
        path = self.workspace.folder / "clouds.yaml"
        mine = parse_login(path, cloud="mine", region="")
        theirs = parse_login(path, cloud=self.theirs, region="") if self.theirs else None
        settings = openstack_settings(block, variant=Variant.QEMU_VTPM)
        cloud = OpenStackCloud(
            settings,
            mine,
            control_planes=theirs,
            components=parse_login(path, cloud=self.components, region=""),
            pause_s=0.001,
            drain_s=0.001,
        )
        programs = self.workspace.folder.parent / "bin"
        programs.mkdir(exist_ok=True)
        details = {
            "network": "net",
            "subnet": "subnet",
            "security_group_control_plane": "planes",
            "security_group_worker": "workers",
            "pools": json.dumps({"api": {"pool_id": "pool-6443", "port": 6443}}),
        }
        outputs = {
            "uid": uid,
            "endpoint": "127.0.0.1:6443",
            "in_cluster_endpoint": "10.42.0.100:6443",
            "api_sans": ["127.0.0.1"],
            "node_cidr": "10.42.0.0/16",
            "groups": {},
            "load_balancer": "lb",
            "details": details,
        }
        inner = TerraformInfrastructure(
            cloud,
            uid,
            folder=self.workspace.terraform,
            program=str(script(programs, resources=["openstack_lb.this"], outputs=outputs)),
            settings=TerraformSettings(),
            confirm=lambda _: None,
        )
        nodes = (self.first, self.second)
        roots = {r for n in nodes for r in n.machine.verifier.trust_roots}  # type: ignore[attr-defined] # a fake's
        return OpenStackInfrastructure(inner, cloud, uid, trust_roots=tuple(roots))

    def context(self) -> Context:
        async def access(uid: str, desired: Desired) -> Secret:
            return await self.infrastructure(uid).node_access(desired)

        return Context(
            workspace=self.workspace,
            config=self.config,
            supplies=MachineShelf(
                cache=self.workspace.folder / "cache",
                machine=self.first.machine,
                image="11111111-0000-4000-8000-000000000001",
            ),
            infrastructure=lambda uid: _Reached(stack=self, inner=self.infrastructure(uid)),  # type: ignore[arg-type,return-value] # what the engine asks
            owned=tuple,
            list_nodes=one_of_each(""),
            now=lambda: NOW,
            report=self.progress.append,
            wait_s=2.0,
            node_access=access,
        )

    def named(self, role: Role) -> str:
        return next(
            i for i, s in self.fake.servers.items() if s.metadata["constellation-role"] == role
        )


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """The project's machines, which boot when they are made, at the ports of this test."""

    stack: Stack
    inner: OpenStackInfrastructure

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        state = await self.inner.apply(desired, report=report)
        for node, role in (
            (self.stack.first, Role.CONTROL_PLANE),
            (self.stack.second, Role.WORKER),
        ):
            if not node.document:
                server = self.stack.fake.servers[self.stack.named(role)]
                await node.power_on(server.user_data)
        return self._seen(state)

    async def observe(self) -> InfrastructureState | None:
        state = await self.inner.observe()
        return None if state is None else self._seen(state)

    async def destroy(self, *, report: Report) -> None:
        await self.inner.destroy(report=report)

    def _seen(self, state: InfrastructureState) -> InfrastructureState:
        init, verification = self.stack.ports
        instances = tuple(
            dataclasses.replace(
                i, init_endpoint=f"127.0.0.1:{init}", verify_endpoint=f"127.0.0.1:{verification}"
            )
            for i in state.instances
        )
        return dataclasses.replace(state, instances=instances)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    fake = FakeOpenStack()
    for things in (fake.servers, fake.ports, fake.members):
        things.clear()
    first, second = (CloudNode.of(Machine.make(Variant.QEMU_VTPM)) for _ in range(2))
    async with contextlib.AsyncExitStack() as entered:
        await entered.enter_async_context(fake.serving())
        ports = await entered.enter_async_context(serving(first))
        workspace = Workspace(folder=tmp_path / "workspace")
        clouds_yaml(workspace.folder, auth_url=fake.auth_url)
        yield Stack(fake=fake, workspace=workspace, first=first, second=second, ports=ports)


async def test_a_control_plane_admits_and_makes_machines_with_what_init_gave_it(
    stack: Stack, tmp_path: Path
) -> None:
    await create(stack.context())
    state, _ = await initialise(stack.context())
    access = load_access(Secret(stack.first.access))
    assert (access.credential_id, access.uid) == ("cred", state.uid)
    assert {g: t.role for g, t in access.groups.items()} == {
        "control_plane_default": Role.CONTROL_PLANE,
        "worker_default": Role.WORKER,
    }
    _nothing_else_has_it(stack)
    await _apply_would_give_the_same(stack, state)

    (tmp_path / "access.json").write_bytes(stack.first.access)
    stack.fake.me = stack.named(Role.WORKER)
    source = MetadataService(url=stack.fake.metadata.url)
    worker = await OpenStackMetadata(source=source, access=tmp_path / "none").self_()
    provider = OpenStackMetadata(source=source, access=tmp_path / "access.json")
    async with join_service(stack, state, tmp_path / "plane", provider=provider) as port:
        ticket = await ask(stack, state, port, worker)
    assert ticket.group == "worker_default"

    groups = OpenStackNodeGroups(
        access, node_document=state.node_document, pause_s=0.001, drain_s=0.001
    )
    made = await groups.create("worker_default")
    assert stack.fake.servers[made.instance_id].user_data == state.node_document
    await terminate(stack.context())
    assert stack.fake.servers == {}


async def _apply_would_give_the_same(stack: Stack, state: State) -> None:
    """The policy of a later `apply` has, sealed, what `init` gave; another credential differs."""
    policy = await with_access(stack.context(), state, current_policy(state))
    owner = read_secrets(stack.workspace, cluster_id=state.cluster_id)
    sealed = policy.provider_access
    there = unseal_access(sealed, master=owner.master, cluster_id=state.cluster_id)
    assert there == Secret(stack.first.access)
    assert await with_access(stack.context(), state, policy) == policy
    path = stack.workspace.folder / "clouds.yaml"
    text = path.read_text()
    path.write_text(text.replace(": cred\n", ": cred2\n").replace(": sesame\n", ": open sesame\n"))
    other = await with_access(stack.context(), state, policy)
    path.write_text(text)
    there = unseal_access(other.provider_access, master=owner.master, cluster_id=state.cluster_id)
    assert load_access(there).credential_id == "cred2"


async def test_the_clouds_components_have_a_part_of_their_own_in_what_control_planes_get(
    stack: Stack,
) -> None:
    await create(stack.context())
    state = read_state(stack.workspace.state)
    assert state is not None
    stack.config = conf("openstack", cloudIntegration=True, floatingIPPool="external")
    context = stack.context()
    assert context.node_access is not None
    access = load_access(await context.node_access(state.uid, wanted(context, state)))
    assert access.credential_id == "cred"
    assert access.components == Components(
        credential_id="components",
        credential_secret=Secret(b"components' sesame"),
        subnet_id="subnet",
        floating_network_id="external",
    )
    stack.config = conf("openstack")
    context = stack.context()
    assert context.node_access is not None
    assert load_access(await context.node_access(state.uid, wanted(context, state))) == (
        dataclasses.replace(access, components=None)
    )


@pytest.mark.parametrize("whose", ["mine", "planes"])
async def test_components_get_no_credential_that_makes_machines(whose: str, stack: Stack) -> None:
    # "planes": another one than the control planes', with the rules of theirs
    path = stack.workspace.folder / "clouds.yaml"
    _, _, own = path.read_text().partition("  theirs:\n")
    block = own.partition("  components:\n")[0]
    assert ": cred\n" in block
    another = block.replace(": cred\n", ": cred2\n").replace(": sesame\n", ": open sesame\n")
    path.write_text(f"{path.read_text().rstrip()}\n  planes:\n{another}")
    await create(stack.context())
    state = read_state(stack.workspace.state)
    assert state is not None
    stack.config = conf("openstack", cloudIntegration=True, floatingIPPool="external")
    stack.components = whose
    context = stack.context()
    assert context.node_access is not None
    with pytest.raises(UserError, match="allows more than its rules") as told:
        await context.node_access(state.uid, wanted(context, state))
    assert told.value.where == "provider.openstack.componentsCloud"


async def test_access_is_sent_once_and_never_to_a_node_that_was_given_to_its_cluster(
    stack: Stack,
) -> None:
    await create(stack.context())
    stack.first.die_before = "policy"
    with pytest.raises(Unavailable):
        await initialise(stack.context())
    assert stack.first.access
    stack.first.access = b""
    await initialise(stack.context())
    assert stack.first.secrets_received == 1
    assert stack.first.access == b""


@pytest.mark.parametrize(
    ("theirs", "said"),
    [("", "need a credential of their own"), ("mine", "allows more than its rules")],
)
async def test_without_a_restricted_credential_nothing_is_made(
    theirs: str, said: str, stack: Stack
) -> None:
    stack.theirs = theirs
    with pytest.raises(UserError, match=said):
        await create(stack.context())
    assert stack.fake.servers == {}
    assert not stack.workspace.terraform.exists()


async def test_a_group_that_has_no_room_to_grow_stays_as_it_is(stack: Stack) -> None:
    await create(stack.context())
    before = dict(stack.fake.servers)
    workers = stack.config.node_groups["worker_default"].model_copy(update={"size": 3})
    groups = stack.config.node_groups | {"worker_default": workers}
    stack.config = stack.config.model_copy(update={"node_groups": groups})
    stack.fake.limits |= {"maxTotalInstances": 3}
    with pytest.raises(Conflict, match="quota of instances: 3 of which 2 are used, 2 more needed"):
        await create(stack.context())
    assert stack.fake.servers == before


async def test_a_credential_that_is_gone_by_the_time_of_init_stops_it_before_the_secret(
    stack: Stack,
) -> None:
    await create(stack.context())
    stack.fake.revoked = True
    with pytest.raises(Conflict, match=r"[Aa]pplication [Cc]redential"):
        await initialise(stack.context())
    assert stack.first.secrets_received == 0


def _nothing_else_has_it(stack: Stack) -> None:
    forms = (b"sesame", base64.b64encode(b"sesame"))
    assert forms[1] in stack.first.access
    for path in stack.workspace.folder.rglob("*"):
        if path.is_file() and path.name != "clouds.yaml":
            assert not [form for form in forms if form in path.read_bytes()], path
    for server in stack.fake.servers.values():
        shown = server.user_data + str(server.metadata).encode()
        assert not [form for form in forms if form in shown]
    assert not [p for p in stack.progress if "sesame" in repr(p)]
