"""How the artifacts are made from their Go modules: build, compare with the lock, keep.

What was built is worth nothing until its digest is the lock's; a program that is in the store
already is not built again, and Go's own cache makes an interrupted build go on where it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.digest import WrongDigest
from constellation.base.errors import Unavailable
from constellation.base.progress import Progress
from constellation.releases.lock import LockedArtifact
from constellation.releases.oci import write_image
from constellation.releases.recipes import BUILD_FLAGS, image_recipes, recipes
from constellation.releases.toolchain import ensure_toolchain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.cloud_recipe import CloudRecipe
    from constellation.releases.lock import LockedWheel
    from constellation.releases.recipes import ImageRecipe, Recipe
    from constellation.releases.store import Store
    from constellation.releases.toolchain import Toolchain

__all__ = ["build", "build_cloud"]

_LIST_TIMEOUT_S = 1200.0
_BUILD_TIMEOUT_S = 7200.0
_HINT = (
    "the pinned toolchain makes the same bytes everywhere; a difference is an error or an attack"
)


async def build(
    version: str,
    *,
    modules: Path,
    wheel: LockedWheel,
    expected: Mapping[str, LockedArtifact] | None,
    store: Store,
    report: Report,
) -> dict[str, LockedArtifact]:
    """Make all programs and images of a version that the store lacks; give digests by name.

    Args:
        version: of Kubernetes, "v1.36.2".
        modules: the folder with one Go module a recipe.
        wheel: the toolchain.
        expected: the lock's part for this version; None measures (to write a lock).
        store: where finished artifacts are and go.
        report: told packages done of packages to build.

    Raises:
        WrongDigest: a result is not what the lock says; it was not kept.
        Unavailable: Go module proxy or package index do not answer, or a build failed.
    """
    return await _build(
        recipes(version),
        image_recipes(version),
        step=f"Kubernetes {version}",
        work=_Work(modules=modules, wheel=wheel, expected=expected, store=store, report=report),
    )


async def build_cloud(
    recipe: CloudRecipe,
    *,
    modules: Path,
    wheel: LockedWheel,
    expected: Mapping[str, LockedArtifact] | None,
    store: Store,
    report: Report,
) -> dict[str, LockedArtifact]:
    """Make programs and images of a cloud's components; arguments and errors as `build`'s."""
    return await _build(
        recipe.modules,
        recipe.images,
        step=f"Components of {recipe.provider}",
        work=_Work(modules=modules, wheel=wheel, expected=expected, store=store, report=report),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What every build is given."""

    modules: Path
    wheel: LockedWheel
    expected: Mapping[str, LockedArtifact] | None
    store: Store
    report: Report


async def _build(
    modules: tuple[Recipe, ...], images: tuple[ImageRecipe, ...], *, step: str, work: _Work
) -> dict[str, LockedArtifact]:
    made: dict[str, LockedArtifact] = {}
    expected, store, report = work.expected, work.store, work.report
    for recipe in modules:
        missing = [n for n in recipe.programs if not await _stored(store, expected, n, made)]
        if not missing:
            continue
        go = await ensure_toolchain(work.wheel, cache=store.cache, report=report)
        made |= await _build_module(
            recipe, tuple(missing), folder=work.modules / recipe.folder, go=go, expected=expected,
            store=store, report=report,
        )  # fmt: skip
    for image in images:
        if not await _stored(store, expected, image.reference, made):
            report(Progress(step=step, detail=f"image {image.reference}"))
            made[image.reference] = await asyncio.to_thread(_pack, image, made, expected, store)
    report(Progress(step=step, detail="built from source", finished=True))
    return made


async def _stored(
    store: Store,
    expected: Mapping[str, LockedArtifact] | None,
    name: str,
    made: dict[str, LockedArtifact],
) -> bool:
    if expected is None:
        return False
    if name not in expected:
        raise Unavailable(f"{name}: the lock has no digest of its source build")
    locked = expected[name]
    if not await asyncio.to_thread(store.has, locked.sha256, size_bytes=locked.size_bytes):
        return False
    made[name] = locked
    return True


async def _build_module(
    recipe: Recipe,
    missing: tuple[str, ...],
    *,
    folder: Path,
    go: Toolchain,
    expected: Mapping[str, LockedArtifact] | None,
    store: Store,
    report: Report,
) -> dict[str, LockedArtifact]:
    step = f"Build {recipe.folder}"
    packages = tuple(recipe.programs[name] for name in missing)
    flags = (*BUILD_FLAGS, "-ldflags", recipe.linker_flags)
    total = await _stale_packages(folder, packages, flags, go=go, step=step, report=report)
    compiled = 0

    def on_line(line: str) -> None:
        nonlocal compiled
        if line and not line.startswith(("go: ", "#", "\t")):
            compiled = min(compiled + 1, total)
        report(Progress(step=step, detail=line[:80], done=compiled, total=total, unit="packages"))

    with store.staging() as out:
        report(Progress(step=step, detail="compiling", total=total, unit="packages"))
        await proc.stream(
            go.go, "build", "-v", *flags, "-o", f"{out}/", *packages,
            timeout_s=_BUILD_TIMEOUT_S, env=go.environment, cwd=folder, on_line=on_line,
        )  # fmt: skip
        made: dict[str, LockedArtifact] = {}
        wrong: list[WrongDigest] = []
        for name in missing:
            try:
                made[name] = await asyncio.to_thread(
                    _keep, store, out / _output_name(recipe.programs[name]), name, expected
                )
            except WrongDigest as error:
                wrong.append(error)
        if wrong:
            raise wrong[0]
    report(Progress(step=step, done=total, total=total, unit="packages", finished=True))
    return made


async def _stale_packages(
    folder: Path,
    packages: tuple[str, ...],
    flags: tuple[str, ...],
    *,
    go: Toolchain,
    step: str,
    report: Report,
) -> int:
    """Count what has to be compiled; this is also where modules are downloaded."""
    stale = fetched = 0

    def on_line(line: str) -> None:
        nonlocal stale, fetched
        if line.startswith("go: downloading"):
            fetched += 1
            report(Progress(step=step, detail=line[4:84], done=fetched, unit="modules"))
        elif line == "stale":
            stale += 1

    report(Progress(step=step, detail="looking at what is there"))
    await proc.stream(
        go.go, "list", *flags, "-deps", "-f", "{{if .Stale}}stale{{end}}", *packages,
        timeout_s=_LIST_TIMEOUT_S, env=go.environment, cwd=folder, on_line=on_line,
    )  # fmt: skip
    return stale


def _pack(
    image: ImageRecipe,
    made: Mapping[str, LockedArtifact],
    expected: Mapping[str, LockedArtifact] | None,
    store: Store,
) -> LockedArtifact:
    with store.staging() as folder:
        target = folder / "image.tar"
        write_image(
            target,
            reference=image.reference,
            programs={path: store.path(made[name].sha256) for path, name in image.files.items()},
            links=image.links,
            entrypoint=image.entrypoint,
            scratch=folder,
        )
        return _keep(store, target, image.reference, expected)


def _keep(
    store: Store, file: Path, name: str, expected: Mapping[str, LockedArtifact] | None
) -> LockedArtifact:
    want = None if expected is None else expected[name].sha256
    try:
        sha256, size_bytes = store.put(file, name=name, expected=want)
    except WrongDigest as error:
        raise WrongDigest(name, expected=error.expected, found=error.found, hint=_HINT) from None
    return LockedArtifact(sha256=sha256, size_bytes=size_bytes)


def _output_name(package: str) -> str:
    # `go help build`: the last element of the import path, or the one before a major version
    parts = package.split("/")
    last = parts[-1]
    return parts[-2] if last.startswith("v") and last[1:].isdigit() else last
