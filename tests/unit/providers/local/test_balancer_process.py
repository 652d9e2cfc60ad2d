"""Whom the real haproxy sends connections to, by what its checks found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = (
    *("unshare", "--user", "--map-root-user", "--net", "--mount"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
NETWORK = """
mount -t tmpfs none /run
mkdir /run/netns
touch /run/netns/host
unshare --net mount --bind /proc/self/ns/net /run/netns/host
exec "$@"
"""
FIRST, SECOND = "10.42.1.10", "10.42.1.11"


def _own_networks() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.timeout(300)
@pytest.mark.skipif(not _own_networks(), reason="this machine lets nobody have networks")
def test_who_is_slow_is_used_where_nobody_is_quick_and_who_says_no_is_not(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[4]
    asked = (sys.executable, "-m", "tests.fakes.balanced", str(tmp_path))
    done = subprocess.run(
        [*UNSHARE, "sh", "-ec", NETWORK, "sh", *asked],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )
    assert done.returncode == 0, done.stderr
    expected = {
        "both are well": [FIRST, SECOND],
        "one says no": [FIRST],
        "the other is slow": [FIRST],
        "both are well again": [FIRST, SECOND],
    }
    found = json.loads(done.stdout)
    for kind in ("api", "node port"):
        assert {when: answers[kind] for when, answers in found.items()} == expected, kind
