from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Unavailable
from constellation.services.bootstrapper.component_config import configure_components

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class _Says:
    def __init__(self, files: Mapping[str, bytes] | FormatError) -> None:
        self._files = files

    async def component_config(self) -> Mapping[str, bytes]:
        if isinstance(self._files, FormatError):
            raise self._files
        return self._files


async def test_one_group_reads_it_and_nobody_else(tmp_path: Path) -> None:
    folder, group = tmp_path / "run/cloud", os.getgid()
    for content in (b"first", b"second"):
        await configure_components(_Says({"cloud.conf": content}), folder=folder, group=group)
        assert (folder / "cloud.conf").read_bytes() == content
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750
    assert stat.S_IMODE((folder / "cloud.conf").stat().st_mode) == 0o640
    assert folder.stat().st_gid == (folder / "cloud.conf").stat().st_gid == group


async def test_what_metadata_do_not_say_keeps_no_node_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        await configure_components(
            _Says(FormatError("IMDS: no tag")), folder=tmp_path / "cloud", group=os.getgid()
        )
    assert not (tmp_path / "cloud").exists()
    assert [r.__dict__["reason"] for r in caplog.records] == ["IMDS: no tag"]


async def test_where_nothing_can_be_written_it_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "cloud").write_text("a file")
    with pytest.raises(Unavailable, match="cloud"):
        await configure_components(
            _Says({"cloud.conf": b""}), folder=tmp_path / "cloud", group=os.getgid()
        )
