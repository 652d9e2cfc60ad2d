"""`apply --skip infrastructure`: machines that somebody else makes, and a state file says.

Real attested TLS, a machine of an OpenStack cloud with a made-up vTPM, a state file filled by hand.
"""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, Untrusted, UserError
from constellation.cli.own_machines import with_own_machines
from constellation.cluster.apply import create, initialise
from constellation.cluster.context import Context, KubernetesNode
from constellation.cluster.terminate import terminate
from constellation.config.workspace import Workspace
from tests.fakes.cloud_confs import conf
from tests.fakes.cloud_node import CloudNode
from tests.fakes.clouds import NOW, Machine
from tests.fakes.machine_shelf import MachineShelf
from tests.fakes.owner_world import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Progress
    from constellation.base.secret import Secret
    from constellation.config.schema import Config
    from constellation.providers.protocols import Desired, Infrastructure


@dataclass(kw_only=True)
class Own:
    """A machine that somebody made, and the workspace of its owner."""

    workspace: Workspace
    node: CloudNode
    ports: tuple[int, int]
    config: Config = field(default_factory=lambda: conf("openstack", workers=0))
    progress: list[Progress] = field(default_factory=list)

    def context(self) -> Context:
        async def list_nodes(_: Path) -> tuple[KubernetesNode, ...]:
            return (
                KubernetesNode(
                    name="control-plane-0",
                    role="control-plane",
                    ready=True,
                    version="v1.36.2",
                    address="10.42.0.4",
                    reason="",
                ),
            )

        made = Context(
            workspace=self.workspace,
            config=self.config,
            supplies=MachineShelf(cache=self.workspace.folder / "cache", machine=self.node.machine),
            infrastructure=_nothing_is_made,
            owned=tuple,
            list_nodes=list_nodes,
            now=lambda: NOW,
            report=self.progress.append,
            wait_s=2.0,
            node_access=_no_access,
        )
        return with_own_machines(made)

    def write_machines(self, *, roots: Machine | None = None, **changed: Any) -> None:
        """Fill in the state file, as a person or their own Terraform does; `roots`: another's."""
        maker = roots or self.node.machine
        yaml = YAML(typ="safe", pure=True)
        state = yaml.load(self.workspace.state.read_text())
        init, verification = self.ports
        machine = {
            "instance_id": "plane-0",
            "group": "control_plane_default",
            "role": "control-plane",
            "address": "10.42.0.4",
            "state": "running",
            "init_endpoint": f"127.0.0.1:{init}",
            "recovery_endpoint": "127.0.0.1:1",
            "verify_endpoint": f"127.0.0.1:{verification}",
            "policy_endpoint": "127.0.0.1:1",
        }
        state["infrastructure"] = {
            "uid": state["uid"],
            "endpoint": "10.42.0.100:6443",
            "user_endpoint": "api.example.org:6443",
            "api_sans": ["api.example.org"],
            "trust_roots": _base64(maker.verifier.trust_roots),  # type: ignore[attr-defined] # a fake's
            "instances": [machine | changed],
        }
        with self.workspace.state.open("w") as file:
            yaml.dump(state, file)


def _base64(roots: tuple[bytes, ...]) -> list[str]:
    return [base64.b64encode(root).decode() for root in roots]


def _nothing_is_made(uid: str) -> Infrastructure:
    raise AssertionError(f"{uid}: a provider was asked")


async def _no_access(uid: str, desired: Desired) -> Secret:
    raise AssertionError(f"{uid}: {desired}: access was made for somebody else's machines")


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Own]:
    node = CloudNode.of(Machine.make(Variant.QEMU_VTPM))
    async with contextlib.AsyncExitStack() as stack:
        ports = await stack.enter_async_context(serving(node))
        (tmp_path / "workspace").mkdir()
        yield Own(workspace=Workspace(folder=tmp_path / "workspace"), node=node, ports=ports)


async def test_a_state_file_filled_by_hand_becomes_a_cluster(own: Own) -> None:
    with pytest.raises(Conflict, match="names no machines") as caught:
        await create(own.context())
    document = own.workspace.node_document.read_bytes()
    assert own.workspace.node_document.name in caught.value.hint
    # whoever makes the machines gives them the document as it is
    await own.node.power_on(document)
    own.write_machines()

    state = await create(own.context())
    assert state.infrastructure is not None
    assert [m.instance_id for m in state.infrastructure.instances] == ["plane-0"]
    state, _ = await initialise(own.context())
    assert own.node.secrets_received == 1
    assert own.node.access == b""
    assert b"api.example.org:6443" in own.workspace.kubeconfig.read_bytes()

    done = await terminate(own.context())
    assert not [r for r in done.removed if "machines" in r], "they are somebody else's"
    assert own.workspace.master_secret in done.kept


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"group": "worker_default"}, "names 0 machines, the configuration wants 1"),
        ({"role": "worker"}, "names 1 machines, the configuration wants 1 with role control-plane"),
    ],
)
async def test_machines_that_are_not_what_the_groups_want_are_refused(
    changed: dict[str, str], said: str, own: Own
) -> None:
    with pytest.raises(Conflict):
        await create(own.context())
    own.write_machines(**changed)
    with pytest.raises(Conflict, match=said):
        await create(own.context())


async def test_a_state_file_that_is_damaged_is_refused_with_its_place(own: Own) -> None:
    with pytest.raises(Conflict):
        await create(own.context())
    own.write_machines(role="king")
    with pytest.raises(UserError) as caught:
        await create(own.context())
    assert own.workspace.state.name in str(caught.value)
    assert "king" in str(caught.value)


async def test_authorities_that_nobody_wrote_down_accept_no_machine(own: Own) -> None:
    with pytest.raises(Conflict):
        await create(own.context())
    await own.node.power_on(own.workspace.node_document.read_bytes())
    own.write_machines(roots=Machine.make(Variant.QEMU_VTPM))
    await create(own.context())
    with pytest.raises(Untrusted):
        await initialise(own.context())
    assert own.node.secrets_received == 0


async def test_components_without_a_digest_stop_create_before_a_key_is_made(own: Own) -> None:
    own.config = conf("openstack", workers=0, cloudIntegration=True)
    with pytest.raises(UserError, match="names no cloud/openstack by digest") as caught:
        await create(own.context())
    assert "provider.openstack.cloudIntegration" in str(caught.value)
    assert not own.workspace.master_secret.exists()
    assert not own.workspace.state.exists()
