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
from tools.cloud_permissions import COMPONENTS, dump_access_rules, dump_permissions

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
    for file, table in (("main.tf", "local.calls"), ("components.tf", "local.component_calls")):
        text = (IAM / cloud / file).read_text()
        assert table in text
        assert not re.search(r'"(compute\.|Microsoft\.|iam\.)', text)
        assert "roles/" not in text


@pytest.mark.parametrize("cloud", TABLES)
def test_components_may_do_what_their_tables_say(cloud: str) -> None:
    rows = json.loads((IAM / cloud / "permissions.tf.json").read_text())["locals"]
    assert rows["component_calls"].keys() == COMPONENTS[cloud].keys()
    for scope, table in COMPONENTS[cloud].items():
        found = rows["component_calls"][scope]
        assert [r["permission"] for r in found] == [c.permission for c in table]
        assert [r["linked"] for r in found] == [list(c.linked) for c in table]
        assert "*" not in str(found)


@pytest.mark.parametrize("cloud", TABLES)
def test_components_may_do_nothing_unless_they_are_wanted(cloud: str) -> None:
    text = (IAM / cloud / "components.tf").read_text()
    made = re.findall(
        r'^resource "\w+" "\w+" {\n  (?:for_each|count) +=([^\n]*)', text, re.MULTILINE
    )
    assert len(made) == text.count("\nresource ")
    if cloud == "azure":
        assert set(made) == {" local.scopes"}
        made = re.findall(r"\n  scopes =([^\n]*)", text)
    assert made
    assert all(how.startswith(" var.cloud_integration ?") for how in made)
    assert re.search(r"default += false", text)


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
