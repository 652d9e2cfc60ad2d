"""What the command line answers, as a person sees it: words, streams, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "constellation.cli.main", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_verb_and_comes_at_once(tmp_path: Path) -> None:
    best = 9.0
    for _ in range(3):
        began = time.monotonic()
        done = run(tmp_path, "--help")
        best = min(best, time.monotonic() - began)
    assert done.returncode == 0
    for verb in ("mini", "config", "create", "init", "apply", "status", "verify", "recover", "log"):
        assert f"\n  {verb} " in done.stdout
    # the goal is 0.3 s on a quiet machine; this catches an engine imported at the top
    assert best < 1.0


def test_generate_writes_a_conf_once(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "generate", "local")
    conf = tmp_path / "constellation-conf.yaml"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Wrote {conf}. Next: constellation create\n"
    again = run(tmp_path, "config", "generate", "local")
    assert again.returncode == 7
    assert again.stderr == (
        f"Error: {conf} exists and is not overwritten\n"
        "Hint: move it away, or use another folder (-C)\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("aws", "--registry", "A b"), "expected a registry such as registry.example.com/team"),
        (("mars", "--registry", "r.example.com"), "no component of mars is built here"),
    ],
)
def test_a_component_that_cannot_be_built_writes_nothing(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = run(tmp_path, "artifacts", "cloud", *words, "--to", "there")
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_workspace_may_stand_before_or_after_the_verb(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "there"
    option = ("-C", str(folder))
    verb = ("config", "generate", "local")
    done = run(tmp_path, *(option + verb if place == "before" else verb + option))
    assert done.returncode == 0
    assert (folder / "constellation-conf.yaml").exists()


def test_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "kubernetes-versions", "-o", "json")
    assert json.loads(done.stdout)["default"] == "v1.36.2"
    assert json.loads(run(tmp_path, "-o", "json", "version").stdout)["version"]


def test_a_fault_in_the_conf_is_file_line_expected_found_and_hint(tmp_path: Path) -> None:
    (tmp_path / "constellation-conf.yaml").write_text("version: 1\nnodGroups: {}\n")
    done = run(tmp_path, "create", "--yes")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "Error: constellation-conf.yaml:2: nodGroups: expected no such key\n"
        "Hint: did you mean nodeGroups?\n"
    )


def test_all_faults_of_the_conf_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "constellation-conf.yaml").write_text(
        "version: 1\n"
        "name: 7\n"
        "nodeGroups:\n"
        "  planes:\n"
        "    role: boss\n"
        "    size: many\n"
        "provider:\n"
        "  local:\n"
        "    offlin: true\n"
    )
    done = run(tmp_path, "create", "--yes")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "Error: constellation-conf.yaml:2: name: expected a valid string, found 7\n"
        "constellation-conf.yaml:9: provider.local.offlin: expected no such key\n"
        "constellation-conf.yaml:5: nodeGroups.planes.role: expected "
        "'control-plane' or 'worker', found 'boss'\n"
        "constellation-conf.yaml:6: nodeGroups.planes.size: expected a valid integer, "
        "found 'many'\n"
        "Hint: did you mean offline?\n"
    )


@pytest.mark.parametrize("verb", [("create", "--yes"), ("status",), ("mini", "up", "--yes")])
def test_a_truncated_state_file_is_said_with_two_ways_on(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    run(tmp_path, "config", "generate", "local")
    (tmp_path / "constellation-state.yaml").write_text("cluster_id: QUJD\nversion: 1\nim")
    done = run(tmp_path, "-C", str(tmp_path), *verb)
    assert done.returncode == 3
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: constellation-state.yaml:3: not YAML: ")
    assert hint == (
        "Hint: the file is damaged: put a copy of it back, or remove the cluster with "
        "`constellation terminate` (`mini down`), which find it also without the file"
    )


def test_terminate_does_not_mind_a_truncated_state_file(tmp_path: Path) -> None:
    (tmp_path / "constellation-state.yaml").write_text("version: 1\n")
    done = run(tmp_path, "terminate", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Removed {tmp_path / 'constellation-state.yaml'}\n"


def test_a_file_where_the_workspace_should_be_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path, "-C", str(tmp_path / "file"), "mini", "up", "--yes")
    assert done.returncode == 2
    assert "is a file" in done.stderr


def test_an_error_can_be_read_by_machines(tmp_path: Path) -> None:
    done = run(tmp_path, "create", "-o", "json", "--yes")
    assert done.returncode == 3
    error = json.loads(done.stderr)
    assert error["exit_code"] == 3
    assert "config generate local" in error["hint"]


def test_usage_errors_are_2(tmp_path: Path) -> None:
    done = run(tmp_path, "create", "--nonsense")
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize("verb", ["init", "verify", "status", "recover", "log"])
def test_without_a_cluster_every_verb_says_what_comes_first(tmp_path: Path, verb: str) -> None:
    run(tmp_path, "config", "generate", "local")
    done = run(tmp_path, verb)
    assert done.returncode == 7
    assert "Hint: run `constellation create`" in done.stderr


def test_a_wrong_cluster_id_is_bad_input(tmp_path: Path) -> None:
    run(tmp_path, "config", "generate", "local")
    done = run(tmp_path, "verify", "--cluster-id", "xyz")
    assert done.returncode == 3
    assert "--cluster-id: expected base64 of 32 bytes, found 'xyz'" in done.stderr


def test_what_asks_needs_yes_where_nobody_can_answer(tmp_path: Path) -> None:
    run(tmp_path, "config", "generate", "local")
    done = run(tmp_path, "terminate")
    assert done.returncode == 3
    assert "Hint: add --yes" in done.stderr


@pytest.mark.parametrize("wants", [True, False])
def test_before_the_question_it_is_said_what_stays_in_the_cloud(
    tmp_path: Path, *, wants: bool
) -> None:
    run(tmp_path, "config", "generate", "aws")
    conf = tmp_path / "constellation-conf.yaml"
    aws = {"region": "eu-west-1", "zones": ["eu-west-1a"], "image": "ami-12c6146b"}
    provider = {"aws": {**aws, "cloudIntegration": wants}}
    attestation = {"variant": "aws-sev-snp"}
    conf.write_text(json.dumps({"version": 1, "provider": provider, "attestation": attestation}))
    (tmp_path / "constellation-terraform").mkdir()
    (tmp_path / "constellation-admin.conf").write_text("{")
    done = run(tmp_path, "terminate")
    assert done.returncode == 3
    assert ("disks of volumes, if there are any, stay in the cloud" in done.stderr) is wants
    assert "Hint: add --yes" in done.stderr


def test_nothing_to_remove_is_no_error(tmp_path: Path) -> None:
    done = run(tmp_path, "mini", "down", "--yes")
    assert (done.returncode, done.stdout) == (0, "Nothing to remove.\n")


def test_a_configuration_of_the_present_format_needs_no_migration(tmp_path: Path) -> None:
    run(tmp_path, "config", "generate", "local")
    done = run(tmp_path, "config", "migrate", "-o", "json")
    assert json.loads(done.stdout)["migrated"] is False
    conf = tmp_path / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace("version: 1", "version: 2", 1))
    refused = run(tmp_path, "config", "migrate")
    assert refused.returncode == 3
    assert "version: expected 1, found 2" in refused.stderr


@pytest.mark.parametrize(
    ("what", "verb", "remove"),
    [
        ("artifacts", ("create",), "terminate"),
        ("artifacts", ("mini", "up"), "mini down"),
        ("init", ("init",), "terminate"),
    ],
)
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    tmp_path: Path, what: str, verb: tuple[str, ...], remove: str
) -> None:
    folder = tmp_path / "a cluster"
    run(tmp_path, "-C", str(folder), "config", "generate", "local")
    words = (*verb, "--yes", "-C", str(folder))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/cli/slow_world.py"), what, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        while line := process.stderr.readline():
            if "What came before: done" in line:
                break
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.endswith(
        "Interrupted. What was finished is kept.\n"
        f"Go on:  constellation {' '.join(verb)} --yes -C '{folder}'\n"
        f"Remove: constellation -C '{folder}' {remove}\n"
    )
    # nobody holds the workspace any more
    assert "in use by another process" not in run(tmp_path, "-C", str(folder), "init").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(tmp_path: Path, shell: str) -> None:
    done = run(tmp_path, "completion", shell)
    assert done.returncode == 0
    assert "_CONSTELLATION_COMPLETE" in done.stdout
