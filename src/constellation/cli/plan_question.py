"""What a person is asked before a cloud's resources change: how many, of what kind, what cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from constellation.cli.run import confirm
from constellation.config.machines import wanted_groups
from constellation.config.providers.catalogues import catalogue
from constellation.providers.catalogue import Machine, cost_class

if TYPE_CHECKING:
    from constellation.cli.output import Steps
    from constellation.cli.run import Settings
    from constellation.config.schema import Config
    from constellation.providers.terraform.run import Plan

__all__ = ["ask_about", "describe_plan"]

_UNKNOWN = Machine(name="", vcpus=4, memory_gib=16)


def ask_about(plan: Plan, config: Config, steps: Steps, chosen: Settings) -> None:
    """Show a plan and ask; a plan that makes and replaces nothing only closes: it is not asked for.

    Raises:
        UserError: the answer was no, or nobody was there to give one.
    """
    if not {change.action for change in plan.changes} & {"create", "replace"}:
        return
    with steps.paused():
        confirm(f"{describe_plan(plan, config)}\nGo on?", chosen=chosen)


def describe_plan(plan: Plan, config: Config) -> str:
    """Say what a plan would do, and what the cluster's machines are."""
    kinds = Counter(change.address.partition(".")[0] for change in plan.changes)
    offer = catalogue(config.provider.name).of(config.attestation.variant)
    machines = []
    lines = [f"On {config.provider.name}, by {config.attestation.variant}: {plan.summary()}"]
    lines.append("  " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    for group in wanted_groups(config):
        known = offer.machine(group.instance_type) if offer is not None else None
        machines.append((known or _UNKNOWN, group.size))
        lines.append(
            f"  {group.name}: {group.size} machines {group.instance_type}, state disks of "
            f"{group.state_disk_gb} GiB {group.state_disk_type}, in {', '.join(group.zones)}"
        )
    lines.append(f"  Cost class: {cost_class(tuple(machines))}; prices are the provider's")
    return "\n".join(lines)
