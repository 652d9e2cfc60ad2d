"""What a node is worth whose image differs by one bit: nothing, and here is the event that says so.

The bit lies in the time stamp of the squashfs superblock: the node boots as if nothing had
happened, and only its measurement tells.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, ConstellationError, Rejected, Unavailable
from constellation.base.progress import Progress
from constellation.base.retry import until_available
from constellation.cluster import reach
from constellation.cluster.steps import machines
from constellation.providers.local.infrastructure import LocalInfrastructure
from constellation.providers.protocols import Group, Role

if TYPE_CHECKING:
    from constellation.atls.client import AtlsChannel
    from constellation.cluster.context import Context
    from constellation.config.state import State
    from constellation.providers.protocols import Instance

__all__ = ["Tampered", "tamper"]

# squashfs 4.0 superblock: `modification_time`, bytes 8 to 11
_OFFSET = 8
_GROUP = "tampered"
_WAIT_S = 60.0
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampered:
    """Which bit was changed, which node had it, and what its appraisal found."""

    where: str
    instance_id: str
    findings: tuple[str, ...]


async def tamper(context: Context, state: State) -> Tampered:
    """Add a worker with a changed image, appraise it as `init` would, and remove it again.

    Raises:
        Conflict: there is no running cluster, or the changed node was not refused.
    """
    if state.image is None or state.infrastructure is None:
        raise Conflict("no machines yet", hint="run `constellation mini up`")
    known = {m.instance_id for m in state.infrastructure.instances}
    changed = context.workspace.folder / ".tampered-image.squashfs"
    shutil.copyfile(Path(state.image.path), changed)
    _flip(changed)
    cloud = LocalInfrastructure(state.uid, offline=context.config.provider.this_machine().offline)
    wanted = machines.desired(context, state)
    # a group of its own: the operator would remove a machine above the size of one that it knows
    groups = (*wanted.groups, Group(name=_GROUP, role=Role.WORKER, size=1))
    try:
        found = await cloud.apply(
            replace(wanted, image_path=str(changed), groups=groups), report=context.report
        )
        added = [m for m in found.instances if m.instance_id not in known]
        if not added:
            raise Conflict("the provider started no further node")
        try:
            findings = await _refusal(context, state, added[0])
        finally:
            for machine in added:
                await cloud.delete(machine.instance_id)
    finally:
        # machines that come later get the genuine image again
        await cloud.apply(wanted, report=context.report)
        changed.unlink(missing_ok=True)
    return Tampered(
        where=f"bit 0 of byte {_OFFSET}", instance_id=added[0].instance_id, findings=findings
    )


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(_OFFSET)
        value = file.read(1)[0]
        file.seek(_OFFSET)
        file.write(bytes([value ^ 1]))


async def _refusal(context: Context, state: State, machine: Instance) -> tuple[str, ...]:
    context.report(Progress(step="Attest the changed node", detail=machine.instance_id))

    async def attempt() -> AtlsChannel:
        return await reach.connect(
            machine.init_endpoint,
            service="init",
            appraise=reach.appraise_fresh(state, now=context.now),
            deadline_s=_CONNECT_S,
        )

    try:
        channel = await until_available(attempt, deadline_s=_WAIT_S)
    except Rejected as refused:
        context.report(Progress(step="Attest the changed node", detail="refused", finished=True))
        return refused.findings
    except Unavailable:
        raise
    except ConstellationError as error:
        return (str(error),)
    channel.close()
    raise Conflict("the changed node was NOT refused: this is a serious fault of this program")
