"""The kept corpus: per target one archive of small inputs, and every input that was once a finding.

A corpus holds what our own seeds led to, never what published evidence did: that stays where it
lies. Archives have no times in them, so equal corpora have equal bytes.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

__all__ = ["FINDINGS", "findings", "read", "write"]

_HERE = Path(__file__).resolve().parent
_CORPUS, FINDINGS = _HERE / "corpus", _HERE / "findings"
_TIME = (1980, 1, 1, 0, 0, 0)


def read(name: str) -> list[bytes]:
    """Give a target's kept inputs."""
    path = _CORPUS / f"{name}.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(entry) for entry in archive.namelist()]


def write(name: str, inputs: list[bytes], *, most_bytes: int) -> int:
    """Keep inputs, smallest first, as many as the archive has room for; give how many."""
    kept = {hashlib.sha256(data).hexdigest()[:16]: data for data in inputs}
    _CORPUS.mkdir(exist_ok=True)
    path, count = _CORPUS / f"{name}.zip", 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for digest, data in sorted(kept.items(), key=lambda item: (len(item[1]), item[0])):
            if archive.fp is None or archive.fp.tell() + len(data) // 2 > most_bytes:
                break
            archive.writestr(zipfile.ZipInfo(digest, _TIME), data, zipfile.ZIP_DEFLATED)
            count += 1
    return count


def findings(name: str) -> list[bytes]:
    """Give the inputs that this target once answered wrongly."""
    return [path.read_bytes() for path in sorted((FINDINGS / name).glob("*"))]
