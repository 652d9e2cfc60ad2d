"""Where is an OpenStack cloud, and as whom? Its entry in the user's clouds.yaml.

Only application credentials are taken: a password opens all of a person's projects and cannot be
revoked alone.
Source: OpenStack, openstacksdk, "Configuring OpenStack SDK Applications".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from constellation.base.errors import UserError
from constellation.base.secret import Secret
from constellation.config.not_yaml import NOT_YAML
from constellation.providers.openstack.cloud import Login

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["find_clouds_yaml", "parse_login"]

_MAX_BYTES = 256 * 1024
_KIND = "v3applicationcredential"
_HINT = (
    "make one with `openstack application credential create`, and write it into clouds.yaml with "
    f"auth_type: {_KIND}"
)


def find_clouds_yaml(
    wanted: str, *, folder: Path, environment: Mapping[str, str] | None = None
) -> Path:
    """Give the file: the one that is wanted (from `folder`), else where OpenStack's tools look.

    Raises:
        UserError: there is none.
    """
    variables: Mapping[str, str] = os.environ if environment is None else environment
    if wanted:
        return folder / wanted
    named = variables.get("OS_CLIENT_CONFIG_FILE", "")
    home = Path(variables.get("HOME") or Path.home())
    places: tuple[Path, ...] = (
        Path(named) if named else folder / "clouds.yaml",
        folder / "clouds.yaml",
        home / ".config/openstack/clouds.yaml",
        Path("/etc/openstack/clouds.yaml"),
    )
    for place in places:
        if place.exists():
            return place
    raise UserError(
        "no clouds.yaml is there",
        where="provider.openstack.cloudsYAML",
        hint="docs/how-to/openstack.md: two application credentials, yours and control planes'",
    )


def parse_login(path: Path, *, cloud: str, region: str) -> Login:
    """Read a cloud's entry; `region` empty: the entry's own.

    Raises:
        UserError: it cannot be read, has no such cloud, or another kind of credential.
    """
    entry = _entry(path, cloud)
    auth = entry.get("auth")
    if entry.get("auth_type") != _KIND or not isinstance(auth, dict):
        raise UserError(
            f"{cloud}: expected auth_type {_KIND}, found {str(entry.get('auth_type'))[:40]!r}",
            where=str(path),
            hint=_HINT,
        )
    where = f"{path}: clouds.{cloud}"
    url = _text(auth, "auth_url", where).rstrip("/")
    bundle = entry.get("cacert")
    return Login(
        auth_url=url if url.endswith("/v3") else f"{url}/v3",
        region=region or _text(entry, "region_name", where),
        credential_id=_text(auth, "application_credential_id", where),
        credential_secret=Secret(_text(auth, "application_credential_secret", where).encode()),
        certificates=_certificates(path.parent / str(bundle)) if bundle else "",
    )


def _entry(path: Path, cloud: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        found = YAML(typ="safe", pure=True).load(data[:_MAX_BYTES].decode())
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except NOT_YAML:
        # what the parser says quotes the file, which holds secrets
        raise UserError("is no YAML", where=str(path)) from None
    clouds = found.get("clouds") if isinstance(found, dict) else None
    entry = clouds.get(cloud) if isinstance(clouds, dict) else None
    if not isinstance(entry, dict):
        raise UserError(f"has no cloud {cloud}", where=str(path))
    return entry


def _text(section: Mapping[str, Any], key: str, where: str) -> str:
    value = section.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"{key} is missing", where=where)
    return value


def _certificates(path: Path) -> str:
    try:
        return path.read_bytes()[:_MAX_BYTES].decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise UserError("certificates cannot be read", where=str(path)) from None
