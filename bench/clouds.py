"""What does a cloud cost this program itself? CPU of `create` beside Terraform, and of a long list.

`create` runs the whole step in this process, with AWS' client against a fake of its API that runs
here too, and a small program in Terraform's place: its CPU is an upper bound of `create`'s own.
`discovery` reads 1,000 machines, in pages as AWS gives them, `discovery_elsewhere` those of the
other clouds. Prints JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import cloud_lists
from constellation.base.progress import silent
from constellation.cli.clouds import CloudSupplies
from constellation.cluster.apply import create
from constellation.cluster.context import Context
from constellation.config.cloud_settings import aws_settings
from constellation.config.first import first_config
from constellation.config.workspace import Workspace
from constellation.providers.aws.cloud import AwsCloud
from constellation.providers.aws.credentials import WorkstationCredentials
from constellation.providers.aws.instances import list_instances
from constellation.providers.aws.query import QueryClient
from constellation.providers.terraform.infrastructure import TerraformInfrastructure
from constellation.providers.terraform.run import TerraformSettings
from tests.fakes import release_world
from tests.fakes.aws_query import UID, FakeAws
from tests.fakes.terraform_program import script

if TYPE_CHECKING:
    from constellation.providers.protocols import Infrastructure

__all__ = ["measure"]

_MACHINES, _PAGE = 1000, 400


async def measure() -> dict[str, Any]:
    """Give seconds of CPU and numbers of calls."""
    return {
        "create": await _create(),
        "discovery": await _discovery(),
        "discovery_elsewhere": await cloud_lists.measure(),
    }


async def _discovery() -> dict[str, Any]:
    fake = FakeAws(page=_PAGE)
    for number in range(_MACHINES):
        fake.add(number, "worker_default", "worker")
    source = WorkstationCredentials(environment=fake.environment())
    async with fake.serving():
        client = QueryClient(region="eu-west-1", source=source, endpoint=f"{fake.url}/")
        await list_instances(client, UID)
        fake.calls.clear()
        began = time.process_time()
        found = await list_instances(client, UID)
        return {
            "calls": len(fake.calls),
            "cpu_s_with_the_fake": round(time.process_time() - began, 3),
            "machines": len(found),
        }


async def _create() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        release = _published(folder)
        config = first_config("aws", variant=None, accept_weaker="")
        assert config.provider.aws is not None  # noqa: S101 - asked for
        block = config.provider.aws.model_copy(update={"image": "ami-12c6146b"})
        config = config.model_copy(
            update={
                "provider": config.provider.model_copy(update={"aws": block}),
                "releases": config.releases.model_copy(update=release),
            }
        )
        workspace, fake = Workspace(folder=folder / "workspace"), FakeAws()
        async with fake.serving():
            cloud = AwsCloud(
                settings=aws_settings(block, variant=config.attestation.variant),
                source=WorkstationCredentials(environment=fake.environment()),
                endpoint=f"{fake.url}/",
            )

            def infrastructure(uid: str) -> Infrastructure:
                fill = script(folder, resources=["aws_vpc.this"], outputs=_outputs(uid))
                return TerraformInfrastructure(
                    cloud,
                    uid,
                    folder=workspace.terraform,
                    program=str(fill),
                    settings=TerraformSettings(),
                    # the machines come with the plan, as it were
                    confirm=lambda _: _machines(fake, uid),
                )

            context = Context(
                workspace=workspace,
                config=config,
                supplies=CloudSupplies(cache=folder, workspace=workspace, config=config),
                infrastructure=infrastructure,
                owned=tuple,
                list_nodes=_nobody,
                now=lambda: release_world.datetime.now(release_world.UTC),
                report=silent,
                wait_s=1.0,
            )
            workspace.folder.mkdir()
            wall, cpu = time.monotonic(), time.process_time()
            state = await create(context)
            assert state.infrastructure is not None  # noqa: S101 - made just now
            return {
                "cpu_s_with_the_fake": round(time.process_time() - cpu, 3),
                "machines": len(state.infrastructure.instances),
                "wall_s_with_a_small_program": round(time.monotonic() - wall, 3),
            }


async def _nobody(kubeconfig: Path) -> tuple[()]:
    del kubeconfig
    return ()


def _machines(fake: FakeAws, uid: str) -> None:
    for number in range(5):
        role = "worker" if number in (3, 4) else "control-plane"
        fake.add(number, f"{role.replace('-', '_')}_default", role, uid=uid)


def _outputs(uid: str) -> dict[str, Any]:
    return {
        "uid": uid,
        "endpoint": "lb:6443",
        "in_cluster_endpoint": "lb:6443",
        "api_sans": [],
        "node_cidr": "10.42.0.0/16",
        "groups": {},
        "load_balancer": "arn",
        "details": {},
    }


def _published(folder: Path) -> dict[str, str]:
    now = release_world.datetime.now(release_world.UTC)
    maker = release_world.Maker(folder=folder / "releases", now=now).create()
    (folder / "1.root.json").write_bytes(maker.pinned_root)
    image = release_world.image(
        "1.0.0", provider="aws", variant=release_world.Variant.AWS_SEV_SNP, name="node-aws"
    )
    maker.publish(dataclasses.replace(release_world.release("1.0.0"), images=(image,)))
    return {"repository": str(folder / "releases"), "root": str(folder / "1.root.json")}


if __name__ == "__main__":
    json.dump(asyncio.run(measure()), sys.stdout, indent=2)
