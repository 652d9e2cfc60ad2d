"""`constellation release …`: for whoever makes images. State, sign and publish a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import Steps, result
from constellation.cli.run import run, settings, standard_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.releases.repository import Repository

__all__ = ["release"]

_ROLES = ("root", "targets", "snapshot", "timestamp")
_FILE = click.Path(path_type=Path, dir_okay=False)


def _repository_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the repository, the keys to sign with, and how long metadata stays fresh."""
    for option in (
        click.option(
            "--fresh-for",
            "fresh_for",
            metavar="ROLE=DAYS",
            multiple=True,
            help="How long a role's metadata stays fresh; root 365, targets and snapshot 90, "
            "timestamp 14 days if absent.",
        ),
        click.option(
            "--key", "keys", type=_FILE, multiple=True, help="Private key to sign with; repeatable."
        ),
        click.option(
            "--repository",
            "repository_folder",
            required=True,
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the repository.",
        ),
    ):
        command = option(command)
    return command


def _repository(chosen: dict[str, Any], *more: Path) -> Repository:
    from constellation.base import clock
    from constellation.releases.key_file import read_key
    from constellation.releases.repository import LIFETIMES, Repository

    files = dict.fromkeys((*chosen.pop("keys"), *more))
    return Repository(
        folder=chosen.pop("repository_folder"),
        keys=tuple(read_key(path) for path in files),
        now=clock.now(),
        lifetimes={**LIFETIMES, **_lifetimes(chosen.pop("fresh_for"))},
    )


def _lifetimes(words: tuple[str, ...]) -> dict[str, Any]:
    from datetime import timedelta

    from constellation.base.errors import UserError

    found = {}
    for word in words:
        role, _, days = word.partition("=")
        if role not in _ROLES or not days.isascii() or not days.isdecimal() or int(days) < 1:
            raise UserError(
                f"expected ROLE=DAYS, found {word[:40]!r}",
                where="--fresh-for",
                hint=f"a role is one of {', '.join(_ROLES)}",
            )
        found[role] = timedelta(days=int(days))
    return found


@click.group()
def release() -> None:
    """Make, sign and publish releases of node images."""


@release.command()
@click.argument("path", metavar="FILE", type=_FILE)
@standard_options
@click.pass_context
def key(context: click.Context, /, path: Path, **chosen: Any) -> None:
    """Make a private key in FILE (mode 0600) and its public half in FILE.pub."""
    from constellation.releases.key_file import make_key

    output = settings(context, chosen).output
    public = make_key(path)
    result(
        {"private_key": str(path), "public_key": str(public)},
        output=output,
        text=lambda: f"Wrote {path} (private) and {public} (public).",
    )


@release.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--version", required=True, help="1.2.3, or 1.2.3-dev.4 for development.")
@click.option(
    "--kubernetes", multiple=True, help="A Kubernetes version; repeatable. All if absent."
)
@click.option(
    "--minimum-version", default="0.1.0", show_default=True, help="Oldest to upgrade from."
)
@click.option("--withdraw", multiple=True, help="A version that nobody may move to; repeatable.")
@click.option(
    "--cloud-objects",
    multiple=True,
    metavar="PROVIDER=FILE",
    help="A cloud's own components, a JSON List with images by digest; repeatable.",
)
@click.option(
    "--node-image",
    "node_images",
    type=_FILE,
    multiple=True,
    help="What `image build` stated of a cloud's node image; repeatable.",
)
@standard_options
@click.pass_context
def create(
    context: click.Context,
    /,
    *,
    path: Path,
    version: str,
    kubernetes: tuple[str, ...],
    minimum_version: str,
    withdraw: tuple[str, ...],
    cloud_objects: tuple[str, ...],
    node_images: tuple[Path, ...],
    **chosen: Any,
) -> None:
    """Build node image, services and Kubernetes here, and state them in FILE."""
    from constellation.base import clock
    from constellation.base.errors import Conflict
    from constellation.base.files import write_atomic
    from constellation.cli.releases import build_parts, read_node_image, with_cloud_objects
    from constellation.config.workspace import cache_folder
    from constellation.image.development_release import release_of
    from constellation.releases.mirror import supported_versions
    from constellation.trust.release import dump_release, parse_release

    output = settings(context, chosen).output
    if path.exists():
        raise Conflict(f"{path} exists and is not overwritten")
    more = tuple(read_node_image(file) for file in node_images)
    with Steps() as steps:
        parts = run(
            build_parts(
                cache_folder(), report=steps.report, kubernetes=kubernetes or supported_versions()
            )
        )
    parts = with_cloud_objects(parts, cloud_objects, cache=cache_folder())
    made = release_of(
        version,
        image=parts.image,
        services=parts.services,
        kubernetes=parts.kubernetes,
        created=int(clock.now().timestamp()),
        minimum_version=minimum_version,
        withdrawn=tuple(sorted(withdraw)),
        more=more,
    )
    data = dump_release(made)
    parse_release(data)
    write_atomic(path, data)
    result(
        {"release": str(path), "version": version, "kubernetes": sorted(made.kubernetes)},
        output=output,
        text=lambda: f"Wrote {path}. Next: constellation release sign {path} --key FILE",
    )


@release.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--key", "key_path", required=True, type=_FILE, help="Private release key.")
@standard_options
@click.pass_context
def sign(context: click.Context, /, path: Path, key_path: Path, **chosen: Any) -> None:
    """Sign the release in FILE; writes FILE.sigstore.json, which cosign checks too."""
    from constellation.base.files import write_atomic
    from constellation.releases.key_file import read_key
    from constellation.trust.release import parse_release, sign_release

    output = settings(context, chosen).output
    data = _read(path)
    stated = parse_release(data)
    signature = _signature_of(path)
    write_atomic(signature, sign_release(data, read_key(key_path)))
    result(
        {"signature": str(signature), "version": stated.version},
        output=output,
        text=lambda: f"Wrote {signature}.",
    )


@release.command()
@click.option("--root-key", "root_keys", type=_FILE, multiple=True, required=True, help="Private.")
@click.option(
    "--threshold", type=int, default=1, show_default=True, help="Root keys that must sign."
)
@click.option("--release-key", type=_FILE, required=True, help="Private; signs releases.")
@click.option(
    "--online-key", type=_FILE, help="Private; keeps metadata fresh. The release key if absent."
)
@_repository_options
@standard_options
@click.pass_context
def init(
    context: click.Context,
    /,
    root_keys: tuple[Path, ...],
    threshold: int,
    release_key: Path,
    online_key: Path | None,
    **chosen: Any,
) -> None:
    """Make an empty repository; its first root is what clients pin."""
    from constellation.crypto.signing import spki
    from constellation.releases.key_file import read_key
    from constellation.releases.repository import RoleKeys

    output, chosen = _own(context, chosen)
    online = online_key or release_key
    repository = _repository(chosen, *root_keys, release_key, online)
    repository.create(
        {
            role: RoleKeys(
                public_keys=tuple(spki(read_key(f).public_key()) for f in files), threshold=least
            )
            for role, files, least in (
                ("root", root_keys, threshold),
                ("targets", (release_key,), 1),
                ("snapshot", (online,), 1),
                ("timestamp", (online,), 1),
            )
        }
    )
    root = repository.folder / "metadata" / "1.root.json"
    result(
        {"repository": str(repository.folder), "root": str(root)},
        output=output,
        text=lambda: f"Made {repository.folder}. What clients pin: {root}",
    )


@release.command()
@click.argument("path", metavar="FILE", type=_FILE)
@_repository_options
@standard_options
@click.pass_context
def publish(context: click.Context, /, path: Path, **chosen: Any) -> None:
    """Add the signed release in FILE to a repository."""
    output, chosen = _own(context, chosen)
    repository = _repository(chosen)
    version = repository.publish(_read(path), _read(_signature_of(path)))
    result(
        {"repository": str(repository.folder), "version": version},
        output=output,
        text=lambda: f"Published {version} in {repository.folder}.",
    )


@release.command()
@_repository_options
@standard_options
@click.pass_context
def renew(context: click.Context, /, **chosen: Any) -> None:
    """Sign all metadata anew so that it stays fresh; the root too if root keys are given."""
    output, chosen = _own(context, chosen)
    repository = _repository(chosen)
    repository.renew()
    result(
        {"repository": str(repository.folder)},
        output=output,
        text=lambda: f"Renewed {repository.folder}.",
    )


@release.command()
@click.argument("role", type=click.Choice(_ROLES))
@click.option(
    "--to", "new_keys", type=_FILE, multiple=True, required=True, help="Public key; repeatable."
)
@click.option("--threshold", type=int, default=1, show_default=True, help="Keys that must sign.")
@_repository_options
@standard_options
@click.pass_context
def rotate(
    context: click.Context,
    /,
    role: str,
    new_keys: tuple[Path, ...],
    threshold: int,
    **chosen: Any,
) -> None:
    """Give a role other keys: a new root, signed by enough of the present root keys."""
    from constellation.releases.key_file import read_public_key
    from constellation.releases.repository import RoleKeys

    output, chosen = _own(context, chosen)
    repository = _repository(chosen)
    public_keys = tuple(read_public_key(path) for path in new_keys)
    repository.rotate(role, RoleKeys(public_keys=public_keys, threshold=threshold))
    result(
        {"repository": str(repository.folder), "role": role},
        output=output,
        text=lambda: f"{role} in {repository.folder} has {len(public_keys)} new keys.",
    )


def _own(context: click.Context, chosen: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Take the standard options out; give the output and what is left for the repository."""
    own = {name: chosen.pop(name) for name in ("keys", "fresh_for", "repository_folder")}
    return settings(context, chosen).output, own


def _signature_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sigstore.json")


def _read(path: Path) -> bytes:
    from constellation.base.errors import UserError
    from constellation.trust.release import MAX_RELEASE_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_RELEASE_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
