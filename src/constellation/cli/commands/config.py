"""`constellation config …`: what may stand in the configuration file, and a first one."""

from __future__ import annotations

from typing import Any

import click

from constellation.cli.output import result
from constellation.cli.run import settings, standard_options

__all__ = ["config"]


@click.group()
def config() -> None:
    """Make and explain constellation-conf.yaml."""


@config.command()
@click.argument("provider", type=click.Choice(["local"]))
@standard_options
@click.pass_context
def generate(context: click.Context, /, provider: str, **chosen: Any) -> None:
    """Write constellation-conf.yaml for PROVIDER with a comment at every field."""
    from constellation.base.errors import Conflict
    from constellation.base.files import write_atomic
    from constellation.config.schema import Config
    from constellation.config.writer import dump_example

    chosen_settings = settings(context, chosen)
    path = chosen_settings.workspace().config
    if path.exists():
        raise Conflict(
            f"{path} exists and is not overwritten", hint="move it away, or use another folder (-C)"
        )
    write_atomic(path, dump_example(Config()).encode())
    result(
        {"config": str(path), "provider": provider},
        output=chosen_settings.output,
        text=lambda: f"Wrote {path}. Next: constellation create",
    )


@config.command()
@standard_options
@click.pass_context
def schema(context: click.Context, /, **chosen: Any) -> None:
    """Print the JSON schema of the configuration file."""
    from constellation.config.writer import dump_schema

    settings(context, chosen)
    click.echo(dump_schema(), nl=False)


@config.command("kubernetes-versions")
@standard_options
@click.pass_context
def kubernetes_versions(context: click.Context, /, **chosen: Any) -> None:
    """List the supported versions of Kubernetes; the first is the default."""
    from constellation.config.schema import DEFAULT_KUBERNETES_VERSION, KUBERNETES_VERSIONS

    result(
        {"default": DEFAULT_KUBERNETES_VERSION, "versions": list(KUBERNETES_VERSIONS)},
        output=settings(context, chosen).output,
        text=lambda: "\n".join(KUBERNETES_VERSIONS),
    )
