"""`artifacts mirror --release FILE --to FOLDER`: all that a release names, for any web server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from constellation.config.workspace import cache_folder
from constellation.releases.store import Store
from constellation.trust.artifact_list import ArtifactKind, ArtifactList
from constellation.trust.release import dump_release
from tests.cli.test_transcripts import run
from tests.fakes.file_servers import artifact_of
from tests.fakes.release_world import release

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"kubelet": b"kubelet's bytes", "services": b"a squashfs"}
KINDS = {"kubelet": ArtifactKind.BINARY, "services": ArtifactKind.ARCHIVE}
LIST = ArtifactList(kubernetes_version="v1.36.2", artifacts=()).with_artifacts(
    *(artifact_of(data, name, KINDS[name]) for name, data in FILES.items())
)
MIRROR = ("artifacts", "mirror", "--release", "0.2.0.json", "--to", "www")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A cache of the test's own, with the files of a release whose statement lies beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Store(cache_folder())
    for name, data in FILES.items():
        with made.staging() as folder:
            (folder / name).write_bytes(data)
            made.put(folder / name, name=name, expected=None)
    stated = release(
        "0.2.0", kubernetes={"v1.36.2": LIST}, services_bundle=LIST.get("services").sha256
    )
    (tmp_path / "0.2.0.json").write_bytes(dump_release(stated))
    return made


def test_the_folder_gets_every_file_of_the_release(store: Store, tmp_path: Path) -> None:
    assert store.has(LIST.get("kubelet").sha256)
    done = run(tmp_path, *MIRROR, "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {a["name"] for a in told["artifacts"]} == set(FILES)
    assert told["folder"] == "www"
    for name, data in FILES.items():
        assert (tmp_path / "www/sha256" / LIST.get(name).sha256).read_bytes() == data


def test_what_nobody_has_is_named_and_the_folder_gets_nothing(store: Store, tmp_path: Path) -> None:
    store.path(LIST.get("kubelet").sha256).unlink()
    done = run(tmp_path, *MIRROR)
    assert done.returncode == 6
    assert "artifact kubelet: no source is named" in done.stderr
    # this machine is no source: what the owner named was meant to be somebody's server
    done = run(tmp_path, *MIRROR, "--source", "http://127.0.0.1:9")
    assert done.returncode == 6
    assert "127.0.0.1: no request goes there" in done.stderr
    assert not (tmp_path / "www").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--source", "https://files.example"), "--source: says where files of a release"),
        (("--release", "x", "--kubernetes", "v1.36.2"), "--kubernetes: a release names its own"),
        (("--release", "none.json"), "none.json: cannot be read"),
    ],
)
def test_words_that_do_not_fit_are_refused(
    store: Store, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert store
    done = run(tmp_path, "artifacts", "mirror", *words)
    assert done.returncode == 3
    assert said in done.stderr
