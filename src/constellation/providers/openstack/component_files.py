"""What OpenStack's own components read on a control plane: made of the owner's access. Pure.

Controller manager and CSI driver are not ours, and have a credential of their own, with rules of
their own (`component_calls`): it makes no machines. The files lie in memory, in one folder that is
mounted into pods of control planes for reading (`kube.cloud_objects`), and nowhere in the API.
Sources: cloud-provider-openstack v1.36.0, "Using OpenStack Cloud Controller Manager" and "CSI
Cinder driver" (cloud.conf); gopkg.in/gcfg.v1, "Syntax" (quoted values); ADR 122.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError
from constellation.base.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.providers.openstack.access import Access, Components

__all__ = ["FILES", "component_files"]

FILES: Final = ("authorities.pem", "cloud.conf", "cluster")
"""Authorities beside the usual ones; where and as whom to ask; the cluster's name."""
_LONGEST: Final = 4096


def component_files(access: Access) -> Mapping[str, Secret]:
    """Give the content of each file; none where the cloud's own components do not run.

    Raises:
        FormatError: a value cannot stand in cloud.conf.
    """
    if access.components is None:
        return {}
    return {
        "authorities.pem": Secret(access.certificates.encode()),
        "cloud.conf": Secret(_cloud_conf(access, access.components).encode()),
        "cluster": Secret(access.uid.encode()),
    }


def _cloud_conf(access: Access, own: Components) -> str:
    balancers = {"subnet-id": own.subnet_id}
    if own.floating_network_id:
        balancers["floating-network-id"] = own.floating_network_id
    else:
        # without this it looks for any external network, and takes the first
        balancers["internal-lb"] = "true"
    return _section(
        "Global",
        {
            "auth-url": access.auth_url,
            "application-credential-id": own.credential_id,
            # what is no text has a character that _quoted refuses
            "application-credential-secret": own.credential_secret.reveal().decode(
                errors="surrogateescape"
            ),
        }
        | ({"region": access.region} if access.region else {}),
    ) + _section("LoadBalancer", balancers)


def _section(name: str, values: Mapping[str, str]) -> str:
    lines = [f"{key} = {_quoted(key, value)}" for key, value in values.items()]
    return "\n".join((f"[{name}]", *lines, ""))


def _quoted(key: str, value: str) -> str:
    if not value.isprintable() or len(value) > _LONGEST:
        raise FormatError(f"OpenStack access: {key} cannot stand in cloud.conf")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
