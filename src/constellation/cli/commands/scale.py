"""`constellation scale`: another number of nodes in a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from constellation.config.schema import Config

__all__ = ["scale"]


@click.command()
@click.argument("group")
@click.argument("size", metavar="N", type=click.IntRange(0, 1000))
@click.option("--plan", "only_plan", is_flag=True, help="Say what it means; do nothing.")
@click.option("--wait", "wait_s", default=600.0, show_default=True, help="Seconds to wait.")
@standard_options
@click.pass_context
def scale(
    context: click.Context,
    /,
    group: str,
    size: int,
    only_plan: bool,
    wait_s: float,
    **chosen: Any,
) -> None:
    """Give GROUP N nodes, write N into the configuration, and wait for them."""
    from constellation.base.files import write_atomic
    from constellation.cli.world import real_context
    from constellation.cluster.kubernetes import set_group_size
    from constellation.cluster.scale import check_size, means
    from constellation.cluster.scale import scale as scale_group
    from constellation.config.reader import read_config
    from constellation.config.writer import set_fields

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    config = read_config(workspace.config)
    check_size(config, group, size)
    said = means(config, group, size)
    if only_plan:
        before = config.node_groups[group].size
        result(
            {"from": before, "group": group, "means": said, "to": size},
            output=chosen_settings.output,
            text=lambda: "\n".join(w for w in (f"{group}: {before} to {size} nodes", said) if w),
        )
        return
    with Steps() as steps, workspace.locked():
        engine = real_context(
            workspace, _sized(config, group, size), report=steps.report, wait_s=wait_s
        )

        def write() -> None:
            text = set_fields(workspace.config.read_text(), {f"nodeGroups.{group}.size": size})
            write_atomic(workspace.config, text.encode())

        run(scale_group(engine, group, ask=set_group_size, write=write))
    result(
        {"group": group, "size": size},
        output=chosen_settings.output,
        text=lambda: f"Group {group} has {size} nodes.",
    )


def _sized(config: Config, group: str, size: int) -> Config:
    changed = config.node_groups[group].model_copy(update={"size": size})
    return config.model_copy(update={"node_groups": {**config.node_groups, group: changed}})
