"""Whom does a node ask about itself and its peers, and where does the operator make machines?

The provider's name comes from the measured command line (`constellation.provider=`). Node programs
only: everything that is named here is part of every node image, so no SDK is. Each module is
imported when it is asked for: a node loads its own cloud's code and no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from constellation.base.errors import FormatError
from constellation.providers.placement import Awaits, Configures, Placed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from constellation.base.secret import Secret
    from constellation.providers.protocols import Metadata, NodeGroups

__all__ = [
    "awaits",
    "balancer_notices_s",
    "check_access",
    "component_files",
    "configures",
    "metadata",
    "node_groups",
    "placed",
]

T = TypeVar("T")

_LOCAL_NOTICES_S = 4
_CLOUD_NOTICES_S = 30
"""Two checks of 10 s that failed, and what it takes until that is so everywhere (`infra/`)."""


def metadata(provider: str) -> Metadata:
    """Give the provider as a node sees it.

    Raises:
        FormatError: this build knows no such provider.
    """
    return _known(_METADATA, provider)()


def node_groups(provider: str) -> NodeGroups:
    """Give the provider as the operator of a control plane sees it.

    Raises:
        FormatError: this build knows no such provider.
    """
    return _known(_NODE_GROUPS, provider)()


def placed(provider: str) -> Placed | None:
    """Give who says where a machine of the provider is; None where machines are in no place.

    Raises:
        FormatError: this build knows no such provider.
    """
    found = metadata(provider)
    return found if isinstance(found, Placed) else None


def configures(provider: str) -> Configures | None:
    """Give who says what the provider's own components read; None where they read nothing.

    Raises:
        FormatError: this build knows no such provider.
    """
    found = metadata(provider)
    return found if isinstance(found, Configures) else None


def awaits(provider: str) -> Awaits | None:
    """Give whom a machine tells that it was set up; None where nobody waits for that.

    Raises:
        FormatError: this build knows no such provider.
    """
    found = metadata(provider)
    return found if isinstance(found, Awaits) else None


def check_access(provider: str, access: Secret) -> None:
    """Check what the owner gives control planes for the provider's API, before it is kept.

    Raises:
        FormatError: it is malformed, or the provider gives its machines identities and takes none.
    """
    if provider != "openstack":
        raise FormatError(f"{provider[:40]}: control planes have identities, and take no access")
    from constellation.providers.openstack.access import load_access  # noqa: PLC0415 - see above

    load_access(access)


def component_files(provider: str, access: Secret) -> Mapping[str, Secret]:
    """Give what a cloud's own components read on a control plane, by name; they may read nothing.

    Raises:
        FormatError: as `check_access`, or something in it cannot stand in their files.
    """
    check_access(provider, access)
    from constellation.providers.openstack import component_files as openstack  # noqa: PLC0415
    from constellation.providers.openstack.access import load_access  # noqa: PLC0415 - see above

    return openstack.component_files(load_access(access))


def balancer_notices_s(provider: str) -> int:
    """Say within how many seconds its load balancer sends nothing to who says no to its checks.

    The local one believes three answers (API) or two (NodePorts), each within a second, and asks
    every 0.5 or 1 s until the first of them (`providers.local.daemon.balancer`).
    """
    return _LOCAL_NOTICES_S if provider == "local" else _CLOUD_NOTICES_S


def _local_metadata() -> Metadata:
    from constellation.providers.local.metadata import LocalMetadata  # noqa: PLC0415 - see above

    return LocalMetadata()


def _local_groups() -> NodeGroups:
    from constellation.providers.local.node_groups import LocalNodeGroups  # noqa: PLC0415 - above

    return LocalNodeGroups()


def _aws_metadata() -> Metadata:
    from constellation.providers.aws.metadata import AwsMetadata  # noqa: PLC0415 - see above

    return AwsMetadata()


def _aws_groups() -> NodeGroups:
    from constellation.providers.aws.node_groups import AwsNodeGroups  # noqa: PLC0415 - see above

    return AwsNodeGroups()


def _azure_metadata() -> Metadata:
    from constellation.providers.azure.metadata import AzureMetadata  # noqa: PLC0415 - see above

    return AzureMetadata()


def _azure_groups() -> NodeGroups:
    from constellation.providers.azure.node_groups import AzureNodeGroups  # noqa: PLC0415 - above

    return AzureNodeGroups()


def _gcp_metadata() -> Metadata:
    from constellation.providers.gcp.metadata import GcpMetadata  # noqa: PLC0415 - see above

    return GcpMetadata()


def _gcp_groups() -> NodeGroups:
    from constellation.providers.gcp.node_groups import GcpNodeGroups  # noqa: PLC0415 - see above

    return GcpNodeGroups()


def _openstack_metadata() -> Metadata:
    from constellation.providers.openstack.metadata import (  # noqa: PLC0415 - see above
        OpenStackMetadata,
    )

    return OpenStackMetadata()


def _openstack_groups() -> NodeGroups:
    from constellation.providers.openstack.node_groups import (  # noqa: PLC0415 - see above
        KeptNodeGroups,
    )

    return KeptNodeGroups()


def _baremetal_metadata() -> Metadata:
    from constellation.providers.baremetal.metadata import (  # noqa: PLC0415 - see above
        BaremetalMetadata,
    )

    return BaremetalMetadata()


def _baremetal_groups() -> NodeGroups:
    from constellation.providers.baremetal.node_groups import (  # noqa: PLC0415 - see above
        BaremetalNodeGroups,
    )

    return BaremetalNodeGroups()


_METADATA: dict[str, Callable[[], Metadata]] = {
    "local": _local_metadata,
    "aws": _aws_metadata,
    "azure": _azure_metadata,
    "gcp": _gcp_metadata,
    "openstack": _openstack_metadata,
    "baremetal": _baremetal_metadata,
}
_NODE_GROUPS: dict[str, Callable[[], NodeGroups]] = {
    "local": _local_groups,
    "aws": _aws_groups,
    "azure": _azure_groups,
    "gcp": _gcp_groups,
    "openstack": _openstack_groups,
    "baremetal": _baremetal_groups,
}


def _known(table: dict[str, T], provider: str) -> T:
    if provider not in table:
        raise FormatError(
            f"command line: constellation.provider is {provider[:40]!r}, expected one of "
            f"{', '.join(sorted(table))}"
        )
    return table[provider]
