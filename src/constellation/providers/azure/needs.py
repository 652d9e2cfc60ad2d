"""Which actions make and remove the resources of `infra/azure`, and what a role's list allows.

Terraform acts with the user's own credentials; `AzureCloud.preflight` asks for these before it
does. Source: Azure, "Permissions for Networking | Compute"; "Understand Azure role definitions"
(actions, notActions, wildcards; an action is allowed if one assignment allows it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NEEDS", "Allowed", "asked"]

_NETWORK: Final = (
    "azurerm_virtual_network",
    "azurerm_subnet",
    "azurerm_nat_gateway",
    "azurerm_nat_gateway_public_ip_association",
    "azurerm_subnet_nat_gateway_association",
)
"""Made unless the configuration names a subnet that exists."""

_NET: Final = "Microsoft.Network"


def _whole(kind: str, *more: str) -> tuple[str, ...]:
    return (*(f"{kind}/{verb}" for verb in ("write", "read", "delete")), *more)


_SUBNETS: Final = f"{_NET}/virtualNetworks/subnets"
_GROUPS: Final = f"{_NET}/networkSecurityGroups"
_BALANCERS: Final = f"{_NET}/loadBalancers"
_SETS: Final = "Microsoft.Compute/virtualMachineScaleSets"

NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "azurerm_virtual_network": _whole(f"{_NET}/virtualNetworks"),
    "azurerm_subnet": _whole(_SUBNETS),
    "azurerm_public_ip": _whole(
        f"{_NET}/publicIPAddresses", f"{_NET}/publicIPAddresses/join/action"
    ),
    "azurerm_nat_gateway": _whole(f"{_NET}/natGateways", f"{_NET}/natGateways/join/action"),
    "azurerm_nat_gateway_public_ip_association": (f"{_NET}/natGateways/write",),
    "azurerm_subnet_nat_gateway_association": (f"{_SUBNETS}/write",),
    "azurerm_application_security_group": _whole(
        f"{_NET}/applicationSecurityGroups",
        f"{_NET}/applicationSecurityGroups/joinIpConfiguration/action",
        f"{_NET}/applicationSecurityGroups/joinNetworkSecurityRule/action",
    ),
    "azurerm_network_security_group": _whole(_GROUPS, f"{_GROUPS}/join/action"),
    "azurerm_network_security_rule": _whole(f"{_GROUPS}/securityRules"),
    "azurerm_lb": _whole(_BALANCERS, f"{_SUBNETS}/join/action"),
    "azurerm_lb_backend_address_pool": _whole(
        f"{_BALANCERS}/backendAddressPools", f"{_BALANCERS}/backendAddressPools/join/action"
    ),
    "azurerm_lb_probe": (f"{_BALANCERS}/write",),
    "azurerm_lb_rule": (f"{_BALANCERS}/write",),
    "azurerm_linux_virtual_machine_scale_set": _whole(
        _SETS,
        f"{_SUBNETS}/join/action",
        "Microsoft.Compute/galleries/images/versions/read",
        "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
    ),
}

_ELSEWHERE: Final = frozenset(
    {
        "Microsoft.Compute/galleries/images/versions/read",
        "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
    }
)
"""Are the image's and the identity's, which may lie in another resource group."""
_OF_NETWORK: Final = frozenset({f"{_SUBNETS}/join/action"})


def asked(*, own_network: bool) -> dict[str, tuple[str, ...]]:
    """Give what the resource group is asked about; `own_network`: the module makes the network."""
    other = _ELSEWHERE if own_network else _ELSEWHERE | _OF_NETWORK
    return {
        kind: tuple(action for action in actions if action not in other)
        for kind, actions in NEEDS.items()
        if own_network or kind not in _NETWORK
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What one role allows its holder: patterns of actions, and patterns of those that are not."""

    actions: tuple[str, ...]
    not_actions: tuple[str, ...]

    def allows(self, action: str) -> bool:
        """Say whether an action is allowed: `*` stands for any characters, case does not matter."""
        return _any(self.actions, action) and not _any(self.not_actions, action)


def _any(patterns: tuple[str, ...], action: str) -> bool:
    return any(_matches(pattern.lower(), action.lower()) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    """Match parts between stars one after another: no expression that could run away."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.endswith(rest[-1]) and len(text) - len(rest[-1]) >= at
