"""How a folder comes to hold what nodes fetch: files by digest, for any web server or bucket.

Every file is hashed while it is copied, and gets its name only if it is what the list says. What is
there and right stays, so that the same call again only adds.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.digest import WrongDigest, digest_of
from constellation.base.errors import Unavailable
from constellation.base.files import copy_digest
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.base.progress import Report
    from constellation.releases.store import Store
    from constellation.trust.artifact_list import Artifact

__all__ = ["export", "missing"]

_READABLE, _SEARCHABLE = 0o644, 0o755  # a web server may be another user
_STEP = "Folder for nodes"


def missing(wanted: Iterable[Artifact], *, store: Store) -> tuple[Artifact, ...]:
    """Give those that the store does not have whole."""
    return tuple(a for a in wanted if not store.has(a.sha256, size_bytes=a.size_bytes))


async def export(wanted: Iterable[Artifact], *, store: Store, folder: Path, report: Report) -> int:
    """Copy these files from the store to `folder`/sha256; give how many were not there yet.

    Raises:
        WrongDigest: the store's is another one; nothing of it is kept.
        Unavailable: a file is not in the store, or the folder cannot be written.
    """
    files, copied = tuple({a.sha256: a for a in wanted}.values()), 0
    for done, artifact in enumerate(files):
        report(
            Progress(step=_STEP, detail=artifact.name, done=done, total=len(files), unit="files")
        )
        copied += await asyncio.to_thread(_copy, artifact, store.path(artifact.sha256), folder)
    report(Progress(step=_STEP, finished=True))
    return copied


def _copy(artifact: Artifact, source: Path, folder: Path) -> bool:
    target = folder / "sha256" / artifact.sha256
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.parent.chmod(_SEARCHABLE)
        if target.exists() and digest_of(target) == artifact.sha256:
            return False
        with source.open("rb") as file:
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=".")
            part = Path(name)
            with os.fdopen(handle, "wb") as copy:
                found, _ = copy_digest(file, copy, max_bytes=artifact.size_bytes)
                os.fchmod(copy.fileno(), _READABLE)
        if found.hex() != artifact.sha256:
            raise WrongDigest(
                f"artifact {artifact.name} ({source})",
                expected=artifact.sha256,
                found=found.hex(),
                hint="`constellation artifacts mirror --check` fetches it again",
            )
        part.replace(target)
    except OSError as error:
        raise Unavailable(
            f"artifact {artifact.name}: {error.filename or target}: {error.strerror}"
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return True
