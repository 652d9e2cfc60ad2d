"""cryptsetup, dmsetup, mkfs.ext4, mount as small programs that keep a diary and work on files.

cryptsetup's header is a real one (`tests.vectors.luks2_header`), its key slot the SHA-256 of the
key. Each line of the diary says what was run, and what the disk's first block was at that moment.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.disk import luks

if TYPE_CHECKING:
    import pytest

__all__ = ["MapperPrograms"]

_PROGRAM = """#!{python} -SE
import hashlib, os, pathlib, sys
sys.path[:0] = {path!r}
home = pathlib.Path({home!r})
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
said = name + " " + next((w for w in words if not w.startswith("-")), "")
disk = (home / "disk").open("rb").read(4)
with (home / "diary").open("a") as diary:
    print(said if name == "cryptsetup" else name, disk.hex(), file=diary)
assert not any(secret in " ".join([*words, *os.environ.values()]) for secret in ("kkkk",))
if name == "cryptsetup" and "luksFormat" in words:
    from tests.vectors.luks2_header import made_header
    header = (home / "makes").read_bytes() if (home / "makes").exists() else made_header()
    area = hashlib.sha256(sys.stdin.buffer.read()).digest().ljust(385024, b"\\0")
    pathlib.Path(words[words.index("--header") + 1]).write_bytes((header + area).ljust(1 << 20))
elif name == "cryptsetup" and "open" in words:
    header = pathlib.Path(words[words.index("--header") + 1]).read_bytes()
    if header[32768:32800] != hashlib.sha256(sys.stdin.buffer.read()).digest():
        sys.exit(2)
    mapped = words[words.index("--key-file") - 1]
    for suffix in ("", "_dif"):
        (home / "mapper" / (mapped + suffix)).write_bytes(bytes(1 << 23))
elif name == "cryptsetup" and "close" in words:
    for path in (home / "mapper").iterdir():
        path.unlink()
elif name == "dmsetup":
    print((home / ("integrity" if words[1].endswith("_dif") else "crypt")).read_text())
elif name == "mount" and (home / "cannot-mount").exists():
    sys.exit(32)
"""
_CRYPT = (
    "0 100 crypt capi:authenc(hmac(sha256),xts(aes))-random "
    ":96:logon:cryptsetup:00010203-0405-0607-0809-0a0b0c0d0e0f-d0 0 0:0 0 2 "
    "integrity:48:aead sector_size:4096"
)
_INTEGRITY = "0 100 integrity 0:0 2048 48 J 7 block_size:4096"
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class MapperPrograms:
    """A machine with a disk (a file) and these programs; all below `home`."""

    home: Path

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the programs in the place of the machine's."""
        programs = self.home / "bin"
        for folder in (programs, self.home / "mapper"):
            folder.mkdir(parents=True)
        (self.home / "crypt").write_text(_CRYPT)
        (self.home / "integrity").write_text(_INTEGRITY)
        with self.disk.open("wb") as file:
            file.truncate(20 << 20)
        text = _PROGRAM.format(python=sys.executable, path=[str(_REPOSITORY)], home=str(self.home))
        for name in ("cryptsetup", "dmsetup", "mkfs.ext4", "mount", "umount", "sync"):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        patch.setenv("PATH", str(programs))
        patch.setitem(luks._ENVIRONMENT, "PATH", str(programs))
        patch.setattr(luks, "_HEADER_COPY", self.home / "run" / "header")
        patch.setattr(luks, "_MAPPER", self.home / "mapper")
        (self.home / "run").mkdir()

    @property
    def disk(self) -> Path:
        """Give the state disk."""
        return self.home / "disk"

    def mapped(self) -> bool:
        """Say whether a disk is open."""
        return any((self.home / "mapper").iterdir())

    def diary(self) -> list[str]:
        """List what was run."""
        path = self.home / "diary"
        return path.read_text().splitlines() if path.exists() else []
