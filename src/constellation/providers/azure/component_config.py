"""What Azure's own components read on a control plane: where their cluster lies. Pure.

No secret is in it: they act as the machine's identity, whose token its metadata service gives. It
is made of what that service says of the machine, as nothing of a signed release can hold one
cluster's subscription, and nothing of the Kubernetes API shall say where such a token is sent.
Sources: cloud-provider-azure v1.36.3, "Cloud provider config"; ADR 126, 127.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from constellation.providers.azure.imds import Self

__all__ = ["FILE", "cloud_conf"]

FILE: Final = "cloud.conf"
_NAME: Final = r"[A-Za-z0-9](?:[\w.-]{0,78}\w)?"
_NETWORK: Final = re.compile(rf"([\w().-]{{1,90}})/({_NAME})/({_NAME})", re.ASCII)
_GROUP: Final = re.compile(r"[\w().-]{1,90}", re.ASCII)
_LOCATION: Final = re.compile(r"[a-z0-9]{3,40}")
_SUBSCRIPTION: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def cloud_conf(own: Self) -> bytes:
    """Give the file, JSON, of what a machine's metadata say.

    Raises:
        FormatError: they do not say it, or not as Azure names such things.
    """
    network = _NETWORK.fullmatch(own.network)
    if network is None:
        raise FormatError(f"IMDS: tag {own.network[:80]!r}: expected GROUP/NETWORK/SUBNET")
    for what, pattern, value in (
        ("subscription", _SUBSCRIPTION, own.subscription),
        ("resource group", _GROUP, own.resource_group),
        ("location", _LOCATION, own.location),
    ):
        if not pattern.fullmatch(value):
            raise FormatError(f"IMDS: {value[:80]!r} is no {what}")
    says = {
        "cloud": "AzurePublicCloud",
        # of this file alone: nothing is looked for in a Secret
        "cloudConfigType": "file",
        "useManagedIdentityExtension": True,
        "subscriptionId": own.subscription,
        "resourceGroup": own.resource_group,
        "location": own.location,
        "vnetResourceGroup": network[1],
        "vnetName": network[2],
        "subnetName": network[3],
        # infra/azure names it so
        "securityGroupName": own.uid,
        "vmType": "vmss",
        "disableAvailabilitySetNodes": True,
        # it remembers a scale set's machines; its own ten minutes keep a Node that long
        "vmssVirtualMachinesCacheTTLInSeconds": 60,
        "loadBalancerSku": "standard",
        # by address: it changes no scale set, which is the operator's and Terraform's
        "loadBalancerBackendPoolConfigurationType": "nodeIP",
        "excludeMasterFromStandardLB": True,
        # the way out is the NAT gateway's
        "disableOutboundSNAT": True,
        "tagsMap": {"constellation-uid": own.uid},
    }
    return (json.dumps(says, indent=1) + "\n").encode()
