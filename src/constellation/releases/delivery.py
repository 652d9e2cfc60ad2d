"""How artifacts come into a folder from the owner's sources: each is asked in turn, none believed.

A source that gave other bytes than the list says, or says no, is not asked again for that file; one
that is busy is, after a pause, until the patience is over. What is in the folder under its digest
was right when it came; who uses it later hashes it again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.digest import WrongDigest, digest_of
from constellation.base.errors import ConstellationError, Unavailable, Untrusted
from constellation.base.file_server import NotServed, Pace, Wanted, fetch_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from constellation.base.file_server import Door
    from constellation.trust.artifact_list import Artifact
    from constellation.trust.artifact_sources import Source

__all__ = ["USUAL_PATIENCE", "ArtifactMissing", "FalseArtifact", "Patience", "deliver"]

_log = logging.getLogger(__name__)
_AT_ONCE = 3
_NO_SOURCE_HINT = "name one in constellation-conf.yaml: artifacts.sources"
_HINT = "a source holds what `constellation artifacts mirror --to FOLDER` writes"


class ArtifactMissing(Unavailable):
    """No source gave an artifact; `reasons` says for each, by its address, what was wrong."""

    def __init__(self, artifact: Artifact, reasons: dict[str, str]) -> None:
        said = "; ".join(reasons.values()) or "no source is named"
        super().__init__(
            f"artifact {artifact.name}: {said}", hint=_HINT if reasons else _NO_SOURCE_HINT
        )
        self.artifact, self.reasons = artifact, reasons


class FalseArtifact(Untrusted):
    """Every source gave other bytes than the signed list says; none of them were kept."""

    def __init__(self, artifact: Artifact, reasons: dict[str, str]) -> None:
        super().__init__(f"artifact {artifact.name}: {'; '.join(reasons.values())}", hint=_HINT)
        self.artifact, self.reasons = artifact, reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """For how long busy sources are asked again: pauses double from the first to the longest.

    A pause that a source asks for counts, up to the longest.
    """

    first_pause_s: float
    longest_pause_s: float
    in_all_s: float


USUAL_PATIENCE = Patience(first_pause_s=1.0, longest_pause_s=30.0, in_all_s=180.0)


async def deliver(
    wanted: Iterable[Artifact],
    *,
    folder: Path,
    sources: tuple[Source, ...],
    door: Door,
    pace: Pace,
    patience: Patience,
) -> None:
    """Have these files in `folder` under their digests; what is there and right stays.

    Raises:
        FalseArtifact: all that the sources have of a file is another one.
        ArtifactMissing: a file is not to be had, or nobody may be asked.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    gate = asyncio.Semaphore(_AT_ONCE)
    failures: list[ConstellationError] = []

    async def one(artifact: Artifact) -> None:
        async with gate:
            if failures:
                return
            try:
                if not await asyncio.to_thread(_is_there, artifact, folder):
                    await _fetch(
                        artifact, folder, sources=sources, door=door, pace=pace, patience=patience
                    )
            except ConstellationError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as tasks:
        for artifact in wanted:
            tasks.create_task(one(artifact))
    if failures:
        raise failures[0]


def _is_there(artifact: Artifact, folder: Path) -> bool:
    path = folder / artifact.sha256
    try:
        if path.stat().st_size == artifact.size_bytes and digest_of(path) == artifact.sha256:
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        # the disk's integrity refuses a block: not what was written
        _log.warning("cannot be read", extra={"artifact": artifact.name, "reason": str(error)})
    _log.warning("damaged, fetched again", extra={"artifact": artifact.name})
    path.unlink(missing_ok=True)
    return False


async def _fetch(
    artifact: Artifact,
    folder: Path,
    *,
    sources: tuple[Source, ...],
    door: Door,
    pace: Pace,
    patience: Patience,
) -> None:
    end, pause = monotonic_s() + patience.in_all_s, patience.first_pause_s
    failures: dict[Source, WrongDigest | NotServed] = {}
    left = sources
    while left:
        for source in left:
            failure = await _ask(artifact, folder, source, door=door, pace=pace)
            if failure is None:
                return
            failures[source] = failure
            _log.warning(
                "a source gave no artifact",
                extra={
                    "artifact": artifact.name,
                    "endpoint": str(source),
                    "reason": str(failure),
                },
            )
        busy = {s: f for s, f in failures.items() if isinstance(f, NotServed) and f.again}
        left = tuple(s for s in left if s in busy)
        asked_for = max((f.pause_s or 0.0 for f in busy.values()), default=0.0)
        wait = min(max(pause, asked_for), patience.longest_pause_s)
        if not left or monotonic_s() + wait > end:
            break
        await asyncio.sleep(wait)
        pause = min(pause * 2, patience.longest_pause_s)
    reasons = {str(source): str(failure) for source, failure in failures.items()}
    if failures and all(isinstance(f, WrongDigest) for f in failures.values()):
        raise FalseArtifact(artifact, reasons)
    raise ArtifactMissing(artifact, reasons)


async def _ask(
    artifact: Artifact, folder: Path, source: Source, *, door: Door, pace: Pace
) -> WrongDigest | NotServed | None:
    """Ask one source once; None: the file is there."""
    wanted = Wanted(
        name=f"artifact {artifact.name}", sha256=artifact.sha256, size_bytes=artifact.size_bytes
    )
    try:
        await fetch_file(
            source.url_of(artifact.sha256), folder / artifact.sha256, wanted=wanted, door=door,
            pace=pace,
        )  # fmt: skip
    except (WrongDigest, NotServed) as error:
        return error
    return None
