"""`constellation iam …`: the identities of a cloud's nodes, with what they need and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import confirm, run, settings, standard_options

if TYPE_CHECKING:
    from constellation.cli.run import Settings
    from constellation.config.schema import Config
    from constellation.providers.terraform.run import Plan

__all__ = ["iam"]


@click.group()
def iam() -> None:
    """Make and remove the identities of a cloud's nodes."""


@iam.command()
@standard_options
@click.pass_context
def create(context: click.Context, /, **chosen: Any) -> None:
    """Make the identities for the provider of the conf, and write their names into it."""
    from constellation.base.files import write_atomic
    from constellation.cli.clouds import iam_variables, identities_of
    from constellation.config.reader import read_config
    from constellation.config.writer import set_provider_fields

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    conf = read_config(workspace.config)
    variables = iam_variables(conf)
    with Steps() as steps, workspace.locked():
        identities = identities_of(
            workspace, conf, confirm=lambda plan: _ask(plan, conf, steps, chosen_settings)
        )
        made = run(identities.create(variables, report=steps.report))
        text = set_provider_fields(
            workspace.config.read_text(), provider=conf.provider.name, values=made
        )
        write_atomic(workspace.config, text.encode())
    result(
        {"configuration": made},
        output=chosen_settings.output,
        text=lambda: "\n".join(
            f"Wrote provider.{conf.provider.name}.{key}: {value}" for key, value in made.items()
        ),
    )


@iam.command()
@standard_options
@click.pass_context
def destroy(context: click.Context, /, **chosen: Any) -> None:
    """Remove the identities; clusters that still run lose what they may do."""
    from constellation.cli.clouds import identities_of
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    conf = read_config(workspace.config)
    confirm(
        f"Remove the identities of {conf.name} on {conf.provider.name}?", chosen=chosen_settings
    )
    with Steps() as steps, workspace.locked():
        identities = identities_of(workspace, conf, confirm=lambda _: None)
        removed = run(identities.destroy(report=steps.report))
    result(
        {"removed": removed},
        output=chosen_settings.output,
        text=lambda: "Removed the identities." if removed else "Nothing to remove.",
    )


def _ask(plan: Plan, conf: Config, steps: Steps, chosen: Settings) -> None:
    listed = "\n".join(f"  {change.action} {change.address}" for change in plan.changes)
    with steps.paused():
        confirm(
            f"Identities of {conf.name} on {conf.provider.name}:\n{listed}\nGo on?", chosen=chosen
        )
