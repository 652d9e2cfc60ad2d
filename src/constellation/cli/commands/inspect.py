"""`status`, `verify`, `recover`: how a cluster is, what it proves, a way back after a reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result, show_error
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from constellation.cluster.status import Status
    from constellation.cluster.verify import Verified

__all__ = ["describe_verified", "recover", "state_disks", "status", "status_text", "verify"]

_WATCH_S = 600.0
"""Seconds without any change until `status --watch` gives up."""
_POD_TRAFFIC = "through WireGuard between nodes or not at all, by the measured image's own firewall"
_NATIVE_DISKS = (
    "confidential, not authentic: on the local provider, ext4's native encryption hides what is "
    "written but does not notice all changes"
)
_LUKS_DISKS = (
    "confidential and authentic (LUKS2 with integrity), up to the replay of what the same disk had "
    "before"
)


@click.command()
@click.option("--watch", "watches", is_flag=True, help="Show a roll-out until it is done.")
@standard_options
@click.pass_context
def status(context: click.Context, /, watches: bool, **chosen: Any) -> None:
    """Show machines, nodes, and what to do next."""
    from constellation.cli.machine_check import disk_left, shortage
    from constellation.cli.world import real_context
    from constellation.cluster.kubernetes import read_cloud_objects
    from constellation.cluster.status import status as look
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    conf = read_config(workspace.config)
    with Steps() as steps:
        engine = real_context(workspace, conf, report=steps.report, wait_s=_WATCH_S)
        if watches:
            from constellation.cluster.kubernetes import read_status
            from constellation.cluster.roll_out import Eyes, watch
            from constellation.cluster.verify import verify_machines

            eyes = Eyes(status=read_status, prove=verify_machines, objects=read_cloud_objects)
            run(watch(engine, eyes=eyes))
        found = run(look(engine, objects=read_cloud_objects))
    short = shortage(disk_left(conf))
    result(
        {
            "advice": found.judged.advice,
            "cloud_objects": _components(found),
            "cluster": found.state.uid,
            "machines": [
                {"address": m.address, "group": m.group, "id": m.instance_id, "state": m.state}
                for m in found.machines
            ],
            "nodes": [
                {"name": n.name, "ready": n.ready, "role": n.role, "version": n.version}
                for n in found.nodes
            ],
            "phase": found.judged.phase,
            "ready": found.ready,
            "shortage": short,
        },
        output=chosen_settings.output,
        text=lambda: status_text(found, shortage=short),
    )


@click.command()
@click.option("--cluster-id", help="Demand this clusterID (base64 of 32 bytes), not the state's.")
@click.option("--wait", "wait_s", default=20.0, show_default=True, help="Seconds for each node.")
@standard_options
@click.pass_context
def verify(context: click.Context, /, cluster_id: str | None, wait_s: float, **chosen: Any) -> None:
    """Demand fresh evidence of every node and appraise it by the cluster's signed policy."""
    from constellation.cli.world import real_context
    from constellation.cluster.apply import require_state
    from constellation.cluster.verify import verify as verify_cluster
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    conf = read_config(workspace.config)
    demanded = _cluster_id(cluster_id)
    with Steps() as steps:
        engine = real_context(workspace, conf, report=steps.report)
        state = require_state(engine)
        nodes = run(verify_cluster(engine, state, cluster_id=demanded, deadline_s=wait_s))
    result(
        describe_verified(nodes),
        output=chosen_settings.output,
        text=lambda: "\n".join(_verified_text(node) for node in nodes),
    )
    failed = [node for node in nodes if node.error is not None]
    for node in failed:
        assert node.error is not None  # noqa: S101 - picked by that
        click.echo(f"{node.instance_id}:", err=True)
        show_error(node.error, output=chosen_settings.output)
    if failed:
        assert failed[0].error is not None  # noqa: S101 - picked by that
        context.exit(failed[0].error.exit_code)
    if chosen_settings.output == "text":
        click.echo(f"Pod traffic: {_POD_TRAFFIC}.\nState disks: {state_disks(nodes)}.")
        click.echo(f"All {len(nodes)} nodes prove what they run.")


@click.command()
@standard_options
@click.pass_context
def recover(context: click.Context, /, **chosen: Any) -> None:
    """Give rebooted control planes their disk keys when no other node can."""
    from constellation.cli.world import real_context
    from constellation.cluster.apply import require_state
    from constellation.cluster.recover import recover as recover_cluster
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    conf = read_config(workspace.config)
    with Steps() as steps, workspace.locked():
        engine = real_context(workspace, conf, report=steps.report)
        done = run(recover_cluster(engine, require_state(engine), deadline_s=_LOOK_S))
    result(
        {"recovered": [{"id": r.instance_id, "node": r.node_name} for r in done]},
        output=chosen_settings.output,
        text=lambda: (
            "\n".join(f"Recovered {r.node_name or r.instance_id}" for r in done)
            or "No control plane waits for recovery."
        ),
    )


_LOOK_S = 10.0


def describe_verified(nodes: tuple[Verified, ...]) -> dict[str, Any]:
    """Give the result of `verify` as plain values."""
    return {
        "nodes": [
            {
                "attester_id": n.result.attester_id.hex() if n.result is not None else None,
                "claims": {
                    name: claim.hex() if isinstance(claim, bytes) else claim
                    for name, claim in sorted(n.result.claims.items())
                }
                if n.result is not None
                else {},
                "error": str(n.error) if n.error is not None else None,
                "id": n.instance_id,
                "name": n.node_name,
                "unchecked": list(n.result.unchecked) if n.result is not None else [],
                "warnings": list(n.result.warnings) if n.result is not None else [],
            }
            for n in nodes
        ],
        "pod_traffic": _POD_TRAFFIC,
        "state_disks": state_disks(nodes),
    }


def state_disks(nodes: tuple[Verified, ...]) -> str:
    """Say what the state disks of nodes that proved what they run are good for."""
    from constellation.disk import luks
    from constellation.disk.state_disk import way_of

    ways = {way_of(node.result.variant) for node in nodes if node.result is not None}
    if not ways:
        return "unknown: no node proved what it runs"
    return _LUKS_DISKS if ways == {luks} else _NATIVE_DISKS


def _verified_text(node: Verified) -> str:
    if node.result is None:
        return f"{node.instance_id}: NOT verified"
    lines = [f"{node.node_name or node.instance_id}: verified ({node.result.variant})"]
    for name, claim in sorted(node.result.claims.items()):
        lines.append(f"  {name}: {claim.hex() if isinstance(claim, bytes) else claim}")
    lines += [f"  unchecked: {line}" for line in node.result.unchecked]
    lines += [f"  warning: {line}" for line in node.result.warnings]
    return "\n".join(lines)


def _cluster_id(text: str | None) -> bytes | None:
    import base64
    import binascii

    from constellation.base.errors import UserError
    from constellation.crypto.derive import CLUSTER_ID_BYTES

    if text is None:
        return None
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != CLUSTER_ID_BYTES:
        raise UserError(
            f"expected base64 of {CLUSTER_ID_BYTES} bytes, found {text[:60]!r}",
            where="--cluster-id",
        )
    return value


def status_text(found: Status, *, shortage: str) -> str:
    """Put a status into words and two tables; `shortage`: what this machine is short of."""
    state, judged = found.state, found.judged
    todo = [line for line in (judged.advice, shortage) if line]
    if found.wanted_objects not in ("", found.applied_objects):
        todo.append("`kubectl get clusterrelease cluster` says what the operator waits for")
    machines: list[tuple[str, ...]] = [("machine", "group", "address", "state")]
    machines += [(m.instance_id, m.group, m.address, m.state) for m in found.machines]
    nodes: list[tuple[str, ...]] = [("node", "role", "version", "condition")]
    nodes += [
        (n.name, n.role, n.version, "Ready" if n.ready else n.reason or "not Ready")
        for n in found.nodes
    ]
    return "\n".join(
        (
            f"Cluster {state.uid} (Kubernetes {state.kubernetes_version}): {judged.phase}.",
            *(_table(machines) if found.machines else ()),
            *(_table(nodes) if found.nodes else ()),
            *_components_text(found),
            *([f"Next: {line}." for line in todo] or ["All is well."]),
        )
    )


def _components(found: Status) -> dict[str, str | None] | None:
    """Give the objects of the cloud's components; None: none shall run."""
    if not found.wanted_objects:
        return None
    return {"applied": found.applied_objects, "wanted": found.wanted_objects}


def _components_text(found: Status) -> tuple[str, ...]:
    wanted, applied = found.wanted_objects, found.applied_objects
    if not wanted:
        return ()
    if applied is None:
        return (f"Cloud integration: objects {wanted[:12]} are wanted; the API does not say more.",)
    if applied != wanted:
        has = f"the cluster has {applied[:12]}" if applied else "the cluster has none yet"
        return (f"Cloud integration: objects {wanted[:12]} are wanted, {has}.",)
    return (f"Cloud integration: objects {wanted[:12]} are applied.",)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
