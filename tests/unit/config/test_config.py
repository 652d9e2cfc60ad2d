"""The configuration file: every fault named with its line, the example is what the table says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import UserError
from constellation.config.reader import parse_config
from constellation.config.schema import KUBERNETES_VERSIONS, Config
from constellation.config.writer import dump_example, dump_reference, dump_schema


def _fault(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        parse_config(text.encode(), name="conf")
    return caught.value


def test_the_example_is_the_default_configuration() -> None:
    assert parse_config(dump_example(Config()).encode(), name="conf") == Config()


def test_every_field_of_the_example_has_a_comment() -> None:
    lines = dump_example(Config()).splitlines()
    for number, line in enumerate(lines):
        if line and not line.lstrip().startswith("#") and "_default:" not in line:
            assert lines[number - 1].lstrip().startswith("#"), line


def test_an_empty_mapping_but_for_the_version_is_all_defaults() -> None:
    assert parse_config(b"version: 1\n", name="conf") == Config()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("version: 1\nnam: x\n", "conf:2: nam: expected no such key", "did you mean name?"),
        (
            "version: 1\nprovider:\n  local:\n    ofline: true\n",
            "conf:4: provider.local.ofline: expected no such key",
            "did you mean offline?",
        ),
        (
            "version: 1\nnodeGroups:\n  a:\n    role: control-plane\n    size: 1\n    siz: 2\n",
            "conf:6: nodeGroups.a.siz: expected no such key",
            "did you mean size?",
        ),
        (
            "version: 1\nname: [1]\n",
            "conf:2: name: expected a valid string, found a list",
            "",
        ),
        (
            "version: 1\nprovider: {local: {offline: 1}}\n",
            "conf:2: provider.local.offline: expected a valid boolean, found 1",
            "",
        ),
        (
            "version: 1\nprovider: {local: {stateDiskGB: 1.5}}\n",
            "conf:2: provider.local.stateDiskGB: expected a valid integer, found 1.5",
            "",
        ),
        (
            "version: 1\nnodeGroups: {a: {role: worker, size: 1}}\n",
            "conf:2: nodeGroups: expected 1, 3, 5 or 7 control planes in all groups, found 0",
            "",
        ),
        (
            "version: 1\nnodeGroups: {a: {role: boss, size: 1}}\n",
            "conf:2: nodeGroups.a.role: expected 'control-plane' or 'worker', found 'boss'",
            "",
        ),
        (
            "version: 1\nserviceCIDR: 10.42.0.0/16\n",
            "conf:2: serviceCIDR: expected a free network, found 10.42.0.0/16: overlaps the nodes'",
            "",
        ),
        ("version: 2\n", "conf:1: version: expected 1, found 2", "another program version"),
        ("name: x\n", "conf:1: version: expected 1, found nothing", ""),
        ("version: 1\nname: &a x\n", "conf:2: expected no anchors (&name)", ""),
        ("version: 1\nname: 'x\n", "conf:3: not YAML", "check indentation"),
        ("version: 1\nversion: 1\n", "conf:2: not YAML: found duplicate key", ""),
        ("- 1\n", "conf:1: expected a mapping", ""),
    ],
)
def test_a_fault_has_file_line_expected_found_and_a_hint(
    text: str, message: str, hint: str
) -> None:
    error = _fault(text)
    assert str(error).startswith(message)
    assert hint in error.hint


def test_all_faults_are_told_at_once() -> None:
    error = _fault("version: 1\nname: A\nkubernetesVersion: v9\nfoo: 1\n")
    assert len(str(error).splitlines()) == 3
    assert [line.split(":")[1] for line in str(error).splitlines()] == ["2", "3", "4"]


def test_a_sign_that_is_taken_for_a_number_is_a_user_error() -> None:
    with pytest.raises(UserError, match="not YAML"):
        parse_config(b"version: 1\nname: +_", name="conf")


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_junk_is_a_user_error_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(UserError):
        parse_config(b"version: 1\nzzz: " + junk, name="conf")


def test_the_schema_refuses_unknown_keys_and_names_the_versions() -> None:
    schema = json.loads(dump_schema())
    assert schema["additionalProperties"] is False
    assert schema["properties"]["kubernetesVersion"]["enum"] == list(KUBERNETES_VERSIONS)


def test_the_reference_page_has_a_line_for_every_key() -> None:
    page = dump_reference()
    for key in ("name", "nodeGroups.NAME.size", "provider.local.stateDiskGB", "serviceCIDR"):
        assert f"| `{key}` |" in page


@pytest.mark.parametrize(
    ("role", "size", "bounds", "message"),
    [
        ("worker", 2, (3, 4), "autoscaling's min (3) <= size (2) <= max (4)"),
        ("worker", 5, (3, 4), "autoscaling's min (3) <= size (5) <= max (4)"),
        ("worker", 3, (4, 3), "autoscaling's min (4) <= size (3) <= max (3)"),
        ("control-plane", 3, (3, 5), "expected autoscaling of workers only"),
        ("worker", 1, (0, 5), "conf:6: nodeGroups.w.autoscaling.min: expected"),
        ("worker", 1, (1, 51), "conf:6: nodeGroups.w.autoscaling.max: expected"),
    ],
)
def test_bounds_of_autoscaling_are_of_workers_and_in_order(
    role: str, size: int, bounds: tuple[int, int], message: str
) -> None:
    def conf(role: str, size: int, least: int, most: int) -> str:
        group = f"  w: {{role: {role}, size: {size},\n"
        more = f"      autoscaling: {{min: {least}, max: {most}}}}}\n"
        planes = "  p: {role: control-plane, size: 1}\n"
        return f"version: 1\nnodeGroups:\n{planes}\n{group}{more}"

    good = parse_config(conf("worker", 3, 1, 4).encode(), name="conf").node_groups["w"]
    assert (good.least, good.size, good.most) == (1, 3, 4)
    assert message in str(_fault(conf(role, size, *bounds)))
