"""What `status` says in every state a cluster can be in."""

from __future__ import annotations

import dataclasses

import pytest

from constellation.cli.commands.inspect import status_text
from constellation.cluster.context import KubernetesNode
from constellation.cluster.plan import Observed
from constellation.cluster.status import Judged, Status, judge
from constellation.config.state import ChosenNode, State
from constellation.providers.protocols import InfrastructureState, Instance, Role

NEW = State(
    version=1,
    name="test",
    uid="test-abc123",
    cluster_id=bytes(32),
    node_document=b"",
    kubernetes_version="v1.36.2",
)


def _cloud(*states: str, planes: int = 1) -> InfrastructureState:
    return InfrastructureState(
        uid=NEW.uid,
        endpoint="",
        user_endpoint="",
        api_sans=(),
        trust_roots=(),
        instances=tuple(
            Instance(
                instance_id=f"test-{n}",
                group="planes" if n < planes else "workers",
                role=Role.CONTROL_PLANE if n < planes else Role.WORKER,
                address=f"10.42.1.{n}",
                state=state,
            )
            for n, state in enumerate(states)
        ),
    )


def _node(name: str, *, ready: bool = True) -> KubernetesNode:
    reason = "" if ready else "no network"
    return KubernetesNode(
        name=name, role="worker", ready=ready, version="v1.36.2", address="", reason=reason
    )


CREATED = dataclasses.replace(NEW, infrastructure=_cloud("running", "running"))
CHOSEN = ChosenNode(instance_id="test-0", attester_id=bytes(32))
RUNNING = dataclasses.replace(CREATED, init=CHOSEN, cluster_ca=b"pem")
UP = _cloud("running", "running")
NODES = (_node("a"), _node("b"))


@pytest.mark.parametrize(
    ("state", "cloud", "nodes", "phase", "advice"),
    [
        (NEW, None, (), "not created yet", "`constellation create`"),
        (CREATED, UP, (), "created, not initialised", "`constellation init` starts"),
        (CREATED, None, (), "its machines are off", "`constellation create` starts"),
        (RUNNING, None, (), "its machines are off", "disks, then `constellation recover`"),
        (CREATED, _cloud("running", "off"), (), "1 of 2 machines run", "`constellation create`"),
        (RUNNING, _cloud("running", "crashed"), NODES, "1 of 2 machines", "starts the others"),
        (
            dataclasses.replace(CREATED, init=CHOSEN), UP, (),
            "its init is not finished", "`constellation init` goes on",
        ),
        (RUNNING, UP, (), "does not answer", "`constellation recover`: after a reboot of its only"),
        (
            RUNNING, _cloud("running", "running", planes=2), (),
            "does not answer", "if most control planes",
        ),
        (
            RUNNING, UP, (_node("a"), _node("b", ready=False)),
            "1 of 2 nodes are Ready; waiting for b (no network)", "`constellation log`",
        ),
        (RUNNING, UP, (_node("a"),), "1 of 2 nodes are Ready; waiting for 1 more", "log`"),
        (RUNNING, UP, NODES, "running", ""),
    ],
)  # fmt: skip
def test_every_state_has_its_words(
    state: State,
    cloud: InfrastructureState | None,
    nodes: tuple[KubernetesNode, ...],
    phase: str,
    advice: str,
) -> None:
    has_kubeconfig = bool(state.cluster_ca)
    observed = Observed(infrastructure=cloud, has_kubeconfig=has_kubeconfig, nodes=nodes)
    judged = judge(state, observed, wanted=2)
    assert phase in judged.phase
    assert advice in judged.advice
    assert bool(judged.advice) == bool(advice)


def test_a_running_cluster_reads_as_two_tables() -> None:
    observed = Observed(infrastructure=UP, has_kubeconfig=True, nodes=NODES)
    found = Status(
        state=RUNNING,
        machines=UP.instances,
        nodes=NODES,
        judged=judge(RUNNING, observed, wanted=2),
    )
    assert found.ready
    assert status_text(found, shortage="") == (
        "Cluster test-abc123 (Kubernetes v1.36.2): running.\n"
        "  machine  group    address    state\n"
        "  test-0   planes   10.42.1.0  running\n"
        "  test-1   workers  10.42.1.1  running\n"
        "  node  role    version  condition\n"
        "  a     worker  v1.36.2  Ready\n"
        "  b     worker  v1.36.2  Ready\n"
        "All is well."
    )
    short = status_text(found, shortage="free some disk")
    assert short.endswith("b     worker  v1.36.2  Ready\nNext: free some disk.")


@pytest.mark.parametrize(
    ("applied", "says"),
    [
        ("ab" * 32, "Cloud integration: objects abababababab are applied."),
        ("", "Cloud integration: objects abababababab are wanted, the cluster has none yet."),
        ("cd" * 32, "objects abababababab are wanted, the cluster has cdcdcdcdcdcd."),
        (None, "objects abababababab are wanted; the API does not say more."),
    ],
)
def test_it_says_which_of_the_clouds_components_there_are(applied: str | None, says: str) -> None:
    found = Status(
        state=RUNNING,
        machines=(),
        nodes=NODES,
        judged=Judged(phase="running"),
        wanted_objects="ab" * 32,
        applied_objects=applied,
    )
    told = status_text(found, shortage="")
    assert says in told
    assert told.endswith("All is well.") is (applied == "ab" * 32)
    without = dataclasses.replace(found, wanted_objects="")
    assert "Cloud integration" not in status_text(without, shortage="")
