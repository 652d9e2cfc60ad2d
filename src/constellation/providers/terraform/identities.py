"""How the identities of a cloud's nodes come and go: the module `infra/iam/NAME` in its own folder.

They are made before the cluster and outlive it, so their state is a folder of its own.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import ConstellationError, Unavailable
from constellation.base.progress import Progress
from constellation.providers.terraform import program as programs
from constellation.providers.terraform.folder import Folder, Mark, module_source
from constellation.providers.terraform.run import Plan, Terraform, TerraformSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from constellation.base.progress import Report

__all__ = ["Identities"]

_STEP = "Identities"


class Identities:
    """The identities of the clusters of one name on one provider."""

    def __init__(
        self,
        provider: str,
        name: str,
        *,
        folder: Path,
        program: str,
        settings: TerraformSettings,
        confirm: Callable[[Plan], None],
    ) -> None:
        self._mark = Mark(provider=provider, uid=name)
        self._folder = Folder(path=folder)
        self._program, self._settings, self._confirm = program, settings, confirm

    async def create(self, variables: Mapping[str, object], *, report: Report) -> dict[str, str]:
        """Make or change them; gives keys of the provider's block and their values.

        Raises:
            UserError: no Terraform, a missing permission, or the answer was no.
            Conflict: the folder is of another cluster.
            Unavailable: the cloud does not do it now; a first run is undone as far as it can be.
        """
        terraform = await self._terraform()
        source = module_source(f"iam/{self._mark.provider}")
        self._folder.fill(
            source, mark=self._mark, variables=variables, backend=self._settings.backend
        )
        await terraform.init(report=report)
        before = await terraform.resources()
        plan = await terraform.plan(report=report)
        if plan.changes:
            self._confirm(plan)
            try:
                await terraform.apply(plan, report=report, step=_STEP)
            except ConstellationError:
                if not before:
                    with contextlib.suppress(ConstellationError):
                        await self.destroy(report=report)
                raise
        found = (await terraform.outputs()).get("configuration")
        return decode.load_value(dict[str, str], found, what="output configuration")

    async def destroy(self, *, report: Report) -> bool:
        """Remove them; False: there are none. Raises Unavailable: something is left."""
        if self._folder.mark() != self._mark:
            return False
        terraform = await self._terraform()
        await terraform.init(report=report)
        plan = await terraform.plan(report=report, destroy=True)
        if plan.changes:
            await terraform.apply(plan, report=report, step="Remove identities")
        if left := await terraform.resources():
            raise Unavailable(
                f"left of the identities: {', '.join(left)}", hint="the same command again goes on"
            )
        self._folder.remove()
        report(Progress(step=_STEP, detail="removed", finished=True))
        return True

    async def _terraform(self) -> Terraform:
        return Terraform(await programs.find(self._program), self._folder, self._settings)
