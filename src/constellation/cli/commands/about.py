"""`version` and `completion`."""

from __future__ import annotations

from typing import Any

import click

from constellation.cli.output import result
from constellation.cli.run import settings, standard_options

__all__ = ["completion", "version"]


@click.command()
@standard_options
@click.pass_context
def version(context: click.Context, /, **chosen: Any) -> None:
    """Show the version of this program and of what it starts."""
    import platform

    from constellation import __version__
    from constellation.config.schema import CONFIG_VERSION, DEFAULT_KUBERNETES_VERSION
    from constellation.config.state import STATE_VERSION

    found = {
        "config_version": CONFIG_VERSION,
        "kubernetes": DEFAULT_KUBERNETES_VERSION,
        "python": platform.python_version(),
        "state_version": STATE_VERSION,
        "version": __version__,
    }
    result(
        found,
        output=settings(context, chosen).output,
        text=lambda: f"constellation {__version__} (Kubernetes {DEFAULT_KUBERNETES_VERSION})",
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> None:
    """Print a completion script for SHELL, e.g. `source <(constellation completion bash)`."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - one of click's own three
    root = context.find_root().command
    click.echo(found(root, {}, "constellation", "_CONSTELLATION_COMPLETE").source())
