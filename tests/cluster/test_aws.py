"""AWS with the real Terraform and the real provider, against moto's server in a namespace.

create, a changed group, terminate: what exists is what boto3 lists. The nodes' clients ask the same
server. Where Terraform or the provider is missing the tests say so; on CI they are there.
"""

from __future__ import annotations

import json
import os
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest

from constellation.providers.aws import calls
from constellation.providers.aws.controller_calls import CLUSTER_TAG, CONTROLLER, Held
from constellation.providers.aws.storage_calls import DRIVER_TAG, STORAGE, StorageHeld
from constellation.providers.terraform.infrastructure import PORTS
from tests.fakes.aws_world import MISSING, AwsWorld, is_possible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.clouds,
    # six plans and applies take a minute of processor time, most of it to start the provider, and
    # the provider waits for most of another before it looks at a load balancer again
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the namespace"),
    pytest.mark.skipif(not is_possible(), reason=MISSING),
]

CONTROL_PLANES, WORKERS = "control_plane_default", "worker_default"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AwsWorld]:
    opened = AwsWorld.open(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def _state(world: AwsWorld) -> str:
    return (world.folder / "constellation-state.yaml").read_text()


def test_a_cluster_is_made_changed_and_removed_and_nothing_is_left(world: AwsWorld) -> None:
    before = world.inventory()
    assert not any(before[kind] for kind in ("vpcs", "instances", "groups", "balancers", "roles"))
    world.configure(workers=2)

    _identities(world)
    created = json.loads(world.constellation("create", "--yes", "-o", "json").stdout)
    _everything_is_there(world, created["uid"])
    _nodes_ask(world)
    _a_changed_group(world)
    _removed(world, before)


def _identities(world: AwsWorld) -> None:
    """Make identities; their policies allow what the code calls, and no more."""
    world.constellation("iam", "create", "--yes")
    conf = (world.folder / "constellation-conf.yaml").read_text()
    assert "cloudy-constellation-control-planes" in conf
    assert "cloudy-constellation-workers" in conf
    state = json.loads((world.folder / "constellation-iam-terraform/terraform.tfstate").read_text())
    for role, caller in (
        ("control_planes", calls.Caller.CONTROL_PLANE),
        ("workers", calls.Caller.WORKER),
    ):
        policy = json.loads(state["outputs"]["policies"]["value"][role])
        allowed = {a for s in policy["Statement"] for a in _list(s["Action"])}
        assert allowed == {c.permission for c in calls.ALL if caller in c.by}
        for statement in policy["Statement"]:
            scoped = {c.permission for c in calls.ALL if c.scoped}
            names = set(_list(statement["Action"]))
            assert names <= scoped or not names & scoped
            conditions = statement["Condition"]
            assert conditions["StringEquals"]["aws:RequestedRegion"] == "eu-west-1"
            if names <= scoped:
                wanted = conditions["StringLike"]["aws:ResourceTag/constellation-uid"]
                assert fnmatch("cloudy-0a1b2c", wanted)
                assert not fnmatch("cloudy2-0a1b2c", wanted)
    _integration(json.loads(state["outputs"]["policies"]["value"]["cloud_integration"]))
    _storage(json.loads(state["outputs"]["policies"]["value"]["cloud_storage"]))
    # nobody asked for it
    resources = {(r["type"], r["name"]) for r in state["resources"] if r["mode"] == "managed"}
    assert ("aws_iam_role_policy", "control_planes") in resources
    for name in ("cloud_integration", "cloud_storage"):
        assert ("aws_iam_role_policy", name) not in resources


def _integration(policy: dict[str, Any]) -> None:
    """Hold each permission of the cloud's own component to what its table says, and no more."""
    conditions = {
        Held.READS: {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}},
        Held.MAKES: {"StringLike": {f"aws:RequestTag/{CLUSTER_TAG}": "cloudy-??????"}},
        Held.CHANGES: {"StringLike": {f"aws:ResourceTag/{CLUSTER_TAG}": "cloudy-??????"}},
        Held.REMOVES: {
            "StringLike": {f"aws:ResourceTag/{CLUSTER_TAG}": "cloudy-??????"},
            "Null": {"aws:ResourceTag/constellation-uid": "true"},
        },
    }
    allowed = {}
    for statement in policy["Statement"]:
        resources = _list(statement["Resource"])
        names = _list(statement["Action"])
        if statement["Sid"] == "MakeInNetwork":
            assert names == ["ec2:CreateSecurityGroup"]
            assert resources == ["arn:aws:ec2:eu-west-1:*:vpc/*"]
            continue
        held = next((h for h in conditions if conditions[h] == statement["Condition"]), Held.TAGS)
        if held is Held.TAGS:
            ((action, made),) = statement["Condition"]["StringEquals"].items()
            assert action.endswith(":CreateAction")
            assert all(name.startswith("Create") for name in _list(made))
        assert (resources == ["*"]) == (held is Held.READS)
        assert all(":eu-west-1:*:" in r for r in resources if r != "*")
        allowed |= dict.fromkeys(names, held)
    assert allowed == {call.permission: call.held for call in CONTROLLER}


def _storage(policy: dict[str, Any]) -> None:
    """Hold each permission of the CSI driver to what its table says, and no more."""
    marked = {f"aws:ResourceTag/{DRIVER_TAG}": "true"}
    ours = {"aws:ResourceTag/constellation-uid": "true"}
    volumes, machines = (f"arn:aws:ec2:eu-west-1:*:{kind}/*" for kind in ("volume", "instance"))
    wanted = {
        "Look": (StorageHeld.READS, "*", {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}),
        "Make": (
            StorageHeld.MAKES,
            volumes,
            {
                "StringEquals": {f"aws:RequestTag/{DRIVER_TAG}": "true"},
                "Bool": {"ec2:Encrypted": "true"},
            },
        ),
        "Tag": (
            StorageHeld.TAGS,
            volumes,
            {"StringEquals": {"ec2:CreateAction": "CreateVolume"}},
        ),
        "JoinVolume": (StorageHeld.JOINS, volumes, {"StringEquals": marked, "Null": ours}),
        "JoinMachine": (
            StorageHeld.JOINS,
            machines,
            {"StringLike": {"aws:ResourceTag/constellation-uid": "cloudy-??????"}},
        ),
        "Change": (StorageHeld.CHANGES, volumes, {"StringEquals": marked, "Null": ours}),
    }
    assert {s["Sid"] for s in policy["Statement"]} == wanted.keys()
    for statement in policy["Statement"]:
        held, resource, conditions = wanted[statement["Sid"]]
        assert statement["Condition"] == conditions
        assert _list(statement["Resource"]) == [resource]
        named = set(_list(statement["Action"]))
        assert named == {c.permission for c in STORAGE if c.held is held}, statement["Sid"]


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _everything_is_there(world: AwsWorld, uid: str) -> None:
    found = world.inventory()
    assert found["groups"] == [
        [f"{uid}-control-plane-default", 1, 1, 5, ["AZRebalance", "ReplaceUnhealthy"]],
        [f"{uid}-worker-default", 2, 2, 0, ["AZRebalance", "ReplaceUnhealthy"]],
    ]
    assert [name for name, _ in found["balancers"]] == [uid, f"{uid}-inside"]
    assert found["listeners"] == [
        *[[uid, port] for port in (6443, 9000, 9999, 30081, 30091)],
        [f"{uid}-inside", 6443],
    ]
    # each port leads to the control plane; init to it because it was chosen
    plane = next(m[0] for m in found["instances"] if m[2]["constellation-role"] == "control-plane")
    balanced = [f"{uid}-i-api", *(f"{uid}-o-{n}" for n in sorted(PORTS))]
    assert found["targets"] == [[name, plane] for name in balanced]
    # closed lists are closed, and nothing but the load balancer is open
    assert found["open"] == [
        *[["0.0.0.0/0", port, port] for port in (6443, 30081, 30091)],
        *[["192.0.2.0/24", port, port] for port in (9000, 9999)],
    ]
    marks = sorted((tags["constellation-node-group"], tags["constellation-role"])
                   for _, _, tags in found["instances"])  # fmt: skip
    assert marks == [(CONTROL_PLANES, "control-plane"), (WORKERS, "worker"), (WORKERS, "worker")]
    assert {tags["constellation-uid"] for _, _, tags in found["instances"]} == {uid}
    for name, template in found["templates"]:
        assert template["MetadataOptions"]["HttpTokens"] == "required", name
        assert template["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert template["CpuOptions"] == {"AmdSevSnp": "enabled"}
        assert template["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        role = "control-planes" if "control" in name else "workers"
        assert template["IamInstanceProfile"]["Name"] == f"cloudy-constellation-{role}"
    _holds_no_secret(world)


def _holds_no_secret(world: AwsWorld) -> None:
    """Look for every secret of the workspace in everything that Terraform was given or keeps."""
    secrets = json.loads((world.folder / "constellation-mastersecret.json").read_text())
    words = [text for text in _texts(secrets) if len(text) > 30]
    assert words
    for path in (world.folder / "constellation-terraform").rglob("*"):
        if path.is_file() and ".terraform/providers" not in str(path):
            content = path.read_text(errors="replace")
            assert not any(word in content for word in words), path


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _nodes_ask(world: AwsWorld) -> None:
    """Let a control plane's programs ask metadata and change groups, on the very same server."""
    machines = world.inventory()["instances"]
    me = next(m for m in machines if m[2]["constellation-role"] == "control-plane")
    world.become(me, user_data='{"the": "document"}')
    world.fail_next("ec2:DescribeInstances", status=503, code="RequestLimitExceeded", times=2)
    own, peers, document, made = world.node("self", "peers", "document", f"create={WORKERS}")
    assert (own["instance_id"], own["role"]) == (me[0], "control-plane")
    assert {p["instance_id"] for p in peers} == {m[0] for m in machines}
    assert document == '{"the": "document"}'
    assert made["group"] == WORKERS
    assert made["instance_id"] not in {m[0] for m in machines}
    gone = f"delete={made['instance_id']}"
    assert world.node(gone, gone) == [None, None]
    assert {m[0] for m in world.inventory()["instances"]} == {m[0] for m in machines}


def _a_changed_group(world: AwsWorld) -> None:
    """Enlarge a group, after a call was forbidden: nothing is rolled back, and it is named."""
    profiles = {
        "instanceProfileControlPlanes": "cloudy-constellation-control-planes",
        "instanceProfileWorkers": "cloudy-constellation-workers",
    }
    world.configure(workers=3, **profiles)
    world.fail_next("autoscaling:UpdateAutoScalingGroup", status=403, code="AccessDenied")
    refused = world.constellation("create", "--yes", code=3)
    assert "AccessDenied" in refused.stderr
    assert "may not do that" in refused.stderr
    # a later apply is never rolled back
    assert len(world.inventory()["instances"]) == 3

    world.constellation("create", "--yes")
    assert [g[1:3] for g in world.inventory()["groups"]] == [[1, 1], [3, 3]]
    assert _state(world).count("group: worker_default") == 3


def _removed(world: AwsWorld, before: dict[str, list[Any]]) -> None:
    done = world.constellation("terminate", "--yes")
    assert "Removed machines, disks and network of cloudy-" in done.stdout
    world.constellation("iam", "destroy", "--yes")
    after = world.inventory()
    assert after == before
    left = sorted(p.name for p in world.folder.iterdir())
    assert "constellation-terraform" not in left
    assert "constellation-mastersecret.json" in left
    # once more is no error, and removes nothing
    assert "Removed" not in world.constellation("terminate", "--yes").stdout
