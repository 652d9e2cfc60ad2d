"""`constellation artifacts …`: Kubernetes, and clouds' components, into cache or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.trust.artifact_list import Artifact

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """Files that nodes need to run Kubernetes."""


@artifacts.command()
@click.option("--kubernetes", "version", help="Version, e.g. v1.36.2; the default one if absent.")
@click.option(
    "--from",
    "origin",
    type=click.Choice(["official", "source", "auto"]),
    default="auto",
    show_default=True,
    help="Download, build here, or download where the network allows it.",
)
@click.option("--check", is_flag=True, help="First hash everything in the cache anew.")
@click.option(
    "--release",
    "statement",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A release's statement: all of its files, of every Kubernetes version that it names.",
)
@click.option(
    "--source",
    "sources",
    metavar="URL",
    multiple=True,
    help="With --release: where to fetch what the cache lacks; repeatable.",
)
@click.option(
    "--to",
    "target",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy them to FOLDER/sha256 as well: what a web server serves to nodes.",
)
@standard_options
@click.pass_context
def mirror(
    context: click.Context,
    /,
    *,
    version: str | None,
    origin: str,
    check: bool,
    statement: Path | None,
    sources: tuple[str, ...],
    target: Path | None,
    **chosen: Any,
) -> None:
    """Have every artifact of a Kubernetes version in the cache, each checked by its digest."""
    from constellation.base.errors import UserError
    from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
    from constellation.config.workspace import cache_folder
    from constellation.releases.mirror import verify_cache

    chosen_settings = settings(context, chosen)
    cache = cache_folder()
    if statement is None and sources:
        raise UserError("says where files of a release come from", where="--source")
    if statement is not None and version is not None:
        raise UserError("a release names its own versions", where="--kubernetes")
    wanted = version or DEFAULT_KUBERNETES_VERSION
    what = f"release {statement.name}" if statement is not None else wanted
    with Steps() as steps:
        healed = run(verify_cache(cache)) if check else ()
        if statement is not None:
            listed = run(_of_release(statement, sources, cache=cache, report=steps.report))
        else:
            listed = run(
                _of_version(wanted, origin, services=target is not None, cache=cache,
                            report=steps.report)
            )  # fmt: skip
        if target is not None:
            run(_export(listed, cache=cache, folder=target, report=steps.report))
    place = cache if target is None else target
    result(
        {
            "artifacts": [
                {"kind": a.kind, "name": a.name, "sha256": a.sha256, "size_bytes": a.size_bytes}
                for a in listed
            ],
            "cache": str(cache),
            "damaged": list(healed),
            "folder": str(target) if target is not None else "",
            "version": "" if statement is not None else wanted,
        },
        output=chosen_settings.output,
        text=lambda: f"{len(listed)} artifacts of {what} are in {place}.",
    )


async def _of_version(
    version: str, origin: str, *, services: bool, cache: Path, report: Report
) -> tuple[Artifact, ...]:
    """Have a Kubernetes version, and for nodes elsewhere the services of this machine too."""
    from constellation.cli.world import LocalSupplies, ensure_artifacts

    listed = await ensure_artifacts(version, cache=cache, report=report, origin=origin)
    if services:
        _, _, bundle = await LocalSupplies(cache=cache).built(report=report)
        listed = listed.with_artifacts(bundle)
    return listed.artifacts


async def _of_release(
    statement: Path, sources: tuple[str, ...], *, cache: Path, report: Report
) -> tuple[Artifact, ...]:
    """Have all that a release names: from the cache, else from these sources.

    The statement needs no signature here: whoever uses the files goes by the signed one.
    """
    import asyncio

    from constellation.base.errors import UserError
    from constellation.base.file_server import USUAL_PACE, Door
    from constellation.base.progress import Progress
    from constellation.releases.delivery import USUAL_PATIENCE, deliver
    from constellation.releases.export import missing
    from constellation.releases.store import Store
    from constellation.trust.artifact_sources import NEVER_ASKED, parse_sources
    from constellation.trust.release import MAX_RELEASE_BYTES, parse_release

    try:
        data = await asyncio.to_thread(statement.read_bytes)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(statement)) from None
    release = parse_release(data[: MAX_RELEASE_BYTES + 1])
    found = {a.sha256: a for k in release.kubernetes.values() for a in k.artifacts}
    lacking = await asyncio.to_thread(missing, found.values(), store=Store(cache))
    if lacking:
        report(Progress(step="Artifacts of the release", detail=f"fetching {len(lacking)}"))
        await deliver(
            lacking,
            folder=cache / "sha256",
            sources=parse_sources(sources),
            door=Door(closed=NEVER_ASKED),
            pace=USUAL_PACE,
            patience=USUAL_PATIENCE,
        )
    report(Progress(step="Artifacts of the release", finished=True))
    return tuple(found.values())


async def _export(
    listed: tuple[Artifact, ...], *, cache: Path, folder: Path, report: Report
) -> None:
    from constellation.releases.export import export
    from constellation.releases.store import Store

    await export(listed, store=Store(cache), folder=folder, report=report)


@artifacts.command()
@click.argument("provider")
@click.option(
    "--registry",
    required=True,
    help="Where nodes will pull the images from, e.g. registry.example.com/team.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder to write to; the current one if absent.",
)
@standard_options
@click.pass_context
def cloud(
    context: click.Context, /, provider: str, registry: str, target: Path, **chosen: Any
) -> None:
    """Build a cloud's own components from source: images to push, and a file for a release.

    Programs, and so their images, have the digests of the package's lock, or nothing is written.
    """
    import shutil

    from constellation.base.errors import UserError
    from constellation.base.files import write_atomic
    from constellation.config.workspace import cache_folder
    from constellation.kube.cloud_objects import check_objects
    from constellation.releases.cloud_components import ensure_component

    output = settings(context, chosen).output
    with Steps() as steps:
        made = run(
            ensure_component(provider, registry=registry, cache=cache_folder(), report=steps.report)
        )
    check_objects(made.objects)
    objects = target / f"cloud-{provider}.json"
    archives = {image.name: target / f"{_file_name(image.name)}.tar" for image in made.images}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for image in made.images:
            shutil.copyfile(image.archive, archives[image.name])
        write_atomic(objects, made.objects)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(target)) from None
    result(
        {
            "images": [
                {"archive": str(archives[i.name]), "image": i.reference, "name": i.name}
                for i in made.images
            ],
            "objects": str(objects),
        },
        output=output,
        text=lambda: "\n".join(
            (
                f"Wrote {objects}, and {len(archives)} to push with a program that keeps digests:",
                *(
                    f"  skopeo copy --preserve-digests oci-archive:{archive} docker://{name}"
                    for name, archive in archives.items()
                ),
                "Next:",
                f"  constellation release create FILE --cloud-objects {provider}={objects} …",
            )
        ),
    )


def _file_name(name: str) -> str:
    """Give an image's last part without its tag: "registry.example.com/a:v1" is "a"."""
    return name.rpartition("/")[2].partition(":")[0]
