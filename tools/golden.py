"""Write generated files anew: reference pages and the JSON schema. Then read the diff."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from constellation.attestation.platforms import defaults
from constellation.attestation.snp.appraise import dump_default_policy
from constellation.cli.reference import dump_cli_reference
from constellation.config.writer import dump_reference, dump_schema
from tools.api_reference import dump_api_reference
from tools.cloud_permissions import dump_access_rules, dump_component_rules, dump_permissions
from tools.cloud_variables import dump_variables
from tools.infrastructure_reference import dump_infrastructure_reference

ROOT = Path(__file__).resolve().parent.parent

FILES = {
    "docs/reference/attestation-api.md": dump_api_reference,
    "docs/reference/cli.md": dump_cli_reference,
    "docs/reference/configuration.md": dump_reference,
    "docs/reference/configuration.schema.json": dump_schema,
    "infra/iam/azure/permissions.tf.json": partial(dump_permissions, "azure"),
    "infra/iam/gcp/permissions.tf.json": partial(dump_permissions, "gcp"),
    "infra/iam/openstack/access-rules.json": dump_access_rules,
    "infra/iam/openstack/component-rules.json": dump_component_rules,
    "docs/reference/infrastructure.md": dump_infrastructure_reference,
    **{
        f"tests/golden/variables-{cloud}.json": partial(dump_variables, cloud)
        for cloud in ("azure", "gcp", "openstack")
    },
    "tests/golden/snp-default-policy.txt": dump_default_policy,
    **{
        f"tests/golden/policy-{variant}.txt": partial(defaults.dump_default_policy, variant)
        for variant in defaults.VARIANTS
    },
}


def main() -> None:
    """Write every file that changed, and name it."""
    for name, dump in FILES.items():
        path, text = ROOT / name, dump()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {name}")


if __name__ == "__main__":
    main()
