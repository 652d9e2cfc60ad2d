"""`mini load-image` as a person sees it where nothing runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.test_transcripts import run

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_cluster_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"")
    done = run(tmp_path, "mini", "load-image", "image.tar")
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == (
        f"Error: no cluster in {tmp_path / 'constellation-mini'}\n"
        "Hint: run `constellation mini up`\n"
    )


def test_a_missing_archive_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path, "mini", "load-image").returncode == 2
