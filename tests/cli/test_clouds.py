"""The command line on clouds, before anything is asked of one: first configurations, refusals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import UserError
from constellation.cli.plan_question import describe_plan
from constellation.config.first import PRESETS, first_config
from constellation.config.reader import parse_config
from constellation.config.writer import dump_example, set_provider_fields
from constellation.providers.terraform.messages import Change
from constellation.providers.terraform.run import Plan
from tests.cli.test_transcripts import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("preset", PRESETS)
def test_every_first_configuration_reads_back_as_itself(preset: str) -> None:
    config = first_config(preset, variant=None, accept_weaker="a test")
    assert parse_config(dump_example(config).encode(), name="conf") == config


def test_a_variant_that_trusts_the_cloud_needs_words(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "generate", "stackit")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "Error: --accept-weaker: qemu-vtpm needs your word: nothing but the data centre's word "
        "says what a node booted: for development\n"
        "Hint: add --accept-weaker with the reason why it will do\n"
    )
    done = run(tmp_path, "config", "generate", "stackit", "--accept-weaker", "a first look")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "constellation-conf.yaml").read_text()
    assert "acceptWeaker: a first look" in text


def test_a_variant_of_another_cloud_is_refused() -> None:
    with pytest.raises(UserError, match="expected a variant of aws"):
        first_config("aws", variant=Variant.GCP_TDX, accept_weaker="")


def test_instance_types_are_listed_by_variant(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "instance-types", "aws", "-o", "json")
    offers = json.loads(done.stdout)["offers"]
    assert [o["variant"] for o in offers] == ["aws-sev-snp", "aws-nitro-tpm"]
    assert offers[0]["machines"][0] == "m6a.xlarge"
    assert (offers[0]["believes"], bool(offers[1]["believes"])) == ("", True)


def test_a_cloud_without_a_repository_of_releases_is_refused_before_it_is_asked(
    tmp_path: Path,
) -> None:
    run(tmp_path, "config", "generate", "aws")
    done = run(tmp_path, "create", "--yes")
    assert done.returncode == 3
    line = 1 + (tmp_path / "constellation-conf.yaml").read_text().splitlines().index("releases:")
    where = f"constellation-conf.yaml:{line}: releases"
    assert f"{where}: a cluster on aws follows published releases" in done.stderr
    assert not (tmp_path / "constellation-mastersecret.json").exists()


def test_what_works_on_this_machine_only_says_so(tmp_path: Path) -> None:
    run(tmp_path, "config", "generate", "baremetal")
    done = run(tmp_path, "iam", "create", "--yes")
    assert done.returncode == 7
    assert "baremetal has no identities" in done.stderr


def test_fields_of_a_provider_change_and_comments_stay() -> None:
    text = "a: 1 # one\nprovider:\n  aws: # mine\n    region: x\n    # why\n    image: y\n"
    changed = set_provider_fields(text, provider="aws", values={"image": "z", "new": "n"})
    assert changed == text.replace("image: y", "image: z") + "    new: n\n"


def test_a_plan_is_told_with_machines_and_cost_class() -> None:
    config = first_config("aws", variant=None, accept_weaker="")
    plan = Plan(
        changes=(
            Change(address="aws_lb.inside", action="create"),
            Change(address='aws_autoscaling_group.this["worker_default"]', action="update"),
        )
    )
    assert describe_plan(plan, config) == (
        "On aws, by aws-sev-snp: 1 to make, 1 to change\n"
        "  1 aws_autoscaling_group, 1 aws_lb\n"
        "  control_plane_default: 3 machines m6a.xlarge, state disks of 30 GiB gp3, in eu-west-1a\n"
        "  worker_default: 2 machines m6a.xlarge, state disks of 30 GiB gp3, in eu-west-1a\n"
        "  Open to every network: api, init, recovery, verify, policy (provider.aws.access narrows "
        "that)\n"
        "  Cost class: medium; prices are the provider's"
    )
    assert config.provider.aws is not None
    for changed in (
        {"internal": True},
        dict.fromkeys(("api", "init", "recovery", "verify", "policy"), ("192.0.2.0/24",)),
    ):
        access = config.provider.aws.access.model_copy(update=changed)
        block = config.provider.aws.model_copy(update={"access": access})
        provider = config.provider.model_copy(update={"aws": block})
        narrow = config.model_copy(update={"provider": provider})
        assert "Open to" not in describe_plan(plan, narrow)
