"""How a cluster is removed although its configuration may be gone or broken.

What was made says where it is: Terraform's folder names its provider, the local daemon marks its
folder. A configuration that can be read adds how Terraform is run and what the cloud still lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import UserError
from constellation.cli.privilege import authenticate
from constellation.cli.run import run
from constellation.cli.world import real_context
from constellation.config.reader import read_config
from constellation.config.schema import Config
from constellation.providers.local.infrastructure import workspaces

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.cluster.context import Context
    from constellation.config.workspace import Workspace

__all__ = ["removal_context"]


def removal_context(workspace: Workspace, *, report: Report, log: str) -> Context:
    """Give the context of a removal; on this machine it gets root's permission first.

    Raises:
        UserError: Terraform's folder is damaged, or sudo refused.
    """
    try:
        config = read_config(workspace.config)
    except UserError:
        config = Config()
    if config.provider.baremetal is not None:
        return real_context(workspace, config, report=report)
    if workspace.terraform.is_dir():
        from constellation.cli import clouds

        if config.provider.name in clouds.CLOUDS:
            agreed = clouds.TerraformRun(confirm=lambda _: None, log=log)
            return real_context(workspace, config, report=report, terraform=agreed)
        from constellation.cli.forgotten import forgotten_context

        if (context := forgotten_context(workspace, report=report)) is not None:
            return context
    elif config.provider.local is None and not _is_of_local_cluster(workspace):
        from constellation.cli.own_machines import left_machines_context

        return left_machines_context(workspace, config, report=report)
    run(authenticate())
    return real_context(workspace, Config(), report=report)


def _is_of_local_cluster(workspace: Workspace) -> bool:
    """Say whether the local cloud has a cluster of this folder, whatever the conf says now."""
    return workspace.folder.resolve() in workspaces().values()
