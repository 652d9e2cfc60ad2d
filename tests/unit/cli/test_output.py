"""What progress looks like where there is no terminal: a line at begin, end, and in between."""

from __future__ import annotations

import io

import pytest

from constellation.base.progress import Progress
from constellation.cli.output import Steps, describe


def test_each_step_is_a_line_when_it_begins_and_when_it_ends() -> None:
    stream = io.StringIO()
    with Steps(stream=stream) as steps:
        steps.report(Progress(step="Build"))
        steps.report(Progress(step="Build", detail="half"))
        steps.report(Progress(step="Build", finished=True))
        steps.report(Progress(step="Build", detail="late"))
    first, second = stream.getvalue().splitlines()
    assert first == "Build …"
    assert second.startswith("Build: done in ")


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(step="x", detail="waiting"), "waiting"),
        (Progress(step="x", done=1, total=2, unit="nodes"), "1 of 2 nodes"),
        (
            Progress(step="x", done=30_000_000, total=40_000_000, unit="bytes"),
            "30.0 MB of 40.0 MB, 2.0 MB/s, 5.0 s left",
        ),
    ],
)
def test_amount_rate_and_time_left_are_told(progress: Progress, words: str) -> None:
    assert describe(progress, first_done=10_000_000, seconds=10) == words
