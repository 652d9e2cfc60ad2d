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
    from constellation.providers.terraform.messages import Change
    from constellation.providers.terraform.run import Plan

__all__ = ["ask_about", "describe_plan"]

_WAYS_IN = frozenset(
    {
        *("aws_lb_listener", "aws_lb_target_group"),
        *("aws_vpc_security_group_ingress_rule", "aws_vpc_security_group_egress_rule"),
        *("azurerm_lb_rule", "azurerm_lb_probe", "azurerm_network_security_rule"),
        *("google_compute_forwarding_rule", "google_compute_firewall"),
        *("google_compute_region_backend_service", "google_compute_region_health_check"),
        *("openstack_lb_listener_v2", "openstack_lb_pool_v2", "openstack_lb_monitor_v2"),
        "openstack_networking_secgroup_rule_v2",
    }
)
"""What is removed once `init` is done, since nobody needs port 9000 any more. Nothing else goes
without a question: a node group that was taken out of the conf takes its machines along."""
_UNKNOWN = Machine(name="", vcpus=4, memory_gib=16)


def ask_about(plan: Plan, config: Config, steps: Steps, chosen: Settings) -> None:
    """Show a plan and ask; one that only closes ways in, or changes in place, is not asked for.

    Raises:
        UserError: the answer was no, or nobody was there to give one.
    """
    if all(_is_harmless(change) for change in plan.changes):
        return
    with steps.paused():
        confirm(f"{describe_plan(plan, config)}\nGo on?", chosen=chosen)


def _is_harmless(change: Change) -> bool:
    """Say whether a change makes nothing, and takes nothing away but a way in."""
    kind = change.address.partition(".")[0]
    return change.action == "update" or (change.action == "delete" and kind in _WAYS_IN)


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
    if names := _open_to_all(config):
        where = f"provider.{config.provider.name}.access"
        lines.append(f"  Open to every network: {', '.join(names)} ({where} narrows that)")
    lines.append(f"  Cost class: {cost_class(tuple(machines))}; prices are the provider's")
    return "\n".join(lines)


def _open_to_all(config: Config) -> tuple[str, ...]:
    """Name what anybody may reach, as the configuration calls it."""
    access = getattr(getattr(config.provider, config.provider.name), "access", None)
    if access is None or access.internal:
        return ()
    lists = {
        "api": access.api,
        "init": access.init,
        "recovery": access.recovery,
        "verify": access.verify,
        "policy": access.policy,
        "nodePorts": access.node_ports,
    }
    return tuple(n for n, networks in lists.items() if any(w.endswith("/0") for w in networks))
