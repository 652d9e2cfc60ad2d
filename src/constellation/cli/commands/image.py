"""`constellation image …`: node images for machines elsewhere, as their clouds take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

__all__ = ["image"]

_PROVIDERS = ("aws", "azure", "gcp", "openstack", "baremetal")
_MAX_ROOT_BYTES = 64 * 1024


@click.group()
def image() -> None:
    """Node images for machines in a cloud, or for hosts of your own."""


@image.command()
@click.argument("provider", type=click.Choice(_PROVIDERS))
@click.option("--attestation", "variant", metavar="VARIANT", help="The strongest one if absent.")
@click.option(
    "--to",
    "target",
    metavar="FOLDER",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where disk and statement are written.",
)
@click.option(
    "--release-root",
    "root",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Root metadata (1.root.json) of the repository that its nodes judge releases by; "
    "this machine's, for development, if absent.",
)
@click.option(
    "--launch",
    metavar="CLAIM=HEX",
    multiple=True,
    help="An accepted launch value of the cloud's own firmware (measurement, id_key_digest, "
    "mr_td); repeatable.",
)
@standard_options
@click.pass_context
def build(
    context: click.Context,
    /,
    *,
    provider: str,
    variant: str | None,
    target: Path,
    root: Path | None,
    launch: tuple[str, ...],
    **chosen: Any,
) -> None:
    """Build a node image here: the disk as PROVIDER imports it, and what a release states of it."""
    from constellation.attestation.model import Variant
    from constellation.base import decode
    from constellation.base.errors import UserError
    from constellation.base.files import write_atomic
    from constellation.config.workspace import cache_folder
    from constellation.image.flavours import flavour_of
    from constellation.image.formats import FORMATS, write_disk
    from constellation.image.machine import ensure_machine_image
    from constellation.image.statement import launch_note, parse_launch, state_image

    output = settings(context, chosen).output
    if variant is not None and variant not in tuple(Variant):
        raise UserError(f"expected a variant, found {variant[:40]!r}", where="--attestation")
    flavour = flavour_of(provider, None if variant is None else Variant(variant))
    pinned = None if root is None else _root(root)
    values = parse_launch(launch, flavour)
    with Steps() as steps:
        built = run(
            ensure_machine_image(cache_folder(), flavour, steps.report, release_root=pinned)
        )
    stated = state_image(built, provider=flavour.provider, variant=flavour.variant, launch=values)
    target.mkdir(parents=True, exist_ok=True)
    disk = target / f"{built.manifest.name}.{FORMATS[provider]}"
    write_disk(
        built.path, disk, as_=FORMATS[provider],
        unique_id=bytes.fromhex(built.manifest.sha256)[:16],
    )  # fmt: skip
    statement = target / f"{built.manifest.name}.json"
    write_atomic(statement, decode.dump(stated) + b"\n")
    registers = stated.reference[0].registers
    result(
        {
            "disk": str(disk),
            "statement": str(statement),
            "sha256": stated.sha256,
            "variant": str(flavour.variant),
            "registers": {f"pcr{number}": values[0] for number, values in registers.items()},
        },
        output=output,
        text=lambda: "\n".join(
            (
                f"Wrote {disk} ({flavour.variant}), raw disk SHA-256 {stated.sha256}.",
                *(f"  PCR {number}: {values[0]}" for number, values in registers.items()),
                *filter(None, (launch_note(flavour, values),)),
                f"For a release: constellation release create … --node-image {statement}",
            )
        ),
    )


def _root(path: Path) -> bytes:
    from constellation.base.errors import UserError

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_ROOT_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > _MAX_ROOT_BYTES:
        raise UserError("more than 64 KiB: no root metadata", where=str(path))
    return data
