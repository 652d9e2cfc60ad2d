"""`constellation artifacts mirror`: Kubernetes into the cache, ahead of time."""

from __future__ import annotations

from typing import Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """Files that nodes need to run Kubernetes."""


@artifacts.command()
@click.option("--kubernetes", "version", help="Version, e.g. v1.36.2; the default one if absent.")
@click.option(
    "--from",
    "origin",
    type=click.Choice(["official", "source", "auto"]),
    default="auto",
    show_default=True,
    help="Download, build here, or download where the network allows it.",
)
@click.option("--check", is_flag=True, help="First hash everything in the cache anew.")
@standard_options
@click.pass_context
def mirror(
    context: click.Context, /, version: str | None, origin: str, check: bool, **chosen: Any
) -> None:
    """Have every artifact of a Kubernetes version in the cache, each checked by its digest."""
    from constellation.cli.world import ensure_artifacts
    from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
    from constellation.config.workspace import cache_folder
    from constellation.releases.mirror import verify_cache

    chosen_settings = settings(context, chosen)
    wanted, cache = version or DEFAULT_KUBERNETES_VERSION, cache_folder()
    with Steps() as steps:
        healed = run(verify_cache(cache)) if check else ()
        listed = run(ensure_artifacts(wanted, cache=cache, report=steps.report, origin=origin))
    result(
        {
            "artifacts": [
                {"kind": a.kind, "name": a.name, "sha256": a.sha256, "size_bytes": a.size_bytes}
                for a in listed.artifacts
            ],
            "cache": str(cache),
            "damaged": list(healed),
            "version": listed.kubernetes_version,
        },
        output=chosen_settings.output,
        text=lambda: f"{len(listed.artifacts)} artifacts of {wanted} are in {cache}.",
    )
