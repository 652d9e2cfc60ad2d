"""How the engine meets hosts of one's own: folders for them to read, and a published release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import FormatError, UserError
from constellation.cli.clouds import CloudSupplies
from constellation.cluster.context import Context
from constellation.cluster.kubernetes import list_nodes
from constellation.config.trust_roots import read_trust_roots
from constellation.providers.baremetal.infrastructure import BaremetalInfrastructure, written_for

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.config.providers.baremetal import BaremetalProvider
    from constellation.config.schema import Config
    from constellation.config.workspace import Workspace

__all__ = ["baremetal_context", "infrastructure_of", "made_here"]


def baremetal_context(
    workspace: Workspace,
    config: Config,
    *,
    cache: Path,
    report: Report,
    wait_s: float,
    abandon: bool,
) -> Context:
    """Give the context of a run on hosts of one's own."""
    block = config.provider.baremetal
    assert block is not None  # noqa: S101 - who calls has looked
    return Context(
        workspace=workspace,
        config=config,
        supplies=CloudSupplies(cache=cache, workspace=workspace, config=config),
        infrastructure=lambda uid: infrastructure_of(workspace, block, uid),
        owned=lambda: made_here(workspace),
        list_nodes=list_nodes,
        now=clock.now,
        report=report,
        wait_s=wait_s,
        abandon=abandon,
        keeps_machines=True,
    )


def infrastructure_of(
    workspace: Workspace, block: BaremetalProvider, uid: str
) -> BaremetalInfrastructure:
    """Give the hosts of a uid. Raises UserError: the file with their authorities is none."""
    return BaremetalInfrastructure(
        uid,
        addresses=block.hosts,
        endpoint=block.endpoint,
        trust_roots=read_trust_roots(workspace.folder, block.trust_roots),
        folder=workspace.hosts,
        state_disk=block.state_disk,
    )


def made_here(workspace: Workspace) -> tuple[str, ...]:
    """Name the clusters whose hosts read from this workspace."""
    try:
        return written_for(workspace.hosts)
    except FormatError as error:
        raise UserError(f"is damaged: {error}", where=str(workspace.hosts)) from None
