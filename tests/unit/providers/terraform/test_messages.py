"""Terraform's own lines become progress, changes and faults; values of resources never do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import Conflict, ConstellationError, Unavailable, UserError
from constellation.base.progress import silent
from constellation.providers.terraform.faults import as_error
from constellation.providers.terraform.messages import Change, Fault, Reader
from constellation.providers.terraform.program import clean_environment

if TYPE_CHECKING:
    from constellation.base.progress import Progress

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
KINDS = st.sampled_from(["planned_change", "diagnostic", "apply_progress", "apply_complete", "x"])
KEYS = st.sampled_from(["hook", "change", "diagnostic"])


def _line(kind: str, **content: object) -> str:
    return json.dumps({"type": kind, **content})


def test_changes_are_kept_and_what_changes_nothing_is_not() -> None:
    reader = Reader("plan", silent)
    for action in ("create", "update", "delete", "replace", "noop", "read", "move"):
        change = {"resource": {"addr": f"a.{action}"}, "action": action}
        reader.take(_line("planned_change", change=change))
    assert reader.changes == [
        Change(address=f"a.{a}", action=a) for a in ("create", "update", "delete", "replace")
    ]


def test_progress_counts_resources_and_says_what_is_waited_for() -> None:
    told: list[Progress] = []
    reader = Reader("Machines", told.append, total=2)
    hook = {"resource": {"addr": "aws_lb.x"}, "action": "create", "elapsed_seconds": 20}
    reader.take(_line("apply_progress", hook=hook))
    reader.take(_line("apply_complete", hook=hook))
    assert [(p.detail, p.done, p.total) for p in told] == [
        ("making aws_lb.x (20 s)", 0, 2),
        ("making aws_lb.x", 1, 2),
    ]


def test_outputs_and_warnings_are_not_taken_for_faults() -> None:
    reader = Reader("x", silent)
    reader.take(_line("outputs", outputs={"a": {"value": "s3cret"}}))
    reader.take(_line("diagnostic", diagnostic={"severity": "warning", "summary": "w"}))
    reader.take("plain text")
    assert (reader.faults, reader.unread) == ([], ["plain text"])


@given(kind=KINDS, content=st.dictionaries(KEYS, JSON, max_size=3))
def test_no_message_stops_the_reader(kind: str, content: dict[str, object]) -> None:
    Reader("x", silent).take(json.dumps({**content, "type": kind}))


@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_no_junk_stops_the_reader(text: str) -> None:
    Reader("x", silent).take(text)


@pytest.mark.parametrize(
    ("detail", "kind", "hint"),
    [
        ("response error StatusCode: 400, ExpiredTokenException", Unavailable, "log in"),
        ("UnauthorizedOperation: You are not authorized", UserError, "docs/how-to"),
        ("Error acquiring the state lock", Conflict, "force-unlock"),
        ("VcpuLimitExceeded: You have requested more", Unavailable, "another zone"),
        ("something else", Unavailable, "goes on where this one stopped"),
    ],
)
def test_a_fault_says_what_to_do(detail: str, kind: type[Exception], hint: str) -> None:
    error = as_error("apply", [Fault(address="a.b", summary="s", detail=detail)], said="")
    assert type(error) is kind
    assert isinstance(error, ConstellationError)
    assert hint in error.hint


def test_many_faults_are_told_once_each_and_not_all() -> None:
    faults = [Fault(address=f"a.{n % 9}", summary="s", detail="d") for n in range(100)]
    text = str(as_error("apply", faults, said=""))
    assert text.count("a.") == 6
    assert text.endswith("and 3 more")


def test_the_environment_keeps_credentials_and_drops_what_changes_a_run() -> None:
    kept = clean_environment(
        {
            "AWS_ACCESS_KEY_ID": "a",
            "TF_VAR_uid": "evil",
            "TF_CLI_ARGS_apply": "-destroy",
            "TF_WORKSPACE": "other",
            "TF_LOG": "TRACE",
            "TF_PLUGIN_CACHE_DIR": "/cache",
            "TF_CLI_CONFIG_FILE": "/no/such/file",
        }
    )
    assert not [k for k in kept if k.startswith(("TF_VAR", "TF_CLI_ARGS", "TF_WORK", "TF_LOG"))]
    assert (kept["AWS_ACCESS_KEY_ID"], kept["TF_PLUGIN_CACHE_DIR"]) == ("a", "/cache")
    assert kept["TF_CLI_CONFIG_FILE"] == "/dev/null"
