"""`constellation mini …`: one command from nothing to an attested cluster on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.commands.inspect import describe_verified
from constellation.cli.commands.load_image import load_image
from constellation.cli.output import Steps, result
from constellation.cli.run import confirm, program, run, settings, standard_options

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.cluster.mini import Up
    from constellation.config.workspace import Workspace

__all__ = ["mini"]

_FOLDER = "constellation-mini"


@click.group()
def mini() -> None:
    """A real, attested cluster on this machine."""


mini.add_command(load_image)


@mini.command()
@standard_options
@click.pass_context
def up(context: click.Context, /, **chosen: Any) -> None:
    """Bring the cluster up: everything it needs, then all nodes, verified."""
    from constellation.cli.privilege import ask_for_root
    from constellation.cli.world import real_context
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace(_FOLDER)
    _ensure_config(workspace)
    conf = read_config(workspace.config)
    ask_for_root(chosen_settings)
    with Steps() as steps, workspace.locked():
        done = run(_bring_up(real_context(workspace, conf, report=steps.report)))
    result(
        {
            **describe_verified(done.verified),
            "already": done.already,
            "cluster": done.state.uid,
            "kubeconfig": str(workspace.kubeconfig),
            "kubectl": str(workspace.kubectl),
        },
        output=chosen_settings.output,
        text=lambda: _up_text(done, workspace),
    )


@mini.command()
@click.option("--purge", is_flag=True, help="Remove the cache as well: the next start takes long.")
@standard_options
@click.pass_context
def down(context: click.Context, /, purge: bool, **chosen: Any) -> None:
    """Remove the cluster with all its data and files."""
    from constellation.base.progress import silent
    from constellation.cli.privilege import authenticate
    from constellation.cli.remove import check_purge
    from constellation.cli.world import real_context
    from constellation.cluster.terminate import clusters
    from constellation.config.schema import Config
    from constellation.config.workspace import cache_folder
    from constellation.providers.local.infrastructure import workspaces

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace(_FOLDER)
    # the conf may be gone or broken: removing must still work
    found = clusters(real_context(workspace, Config(), report=silent))
    if not found and not workspace.folder.is_dir() and not (purge and cache_folder().is_dir()):
        result({"removed": []}, output=chosen_settings.output, text=lambda: "Nothing to remove.")
        return
    if purge:
        check_purge(cache_folder(), clusters=workspaces(), gone=found)
    too = f" And {cache_folder()}?" if purge else ""
    confirm(
        f"Remove the cluster in {workspace.folder} with all its data?{too}", chosen=chosen_settings
    )
    if found:
        run(authenticate())
    removed, kept = _remove(workspace, purge=purge)
    lines = [*(f"Removed {r}" for r in removed), *(f"Kept {k}" for k in kept)]
    result(
        {"kept": list(kept), "removed": list(removed)},
        output=chosen_settings.output,
        text=lambda: "\n".join(lines) or "Nothing to remove.",
    )


@mini.command()
@standard_options
@click.pass_context
def tamper(context: click.Context, /, **chosen: Any) -> None:
    """Start one more node from an image with one changed bit, and show how it is refused."""
    from constellation.cli.tamper import tamper as start_tampered
    from constellation.cli.world import real_context
    from constellation.cluster.apply import require_state
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace(_FOLDER)
    conf = read_config(workspace.config)
    with Steps() as steps, workspace.locked():
        engine = real_context(workspace, conf, report=steps.report)
        found = run(start_tampered(engine, require_state(engine)))
    result(
        {"bit": found.where, "findings": list(found.findings), "node": found.instance_id},
        output=chosen_settings.output,
        text=lambda: "\n".join(
            (
                f"Changed {found.where} of the node image and started node {found.instance_id}.",
                "It was refused:",
                *(f"  {line}" for line in found.findings),
            )
        ),
    )


def _ensure_config(workspace: Workspace) -> None:
    from constellation.base.files import write_atomic
    from constellation.config.writer import dump_example

    if not workspace.config.exists():
        write_atomic(workspace.config, dump_example(_default_config()).encode())


def _default_config() -> Any:
    from constellation.config.schema import Config

    return Config(name="mini")


async def _bring_up(engine: Context) -> Up:
    from constellation.cli.machine_check import check_unless_running
    from constellation.cli.privilege import keep_permission
    from constellation.cluster.mini import up

    async with keep_permission():
        await check_unless_running(engine)
        return await up(engine)


def _remove(workspace: Workspace, *, purge: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove cluster, files and (with `purge`) cache; gives what was removed and what was kept."""
    from constellation.cli.remove import purge as purge_cache
    from constellation.cli.remove import remove_files
    from constellation.cli.world import real_context
    from constellation.cluster.terminate import terminate
    from constellation.config.schema import Config
    from constellation.config.workspace import cache_folder
    from constellation.config.writer import dump_example

    with Steps() as steps, workspace.locked():
        done = run(terminate(real_context(workspace, Config(), report=steps.report)))
        files, kept = remove_files(workspace, example=dump_example(_default_config()).encode())
        cache = cache_folder()
        purged = (str(cache),) if purge and purge_cache(cache) else ()
    return (*done.removed, *files, *purged), kept


def _up_text(done: Up, workspace: Workspace) -> str:
    runs = "runs already" if done.already else "runs"
    kubectl = f"{workspace.kubectl} --kubeconfig {workspace.kubeconfig}"
    return "\n".join(
        (
            f"Cluster {done.state.uid} {runs}: {len(done.verified)} nodes, each verified.",
            *sorted(
                {f"Warning: {w}" for n in done.verified if n.result for w in n.result.warnings}
            ),
            "Not there: Services of type LoadBalancer, a default StorageClass.",
            "Try:",
            f"  {kubectl} get nodes -o wide",
            f"  {kubectl} create deployment web --image=YOUR-IMAGE",
            f"  {program()} -C {workspace.folder} verify",
        )
    )
