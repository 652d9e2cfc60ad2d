"""An AWS of a test's own in a network namespace, with everything that a workspace there needs.

Nothing of it reaches the internet: Terraform's provider comes from a folder. `AwsWorld.open` makes
namespace, server and workspace; `close` takes them away again, also after a failure.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from constellation.attestation.model import Variant
from tests.fakes import release_world
from tests.fakes.terraform.schemas import PLUGINS

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
IMAGE = "ami-12c6146b"
MISSING = (
    "install terraform and name a folder with the AWS provider: CONSTELLATION_TERRAFORM_PLUGINS"
)


def is_possible() -> bool:
    """Say whether Terraform and the provider's folder are on this machine."""
    return shutil.which("terraform") is not None and PLUGINS.is_dir()


METADATA = "169.254.169.254:80"


@dataclass(kw_only=True)
class AwsWorld:
    folder: Path
    net: Path
    server: subprocess.Popen[str] = field(repr=False)
    port: int
    space: str = ""

    @classmethod
    def open(cls, folder: Path) -> AwsWorld:
        """Open one in a network namespace of its own, with metadata where AWS has it."""
        space = f"cst-aws-{os.getpid()}"
        _run("ip", "netns", "add", space)
        try:
            _run("ip", "-n", space, "link", "set", "lo", "up")
            _run("ip", "-n", space, "address", "add", "169.254.169.254/32", "dev", "lo")
            net = Path("/run/netns") / space
            world = cls.within(folder, net=net, metadata=METADATA)
        except BaseException:
            _run("ip", "netns", "delete", space)
            raise
        return dataclasses.replace(world, space=space)

    @classmethod
    def within(cls, folder: Path, *, net: Path, metadata: str, also: str = "") -> AwsWorld:
        """Open one in a network namespace that is there (`metadata`: HOST:PORT, `also`: HOST)."""
        (folder / "aws").mkdir()
        argv = [
            *("nsenter", f"--net={net}"),
            *(sys.executable, "-W", "ignore", "-m", "tests.fakes.aws_server"),
            *(str(folder / "aws"), "--also", also, "--metadata", metadata),
        ]
        with (folder / "aws" / "errors").open("w") as errors:
            server = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=_environment(0),
            )
        assert server.stdout is not None
        port = int(server.stdout.readline())
        world = cls(folder=folder, net=net, server=server, port=port)
        world._publish()
        return world

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.stdout.close()
        try:
            self.server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        if self.space:
            _run("ip", "netns", "delete", self.space)

    def run(self, *argv: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace."""
        return subprocess.run(
            ["nsenter", f"--net={self.net}", *argv],
            cwd=ROOT,
            env=_environment(self.port),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def constellation(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line tool on the workspace, and demand an exit code."""
        argv = (sys.executable, "-m", "constellation.cli.main", "-C", str(self.folder), *words)
        done = self.run(*argv)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def node(self, *words: str) -> Any:
        """Let the node of `machine.json` ask something."""
        done = self.run(sys.executable, "-m", "tests.fakes.aws_node", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def inventory(self) -> dict[str, list[Any]]:
        """Give what the account has, as boto3 lists it."""
        argv = (sys.executable, "-W", "ignore", "-m", "tests.fakes.aws_inventory", REGION)
        done = self.run(*argv)
        assert done.returncode == 0, done.stderr
        found: dict[str, list[Any]] = json.loads(done.stdout)
        return found

    def become(self, instance: list[Any], *, user_data: str) -> None:
        """Let metadata be asked by this machine, an entry of the inventory."""
        instance_id, address, tags = instance
        document = {
            "instanceId": instance_id,
            "privateIp": address,
            "region": REGION,
            "availabilityZone": f"{REGION}a",
        }
        role = {
            "Code": "Success",
            "AccessKeyId": "AKIAEXAMPLE",
            "SecretAccessKey": "of the role",
            "Token": "session",
            "Expiration": "2100-01-01T00:00:00Z",
        }
        roles = "/latest/meta-data/iam/security-credentials/"
        answers = {
            "/latest/dynamic/instance-identity/document": json.dumps(document),
            "/latest/meta-data/instance-id": instance_id,
            "/latest/user-data": user_data,
            roles: "node",
            f"{roles}node": json.dumps(role),
            **{f"/latest/meta-data/tags/instance/{k}": v for k, v in tags.items()},
        }
        (self.folder / "aws" / "machine.json").write_text(json.dumps(answers))

    def calls(self) -> set[str]:
        """Give the calls that the server has answered so far."""
        return set((self.folder / "aws" / "calls").read_text().split())

    def calls_of(self, agent: str) -> list[str]:
        """Give the calls of programs that name themselves so, in their order."""
        lines = (self.folder / "aws" / "callers").read_text().splitlines()
        callers = [json.loads(line) for line in lines]
        return [c["call"] for c in callers if agent in c["agent"]]

    def fail_next(self, call: str, *, status: int, code: str, times: int = 1) -> None:
        """Let the server refuse the next calls of a kind."""
        (self.folder / "aws" / "faults").write_text(f"{call} {status} {code}\n" * times)

    def configure(self, *, workers: int, **more: object) -> None:
        """Write the configuration."""
        aws: dict[str, object] = {
            "region": REGION,
            "zones": [f"{REGION}a", f"{REGION}b"],
            "image": IMAGE,
            "access": {"init": ["192.0.2.0/24"], "recovery": ["192.0.2.0/24"]},
            "terraform": {"pluginFolder": str(PLUGINS)},
            **more,
        }
        conf = {
            "version": 1,
            "name": "cloudy",
            "release": "1.0.0",
            "provider": {"aws": aws},
            "releases": {"repository": "releases", "root": "1.root.json"},
            "nodeGroups": {
                "control_plane_default": {"role": "control-plane", "size": 1},
                "worker_default": {"role": "worker", "size": workers, "zones": [f"{REGION}a"]},
            },
        }
        (self.folder / "constellation-conf.yaml").write_text(json.dumps(conf))

    def _publish(self) -> None:
        """Publish a release with an image for AWS, as its maker does."""
        maker = release_world.Maker(folder=self.folder / "releases", now=datetime.now(UTC)).create()
        (self.folder / "1.root.json").write_bytes(maker.pinned_root)
        image = release_world.image(
            "1.0.0", provider="aws", variant=Variant.AWS_SEV_SNP, name="constellation-node-aws"
        )
        release = dataclasses.replace(release_world.release("1.0.0"), images=(image,))
        maker.publish(release)


def _environment(port: int) -> dict[str, str]:
    dropped = ("AWS_", "TF_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return {
        **kept,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_MAX_ATTEMPTS": "3",
    }


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
