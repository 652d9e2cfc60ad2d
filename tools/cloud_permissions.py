"""Write the permissions of each cloud's identities from the tables of calls, for infra/iam."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from constellation.providers.azure import calls as azure
from constellation.providers.azure import component_calls as azure_components
from constellation.providers.azure.needs import NEEDS as AZURE_NEEDS
from constellation.providers.gcp import calls as gcp
from constellation.providers.gcp import component_calls as gcp_components
from constellation.providers.gcp.needs import NEEDS as GCP_NEEDS
from constellation.providers.openstack import calls as openstack
from constellation.providers.openstack import component_calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.providers.calls import Call

__all__ = [
    "COMPONENTS",
    "dump_access_rules",
    "dump_component_rules",
    "dump_permissions",
    "permission_lines",
]

_TABLES = {
    "azure": (azure.NODE_GROUP_CALLS, azure.METADATA_CALLS),
    "gcp": (gcp.NODE_GROUP_CALLS, gcp.METADATA_CALLS),
}
COMPONENTS = {
    "azure": {
        "resource_group": tuple(
            call
            for call in (*azure_components.CONTROLLER, *azure_components.DRIVER)
            if call not in azure_components.OF_SUBSCRIPTION
        ),
        "subscription": azure_components.OF_SUBSCRIPTION,
    },
    "gcp": {"project": gcp_components.DRIVER, "worker_account": gcp_components.OF_WORKERS},
}
"""Calls of a cloud's own components, by what the role is of."""
_NOTE = "Written from the tables of calls in src/constellation/providers by `make golden`."


def dump_permissions(cloud: str) -> str:
    """Write infra/iam/CLOUD/permissions.tf.json: each permission with the call that needs it."""
    control_planes, workers = _TABLES[cloud]
    calls = {"control_planes": _rows(control_planes), "workers": _rows(workers)}
    components = {scope: _rows(table) for scope, table in COMPONENTS[cloud].items()}
    both = {"calls": calls, "component_calls": components}
    return json.dumps({"//": _NOTE, "locals": both}, indent=2) + "\n"


def dump_access_rules() -> str:
    """Write infra/iam/openstack/access-rules.json, as `openstack` takes them."""
    return json.dumps(openstack.access_rules(), indent=2) + "\n"


def dump_component_rules() -> str:
    """Write infra/iam/openstack/component-rules.json, as `openstack` takes them."""
    return json.dumps(component_calls.component_rules(), indent=2) + "\n"


def permission_lines() -> list[str]:
    """Write the permissions for docs/reference/infrastructure.md."""
    lines: list[str] = []
    for name, table, workstation, needs in (
        ("Azure", _TABLES["azure"], azure.WORKSTATION_CALLS, AZURE_NEEDS),
        ("Google Cloud", _TABLES["gcp"], gcp.WORKSTATION_CALLS, GCP_NEEDS),
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
        lines += _component_lines(name)
        lines += [_NEEDS, "", "| resource | permissions |", "|---|---|"]
        lines += [
            f"| `{kind}` | {', '.join(f'`{permission}`' for permission in needs[kind])} |"
            for kind in sorted(needs)
        ]
    lines += ["", "## Access rules on OpenStack", "", _RULES, ""]
    lines += ["| service | call | why |", "|---|---|---|"]
    lines += [_line(call) for call in openstack.NODE_GROUP_CALLS]
    lines += ["", "The workstation, beside these and what Terraform needs:", ""]
    lines += ["| service | call | why |", "|---|---|---|"]
    own = [c for c in openstack.WORKSTATION_CALLS if c not in openstack.NODE_GROUP_CALLS]
    lines += [*map(_line, own), "", _COMPONENTS, ""]
    lines += ["| service | call | who | why |", "|---|---|---|---|"]
    return [
        *lines,
        *(
            f"| `{c.service}` | `{c.method} {c.path}` | {c.whose} | {c.why} |"
            for c in component_calls.CALLS
        ),
    ]


def _component_lines(name: str) -> list[str]:
    lines = [
        "Control planes, beside these, with `cloudIntegration: true` (the cloud's own components):",
        "",
        "| permission | call | why |",
        "|---|---|---|",
    ]
    seen: set[str] = set()
    for table in COMPONENTS[_SHORT[name]].values():
        for call in table:
            line = _line(call)
            lines += [line] if line not in seen else []
            seen.add(line)
    return [*lines, ""]


_SHORT = {"Azure": "azure", "Google Cloud": "gcp"}
_NEEDS = "What Terraform needs, by resource (`create` asks whether you have it):"
_RULES = (
    "Of the application credential that control planes have (`infra/iam/openstack/"
    "access-rules.json`); workers have none."
)

_COMPONENTS = (
    "OpenStack's own components, with `cloudIntegration: true`, by a credential of theirs "
    "(`infra/iam/openstack/component-rules.json`):"
)


def _line(call: Call) -> str:
    linked = "".join(f"<br>`{permission}`" for permission in call.linked)
    permission = f"`{call.permission}`" if call.permission else "none"
    return f"| {permission}{linked} | `{call.method} {call.path}` | {call.why} |"


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
