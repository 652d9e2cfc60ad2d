"""`constellation mini load-image ARCHIVE`: an image of one's own for pods of the local cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

__all__ = ["FOLDER", "load_image"]

FOLDER = "constellation-mini"


@click.command("load-image")
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", default="", help="What pods call it, instead of what the archive says.")
@standard_options
@click.pass_context
def load_image(context: click.Context, /, archive: Path, name: str, **chosen: Any) -> None:
    """Give the cluster an image from a docker-save or OCI archive (tar)."""
    from constellation.base.errors import Conflict
    from constellation.config.state import read_state
    from constellation.providers.local.infrastructure import LocalInfrastructure

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace(FOLDER)
    state = read_state(workspace.state)
    if state is None:
        raise Conflict(f"no cluster in {workspace.folder}", hint="run `constellation mini up`")
    cloud = LocalInfrastructure(state.uid)
    with Steps() as steps:
        names = run(cloud.load_image(archive, name=name, report=steps.report))
    result(
        {"images": list(names)},
        output=chosen_settings.output,
        text=lambda: "\n".join(f"A pod can use: {name}" for name in names),
    )
