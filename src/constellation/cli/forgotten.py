"""A cloud whose configuration is gone or broken: what Terraform made can still be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import Conflict
from constellation.cli.clouds import CloudSupplies, made_here, nobody_asked
from constellation.cluster.context import Context
from constellation.cluster.kubernetes import list_nodes
from constellation.config.schema import Config
from constellation.providers.terraform.folder import Folder
from constellation.providers.terraform.infrastructure import TerraformInfrastructure
from constellation.providers.terraform.run import TerraformSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.base.progress import Report
    from constellation.config.workspace import Workspace
    from constellation.providers.protocols import Desired, Infrastructure, Instance
    from constellation.providers.terraform.infrastructure import Cloud, Outputs

__all__ = ["Forgotten", "forgotten_context"]


def forgotten_context(workspace: Workspace, *, report: Report) -> Context | None:
    """Give the context of a removal whose configuration is gone or broken; None: nothing is there.

    Terraform's program is the one on PATH; variables and providers are still in its folder.
    """
    mark = Folder(path=workspace.terraform).mark()
    if mark is None:
        return None
    cloud, config = Forgotten(provider=mark.provider), Config()

    def make(uid: str) -> Infrastructure:
        return TerraformInfrastructure(
            cloud,
            uid,
            folder=workspace.terraform,
            program="",
            settings=TerraformSettings(),
            confirm=nobody_asked,
        )

    return Context(
        workspace=workspace,
        config=config,
        supplies=CloudSupplies(cache=workspace.folder, workspace=workspace, config=config),
        infrastructure=make,
        owned=lambda: made_here(workspace),
        list_nodes=list_nodes,
        now=clock.now,
        report=report,
        wait_s=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What still works of a cloud without a configuration: nothing but removal."""

    provider: str

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        """Refuse: nothing is made without a configuration."""
        del desired
        raise Conflict(f"{uid} on {self.provider}: the configuration cannot be read")

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        """Refuse as `variables`."""
        self.variables(uid, desired)
        return ()

    async def room(self, more: Desired) -> tuple[str, ...]:
        """Refuse as `variables`."""
        self.variables("machines", more)
        return ()

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        """Refuse: nobody says how the cloud is asked."""
        raise Conflict(f"{outputs.uid} on {self.provider}: the configuration cannot be read")

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        """Say nothing: nobody says how the cloud is asked; Terraform's own state is looked at."""
        del uid
        return ()

    async def console(self, instance_id: str) -> bytes:
        """Refuse as `instances`."""
        raise Conflict(f"{instance_id} on {self.provider}: the configuration cannot be read")


if TYPE_CHECKING:
    _: type[Cloud] = Forgotten
