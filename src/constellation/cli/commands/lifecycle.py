"""`create`, `init`, `apply`, `terminate`: from a configuration to a cluster, and away again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, printable, result
from constellation.cli.run import confirm, run, settings, standard_options

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from constellation.cli.clouds import TerraformRun
    from constellation.cli.run import Settings
    from constellation.cluster.context import Context
    from constellation.config.schema import Config
    from constellation.config.state import State

__all__ = ["apply", "create", "init", "terminate"]


_log_option = click.option(
    "--terraform-log",
    type=click.Choice(["INFO", "DEBUG", "TRACE"]),
    help="Clouds: write terraform.log with all that Terraform says.",
)


@click.command()
@_log_option
@standard_options
@click.pass_context
def create(context: click.Context, /, terraform_log: str | None, **chosen: Any) -> None:
    """Make keys, node image and machines; the machines wait for `init`."""
    state = _create(settings(context, chosen), log=terraform_log or "")
    assert state.infrastructure is not None  # noqa: S101 - the last step made it
    count = len(state.infrastructure.instances)
    silent = [m.instance_id for m in state.infrastructure.instances if m.state == "off"]
    waiting = f"wait; not up yet: {', '.join(silent)}" if silent else "wait"
    result(
        _summary(state),
        output=_settings_of(context).output,
        text=lambda: f"{count} machines of {state.uid} {waiting}. Next: constellation init",
    )


@click.command()
@click.option("--abandon", is_flag=True, help="Leave the node that an earlier init chose.")
@standard_options
@click.pass_context
def init(context: click.Context, /, abandon: bool, **chosen: Any) -> None:
    """Attest one control plane, give it the cluster's secret, wait for all nodes."""
    chosen_settings = settings(context, chosen)
    state = _initialise(chosen_settings, abandon=abandon)
    _tell(chosen_settings, state)


@click.command("apply")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done; do nothing.")
@click.option(
    "--skip",
    type=click.Choice(["infrastructure"]),
    multiple=True,
    help="Leave machines and network to you: the state file says what there is.",
)
@_log_option
@standard_options
@click.pass_context
def apply(
    context: click.Context,
    /,
    only_plan: bool,
    skip: tuple[str, ...],
    terraform_log: str | None,
    **chosen: Any,
) -> None:
    """Bring the cluster to what the configuration says: create, init, upgrade, each if needed."""
    from constellation.cli.world import real_context
    from constellation.cluster.apply import make_plan
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    if only_plan:
        with Steps() as steps:
            conf = read_config(workspace.config)
            planned = run(make_plan(real_context(workspace, conf, report=steps.report)))
        result(
            {"steps": [{"step": p.step, "why": p.why, "details": p.details} for p in planned]},
            output=chosen_settings.output,
            text=lambda: (
                "\n".join("\n  ".join((f"{p.step}: {p.why}", *p.details)) for p in planned)
                or "Nothing to do."
            ),
        )
        return
    log, own = terraform_log or "", "infrastructure" in skip
    if not own:
        _resize(chosen_settings)
    _create(chosen_settings, log=log, own_machines=own)
    state = _initialise(chosen_settings, abandon=False, log=log, own_machines=own)
    state = _follow(_follow_nodes, chosen_settings, state, own_machines=own)
    if _follows_another(read_config(workspace.config), state):
        from constellation.cli.commands.upgrade import upgrade_to_conf

        state = upgrade_to_conf(chosen_settings)
    # after a release that may name the components for the first time
    state = _follow(_follow_integration, chosen_settings, state, own_machines=own)
    _tell(chosen_settings, state)


@click.command()
@_log_option
@standard_options
@click.pass_context
def terminate(context: click.Context, /, terraform_log: str | None, **chosen: Any) -> None:
    """Remove the machines and all their data; keep configuration and master secret."""
    from constellation.cli.removal import removal_context
    from constellation.cluster.cloud_leavings import look_before_removal
    from constellation.cluster.terminate import terminate as terminate_cluster

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    leavings = run(look_before_removal(workspace))
    for line in leavings.lines() if leavings is not None else ():
        click.echo(printable(line), err=True)
    confirm(f"Remove the cluster in {workspace.folder} with all its data?", chosen=chosen_settings)
    with Steps() as steps, workspace.locked():
        engine = removal_context(workspace, report=steps.report, log=terraform_log or "")
        done = run(terminate_cluster(engine, leavings=leavings))
    result(
        {
            "kept": [str(p) for p in done.kept],
            "left": list(done.left),
            "removed": list(done.removed),
        },
        output=chosen_settings.output,
        text=lambda: (
            "\n".join(
                (
                    *(f"Removed {r}" for r in done.removed),
                    *(f"Kept {p}" for p in done.kept),
                    *(f"In the cloud: {line}" for line in done.left),
                )
            )
            or "Nothing to remove."
        ),
    )


def _follows_another(conf: Config, state: State) -> bool:
    """Say whether the configuration names another release or Kubernetes than the cluster has."""
    from constellation.cluster.current_policy import current_policy
    from constellation.trust.cluster_policy import is_rolling

    policy = current_policy(state)
    release = policy.release.version if policy.release is not None else ""
    same = (conf.release or release, conf.kubernetes_version) == (
        release,
        policy.kubernetes_version,
    )
    return not same or is_rolling(policy)


def _settings_of(context: click.Context) -> Settings:
    """Give the settings that `settings` has merged for this run."""
    merged: Settings = context.find_root().obj
    return merged


def _create(chosen: Settings, *, log: str, own_machines: bool = False) -> State:
    from constellation.cli.privilege import ask_for_root
    from constellation.cli.world import real_context
    from constellation.config.reader import read_config

    workspace = chosen.workspace()
    conf = read_config(workspace.config)
    if conf.provider.local is not None:
        ask_for_root(chosen)
    with Steps() as steps, workspace.locked():
        asked = _terraform(chosen, steps, conf, log=log)
        engine = real_context(workspace, conf, report=steps.report, terraform=asked)
        if own_machines:
            from constellation.cli.own_machines import with_own_machines

            engine = with_own_machines(engine)
        return run(_make(engine, own_machines=own_machines))


def _terraform(chosen: Settings, steps: Steps, conf: Config, *, log: str) -> TerraformRun | None:
    """Give how Terraform may change a cloud: after its plan was shown and agreed to."""
    if conf.provider.local is not None:
        return None
    from constellation.cli.clouds import TerraformRun
    from constellation.cli.plan_question import ask_about

    return TerraformRun(confirm=lambda plan: ask_about(plan, conf, steps, chosen), log=log)


async def _make(engine: Context, *, own_machines: bool) -> State:
    from constellation.cli.machine_check import check_unless_running
    from constellation.cli.privilege import keep_permission
    from constellation.cluster.apply import create as create_cluster

    if engine.config.provider.local is None or own_machines:
        return await create_cluster(engine)
    async with keep_permission():
        await check_unless_running(engine)
        return await create_cluster(engine)


def _initialise(
    chosen: Settings, *, abandon: bool, log: str = "", own_machines: bool = False
) -> State:
    from constellation.cli.world import real_context
    from constellation.cluster.apply import initialise
    from constellation.config.reader import read_config

    workspace = chosen.workspace()
    conf = read_config(workspace.config)
    with Steps() as steps, workspace.locked():
        asked = _terraform(chosen, steps, conf, log=log)
        context = real_context(
            workspace, conf, report=steps.report, abandon=abandon, terraform=asked
        )
        if own_machines:
            from constellation.cli.own_machines import with_own_machines

            context = with_own_machines(context)
        state, _ = run(initialise(context))
    return state


def _resize(chosen: Settings) -> None:
    """Give groups of a cluster that runs the sizes that the configuration has now: as `scale`."""
    from constellation.cli.world import real_context
    from constellation.cluster.kubernetes import set_group_size
    from constellation.cluster.plan import resized
    from constellation.cluster.scale import check_size, scale
    from constellation.config.reader import read_config
    from constellation.config.state import read_state

    workspace = chosen.workspace()
    conf = read_config(workspace.config)
    with Steps() as steps, workspace.locked():
        engine = real_context(workspace, conf, report=steps.report)
        for group in resized(conf, read_state(workspace.state)):
            check_size(conf, group, conf.node_groups[group].size)
            run(scale(engine, group, ask=set_group_size, write=lambda: None))


async def _follow_nodes(engine: Context, state: State) -> State:
    """Let nodes ask the provider, and fetch artifacts, as the configuration says now."""
    from constellation.cluster.node_access import follow_access
    from constellation.cluster.node_sources import follow_sources

    return await follow_sources(engine, await follow_access(engine, state))


async def _follow_integration(engine: Context, state: State) -> State:
    """Let the cloud's components run, or run no more, as the configuration says now."""
    from constellation.cluster.cloud_integration import follow_integration
    from constellation.cluster.cloud_leavings import look
    from constellation.cluster.kubernetes import read_cloud_objects

    return await follow_integration(engine, state, applied=read_cloud_objects, look=look)


def _follow(
    follow: Callable[[Context, State], Coroutine[Any, Any, State]],
    chosen: Settings,
    state: State,
    *,
    own_machines: bool,
) -> State:
    """Let a part of the policy follow the configuration; the local cloud's has none of them."""
    from constellation.cli.world import real_context
    from constellation.config.reader import read_config

    workspace = chosen.workspace()
    conf = read_config(workspace.config)
    if conf.provider.local is not None:
        return state
    with Steps() as steps, workspace.locked():
        engine = real_context(workspace, conf, report=steps.report)
        if own_machines:
            from constellation.cli.own_machines import with_own_machines

            engine = with_own_machines(engine)
        return run(follow(engine, state))


def _summary(state: State) -> dict[str, Any]:
    import base64

    machines = state.infrastructure.instances if state.infrastructure is not None else ()
    return {
        "cluster_id": base64.b64encode(state.cluster_id).decode(),
        "machines": [{"id": m.instance_id, "role": m.role, "state": m.state} for m in machines],
        "name": state.name,
        "uid": state.uid,
    }


def _tell(chosen: Settings, state: State) -> None:
    workspace, summary = chosen.workspace(), _summary(state)
    result(
        {
            **summary,
            "kubeconfig": str(workspace.kubeconfig),
            "kubectl": str(workspace.kubectl),
        },
        output=chosen.output,
        text=lambda: "\n".join(
            (
                f"The cluster runs. clusterID:     {summary['cluster_id']}",
                f"Master secret (keep a copy):     {workspace.master_secret}",
                f"Administrator's kubeconfig:      {workspace.kubeconfig}",
                f"Next: {workspace.kubectl} --kubeconfig {workspace.kubeconfig} get nodes",
            )
        ),
    )
