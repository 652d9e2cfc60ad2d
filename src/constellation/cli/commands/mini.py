"""`constellation mini …`: one command from nothing to an attested cluster on this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import click

from constellation.cli.commands.inspect import describe_verified
from constellation.cli.output import Steps, result
from constellation.cli.run import confirm, run, settings, standard_options

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.cli.run import Settings
    from constellation.cluster.mini import Up
    from constellation.config.workspace import Workspace

__all__ = ["mini"]

_FOLDER = "constellation-mini"


@click.group()
def mini() -> None:
    """A real, attested cluster on this machine."""


@mini.command()
@standard_options
@click.pass_context
def up(context: click.Context, /, **chosen: Any) -> None:
    """Bring the cluster up: everything it needs, then all nodes, verified."""
    from constellation.cli.world import real_context
    from constellation.cluster.mini import up as bring_up
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace(_FOLDER)
    _ensure_config(workspace)
    conf = read_config(workspace.config)
    _ask_for_root(chosen_settings)
    with Steps() as steps, workspace.locked():
        done = run(bring_up(real_context(workspace, conf, report=steps.report)))
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
    from constellation.cli.privilege import authenticate
    from constellation.cli.world import real_context
    from constellation.cluster.terminate import terminate
    from constellation.config.schema import Config
    from constellation.config.workspace import cache_folder

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace(_FOLDER)
    if not workspace.folder.is_dir():
        result({"removed": []}, output=chosen_settings.output, text=lambda: "Nothing to remove.")
        return
    confirm(f"Remove the cluster in {workspace.folder} with all its data?", chosen=chosen_settings)
    run(authenticate())
    with Steps() as steps, workspace.locked():
        done = run(terminate(real_context(workspace, Config(), report=steps.report)))
        removed = [*done.removed, *_remove_files(workspace)]
    if purge and cache_folder().is_dir():
        shutil.rmtree(cache_folder())
        removed.append(str(cache_folder()))
    kept = [str(p) for p in sorted(workspace.folder.glob("*"))]
    if not kept:
        shutil.rmtree(workspace.folder)
        removed.append(str(workspace.folder))
    lines = [*(f"Removed {r}" for r in removed), *(f"Kept {k}" for k in kept)]
    result(
        {"kept": kept, "removed": removed},
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


def _ask_for_root(chosen: Settings) -> None:
    from constellation.cli.privilege import REASONS, authenticate, is_root

    if is_root():
        return
    listed = "\n".join(f"  - {reason}" for reason in REASONS)
    confirm(f"As root, by sudo, this will\n{listed}\nGo on?", chosen=chosen)
    run(authenticate())


def _remove_files(workspace: Workspace) -> list[str]:
    """Remove the secrets of a cluster that is gone, and the conf if nobody changed it."""
    from constellation.config.writer import dump_example

    removed: list[Path] = []
    if workspace.master_secret.exists():
        removed.append(workspace.master_secret)
    config = workspace.config
    if config.exists() and config.read_text() == dump_example(_default_config()):
        removed.append(config)
    for path in removed:
        path.unlink()
    (workspace.folder / ".constellation.lock").unlink(missing_ok=True)
    return [str(path) for path in removed]


def _up_text(done: Up, workspace: Workspace) -> str:
    runs = "runs already" if done.already else "runs"
    kubectl = f"{workspace.kubectl} --kubeconfig {workspace.kubeconfig}"
    return "\n".join(
        (
            f"Cluster {done.state.uid} {runs}: {len(done.verified)} nodes, each verified.",
            *sorted(
                {f"Warning: {w}" for n in done.verified if n.result for w in n.result.warnings}
            ),
            f"Warning: {describe_verified(())['pod_traffic']}",
            "Not there: Services of type LoadBalancer, a default StorageClass.",
            "Try:",
            f"  {kubectl} get nodes -o wide",
            f"  {kubectl} create deployment web --image=YOUR-IMAGE",
            f"  constellation -C {workspace.folder} verify",
        )
    )
