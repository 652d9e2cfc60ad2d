"""Identities may do what their programs call, and nothing else: infra/iam against the tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError
from constellation.providers.azure import calls as azure
from constellation.providers.gcp import calls as gcp
from constellation.providers.openstack import calls as openstack
from tools.cloud_permissions import dump_access_rules, dump_permissions

if TYPE_CHECKING:
    from constellation.providers.calls import Call

IAM = Path(__file__).resolve().parents[3] / "infra/iam"
TABLES = {
    "azure": (azure.NODE_GROUP_CALLS, azure.METADATA_CALLS),
    "gcp": (gcp.NODE_GROUP_CALLS, gcp.METADATA_CALLS),
}


@pytest.mark.parametrize("cloud", TABLES)
def test_the_roles_are_the_tables(cloud: str) -> None:
    text = (IAM / cloud / "permissions.tf.json").read_text()
    assert text == dump_permissions(cloud)
    rows = json.loads(text)["locals"]["calls"]
    for name, table in zip(("control_planes", "workers"), TABLES[cloud], strict=True):
        allowed = {r["permission"] for r in rows[name]} | {
            p for r in rows[name] for p in r["linked"]
        }
        assert allowed == {c.permission for c in table} | {p for c in table for p in c.linked}
        assert "*" not in str(allowed)


@pytest.mark.parametrize("cloud", TABLES)
def test_the_module_takes_permissions_from_there_only(cloud: str) -> None:
    text = (IAM / cloud / "main.tf").read_text()
    assert "local.calls" in text
    assert not re.search(r'"(compute\.|Microsoft\.)', text)
    assert "roles/" not in text


def test_access_rules_are_the_table() -> None:
    text = (IAM / "openstack/access-rules.json").read_text()
    assert text == dump_access_rules()
    assert len(json.loads(text)) == len(openstack.NODE_GROUP_CALLS)


@pytest.mark.parametrize("cloud", TABLES)
def test_workers_change_nothing(cloud: str) -> None:
    _, workers = TABLES[cloud]
    assert {c.method for c in workers} == {"GET"}


@pytest.mark.parametrize("part", ["", "..", "a/b", "a?b", "a#b", "-a", "a b", "a\n", "ä", "a%2fb"])
def test_no_part_leaves_its_place_in_a_path(part: str) -> None:
    call: Call = azure.GET_VM
    with pytest.raises(FormatError, match="no part of a path"):
        call.url_path(**dict.fromkeys(call.parts, part))
