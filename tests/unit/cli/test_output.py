"""What progress looks like where there is no terminal: a line at begin, end, and in between."""

from __future__ import annotations

import io

import pytest

from constellation.base.errors import Unavailable
from constellation.base.progress import Progress
from constellation.cli.output import Steps, describe, result, show_error


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


def test_what_a_node_says_is_shown_and_never_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    # moves up, deletes the line of the refusal, and writes another result over it; sets the title
    attack = "worker-1\x1b[1A\x1b[2Kall nodes prove what they run\x1b]0;x\x07\x9b2J\r"
    result({}, output="text", text=lambda: f"first\n{attack}")
    show_error(Unavailable(f"node: {attack}", hint=attack), output="text")
    stream = io.StringIO()
    with Steps(stream=stream) as steps:
        steps.report(Progress(step=attack, detail=attack))
    said = capsys.readouterr()
    for text in (said.out, said.err, stream.getvalue()):
        assert "worker-1" in text
        assert all(c.isprintable() or c == "\n" for c in text)
    assert said.out.splitlines()[0] == "first", "lines stay lines"
