"""How long kubectl may take: an apply of many objects is let finish, other calls are short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Unavailable
from constellation.kube import units
from constellation.services import node_tools

if TYPE_CHECKING:
    from pathlib import Path

_USUAL_S = 0.5


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that needs longer than a usual call; gives the file with a line for each start."""
    log = tmp_path / "begun"
    monkeypatch.setattr(units, "BIN_DIR", tmp_path)
    monkeypatch.setattr(node_tools, "_CALL_S", _USUAL_S)
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\necho begun >> {log}\nsleep {3 * _USUAL_S}\n")
    program.chmod(0o755)
    return log


async def test_an_apply_of_many_objects_is_let_finish(begun: Path) -> None:
    await node_tools.apply_objects(b"{}", kubeconfig=begun.parent / "admin.conf")
    assert begun.read_text() == "begun\n", "cut off, it begins anew, and makes no progress"


async def test_any_other_call_is_cut_off(begun: Path) -> None:
    with pytest.raises(Unavailable, match="did not end within"):
        await node_tools.kubectl("get", "nodes", kubeconfig=begun.parent / "admin.conf")
