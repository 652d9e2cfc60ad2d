"""An error about a field of the configuration names file and line, wherever it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.config.reader import place_of
from tests.cli.test_transcripts import run

if TYPE_CHECKING:
    from pathlib import Path

CONF = """version: 1
name: constell
provider:
  aws:
    region: eu-west-1
    terraform:
      program: /nowhere
releases:
  root: root.json
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("name", 2),
        ("provider.aws.region", 5),
        ("terraform.program", 7),
        ("provider.aws.image", 4),  # not written down: what it would stand in
        ("releases.repository", 8),
        ("root", 0),  # one word is a field of the top alone
        ("--accept-weaker", 0),
        ("nodeGroups.x", 0),
    ],
)
def test_a_field_is_found_or_the_nearest_above_it(tmp_path: Path, field: str, line: int) -> None:
    path = tmp_path / "constellation-conf.yaml"
    path.write_text(CONF)
    assert place_of(field, path) == (f"constellation-conf.yaml:{line}" if line else "")
    path.write_text("a: [")
    assert place_of(field, path) == ""
    path.unlink()
    assert place_of(field, path) == ""


def test_what_is_found_late_names_the_line_too(tmp_path: Path) -> None:
    run(tmp_path, "config", "generate", "aws")
    conf = tmp_path / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace('program: ""', "program: /nowhere/tofu"))
    done = run(tmp_path, "iam", "create", "--yes")
    line = 1 + conf.read_text().splitlines().index("      program: /nowhere/tofu")
    assert done.returncode == 3
    assert done.stderr == (
        f"Error: constellation-conf.yaml:{line}: terraform.program: /nowhere/tofu: is no program "
        "that can be run\n"
        "Hint: the path of terraform or tofu; empty: the one that is on PATH\n"
    )


def test_a_cloud_without_its_file_of_credentials_says_where_to_name_one(tmp_path: Path) -> None:
    run(tmp_path, "config", "generate", "openstack", "--accept-weaker", "a first look")
    done = run(tmp_path, "create", "--yes")
    assert done.returncode == 3
    first, hint = done.stderr.splitlines()[-2:]
    assert first.startswith("Error: constellation-conf.yaml:")
    assert first.endswith(": provider.openstack.cloudsYAML: no clouds.yaml is there")
    assert "docs/how-to/openstack.md" in hint
