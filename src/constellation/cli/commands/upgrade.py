"""`constellation upgrade …`: what is newer, and what moving there would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.cli.run import Settings
    from constellation.cluster.context import Context
    from constellation.cluster.upgrade import Checked
    from constellation.kube.rollout import Action

__all__ = ["upgrade"]


@click.group()
def upgrade() -> None:
    """See which releases are newer, and what moving to one would take."""


@upgrade.command()
@click.option("--update-config", is_flag=True, help="Write the newest possible one into the conf.")
@standard_options
@click.pass_context
def check(context: click.Context, /, update_config: bool, **chosen: Any) -> None:
    """List newer releases: what each changes, and what speaks against it."""
    from constellation.base.files import write_atomic
    from constellation.config.writer import set_fields

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    with Steps() as steps:
        found = run(_check(chosen_settings, report=steps.report))
    best = found.best
    updated = update_config and best is not None
    if best is not None and updated:
        text = workspace.config.read_text()
        fields = {"release": best.release, "kubernetesVersion": best.kubernetes}
        write_atomic(workspace.config, set_fields(text, fields).encode())
    result(
        {
            "kubernetes": found.kubernetes,
            "moves": [
                {
                    "changes": list(m.changes),
                    "kubernetes": m.kubernetes,
                    "refused": list(m.refused),
                    "release": m.release,
                }
                for m in found.moves
            ],
            "release": found.release,
            "updated": updated,
        },
        output=chosen_settings.output,
        text=lambda: _told(found, updated=updated, name=workspace.config.name),
    )


async def _check(chosen: Settings, *, report: Report) -> Checked:
    from constellation.cli.releases import find_source
    from constellation.cluster.apply import require_state
    from constellation.cluster.upgrade import check as look
    from constellation.cluster.upgrade import current_policy
    from constellation.config.workspace import cache_folder

    engine = _engine(chosen, report=report)
    current_policy(require_state(engine))  # before anything is built
    source = await find_source(engine.workspace, engine.config, cache=cache_folder(), report=report)
    return await look(engine, source.site, pinned_root=source.pinned_root)


@upgrade.command("apply")
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps; do nothing.")
@standard_options
@click.pass_context
def apply(context: click.Context, /, only_plan: bool, **chosen: Any) -> None:
    """Show every step to the conf's release and what it replaces; carrying it out is not built."""
    from constellation.kube.rollout_model import describe

    if not only_plan:
        raise click.UsageError("only `upgrade apply --plan` is there: it shows, it does not act")
    chosen_settings = settings(context, chosen)
    with Steps() as steps:
        planned = [describe(a) for a in run(_plan(chosen_settings, report=steps.report))]
    result(
        {"steps": [{"step": step, "what": what} for step, what in planned]},
        output=chosen_settings.output,
        text=lambda: (
            "\n".join(
                f"{number:3}  {step}: {what}" for number, (step, what) in enumerate(planned, 1)
            )
            or "Nothing to do."
        ),
    )


async def _plan(chosen: Settings, *, report: Report) -> tuple[Action, ...]:
    from constellation.cli.releases import find_source
    from constellation.cluster.apply import require_state
    from constellation.cluster.upgrade import current_policy, plan_upgrade, wanted
    from constellation.config.workspace import cache_folder

    engine = _engine(chosen, report=report)
    current_policy(require_state(engine))
    source = await find_source(engine.workspace, engine.config, cache=cache_folder(), report=report)
    verified = await wanted(engine, source.site, pinned_root=source.pinned_root)
    return await plan_upgrade(engine, verified)


def _engine(chosen: Settings, *, report: Report) -> Context:
    from constellation.cli.world import real_context
    from constellation.config.reader import read_config

    workspace = chosen.workspace()
    return real_context(workspace, read_config(workspace.config), report=report)


def _told(found: Checked, *, updated: bool, name: str) -> str:
    has = found.release or "no published release (images made here)"
    lines = [f"The cluster has {has}, Kubernetes {found.kubernetes}."]
    for move in found.moves:
        lines.append(f"{move.release} with Kubernetes {move.kubernetes}")
        lines += [f"  changes  {change}" for change in move.changes]
        lines += [f"  refused  {reason}" for reason in move.refused]
    best = found.best
    if not found.moves:
        lines.append("Nothing is newer.")
    elif best is None:
        lines.append("None of them can be reached from here.")
    elif updated:
        lines.append(f"Wrote release {best.release} and {best.kubernetes} into {name}.")
    else:
        lines.append(f"Best: {best.release} with {best.kubernetes}; --update-config writes it.")
    return "\n".join(lines)
