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

__all__ = ["dump_access_rules", "dump_permissions", "permission_lines"]

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


def permission_lines() -> list[str]:
    """Write the permissions for docs/reference/infrastructure.md."""
    lines: list[str] = []
    for name, table, workstation in (
        ("Azure", _TABLES["azure"], azure.WORKSTATION_CALLS),
        ("Google Cloud", _TABLES["gcp"], gcp.WORKSTATION_CALLS),
    ):
        lines += ["", f"## Permissions on {name}", ""]
        groups = (
            ("Control planes:", table[0]),
            ("Workers:", table[1]),
            ("The workstation, beside what Terraform needs:", workstation),
        )
        for title, calls in groups:
            lines += [title, "", "| permission | call | why |", "|---|---|---|"]
            lines += [_line(call) for call in calls]
            lines += [""]
        lines.pop()
    lines += ["", "## Access rules on OpenStack", "", _RULES, ""]
    lines += ["| service | call | why |", "|---|---|---|"]
    lines += [_line(call) for call in openstack.NODE_GROUP_CALLS]
    return lines


_RULES = (
    "Of the application credential that control planes have (`infra/iam/openstack/"
    "access-rules.json`); workers have none."
)


def _line(call: Call) -> str:
    linked = "".join(f"<br>`{permission}`" for permission in call.linked)
    return f"| `{call.permission}`{linked} | `{call.method} {call.path}` | {call.why} |"


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
