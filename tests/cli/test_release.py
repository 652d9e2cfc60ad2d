"""`release …`, `upgrade check`, `config fetch-measurements`: as makers and users type them."""

from __future__ import annotations

import contextlib
import json
import stat
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.attestation.model import Variant
from constellation.base import clock
from constellation.cli.main import main
from constellation.config.state import STATE_VERSION, State, write_state
from constellation.crypto.signing import generate_key, spki
from constellation.trust.cluster_policy import sign_policy
from constellation.trust.node_document import NodeDocument, dump_node_document
from constellation.trust.release import dump_release
from tests.cli.test_transcripts import run
from tests.fakes.release_world import Maker, digest, image, policy, release

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.cluster_policy import ClusterPolicy

SITE = ("--repository", "site")


def here(folder: Path, *words: str) -> int:
    """Run a command in this process, for what a test only needs done."""
    with contextlib.chdir(folder):
        return main(words)


def make(folder: Path) -> None:
    """Make keys and an empty repository as a publisher does."""
    for name in ("root1", "root2", "release", "online"):
        assert here(folder, "release", "key", name) == 0
    words = ("--root-key", "root1", "--root-key", "root2", "--threshold", "2")
    more = ("--release-key", "release", "--online-key", "online")
    assert here(folder, "release", "init", *SITE, *words, *more) == 0


def publish(folder: Path, version: str, **changes: object) -> None:
    (folder / version).write_bytes(dump_release(release(version, **changes)))
    assert here(folder, "release", "sign", version, "--key", "release") == 0
    keys = ("--key", "release", "--key", "online")
    assert here(folder, "release", "publish", version, *SITE, *keys) == 0


def cluster(folder: Path, current: ClusterPolicy) -> None:
    """Write the workspace of a cluster that has this policy."""
    assert here(folder, "config", "generate", "local") == 0
    conf = folder / "constellation-conf.yaml"
    text = conf.read_text()
    text = text.replace('repository: ""', "repository: site")
    text = text.replace('root: ""', "root: site/metadata/1.root.json")
    conf.write_text(text)
    owner = generate_key()
    document = NodeDocument(
        version=1,
        cluster_id=current.cluster_id,
        owner_public_key=spki(owner.public_key()),
        release_root=b"root",
        minimum_release="0.1.0",
        variant=Variant.LOCAL_VTPM,
    )
    write_state(
        folder / "constellation-state.yaml",
        State(
            version=STATE_VERSION,
            name="constell",
            uid="constell-1",
            cluster_id=current.cluster_id,
            node_document=dump_node_document(document),
            kubernetes_version=current.kubernetes_version,
            policy=sign_policy(current, owner),
            policy_serial=current.serial,
        ),
    )


def test_a_key_is_readable_by_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    done = run(tmp_path, "release", "key", "mine")
    assert (done.returncode, done.stdout) == (0, "Wrote mine (private) and mine.pub (public).\n")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o600
    again = run(tmp_path, "release", "key", "mine")
    assert again.returncode == 7
    assert again.stderr == "Error: mine exists and is not overwritten\n"


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    here(tmp_path, "release", "key", "mine")
    (tmp_path / "0.2.0").write_bytes(dump_release(release("0.2.0")))
    words = ("release", "sign", "0.2.0", "--key", "mine")
    assert run(tmp_path, *words).returncode == 0
    (tmp_path / "mine").chmod(0o640)
    done = run(tmp_path, *words)
    assert done.returncode == 3
    assert done.stderr == ("Error: mine: others may read this private key\nHint: chmod 600 mine\n")


def test_a_release_is_signed_published_found_and_written_into_the_conf(tmp_path: Path) -> None:
    make(tmp_path)
    publish(tmp_path, "0.2.0")
    publish(tmp_path, "0.3.0", minimum_version="0.2.0")
    cluster(tmp_path, policy())
    done = run(tmp_path, "upgrade", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "The cluster has no published release (images made here), Kubernetes v1.36.1.\n"
        "0.3.0 with Kubernetes v1.36.2\n"
        "  changes  node image: every node is replaced\n"
        "  changes  services: every node is replaced\n"
        "  changes  Kubernetes v1.36.1 to v1.36.2: control planes first, then every node is "
        "replaced\n"
        "0.3.0 with Kubernetes v1.36.1\n"
        "  changes  node image: every node is replaced\n"
        "  changes  services: every node is replaced\n"
        "0.2.0 with Kubernetes v1.36.2\n"
        "  changes  node image: every node is replaced\n"
        "  changes  services: every node is replaced\n"
        "  changes  Kubernetes v1.36.1 to v1.36.2: control planes first, then every node is "
        "replaced\n"
        "0.2.0 with Kubernetes v1.36.1\n"
        "  changes  node image: every node is replaced\n"
        "  changes  services: every node is replaced\n"
        "Best: 0.3.0 with v1.36.2; --update-config writes it.\n"
    )
    before = (tmp_path / "constellation-conf.yaml").read_text()
    done = run(tmp_path, "upgrade", "check", "--update-config", "-o", "json")
    assert json.loads(done.stdout)["updated"] is True
    after = (tmp_path / "constellation-conf.yaml").read_text()
    assert after == before.replace('release: ""', 'release: "0.3.0"')
    assert "# Version of the release that the cluster shall follow." in after


def test_fetched_measurements_are_those_of_the_newest_release_or_the_confs(tmp_path: Path) -> None:
    make(tmp_path)
    publish(tmp_path, "0.2.0")
    publish(tmp_path, "0.3.0")
    cluster(tmp_path, policy())
    done = run(tmp_path, "config", "fetch-measurements")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:3] == [
        "Release 0.3.0, constellation-node-local for local, local-vtpm",
        f"SHA-256 {digest('image 0.3.0')}",
        f"register  4  {digest('pcr4 0.3.0')}",
    ]
    conf = tmp_path / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace('release: ""', "release: 0.2.0"))
    done = run(tmp_path, "config", "fetch-measurements", "-o", "json")
    assert json.loads(done.stdout)["sha256"] == image("0.2.0").sha256


def test_a_repository_of_somebody_else_shows_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    publish(tmp_path, "0.2.0")
    cluster(tmp_path, policy())
    assert run(tmp_path, "upgrade", "check").returncode == 0
    stranger = Maker(folder=tmp_path / "stranger", now=clock.now()).create()
    stranger.publish(release("0.9.0"))
    conf = tmp_path / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace("repository: site", "repository: stranger"))
    done = run(tmp_path, "upgrade", "check")
    assert (done.returncode, done.stdout) == (4, "")
    assert "timestamp has a wrong signature" in done.stderr


def test_a_repository_without_a_root_to_trust_is_not_asked(tmp_path: Path) -> None:
    make(tmp_path)
    cluster(tmp_path, policy())
    conf = tmp_path / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace("root: site/metadata/1.root.json", 'root: ""'))
    done = run(tmp_path, "upgrade", "check")
    assert done.returncode == 3
    assert "releases.root: a repository is believed only with a root to start from" in done.stderr


def test_without_a_cluster_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    here(tmp_path, "config", "generate", "local")
    done = run(tmp_path, "upgrade", "check")
    assert done.returncode == 7
    assert "no cluster in" in done.stderr


def test_verbs_of_an_upgrade_without_a_cluster_say_so_and_change_nothing(tmp_path: Path) -> None:
    assert here(tmp_path, "config", "generate", "local") == 0
    before = (tmp_path / "constellation-conf.yaml").read_bytes()
    for words in (
        ("upgrade", "apply"),
        ("upgrade", "apply", "--plan"),
        ("upgrade", "rollback"),
        ("scale", "worker_default", "2"),
        ("status", "--watch"),
    ):
        done = run(tmp_path, *words)
        assert done.returncode == 7, words
        assert "no cluster in" in done.stderr
    assert (tmp_path / "constellation-conf.yaml").read_bytes() == before
    assert not (tmp_path / "constellation-state.yaml").exists()


def test_a_cluster_without_a_release_before_has_no_way_back(tmp_path: Path) -> None:
    make(tmp_path)
    publish(tmp_path, "0.2.0")
    cluster(tmp_path, policy())
    before = (tmp_path / "constellation-conf.yaml").read_bytes()
    done = run(tmp_path, "upgrade", "rollback")
    assert done.returncode == 7
    assert "the cluster follows no release: there is none to go back to" in done.stderr
    assert (tmp_path / "constellation-conf.yaml").read_bytes() == before
    done = run(tmp_path, "upgrade", "apply")
    assert done.returncode == 3
    assert "expected the version of a release, found none" in done.stderr


def test_sizes_that_no_group_may_have_are_refused_and_the_plan_says_what_others_mean(
    tmp_path: Path,
) -> None:
    assert here(tmp_path, "config", "generate", "local") == 0
    for words, found in (
        (("control_plane_default", "2"), "expected 1, 3 or 5 control planes, found 2"),
        (("no_such", "2"), "expected one of control_plane_default, worker_default"),
    ):
        done = run(tmp_path, "scale", *words)
        assert done.returncode == 3
        assert found in done.stderr
    done = run(tmp_path, "scale", "control_plane_default", "3", "--plan")
    assert (done.returncode, done.stdout) == (
        0,
        (
            "control_plane_default: 1 to 3 nodes\n"
            "control planes on the way: 1 (survives the loss of 0), 2 (survives the loss of 0), "
            "3 (survives the loss of 1)\n"
        ),
    )


def test_keys_are_rotated_and_metadata_renewed(tmp_path: Path) -> None:
    make(tmp_path)
    publish(tmp_path, "0.2.0")
    here(tmp_path, "release", "key", "newer")
    keys = ("--key", "root1", "--key", "root2", "--key", "newer", "--key", "online")
    short = run(tmp_path, "release", "rotate", "targets", "--to", "newer.pub", *SITE, *keys[2:])
    assert short.returncode == 3
    assert "role 'root' needs 2 of its 2 keys, 1 were given" in short.stderr
    done = run(tmp_path, "release", "rotate", "targets", "--to", "newer.pub", *SITE, *keys)
    assert (done.returncode, done.stdout) == (0, "targets in site has 1 new keys.\n")
    words = ("--fresh-for", "timestamp=1", "--key", "newer", "--key", "online")
    done = run(tmp_path, "release", "renew", *SITE, *words)
    assert (done.returncode, done.stdout) == (0, "Renewed site.\n")
    timestamp = json.loads((tmp_path / "site/metadata/timestamp.json").read_text())
    days = (clock.now().fromisoformat(timestamp["signed"]["expires"]) - clock.now()).days
    assert days == 0
    done = run(tmp_path, "release", "renew", *SITE, "--fresh-for", "timestamp=never")
    assert done.returncode == 3
    assert "--fresh-for: expected ROLE=DAYS, found 'timestamp=never'" in done.stderr
