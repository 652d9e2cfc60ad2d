"""`constellation config …`: what may stand in the configuration file, and a first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from constellation.attestation.model import Variant
    from constellation.base.progress import Report
    from constellation.cli.run import Settings
    from constellation.trust.release import ReleaseImage

__all__ = ["config"]


@click.group()
def config() -> None:
    """Make and explain constellation-conf.yaml."""


_PROVIDERS = ("local", "aws", "azure", "gcp", "openstack", "stackit", "baremetal")


@config.command()
@click.argument("provider", type=click.Choice(_PROVIDERS))
@click.option("--attestation", help="The variant; without it, the provider's strongest.")
@click.option("--accept-weaker", default="", help="Why a variant will do that trusts the cloud.")
@standard_options
@click.pass_context
def generate(
    context: click.Context,
    /,
    provider: str,
    attestation: str | None,
    accept_weaker: str,
    **chosen: Any,
) -> None:
    """Write constellation-conf.yaml for PROVIDER with a comment at every field."""
    from constellation.base.errors import Conflict
    from constellation.base.files import write_atomic
    from constellation.config.first import first_config
    from constellation.config.writer import dump_example

    chosen_settings = settings(context, chosen)
    path = chosen_settings.workspace().config
    if path.exists():
        raise Conflict(
            f"{path} exists and is not overwritten", hint="move it away, or use another folder (-C)"
        )
    first = first_config(provider, variant=_variant(attestation), accept_weaker=accept_weaker)
    write_atomic(path, dump_example(first).encode())
    result(
        {"config": str(path), "provider": provider},
        output=chosen_settings.output,
        text=lambda: f"Wrote {path}. Next: constellation create",
    )


def _variant(text: str | None) -> Variant | None:
    from constellation.attestation.model import Variant
    from constellation.base.errors import UserError

    if text is None:
        return None
    try:
        return Variant(text)
    except ValueError:
        raise UserError(
            f"{text[:40]!r} is no variant ({', '.join(Variant)})", where="--attestation"
        ) from None


@config.command("instance-types")
@click.argument("provider", required=False, type=click.Choice(_PROVIDERS))
@standard_options
@click.pass_context
def instance_types(context: click.Context, /, provider: str | None, **chosen: Any) -> None:
    """List variants, machine types and disk types of each provider, or of PROVIDER."""
    from constellation.config.first import PRESETS
    from constellation.config.providers.catalogues import ProviderName, catalogue

    names = list(ProviderName) if provider is None else [PRESETS[provider][0]]
    found = [
        {
            "believes": offer.weak,
            "disk_types": list(offer.disk_types),
            "machines": [m.name for m in offer.machines],
            "provider": str(name),
            "regions": list(offer.regions),
            "variant": str(offer.variant),
        }
        for name in names
        for offer in catalogue(name).offers
    ]
    result(
        {"offers": found},
        output=settings(context, chosen).output,
        text=lambda: "\n".join(line for offer in found for line in _offer_lines(offer)),
    )


def _offer_lines(offer: dict[str, Any]) -> list[str]:
    lines = [f"{offer['provider']} {offer['variant']}"]
    if offer["believes"]:
        lines.append(f"  needs acceptWeaker: {offer['believes']}")
    return lines + [
        f"  {name.replace('_', ' ')}: {', '.join(offer[name])}"
        for name in ("machines", "disk_types", "regions")
        if offer[name]
    ]


@config.command()
@standard_options
@click.pass_context
def schema(context: click.Context, /, **chosen: Any) -> None:
    """Print the JSON schema of the configuration file."""
    from constellation.config.writer import dump_schema

    settings(context, chosen)
    click.echo(dump_schema(), nl=False)


@config.command()
@standard_options
@click.pass_context
def migrate(context: click.Context, /, **chosen: Any) -> None:
    """Bring constellation-conf.yaml to the present format; version 1 is the only one so far."""
    from constellation.config.reader import read_config

    chosen_settings = settings(context, chosen)
    path = chosen_settings.workspace().config
    found = read_config(path)  # refuses what another program version wrote
    result(
        {"config": str(path), "migrated": False, "version": found.version},
        output=chosen_settings.output,
        text=lambda: f"{path} has the present format, version {found.version}: nothing to do.",
    )


@config.command("kubernetes-versions")
@standard_options
@click.pass_context
def kubernetes_versions(context: click.Context, /, **chosen: Any) -> None:
    """List the supported versions of Kubernetes; the first is the default."""
    from constellation.config.schema import DEFAULT_KUBERNETES_VERSION, KUBERNETES_VERSIONS

    result(
        {"default": DEFAULT_KUBERNETES_VERSION, "versions": list(KUBERNETES_VERSIONS)},
        output=settings(context, chosen).output,
        text=lambda: "\n".join(KUBERNETES_VERSIONS),
    )


@config.command("fetch-measurements")
@standard_options
@click.pass_context
def fetch_measurements(context: click.Context, /, **chosen: Any) -> None:
    """Show the reference values of the conf's release, or the newest, for provider and variant."""
    import dataclasses

    chosen_settings = settings(context, chosen)
    with Steps() as steps:
        version, image = run(_measurements(chosen_settings, report=steps.report))
    found = {
        "image": image.name,
        "provider": image.provider,
        "reference": [dataclasses.asdict(values) for values in image.reference],
        "release": version,
        "sha256": image.sha256,
        "variant": str(image.variant),
    }
    result(
        found,
        output=chosen_settings.output,
        text=lambda: "\n".join(
            (
                f"Release {version}, {image.name} for {image.provider}, {image.variant}",
                f"SHA-256 {image.sha256}",
                *(
                    f"register {register:2}  {value}"
                    for values in image.reference
                    for register, accepted in sorted(values.registers.items())
                    for value in accepted
                ),
            )
        ),
    )


async def _measurements(chosen: Settings, *, report: Report) -> tuple[str, ReleaseImage]:
    from constellation.cli.releases import find_source
    from constellation.cli.world import real_context
    from constellation.cluster.upgrade import measurements
    from constellation.config.reader import read_config
    from constellation.config.workspace import cache_folder

    workspace = chosen.workspace()
    conf = read_config(workspace.config)
    source = await find_source(workspace, conf, cache=cache_folder(), report=report)
    engine = real_context(workspace, conf, report=report)
    return await measurements(engine, source.site, pinned_root=source.pinned_root)
