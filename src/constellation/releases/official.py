"""How the published files become artifacts: download, compare with the lock, take out the programs.

The lock has the digest of each published file and image index. What is taken out of them is
determined by them; its digests are recorded in the cache, so that a warm cache needs no network.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import shutil
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable
from constellation.base.fetch import HttpStatus, TooLarge, download, get_bounded
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.releases.lock import LockedArtifact
from constellation.releases.registry import pull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import TypeVar

    from constellation.base.progress import Report
    from constellation.releases.lock import LockedFile, LockedImage, VersionLock
    from constellation.releases.store import Store

    T = TypeVar("T")

__all__ = ["Origins", "answers", "fetch", "recorded"]

_MAX_FILE_BYTES = 1024**3
_MAX_PROGRAM_BYTES = 512 * 1024**2
_FILE_TIMEOUT_S = 1800.0
_PROBE_TIMEOUT_S = 5.0
_PROBE_MAX_BYTES = 64 * 1024
_RECORD_MAX_BYTES = 256 * 1024
_ATTEMPTS = 4
_FIRST_PAUSE_S = 1.0
_CLIENT_ERRORS = range(400, 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where hosts are: `moved` maps a host of the lock to the base URL of a copy of it."""

    moved: Mapping[str, str] = field(default_factory=dict)

    def url(self, url: str) -> str:
        """Give the URL to ask in place of `url`."""
        parts = urlsplit(url)
        base = self.moved.get(parts.netloc, f"https://{parts.netloc}")
        return f"{base}{parts.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    artifacts: dict[str, LockedArtifact]


def recorded(wanted: VersionLock, *, store: Store) -> dict[str, LockedArtifact] | None:
    """Give the artifacts that were made of these files before, if all are there and whole."""
    try:
        data = _record_path(wanted, store).read_bytes()
        made = decode.load(
            _Record, data, what="record of official files", max_bytes=_RECORD_MAX_BYTES
        ).artifacts
    except (FileNotFoundError, FormatError):
        return None
    whole = all(store.has(a.sha256, size_bytes=a.size_bytes) for a in made.values())
    return made if whole else None


async def answers(wanted: VersionLock, *, origins: Origins) -> bool:
    """Say whether the origins of files and images can be reached, within about 5 s."""
    registry = wanted.images[0].reference.partition("/")[0]
    urls = (f"{wanted.files[0].url}.sha256", f"https://{registry}/v2/")

    async def one(url: str) -> bool:
        try:
            await get_bounded(
                origins.url(url), max_bytes=_PROBE_MAX_BYTES, timeout_s=_PROBE_TIMEOUT_S
            )
        except HttpStatus as error:
            # a registry that wants a token is there
            return error.status == 401  # noqa: PLR2004 - RFC 9110, 15.5.2
        except (Unavailable, TooLarge):
            return False
        return True

    return all(await asyncio.gather(*(one(url) for url in urls)))


async def fetch(
    wanted: VersionLock, *, origins: Origins, store: Store, report: Report
) -> dict[str, LockedArtifact]:
    """Download what the lock names and put its programs and images into `store`, by name.

    Raises:
        WrongDigest: a file or image is not the one of the lock; nothing of it was kept.
        FormatError: a file does not hold the programs that the lock names.
        Unavailable: an origin does not answer; the same call goes on.
    """
    downloads = store.cache / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    made: dict[str, LockedArtifact] = {}
    for file in wanted.files:
        made |= await _file(file, downloads, origins=origins, store=store, report=report)
    for image in wanted.images:
        made |= await _image(image, downloads, origins=origins, store=store, report=report)
    path = _record_path(wanted, store)
    write_atomic(path, decode.dump(_Record(artifacts=made)))
    store.give_to_owner(path.parent, path)
    await asyncio.to_thread(shutil.rmtree, downloads)
    return made


async def _file(
    file: LockedFile, downloads: Path, *, origins: Origins, store: Store, report: Report
) -> dict[str, LockedArtifact]:
    target = downloads / file.sha256
    step = f"Download {file.url.rpartition('/')[2]}"
    if not await asyncio.to_thread(target.exists):
        await _patiently(
            lambda: download(
                origins.url(file.url),
                target,
                sha256=file.sha256,
                max_bytes=file.size_bytes or _MAX_FILE_BYTES,
                timeout_s=_FILE_TIMEOUT_S,
                on_bytes=_reporter(report, step),
            )
        )
    report(Progress(step=step, detail="taking out programs"))
    made = await asyncio.to_thread(_take, target, file.programs, store)
    report(Progress(step=step, finished=True))
    return made


async def _image(
    image: LockedImage, downloads: Path, *, origins: Origins, store: Store, report: Report
) -> dict[str, LockedArtifact]:
    step = f"Pull {image.reference}"
    host, _, name = image.reference.partition("/")
    repository = name.rpartition(":")[0]
    pulled = await _patiently(
        lambda: pull(
            origins.url(f"https://{host}/v2/{repository}"),
            sha256=image.sha256,
            folder=downloads,
            on_bytes=_reporter(report, step),
        )
    )
    made: dict[str, LockedArtifact] = {}
    if image.programs:
        # a later layer replaces what an earlier one has
        missing = dict(image.programs)
        for layer in reversed(pulled.layers):
            taken = await asyncio.to_thread(_take_some, layer, missing, store)
            made |= taken
            missing = {path: n for path, n in missing.items() if n not in taken}
        if missing:
            raise FormatError(f"{image.reference}: no {', '.join(sorted(missing))} in it")
    else:
        with store.staging() as folder:
            target = folder / "image.tar"
            await asyncio.to_thread(pulled.write, target, reference=image.reference)
            made[image.reference] = await asyncio.to_thread(_keep, store, target, image.reference)
    report(Progress(step=step, finished=True))
    return made


def _take(file: Path, programs: Mapping[str, str], store: Store) -> dict[str, LockedArtifact]:
    if "" in programs:
        with store.staging() as folder:
            copy = folder / "program"
            shutil.copyfile(file, copy)
            return {programs[""]: _keep(store, copy, programs[""])}
    taken = _take_some(file, programs, store)
    if missing := sorted(path for path, name in programs.items() if name not in taken):
        raise FormatError(f"{file.name}: no {', '.join(missing)} in it")
    return taken


def _take_some(file: Path, programs: Mapping[str, str], store: Store) -> dict[str, LockedArtifact]:
    taken: dict[str, LockedArtifact] = {}
    try:
        with tarfile.open(file, "r:*") as tar, store.staging() as folder:
            for member in tar:
                name = programs.get(member.name.removeprefix("./").lstrip("/"))
                if name is None:
                    continue
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or member.size > _MAX_PROGRAM_BYTES:
                    raise FormatError(f"{file.name}: {member.name[:80]} is no program")
                copy = folder / "program"
                with copy.open("wb") as target:
                    shutil.copyfileobj(source, target)
                taken[name] = _keep(store, copy, name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"{file.name}: not a tar file that can be read: {error}") from error
    return taken


def _keep(store: Store, file: Path, name: str) -> LockedArtifact:
    sha256, size_bytes = store.put(file, name=name, expected=None)
    return LockedArtifact(sha256=sha256, size_bytes=size_bytes)


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try up to four times; what the server refuses (4xx) is not asked again."""
    pause = _FIRST_PAUSE_S
    for _ in range(_ATTEMPTS - 1):
        try:
            return await attempt()
        except HttpStatus as error:
            if error.status in _CLIENT_ERRORS:
                raise
        except Unavailable:
            pass
        await asyncio.sleep(pause)
        pause *= 2
    return await attempt()


def _reporter(report: Report, step: str) -> Callable[[int, int], None]:
    def on_bytes(done: int, total: int) -> None:
        report(Progress(step=step, done=done, total=total, unit="bytes"))

    return on_bytes


def _record_path(wanted: VersionLock, store: Store) -> Path:
    key = hashlib.sha256(decode.dump((wanted.files, wanted.images))).hexdigest()
    return store.cache / "official" / f"{key}.json"
