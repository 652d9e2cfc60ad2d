"""The upgrade agent brings what the owner's policy names, and looks at nobody's word but that."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, FormatError, Rejected
from constellation.kube.cloud_ownership import DIGEST_ANNOTATION
from constellation.rpc.upgrade_client import UpgradeClient
from constellation.services.upgradeagent.agent import Agent
from constellation.services.upgradeagent.server import serve
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactKind
from tests.fakes.cloud_objects import dump, objects
from tests.fakes.control_plane import NEW, Host, Policies
from tests.fakes.kubectl_program import KubectlProgram
from tests.unit.services.upgradeagent.test_agent import RECORD, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OBJECTS = dump(objects())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(home=tmp_path)


@pytest.fixture
def kubectl(tmp_path: Path, policies: Policies) -> KubectlProgram:
    del policies  # its host's programs are there
    program = KubectlProgram(home=tmp_path / "cluster")
    program.install(tmp_path / "bin")
    return program


@pytest.fixture
def policies(host: Host, monkeypatch: pytest.MonkeyPatch) -> Policies:
    """Give the policy of an owner who wants the components that its list names."""
    made = host.install(monkeypatch)
    _wants(made, host, OBJECTS)
    return made


def _wants(policies: Policies, host: Host, data: bytes) -> None:
    listed = artifact_list.parse(policies.lists[NEW]).with_artifacts(
        host.artifact("cloud/local", data, ArtifactKind.OBJECTS)
    )
    policies.lists[NEW] = artifact_list.dump(listed)
    policies.policy = dataclasses.replace(
        policies.policy,
        artifact_lists={NEW: hashlib.sha256(policies.lists[NEW]).digest()},
        cloud_integration=True,
    )


def agent(host: Host, policies: Policies) -> Agent:
    return Agent(record=RECORD, policies=policies, etcd=host, paths=host.paths, settle=host.settle)


async def test_over_its_socket_it_says_what_is_wanted_and_brings_that(
    host: Host, policies: Policies, kubectl: KubectlProgram
) -> None:
    socket = host.home / "door" / "agent.sock"
    server = await serve(agent(host, policies), socket)
    try:
        client = UpgradeClient(socket)
        wanted = (await client.describe()).cloud_objects
        assert wanted == hashlib.sha256(OBJECTS).hexdigest()
        await client.cloud_objects(serial=2, kubernetes=NEW)
        assert kubectl.annotation(DIGEST_ANNOTATION) == wanted
        assert "DaemonSet/csi" in kubectl.names()
        policies.policy = dataclasses.replace(policies.policy, cloud_integration=False)
        assert (await client.describe()).cloud_objects == ""
        await client.cloud_objects(serial=2, kubernetes=NEW)
        assert "DaemonSet/csi" not in kubectl.names()
    finally:
        server.close()


async def test_a_new_list_of_the_same_version_is_looked_at_again(
    host: Host, policies: Policies, kubectl: KubectlProgram
) -> None:
    own = agent(host, policies)
    await own.cloud_objects(TARGET)
    _wants(policies, host, dump(objects()[:1]))
    assert own.components() == hashlib.sha256(dump(objects()[:1])).hexdigest()
    await own.cloud_objects(TARGET)
    assert {"ServiceAccount/csi"} == {n for n in kubectl.names() if n.endswith("/csi")}


def _another_serial(policies: Policies, host: Host) -> None:
    del host
    policies.policy = dataclasses.replace(policies.policy, serial=3)


def _another_list(policies: Policies, host: Host) -> None:
    before = policies.policy
    _wants(policies, host, dump(objects()[:1]))
    policies.policy = before  # the owner signed for the list before


def _no_objects(policies: Policies, host: Host) -> None:
    del host
    listed = artifact_list.parse(policies.lists[NEW])
    left = tuple(a for a in listed.artifacts if a.kind is not ArtifactKind.OBJECTS)
    policies.lists[NEW] = artifact_list.dump(dataclasses.replace(listed, artifacts=left))
    policies.policy = dataclasses.replace(
        policies.policy, artifact_lists={NEW: hashlib.sha256(policies.lists[NEW]).digest()}
    )


def _another_file(policies: Policies, host: Host) -> None:
    del policies
    (host.store / hashlib.sha256(OBJECTS).hexdigest()).write_bytes(dump(objects()[:1]))


@pytest.mark.parametrize(
    ("attack", "refusal"),
    [
        (_another_serial, (Conflict, "the order is of policy 2, this node obeys 3")),
        (_another_list, (Rejected, "artifact list: found SHA-256")),
        (_no_objects, (FormatError, "no cloud/local")),
        (_another_file, (Rejected, "artifact cloud/local")),
    ],
)
async def test_what_the_owner_did_not_sign_for_changes_nothing(
    host: Host,
    policies: Policies,
    kubectl: KubectlProgram,
    attack: Callable[[Policies, Host], None],
    refusal: tuple[type[Exception], str],
) -> None:
    attack(policies, host)
    with pytest.raises(refusal[0], match=refusal[1]):
        await agent(host, policies).cloud_objects(TARGET)
    assert kubectl.verbs() == []


@pytest.mark.parametrize("attack", [_another_list, _no_objects])
async def test_an_unknown_list_is_not_taken_for_none(
    host: Host, policies: Policies, attack: Callable[[Policies, Host], None]
) -> None:
    attack(policies, host)
    assert agent(host, policies).components() is None
