"""The real Terraform's own words for a held lock and a newer state: a module without a cloud."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict
from constellation.base.progress import Progress, silent
from constellation.providers.terraform import program as programs
from constellation.providers.terraform.folder import Folder, Mark
from constellation.providers.terraform.run import Terraform, TerraformSettings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, programs.NAMES)), reason="neither terraform nor tofu is on PATH"
)

MODULE = """
variable "holds" {
  type = bool
}

resource "terraform_data" "this" {
  input = var.holds
}

resource "terraform_data" "slow" {
  count = var.holds ? 1 : 0
  provisioner "local-exec" {
    command = "sleep 60"
  }
}
"""


async def _terraform(folder: Path, *, holds: bool) -> Terraform:
    source = folder / "module"
    source.mkdir(exist_ok=True)
    (source / "main.tf").write_text(MODULE)
    place = Folder(path=folder / "terraform")
    mark = Mark(provider="none", uid="constell-0a1b2c")
    place.fill(source, mark=mark, variables={"holds": holds}, backend="")
    made = Terraform(await programs.find(""), place, TerraformSettings())
    await made.init(report=silent)
    return made


async def test_a_lock_that_another_run_holds_is_named(tmp_path: Path) -> None:
    one = await _terraform(tmp_path, holds=True)
    began = asyncio.Event()

    def watch(progress: Progress) -> None:
        if "making terraform_data.slow" in progress.detail:
            began.set()

    plan = await one.plan(report=silent)
    task = asyncio.create_task(one.apply(plan, report=watch, step="x"))
    async with asyncio.timeout(60):
        await began.wait()
    other = Terraform(
        await programs.find(""), Folder(path=tmp_path / "terraform"), TerraformSettings()
    )
    with pytest.raises(Conflict, match="acquiring the state lock") as caught:
        await other.plan(report=silent)
    assert "force-unlock" in caught.value.hint
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    # what was made by the run that was stopped is in its state, and the lock is free again
    assert "terraform_data.this" in await other.resources()
    assert (await other.plan(report=silent)).changes


async def test_a_state_of_a_newer_format_is_not_touched_and_no_lock_is_to_blame(
    tmp_path: Path,
) -> None:
    one = await _terraform(tmp_path, holds=False)
    await one.apply(await one.plan(report=silent), report=silent, step="x")
    file = tmp_path / "terraform/terraform.tfstate"
    changed = json.dumps(json.loads(file.read_text()) | {"version": 5})
    file.write_text(changed)
    with pytest.raises(Conflict) as caught:
        await one.plan(report=silent)
    assert "newer" in caught.value.hint
    assert "force-unlock" not in caught.value.hint
    assert file.read_text() == changed
