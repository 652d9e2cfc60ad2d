"""Write docs/reference/infrastructure.md: ports, variables, outputs, resources, permissions.

Everything is read from what is used: the modules' own files, the tables of calls, the load
balancer's ports. HCL is read by its blocks at the beginning of a line, which `terraform fmt` keeps.
"""

from __future__ import annotations

import re
from pathlib import Path

from constellation.providers.aws import calls
from constellation.providers.aws.controller_calls import CONTROLLER
from constellation.providers.aws.storage_calls import STORAGE
from constellation.providers.terraform.infrastructure import PORTS
from tools.cloud_permissions import permission_lines

__all__ = ["blocks", "dump_infrastructure_reference", "modules"]

ROOT = Path(__file__).resolve().parent.parent / "infra"
_BLOCK = re.compile(
    r'^(variable|output|resource) "([^"]+)"(?: "([^"]+)")? \{\n(.*?)^\}', re.MULTILINE | re.DOTALL
)
_DESCRIPTION = re.compile(r'^  description\s*=\s*"((?:[^"\\]|\\.)*)"$', re.MULTILINE)
_DEFAULT = re.compile(r"^  default\s*=\s*(.*)$", re.MULTILINE)
_WORDS = {
    "api": "Kubernetes API server (TLS, client certificates)",
    "init": "a fresh node, for `init` (attested TLS); closed once that is done",
    "recovery": "a node that waits for its disk key, for `recover` (attested TLS)",
    "verify": "evidence for anybody's nonce, for `verify` (gRPC)",
    "policy": "a new cluster policy, for `upgrade` (attested TLS)",
}


def modules() -> tuple[Path, ...]:
    """Give the folders of all modules."""
    return tuple(sorted({path.parent for path in ROOT.rglob("*.tf")}))


def blocks(module: Path, kind: str) -> list[tuple[str, str]]:
    """Give names and contents of a module's blocks of a kind, in the files' order."""
    return [
        (match[2], match[4])
        for file in sorted(module.glob("*.tf"))
        for match in _BLOCK.finditer(file.read_text())
        if match[1] == kind
    ]


def description(content: str) -> str:
    """Give a block's description, empty where it has none."""
    found = _DESCRIPTION.search(content)
    return found[1].replace('\\"', '"').replace("|", "\\|") if found else ""


def dump_infrastructure_reference() -> str:
    """Write the page."""
    lines = [
        "# Infrastructure",
        "",
        "Generated from `infra/` and `src/constellation/providers`; `make docs` writes it anew.",
        "",
        "## Ports",
        "",
        "What the load balancer of a cloud leads to control planes. Each has a list of networks in",
        "`provider.NAME.access`; an empty list closes it. NodePorts (30100-32767) are closed too,",
        "until `access.nodePorts` names networks. Nothing else of a node is reached from outside.",
        "",
        "| name | port | what answers |",
        "|---|---|---|",
        *(f"| `{name}` | {port} | {_WORDS[name]} |" for name, port in PORTS.items()),
        "",
    ]
    for module in modules():
        lines += _module(module)
    return "\n".join([*lines, *_aws_permissions(), *permission_lines()]) + "\n"


def _module(module: Path) -> list[str]:
    kinds: dict[str, int] = {}
    for kind, _ in blocks(module, "resource"):
        kinds[kind] = kinds.get(kind, 0) + 1
    return [
        f"## Module `infra/{module.relative_to(ROOT)}`",
        "",
        f"Makes: {', '.join(f'`{kind}`' for kind in sorted(kinds))}.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
        *(
            f"| `{name}` | {_default(content)} | {description(content)} |"
            for name, content in blocks(module, "variable")
        ),
        "",
        "| output | meaning |",
        "|---|---|",
        *(f"| `{name}` | {description(content)} |" for name, content in blocks(module, "output")),
        "",
    ]


def _default(content: str) -> str:
    found = _DEFAULT.search(content)
    return f"`{found[1]}`" if found else ""


def _aws_permissions() -> list[str]:
    lines = ["## Permissions on AWS", ""]
    for title, caller in (
        ("Control planes", calls.Caller.CONTROL_PLANE),
        ("Workers", calls.Caller.WORKER),
        ("The workstation, beside what Terraform needs", calls.Caller.WORKSTATION),
    ):
        lines += [f"{title}:", "", "| permission | held to | why |", "|---|---|---|"]
        lines += [
            f"| {f'`{call.permission}`' if call.permission else 'none (GetCallerIdentity)'} | "
            f"{'clusters of this name, region' if call.scoped else 'region'} | {call.why} |"
            for call in calls.ALL
            if caller in call.by
        ]
        lines.append("")
    for component, table in (("cloud controller manager", CONTROLLER), ("CSI driver", STORAGE)):
        lines += [
            f"Control planes, beside these, with `cloudIntegration: true` (AWS' own {component};",
            "calls that its source has and the kept run did not make are marked):",
            "",
            "| permission | held to | why |",
            "|---|---|---|",
            *(
                f"| `{c.permission}` | {c.held} | {c.why}{'' if c.seen else ' (not seen)'} |"
                for c in table
            ),
            "",
        ]
    return lines
