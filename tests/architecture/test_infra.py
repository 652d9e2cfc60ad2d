"""The modules: every variable and output says what it is, and no secret has a place in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tools.infrastructure_reference import blocks, description, modules

if TYPE_CHECKING:
    from pathlib import Path

COMMON = {
    "uid", "node_groups", "image", "node_document", "variant", "node_cidr", "access", "initialised",
    "internal_load_balancer", "custom_endpoint", "extra_names", "tags",
}  # fmt: skip
OUTPUTS = {
    "uid", "endpoint", "in_cluster_endpoint", "api_sans", "node_cidr", "groups", "load_balancer",
    "details",
}  # fmt: skip


@pytest.mark.parametrize("module", modules(), ids=lambda p: p.name)
def test_every_variable_and_output_has_a_description(module: Path) -> None:
    for kind in ("variable", "output"):
        found = blocks(module, kind)
        assert found, f"no {kind}s read"
        undescribed = [name for name, content in found if len(description(content)) < 10]
        assert not undescribed
        # what the reader of blocks missed would be missing from the page
        text = "".join(f.read_text() for f in module.glob("*.tf"))
        assert len(re.findall(rf'^{kind} "', text, re.MULTILINE)) == len(found)


@pytest.mark.parametrize(
    "module", [m for m in modules() if m.parent.name == "infra"], ids=lambda p: p.name
)
def test_all_clouds_share_the_names_of_the_seam(module: Path) -> None:
    assert {name for name, _ in blocks(module, "variable")} >= COMMON
    assert {name for name, _ in blocks(module, "output")} == OUTPUTS


def test_no_confidential_machine_of_azure_is_asked_for_what_its_sizes_do_not_have() -> None:
    (azure,) = [m for m in modules() if m.parent.name == "infra" and m.name == "azure"]
    found = re.findall(
        r"accelerated_networking_enabled\s*=\s*(.+)", (azure / "nodes.tf").read_text()
    )
    assert found == ["!local.confidential"]


@pytest.mark.parametrize("module", modules(), ids=lambda p: p.name)
def test_no_module_makes_a_secret(module: Path) -> None:
    text = "".join(f.read_text() for f in module.glob("*.tf"))
    for word in (
        '"random_',
        '"tls_',
        "admin_password",
        "client_secret",
        "sensitive",
        "user_password",
    ):
        assert word not in text, word
