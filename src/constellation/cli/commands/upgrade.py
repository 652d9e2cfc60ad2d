"""`constellation upgrade …`: what is newer, what moving there takes, going there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.base.progress import Report
    from constellation.cli.releases import Source
    from constellation.cli.run import Settings
    from constellation.cluster.context import Context
    from constellation.cluster.upgrade import Checked
    from constellation.config.state import State
    from constellation.kube.rollout import Action
    from constellation.trust.cluster_policy import Versions

__all__ = ["upgrade", "upgrade_to_conf"]

_MOST_HOURS = 7 * 24
_USUAL_HOURS = 24.0
_USUAL_WAIT_S = 600.0

_wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=1),
    default=_USUAL_WAIT_S,
    show_default=True,
    help="Seconds without any change until this program gives up looking; the operator does not.",
)


@click.group()
def upgrade() -> None:
    """See which releases are newer, move to one, and back."""


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
    from constellation.cluster.upgrade import check as look

    engine = _engine(chosen, report=report)
    source = await _source(engine)
    return await look(engine, source.site, pinned_root=source.pinned_root)


@upgrade.command("apply")
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps; do nothing.")
@click.option(
    "--ends",
    "ends_hours",
    type=click.FloatRange(min=0, min_open=True, max=_MOST_HOURS),
    default=_USUAL_HOURS,
    show_default=True,
    help="Hours until old images are refused, also if the roll-out is not done.",
)
@_wait_option
@standard_options
@click.pass_context
def apply(
    context: click.Context,
    /,
    only_plan: bool,
    ends_hours: float,
    wait_s: float,
    **chosen: Any,
) -> None:
    """Bring the cluster to the conf's release and Kubernetes; the same again goes on."""
    from constellation.kube.rollout_model import describe

    chosen_settings = settings(context, chosen)
    if not only_plan:
        done = upgrade_to_conf(chosen_settings, ends_hours=ends_hours, wait_s=wait_s)
        _tell(chosen_settings, done)
        return
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


@upgrade.command()
@_wait_option
@standard_options
@click.pass_context
def rollback(context: click.Context, /, wait_s: float, **chosen: Any) -> None:
    """Go back to the release and Kubernetes that the last upgrade left."""
    from constellation.base.files import write_atomic
    from constellation.cluster.apply import require_state
    from constellation.cluster.current_policy import current_policy
    from constellation.cluster.way_back import rollback_to
    from constellation.config.writer import set_fields

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    _ask(chosen_settings)
    with Steps() as steps, workspace.locked():
        engine = _engine(chosen_settings, report=steps.report, wait_s=wait_s)
        to = rollback_to(current_policy(require_state(engine)))

        def begun() -> None:
            # now, not at the end: whoever is interrupted comes back to it with `upgrade apply` too
            fields = {"release": to.release, "kubernetesVersion": to.kubernetes}
            text = set_fields(workspace.config.read_text(), fields)
            write_atomic(workspace.config, text.encode())

        state = run(_back(engine, to, begun=begun))
    _tell(chosen_settings, state)


def upgrade_to_conf(
    chosen: Settings, *, ends_hours: float = _USUAL_HOURS, wait_s: float = _USUAL_WAIT_S
) -> State:
    """Bring the cluster to what the configuration names, with a live list of steps."""
    workspace = chosen.workspace()
    _ask(chosen)
    with Steps() as steps, workspace.locked():
        engine = _engine(chosen, report=steps.report, wait_s=wait_s)
        return run(_apply(engine, ends_hours=ends_hours))


def _ask(chosen: Settings) -> None:
    """Ask once for what is done as root, where the machines are here and a cluster is."""
    from constellation.cli.privilege import ask_for_root
    from constellation.cluster.apply import require_state
    from constellation.cluster.current_policy import current_policy
    from constellation.config.reader import read_config

    workspace = chosen.workspace()
    current_policy(require_state(_engine(chosen, report=lambda _: None)))
    if read_config(workspace.config).provider.local is not None:
        ask_for_root(chosen)


async def _apply(engine: Context, *, ends_hours: float) -> State:
    from constellation.cluster.kubernetes import read_cloud_objects, read_status
    from constellation.cluster.roll_out import Eyes, Goal, apply_upgrade
    from constellation.cluster.upgrade import wanted
    from constellation.cluster.verify import verify_machines

    source = await _source(engine)
    found = await wanted(engine, source.site, pinned_root=source.pinned_root)
    goal = Goal(
        release=engine.config.release,
        kubernetes=engine.config.kubernetes_version,
        ends_at=int(engine.now().timestamp() + ends_hours * 3600),
    )
    eyes = Eyes(status=read_status, prove=verify_machines, objects=read_cloud_objects)
    return await apply_upgrade(engine, found, goal, eyes=eyes)


async def _back(engine: Context, to: Versions, *, begun: Callable[[], None]) -> State:
    from constellation.cluster.kubernetes import read_cloud_objects, read_status
    from constellation.cluster.roll_out import Eyes, Goal, apply_upgrade
    from constellation.cluster.upgrade import find
    from constellation.cluster.verify import verify_machines
    from constellation.cluster.way_back import demand_way_back

    await demand_way_back(engine, to, status=read_status)
    source = await _source(engine)
    found = await find(engine, source.site, to.release, pinned_root=source.pinned_root)
    goal = Goal(release=to.release, kubernetes=to.kubernetes)
    eyes = Eyes(status=read_status, prove=verify_machines, objects=read_cloud_objects)
    return await apply_upgrade(engine, found, goal, eyes=eyes, back=True, begun=begun)


async def _source(engine: Context) -> Source:
    """Give the repository, once there is a cluster that could follow it."""
    from constellation.cli.releases import find_source
    from constellation.cluster.apply import require_state
    from constellation.cluster.current_policy import current_policy
    from constellation.config.workspace import cache_folder

    current_policy(require_state(engine))  # before anything is built
    return await find_source(
        engine.workspace, engine.config, cache=cache_folder(), report=engine.report
    )


async def _plan(chosen: Settings, *, report: Report) -> tuple[Action, ...]:
    from constellation.cluster.upgrade import plan_upgrade, wanted

    engine = _engine(chosen, report=report)
    source = await _source(engine)
    found = await wanted(engine, source.site, pinned_root=source.pinned_root)
    return await plan_upgrade(engine, found.verified)


def _engine(chosen: Settings, *, report: Report, wait_s: float = _USUAL_WAIT_S) -> Context:
    from constellation.cli.world import real_context
    from constellation.config.reader import read_config

    workspace = chosen.workspace()
    return real_context(workspace, read_config(workspace.config), report=report, wait_s=wait_s)


def _tell(chosen: Settings, state: State) -> None:
    from constellation.cluster.current_policy import current_policy

    policy = current_policy(state)
    release = policy.release.version if policy.release is not None else ""
    result(
        {
            "kubernetes": policy.kubernetes_version,
            "policy_serial": policy.serial,
            "release": release,
        },
        output=chosen.output,
        text=lambda: (
            f"Every node runs release {release} with Kubernetes {policy.kubernetes_version}."
        ),
    )


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
