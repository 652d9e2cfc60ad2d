"""How a program of the tools root runs on this host: by the tools root's own loader and libraries.

The tools root is a folder with a whole Debian 13 (swtpm, haproxy, systemd-nspawn, mksquashfs, nft).
Nothing of it is installed on the host; no chroot is needed, so a program sees the host's files.
Source: ld.so(8), `--library-path`, `--argv0`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

# folders below usr/lib/<triplet> whose libraries programs name without a path
_PRIVATE_LIBRARIES = ("systemd", "swtpm")


def command(root: Path, program: str) -> tuple[str, ...]:
    """Give the words to put before a program's arguments, e.g. `command(root, "haproxy")`.

    Raises:
        Unavailable: the tools root has no loader or no such program.
    """
    loader = next(iter(sorted(root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))), None)
    if loader is None:
        raise Unavailable(
            f"{root} is no tools root: no ld-linux below usr/lib", hint="it is built on first use"
        )
    for folder in ("usr/sbin", "usr/bin", "usr/libexec"):
        path = _inside(root, root / folder / program)
        if path.is_file():
            break
    else:
        raise Unavailable(f"{root}: program {program} is missing", hint="build the tools root anew")
    libraries = (loader.parent, *(loader.parent / name for name in _PRIVATE_LIBRARIES))
    return (
        str(loader),
        "--library-path",
        ":".join(map(str, libraries)),
        "--argv0",
        program,
        str(path),
    )


def _inside(root: Path, path: Path) -> Path:
    """Follow a link whose target is absolute (Debian's alternatives) within `root`."""
    for _ in range(8):
        if not path.is_symlink():
            break
        target = path.readlink()
        path = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    return path
