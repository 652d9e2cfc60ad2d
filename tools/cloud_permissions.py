"""Write the permissions of each cloud's identities from the tables of calls, for infra/iam."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from constellation.providers.azure import calls as azure
from constellation.providers.gcp import calls as gcp
from constellation.providers.openstack import calls as openstack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.providers.calls import Call

__all__ = ["dump_access_rules", "dump_permissions"]

_TABLES = {
    "azure": (azure.NODE_GROUP_CALLS, azure.METADATA_CALLS),
    "gcp": (gcp.NODE_GROUP_CALLS, gcp.METADATA_CALLS),
}
_NOTE = "Written from the tables of calls in src/constellation/providers by `make golden`."


def dump_permissions(cloud: str) -> str:
    """Write infra/iam/CLOUD/permissions.tf.json: each permission with the call that needs it."""
    control_planes, workers = _TABLES[cloud]
    calls = {"control_planes": _rows(control_planes), "workers": _rows(workers)}
    return json.dumps({"//": _NOTE, "locals": {"calls": calls}}, indent=2) + "\n"


def dump_access_rules() -> str:
    """Write infra/iam/openstack/access-rules.json, as `openstack` takes them."""
    return json.dumps(openstack.access_rules(), indent=2) + "\n"


def _rows(calls: Iterable[Call]) -> list[dict[str, object]]:
    return [
        {
            "permission": call.permission,
            "call": f"{call.method} {call.path}",
            "why": call.why,
            "linked": list(call.linked),
        }
        for call in calls
    ]
