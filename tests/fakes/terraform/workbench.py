"""A folder with one of our modules, the real Terraform, and a provider of ours behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.terraform.provider import Provider, provider, reattach
from tests.fakes.terraform.schemas import PROVIDERS, schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["INFRA", "Ran", "Workbench", "served", "types_of", "workbench"]

INFRA = Path(__file__).resolve().parents[3] / "infra"
_NAMED = re.compile(r'^(resource|data) "([a-z0-9_]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run ended with: exit code and everything that it said."""

    code: int
    said: str


@dataclass(slots=True, kw_only=True)
class Workbench:
    """The folder, the provider, and how to run Terraform."""

    folder: Path
    provider: Provider
    environment: dict[str, str] = field(default_factory=dict)

    async def run(self, *words: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *("terraform", *words),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return Ran(code=process.returncode, said=out.decode())

    def write(self, variables: Mapping[str, Any]) -> None:
        path = self.folder / "constellation.auto.tfvars.json"
        path.write_text(json.dumps(variables))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    async def plan(self) -> dict[str, dict[str, Any]]:
        """Plan, and give the values of each resource that would be made, by address."""
        planned = await self.run("plan", "-input=false", "-no-color", "-out=plan")
        assert planned.code == 0, planned.said
        shown = await self.run("show", "-json", "plan")
        changes = json.loads(shown.said)["resource_changes"]
        return {
            c["address"]: c["change"]["after"]
            for c in changes
            if c["change"]["actions"] not in (["no-op"], ["delete"], ["read"])
        }


def types_of(module: Path) -> tuple[str, ...]:
    """Name the resources and data sources ("data.NAME") that a module uses."""
    found = set()
    for path in module.glob("*.tf"):
        for kind, name in _NAMED.findall(path.read_text()):
            found.add(f"data.{name}" if kind == "data" else name)
    return tuple(sorted(found))


@contextlib.asynccontextmanager
async def served(cloud: str, made: Provider) -> AsyncIterator[dict[str, str]]:
    """Serve a provider; gives the environment in which Terraform finds it."""
    # a socket's path has 107 characters at most: not below pytest's folders
    with tempfile.TemporaryDirectory(prefix="tf") as folder:
        async with provider(made, Path(folder) / "p") as place:
            yield {
                "TF_REATTACH_PROVIDERS": reattach({PROVIDERS[cloud].address: place}),
                "TF_CLI_CONFIG_FILE": os.devnull,
                "CHECKPOINT_DISABLE": "1",
            }


@contextlib.asynccontextmanager
async def workbench(
    cloud: str, module: str, folder: Path, variables: Mapping[str, Any]
) -> AsyncIterator[Workbench]:
    """Lay a module out, with variables, and `init` it."""
    source = INFRA / module
    shutil.copytree(source, folder, dirs_exist_ok=True)
    schema = await asyncio.to_thread(schemas, cloud, types_of(source))
    made = Provider(schema=schema)
    async with served(cloud, made) as environment:
        bench = Workbench(folder=folder, provider=made, environment={**os.environ, **environment})
        bench.write(variables)
        ran = await bench.run("init", "-input=false", "-no-color")
        assert ran.code == 0, ran.said
        yield bench
