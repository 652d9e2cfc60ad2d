"""A cloud's components over a cluster's life: on, off, and what is said of them when it ends.

JoinServices, TPMs and attested TLS are real; Kubernetes is asked through functions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base import clock
from constellation.base.errors import Conflict, Unavailable, UserError
from constellation.cluster import cloud_integration
from constellation.cluster.cloud_integration import (
    follow_integration,
    integration_differs,
    integration_findings,
    wanted_objects,
)
from constellation.cluster.cloud_leavings import Balancer, Disk, Leavings, look_before_removal
from constellation.cluster.current_policy import current_policy
from constellation.cluster.plan import Observed, Step, plan
from constellation.cluster.terminate import terminate
from constellation.config.state import write_state
from constellation.services.joinservice import server as server_module
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from tests.fakes.cloud_confs import conf
from tests.fakes.policy_world import Owned, owned_cluster
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Progress, Report
    from constellation.cluster.context import Context
    from constellation.config.state import State

OBJECTS = hashlib.sha256(b"objects").hexdigest()
WEB = Balancer(namespace="shop", name="web", addresses=("lb-1.example",))
DATA = Disk(name="pvc-1", driver="d.example", handle="vol-1", policy="Delete", claim="shop/data")


@dataclass(kw_only=True)
class Kubernetes:
    """What the API says: what was applied, as the operator does it from the policy, and what is."""

    owned: Owned
    there: Leavings = field(default_factory=Leavings)
    works: bool = True
    looks: int = 0

    async def applied(self, _: Path) -> str:
        self.looks += 1
        if self.looks == 1:
            raise Unavailable("the Kubernetes API does not answer")
        if not self.works or self.looks == 2:
            return "ab" * 32
        wants = {p.files.kept_policy().verified().cloud_integration for p in self.owned.planes}
        return OBJECTS if wants == {True} else ""

    async def look(self, _: Path) -> Leavings:
        return self.there


@pytest.fixture
async def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owned]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    monkeypatch.setattr(cloud_integration, "_LOOK_S", 0.01)
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(owned_cluster(tmp_path))
        listed = ArtifactList(kubernetes_version="v1.36.2", artifacts=())
        objects = Artifact(
            name="cloud/aws", kind=ArtifactKind.OBJECTS, sha256=OBJECTS, size_bytes=7
        )
        made.state = dataclasses.replace(
            made.state, artifact_list=artifact_list.dump(listed.with_artifacts(objects))
        )
        write_state(made.workspace.state, made.state)
        made.workspace.terraform.mkdir()
        yield made


def context(owned: Owned, *, on: bool) -> Context:
    config = conf("aws", control_planes=3, cloudIntegration=on)
    return dataclasses.replace(owned.context, config=config)


async def follow(owned: Owned, kubernetes: Kubernetes, *, on: bool) -> State:
    owned.state = await follow_integration(
        context(owned, on=on), owned.state, applied=kubernetes.applied, look=kubernetes.look
    )
    return owned.state


def kept(owned: Owned) -> set[bool]:
    return {p.files.kept_policy().verified().cloud_integration for p in owned.planes}


async def test_on_and_off_are_the_owners_word_to_every_control_plane(owned: Owned) -> None:
    kubernetes = Kubernetes(owned=owned)
    before = current_policy(owned.state)
    state = await follow(owned, kubernetes, on=True)
    assert kept(owned) == {True}
    same = dataclasses.replace(current_policy(state), serial=before.serial, cloud_integration=False)
    assert same == before, "nothing else is said"
    assert wanted_objects(context(owned, on=True), state) == OBJECTS
    assert kubernetes.looks > 2, "until the objects are there"
    assert (await follow(owned, kubernetes, on=True)).policy_serial == state.policy_serial
    await follow(owned, kubernetes, on=False)
    assert kept(owned) == {False}
    serial, looks = owned.state.policy_serial, kubernetes.looks
    await follow(owned, kubernetes, on=False)
    assert (owned.state.policy_serial, kubernetes.looks) == (serial, looks), "nothing of it"


async def test_what_the_operator_does_not_bring_is_said(owned: Owned) -> None:
    kubernetes = Kubernetes(owned=owned, works=False)
    owned.wait_s = 1.0
    with pytest.raises(Unavailable, match=f"found {'ab' * 6}, expected {OBJECTS[:12]}") as told:
        await follow(owned, kubernetes, on=True)
    assert "clusterrelease" in told.value.hint


async def test_components_that_the_release_does_not_name_are_not_asked_for(owned: Owned) -> None:
    empty = ArtifactList(kubernetes_version="v1.36.2", artifacts=())
    owned.state = dataclasses.replace(owned.state, artifact_list=artifact_list.dump(empty))
    with pytest.raises(UserError, match="names no cloud/aws by digest"):
        await follow(owned, Kubernetes(owned=owned), on=True)
    assert kept(owned) == {False}


@pytest.mark.parametrize("there", [Leavings(balancers=(WEB,)), Leavings(disks=(DATA,))])
async def test_components_in_use_are_not_taken_away(owned: Owned, there: Leavings) -> None:
    kubernetes = Kubernetes(owned=owned)
    await follow(owned, kubernetes, on=True)
    kubernetes.there = there
    with pytest.raises(Conflict, match=r"in use: (Service shop/web|disk vol-1)"):
        await follow(owned, kubernetes, on=False)
    assert kept(owned) == {True}


async def test_the_plan_names_it(owned: Owned) -> None:
    for on in (True, False):
        differs = integration_differs(context(owned, on=on), owned.state)
        observed = Observed(
            infrastructure=None, has_kubeconfig=False, nodes=(), integration_differs=differs
        )
        steps = {p.step for p in plan(context(owned, on=on).config, owned.state, observed)}
        assert (Step.INTEGRATION in steps) is on


async def test_no_release_takes_a_clusters_components_away_by_naming_none(owned: Owned) -> None:
    empty = ArtifactList(kubernetes_version="v1.36.2", artifacts=())
    assert integration_findings(owned.state, empty, provider="aws") == ()
    state = await follow(owned, Kubernetes(owned=owned), on=True)
    (finding,) = integration_findings(state, empty, provider="aws")
    assert "no cloud/aws for Kubernetes v1.36.2" in finding
    own = artifact_list.parse(state.artifact_list)
    assert integration_findings(state, own, provider="aws") == ()


@dataclass(kw_only=True)
class Removal:
    """A provider that removes everything, or not."""

    fails: str = ""
    destroyed: bool = False

    async def destroy(self, *, report: Report) -> None:
        del report
        if self.fails:
            raise Unavailable(self.fails, hint="the same command again goes on")
        self.destroyed = True


def removing(owned: Owned, removal: Removal, said: list[str]) -> Context:
    def report(progress: Progress) -> None:
        said.append(progress.detail)

    return dataclasses.replace(
        context(owned, on=True),
        infrastructure=lambda _: removal,  # type: ignore[arg-type,return-value] # what is asked
        report=report,
    )


async def test_of_a_cluster_without_components_nothing_is_asked(owned: Owned) -> None:
    owned.workspace.kubeconfig.write_text("nobody reads this")
    assert await look_before_removal(owned.workspace) is None
    removal = Removal(fails="left of u: a subnet")
    with pytest.raises(Unavailable) as told:
        await terminate(removing(owned, removal, []), leavings=None)
    assert told.value.hint == "the same command again goes on"


@pytest.mark.parametrize("left", [None, "name: [", "\x00"])
async def test_of_a_cluster_whose_state_is_lost_the_conf_says_it(
    owned: Owned, left: str | None
) -> None:
    workspace = owned.workspace
    if left is None:
        workspace.state.unlink()
    else:
        workspace.state.write_text(left)
    assert await look_before_removal(workspace) is None, "nothing was ever started from here"
    workspace.kubeconfig.write_text("{")
    assert await look_before_removal(workspace) is None, "there is no conf"
    provider = "provider: {aws: {region: eu-west-1, zones: [eu-west-1a], image: ami-12c6146b"
    attestation = "attestation: {variant: aws-sev-snp}\n"
    for wants in (False, True):
        more = f", cloudIntegration: {str(wants).lower()}}}}}\n"
        workspace.config.write_text(f"version: 1\n{attestation}{provider}{more}")
        found = await look_before_removal(workspace)
        assert (found is not None) is wants, found


async def test_an_api_that_does_not_answer_keeps_no_cluster_alive(owned: Owned) -> None:
    await follow(owned, Kubernetes(owned=owned), on=True)
    write_state(owned.workspace.state, owned.state)
    nothing = await look_before_removal(owned.workspace)
    assert nothing is not None
    assert "there is no kubeconfig" in nothing.why
    owned.workspace.kubeconfig.write_text("{")
    damaged = await look_before_removal(owned.workspace)
    assert damaged is not None
    (line,) = damaged.lines()
    assert "cannot be used" in line
    assert line.endswith("disks of volumes, if there are any, stay in the cloud")
    removal = Removal()
    done = await terminate(removing(owned, removal, []), leavings=damaged)
    assert removal.destroyed
    assert done.left == (line,)


KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://{0}", certificate-authority-data: QQ==}}}}{1}]
users: [{{name: u, user: {{client-certificate-data: QQ==, client-key-data: QQ==}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


async def test_another_cluster_is_not_asked_for_its_services(owned: Owned) -> None:
    """Of a kubeconfig to which another program added its cluster, or that is another one."""
    await follow(owned, Kubernetes(owned=owned), on=True)
    write_state(owned.workspace.state, owned.state)
    assert owned.state.infrastructure is not None
    own = owned.state.infrastructure.user_endpoint
    more = ', {name: production, cluster: {server: "https://127.0.0.9:9"}}'
    for endpoint, others, why in (
        (own, more, "want kind Config and one cluster"),
        ("127.0.0.9:9", "", f"leads to 127.0.0.9:9, expected {own}"),
        (own, "", "cannot be used: SSLError"),  # its own, with certificates that are none
    ):
        owned.workspace.kubeconfig.write_text(KUBECONFIG.format(endpoint, others))
        found = await look_before_removal(owned.workspace)
        assert found is not None
        assert why in found.why


async def test_what_stands_in_the_network_is_told_by_its_tags(owned: Owned) -> None:
    removal = Removal(fails="left of u: subnet-1")
    leavings = Leavings(why="the Kubernetes API does not answer")
    with pytest.raises(Unavailable, match="left of u: subnet-1; the Kubernetes API") as told:
        await terminate(removing(owned, removal, []), leavings=leavings)
    assert f"tag KubernetesCluster = {owned.state.uid}" in told.value.hint


async def test_disks_stay_and_are_named_in_the_end(owned: Owned) -> None:
    done = await terminate(removing(owned, Removal(), []), leavings=Leavings(disks=(DATA,)))
    (line,) = done.left
    assert line.startswith("disk vol-1 of d.example (pvc-1, claim shop/data, Delete): stays in")


async def test_of_machines_that_stay_no_service_is_deleted(owned: Owned) -> None:
    await follow(owned, Kubernetes(owned=owned), on=True)
    assert await look_before_removal(owned.workspace) is not None
    owned.workspace.terraform.rmdir()
    assert await look_before_removal(owned.workspace) is None
    keeps = dataclasses.replace(removing(owned, Removal(), []), keeps_machines=True)
    done = await terminate(keeps, leavings=Leavings(balancers=(WEB,)), balancers_s=0.0)
    assert done.left == ()
