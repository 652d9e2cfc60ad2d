"""`constellation log`: who joined when, with what evidence, and who was refused why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from constellation.kube.join_log import Record

__all__ = ["log"]


@click.command()
@click.option("--accept-rollback", is_flag=True, help="Accept a log older than the one last seen.")
@standard_options
@click.pass_context
def log(context: click.Context, /, accept_rollback: bool, **chosen: Any) -> None:
    """Show the verified join log."""
    from constellation.cli.world import real_context
    from constellation.cluster.log import read_log
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    workspace = chosen_settings.workspace()
    conf = read_config(workspace.config)
    with Steps() as steps, workspace.locked():
        engine = real_context(workspace, conf, report=steps.report)
        found = run(read_log(engine, accept_rollback=accept_rollback))
    result(
        {"head": found.head.hex(), "records": [_plain(r) for r in found.records]},
        output=chosen_settings.output,
        text=lambda: "\n".join(_line(r) for r in found.records),
    )


def _plain(record: Record) -> dict[str, Any]:
    entry = record.entry
    return {
        "address": entry.member.address if entry.member is not None else entry.address,
        "attester_id": entry.evidence.attester_id.hex() if entry.evidence is not None else None,
        "claims": dict(entry.evidence.claims) if entry.evidence is not None else {},
        "instance_id": entry.instance_id,
        "kind": str(entry.kind),
        "name": entry.member.name if entry.member is not None else entry.name,
        "reasons": list(entry.reasons),
        "role": entry.role,
        "sequence": record.sequence,
        "time": entry.time,
        "node_time": entry.node_time,
    }


def _line(record: Record) -> str:
    from datetime import UTC, datetime

    plain = _plain(record)
    when = datetime.fromtimestamp(plain["time"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    who = plain["name"] or plain["instance_id"] or plain["address"]
    line = f"{record.sequence:6} {when} {plain['kind']:12} {who}"
    return "\n".join((line, *(f"       reason: {reason}" for reason in plain["reasons"])))
