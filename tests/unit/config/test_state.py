"""The state file: what is written is read again, anything else is refused with a hint."""

from __future__ import annotations

import dataclasses
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import Conflict, UserError
from constellation.config.state import (
    ChosenNode,
    Image,
    State,
    dump_state,
    parse_state,
    read_state,
    write_state,
)
from constellation.config.workspace import Workspace, cache_folder
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.trust.cluster_policy import AcceptedRelease, SignedPolicy

if TYPE_CHECKING:
    from pathlib import Path

STATE = State(
    version=1,
    name="test",
    uid="test-1",
    cluster_id=bytes(32),
    node_document=b"{}",
    kubernetes_version="v1.36.2",
    artifact_list=b"list",
    services_bundle=bytes(32),
    image=Image(
        path="/image",
        release=AcceptedRelease(
            name="0.1.0",
            not_before=1,
            not_after=None,
            image_digest=bytes(32),
            reference={4: (bytes(32),)},
        ),
    ),
    infrastructure=InfrastructureState(
        uid="test-1",
        endpoint="10.42.0.1:6443",
        user_endpoint="127.0.0.1:6443",
        api_sans=("127.0.0.1",),
        instances=(
            Instance(
                instance_id="i",
                group="g",
                role=Role.WORKER,
                address="10.42.2.10",
                state="running",
            ),
        ),
        trust_roots=(b"root",),
    ),
    init=ChosenNode(instance_id="i", attester_id=bytes(32)),
    policy=SignedPolicy(policy=b"p", signature=b"s"),
    policy_serial=1,
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert read_state(path) is None
    write_state(path, STATE)
    assert read_state(path) == STATE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_state_with_nothing_but_names_is_read_again() -> None:
    bare = dataclasses.replace(STATE, image=None, infrastructure=None, init=None, policy=None)
    assert parse_state(dump_state(bare), name="state") == bare


@pytest.mark.parametrize(
    "text",
    ["", "version: 2\n", "version: 1\n", "version: 1\nfoo: 1\n", "[1\n", "version: true\n"],
)
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_state(text.encode(), name="state")


@given(st.binary(max_size=300))
def test_junk_is_a_user_error(junk: bytes) -> None:
    with pytest.raises(UserError):
        parse_state(junk, name="state")


def test_two_runs_do_not_share_a_workspace(tmp_path: Path) -> None:
    workspace = Workspace(folder=tmp_path)
    with workspace.locked(), pytest.raises(Conflict, match="another process"), workspace.locked():
        pass


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/home/u"}, "/home/u/.cache/constellation"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "/c"}, "/c/constellation"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "relative"}, "/home/u/.cache/constellation"),
    ],
)
def test_the_cache_is_where_the_user_says(environment: dict[str, str], expected: str) -> None:
    assert str(cache_folder(environment)) == expected
