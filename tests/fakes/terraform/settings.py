"""Variables of a small cluster for each cloud's module, as tests change them."""

from __future__ import annotations

import base64
from typing import Any

__all__ = ["CLOUDS", "HOME", "variables"]

CLOUDS = ("azure", "gcp", "openstack")
ALL, HOME = ["0.0.0.0/0"], ["192.0.2.0/24"]
_OWN: dict[str, dict[str, Any]] = {
    "azure": {
        "region": "germanywestcentral",
        "image": "/subscriptions/x/images/node",
        "variant": "azure-sev-snp",
        "subscription": "0b1c2d3e-0000-4000-8000-000000000001",
        "resource_group": "constell-rg",
        "identity_control_planes": "/subscriptions/x/cp",
        "identity_workers": "/subscriptions/x/workers",
    },
    "gcp": {
        "region": "europe-west3",
        "image": "projects/p/global/images/node",
        "variant": "gcp-sev-snp",
        "project": "project",
        "service_account_control_planes": "cp@project.iam.gserviceaccount.com",
        "service_account_workers": "worker@project.iam.gserviceaccount.com",
    },
    "openstack": {
        "region": "RegionOne",
        "image": "11111111-0000-4000-8000-000000000001",
        "variant": "qemu-vtpm",
        "cloud": "mine",
        "external_network": "external",
    },
}
_MACHINES = {
    "azure": ("Standard_DC4as_v5", "Premium_LRS", ["1", "2"]),
    "gcp": ("n2d-standard-4", "pd-ssd", ["europe-west3-b"]),
    "openstack": ("m1a.4cd", "storage_premium_perf6", ["eu01-1"]),
}


def variables(cloud: str, **changed: Any) -> dict[str, Any]:
    """Three control planes and two workers; all but the API and evidence for one network."""
    kind, disk, zones = _MACHINES[cloud]

    def group(role: str, size: int) -> dict[str, Any]:
        return {
            "role": role,
            "size": size,
            "zones": zones,
            "instance_type": kind,
            "state_disk_gb": 30,
            "state_disk_type": disk,
        }

    access = {"api": ALL, "verify": ALL, "node_ports": []}
    access |= dict.fromkeys(("init", "recovery", "policy"), HOME)
    usual = {
        "uid": "constell-ab12cd",
        "node_groups": {
            "control_plane_default": group("control-plane", 3),
            "worker_default": group("worker", 2),
        },
        "node_document": base64.b64encode(b'{"document":1}').decode(),
        "node_cidr": "10.42.0.0/16",
        "access": access,
    }
    return usual | _OWN[cloud] | changed
