"""AWS from the workstation: what preflight finds, whose credentials are used, what is left."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict, ConstellationError, FormatError, UserError
from constellation.base.rest import Denied
from constellation.config.cloud_settings import aws_settings
from constellation.config.first import first_config
from constellation.config.machines import wanted_groups
from constellation.providers.aws import calls
from constellation.providers.aws.cloud import AwsCloud
from constellation.providers.aws.credentials import WorkstationCredentials
from constellation.providers.protocols import Desired
from constellation.providers.terraform.infrastructure import Outputs
from tests.fakes.aws_query import UID, FakeAws

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IMAGE = "ami-12c6146b"
OUTPUTS = Outputs(
    uid=UID,
    endpoint="lb:6443",
    in_cluster_endpoint="in:6443",
    api_sans=(),
    node_cidr="10.42.0.0/16",
    groups={},
    load_balancer="arn",
    details={"init_target_group": "arn:init"},
)
CONFIG = first_config("aws", variant=None, accept_weaker="")


def _desired(image: str = IMAGE) -> Desired:
    return Desired(
        groups=wanted_groups(CONFIG),
        image_path=image,
        node_document=b'{"a": 1}',
        artifacts_path="",
        state_disk_bytes=0,
    )


@pytest.fixture
async def aws() -> AsyncIterator[FakeAws]:
    async with FakeAws().serving() as fake:
        yield fake


def _cloud(aws: FakeAws, variant: Variant = Variant.AWS_SEV_SNP, **environment: str) -> AwsCloud:
    assert CONFIG.provider.aws is not None
    return AwsCloud(
        settings=aws_settings(CONFIG.provider.aws, variant=variant),
        source=WorkstationCredentials(environment=environment or aws.environment()),
        endpoint=f"{aws.url}/",
    )


async def test_nothing_missing_is_found_by_reading_and_by_dry_runs(aws: FakeAws) -> None:
    assert await _cloud(aws).preflight(UID, _desired()) == ()
    asked = {call.action for call in calls.ALL if calls.Caller.WORKSTATION in call.by}
    later = {"RegisterTargets", "GetConsoleOutput", "DescribeVolumes"}
    assert set(aws.calls) == asked - later
    assert aws.dry_runs == {call.action for call in calls.ALL if call.tried}
    made = {a for a in aws.calls if not a.startswith(("Describe", "Get"))}
    assert made == aws.dry_runs


async def test_quotas_without_room_are_told_with_what_is_used(aws: FakeAws) -> None:
    aws.quotas = {"L-1216C47A": 28.0, "L-F678F1CE": 5.0, "L-0263D0A3": 5.0}
    # of other families, and spot machines, nothing counts
    aws.others = [("m6a.2xlarge", 8, ""), ("g5.xlarge", 4, ""), ("c6a.xlarge", 4, "spot")]
    assert await _cloud(aws).preflight(UID, _desired()) == ()
    aws.others.append(("c6a.large", 2, ""))
    aws.vpcs, aws.addresses = 5, 5
    with pytest.raises(Conflict) as caught:
        await _cloud(aws).preflight(UID, _desired())
    assert str(caught.value).splitlines()[1:] == [
        "  quota of virtual CPUs of standard machines: 28 of which 10 are used, 20 more needed",
        "  quota of networks (VPC): 5 of which 5 are used, 1 more needed",
        "  quota of elastic addresses: 5 of which 5 are used, 1 more needed",
    ]


async def test_room_is_asked_for_the_machines_alone_when_a_group_grows(aws: FakeAws) -> None:
    aws.vpcs, aws.addresses = 5, 5  # there is no network to be made
    aws.quotas = {"L-1216C47A": 28.0, "L-F678F1CE": 5.0, "L-0263D0A3": 5.0}
    aws.others = [("m6a.2xlarge", 8, "")]
    assert await _cloud(aws).room(_desired()) == ()
    aws.others.append(("c6a.large", 2, ""))
    with pytest.raises(Conflict) as caught:
        await _cloud(aws).room(_desired())
    assert str(caught.value).splitlines()[1:] == [
        "  quota of virtual CPUs of standard machines: 28 of which 10 are used, 20 more needed"
    ]
    assert aws.dry_runs == set()


async def test_a_network_that_exists_takes_no_quota_and_no_right(aws: FakeAws) -> None:
    aws.vpcs, aws.addresses = 5, 5
    aws.forbidden = {"CreateVpc", "CreateInternetGateway", "AllocateAddress"}
    cloud = _cloud(aws)
    own = dataclasses.replace(cloud.settings, vpc="vpc-1", subnets={"eu-west-1a": "subnet-1"})
    assert await dataclasses.replace(cloud, settings=own).preflight(UID, _desired()) == ()


async def test_calls_that_terraform_may_not_make_are_named(aws: FakeAws) -> None:
    aws.forbidden = {"CreateVpc", "AllocateAddress"}
    with pytest.raises(Conflict) as caught:
        await _cloud(aws).preflight(UID, _desired())
    assert str(caught.value).splitlines()[1:] == [
        "  no permission ec2:CreateVpc: Terraform needs it",
        "  no permission ec2:AllocateAddress: Terraform needs it",
    ]
    assert caught.value.hint.startswith("nothing was made; docs/how-to/aws.md")


async def test_dry_runs_have_the_tags_to_which_rights_are_held(aws: FakeAws) -> None:
    cloud = _cloud(aws)
    own = dataclasses.replace(cloud.settings, tags={"team": "blue"})
    await dataclasses.replace(cloud, settings=own).preflight(UID, _desired())
    marks = {"constellation-uid": UID, "team": "blue"}
    assert aws.dry_run_tags == {
        "CreateLaunchTemplate": ("launch-template", marks),
        "RunInstances": ("instance", marks),
        "CreateVpc": ("vpc", marks),
        "CreateInternetGateway": ("internet-gateway", marks),
        "AllocateAddress": ("elastic-ip", marks),
    }


async def test_a_right_that_may_be_held_to_the_clusters_network_is_a_note(aws: FakeAws) -> None:
    aws.forbidden = {"RunInstances"}
    (note,) = await _cloud(aws).preflight(UID, _desired())
    assert note.startswith("no permission ec2:RunInstances")


async def test_what_aws_does_not_tell_is_said_and_no_reason_to_stop(aws: FakeAws) -> None:
    aws.quotas = {}
    aws.forbidden = {"DescribeVpcs"}
    notes = await _cloud(aws).preflight(UID, _desired())
    assert [n.partition(" was")[0] for n in notes] == [
        "quota of virtual CPUs of standard machines",
        "quota of networks (VPC)",
        "quota of elastic addresses",
    ]
    assert "NoSuchResourceException: no such quota" in notes[0]


async def test_a_service_that_carries_out_a_dry_run_is_not_trusted_on(aws: FakeAws) -> None:
    aws.carries_out = True
    with pytest.raises(FormatError, match="CreateLaunchTemplate: the service carried out"):
        await _cloud(aws).preflight(UID, _desired())


async def test_everything_that_is_missing_is_told_at_once(aws: FakeAws) -> None:
    aws.offered = set()
    aws.images[IMAGE] = {
        "imageState": "pending",
        "architecture": "arm64",
        "bootMode": "legacy-bios",
    }
    aws.add(1, "worker_default", "worker")
    with pytest.raises(Conflict) as caught:
        await _cloud(aws).preflight(UID, _desired())
    assert str(caught.value).splitlines() == [
        "AWS, eu-west-1:",
        f"  image {IMAGE} is pending",
        f"  image {IMAGE} is for arm64, expected x86_64",
        f"  image {IMAGE} boots by legacy-bios, SEV-SNP needs uefi",
        "  eu-west-1a has no machines m6a.xlarge",
        f"  machines of {UID} exist already, and this workspace has no state",
    ]
    assert caught.value.hint == "nothing was made"


async def test_an_image_that_is_not_there_is_named(aws: FakeAws) -> None:
    with pytest.raises(Conflict, match="image ami-0 is not in this region"):
        await _cloud(aws).preflight(UID, _desired("ami-0"))


async def test_credentials_that_are_not_accepted_end_it_before_anything_else(aws: FakeAws) -> None:
    strangers = {"AWS_ACCESS_KEY_ID": "AKIAX", "AWS_SECRET_ACCESS_KEY": "no"}
    with pytest.raises(Denied) as caught:
        await _cloud(aws, **strangers).preflight(UID, _desired())
    assert "aws sso login" in caught.value.hint
    assert set(aws.calls) == {"GetCallerIdentity"}


async def test_init_is_led_to_one_machine(aws: FakeAws) -> None:
    await _cloud(aws).lead_init(OUTPUTS, "i-1")
    assert aws.targets == {"arn:init": {"i-1"}}
    closed = dataclasses.replace(OUTPUTS, details={"init_target_group": ""})
    aws.calls = []
    await _cloud(aws).lead_init(closed, "i-1")
    assert aws.calls == []


async def test_machines_and_volumes_that_are_left_are_named(aws: FakeAws) -> None:
    left = aws.add(1, "worker_default", "worker").instance_id
    aws.volumes = ["vol-1"]
    assert await _cloud(aws).leftovers(UID) == (left, "vol-1")


async def test_the_console_is_what_the_machine_said(aws: FakeAws) -> None:
    assert await _cloud(aws).console("i-1") == b"boot of i-1"


def test_variables_are_plain_and_hold_the_document_as_it_is(aws: FakeAws) -> None:
    variables = _cloud(aws).variables(UID, _desired())
    assert variables["node_document"] == "eyJhIjogMX0="
    assert variables["existing_network"] is None
    assert variables["access"] == {
        **{n: ["0.0.0.0/0"] for n in ("api", "init", "recovery", "verify", "policy")},
        "node_ports": [],
    }


async def test_a_profile_is_read_as_aws_reads_it(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[default]\nregion = x\n[profile dev]\ncredential_process = false\n"
    )
    (tmp_path / "credentials").write_text(
        "[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = s/e+c=\n"
    )
    environment = {
        "AWS_PROFILE": "dev",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    found = await WorkstationCredentials(environment=environment).credentials(fresh=False)
    assert found.access_key_id == "AKIADEV"
    assert found.secret_access_key.reveal() == b"s/e+c="


async def test_a_process_gives_credentials_and_is_asked_again_when_they_ran_out(
    tmp_path: Path,
) -> None:
    counter, program = tmp_path / "count", tmp_path / "give.py"
    program.write_text(
        "import json, pathlib, sys\n"
        f"p = pathlib.Path({str(counter)!r})\n"
        "n = int(p.read_text() or 0) + 1 if p.exists() else 1\n"
        "p.write_text(str(n))\n"
        "print(json.dumps(dict(Version=1, AccessKeyId=f'AKIA{n}', SecretAccessKey='s',\n"
        "                      SessionToken='t', Expiration='2030-01-01T00:00:00Z')))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    source = WorkstationCredentials(
        environment={"AWS_CONFIG_FILE": str(config), "HOME": str(tmp_path)}
    )
    assert (await source.credentials(fresh=False)).access_key_id == "AKIA1"
    assert (await source.credentials(fresh=False)).access_key_id == "AKIA1"
    assert (await source.credentials(fresh=True)).access_key_id == "AKIA2"


@pytest.mark.parametrize(
    "text",
    [
        "[default]\ncredential_process = /bin/sh -c 'echo s3cr3t; exit 1'\n",
        "[default]\ncredential_process = /bin/echo s3cr3t\n",
        "s3cr3t = without a section\n",
        "[default]\nregion = x\n",
    ],
)
async def test_what_gives_no_credentials_is_said_without_what_it_holds(
    tmp_path: Path, text: str
) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    environment = {"AWS_CONFIG_FILE": str(config), "HOME": str(tmp_path), "PATH": str(tmp_path)}
    with pytest.raises(ConstellationError) as caught:
        await WorkstationCredentials(environment=environment).credentials(fresh=False)
    assert "s3cr3t" not in f"{caught.value} {caught.value.hint}"


async def test_no_credentials_at_all_say_where_they_were_looked_for(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    with pytest.raises(UserError, match="not in the environment, not in profile default"):
        await WorkstationCredentials(environment=environment).credentials(fresh=False)
