"""Which program applies the modules: the user's own `terraform` or `tofu`; none is downloaded.

Sources: Terraform, "Command: version" (-json) and "Environment variables"; OpenTofu has the same.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.errors import FormatError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMES", "OLDEST", "Program", "clean_environment", "find", "parse_version"]

NAMES = ("terraform", "tofu")
"""Looked for on PATH, in this order."""

OLDEST = (1, 6)
"""The modules use nothing newer; OpenTofu begins here."""

_VERSION_S = 30.0
# what would change a run behind our back; TF_DATA_DIR, TF_PLUGIN_CACHE_DIR … are the user's affair
_DROPPED = ("TF_VAR_", "TF_CLI_ARGS", "TF_LOG", "TF_WORKSPACE", "TF_INPUT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The program to run, its name ("terraform", "tofu") and version."""

    path: Path
    name: str
    version: tuple[int, int]


async def find(wanted: str, *, path: str | None = None) -> Program:
    """Find the program: the one that is wanted by path, else the first of `NAMES` on PATH.

    Raises:
        UserError: there is none, or it is too old.
    """
    found = wanted or next(filter(None, (shutil.which(n, path=path) for n in NAMES)), "")
    if not found:
        raise UserError(
            f"neither {' nor '.join(NAMES)} is on PATH",
            hint="install one of them (none is downloaded for you), or name it in the "
            "configuration: terraform.program",
        )
    if shutil.which(found) is None:
        raise UserError(
            "is no program that can be run",
            where=f"terraform.program: {found}",
            hint="the path of terraform or tofu; empty: the one that is on PATH",
        )
    file = _from_here(found)
    done = await proc.run(file, "version", "-json", timeout_s=_VERSION_S, env=clean_environment())
    version = parse_version(done.stdout, where=str(file))
    if version < OLDEST:
        raise UserError(
            f"{file} has version {version[0]}.{version[1]}, expected {OLDEST[0]}.{OLDEST[1]} or "
            "newer",
            hint="install a newer one, or name it in the configuration: terraform.program",
        )
    return Program(path=file, name=file.name, version=version)


def _from_here(found: str) -> Path:
    # it is run in a folder of its own, where a path from here would lead elsewhere
    return Path(found).absolute()


def parse_version(said: bytes, *, where: str) -> tuple[int, int]:
    """Read major and minor version out of what `version -json` printed.

    Raises:
        FormatError: it is something else.
    """
    try:
        words = json.loads(said)["terraform_version"].split(".")
        return int(words[0]), int(words[1])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise FormatError(f"{where} version -json: no terraform_version in {said[:80]!r}") from None


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the environment for a run: the user's, with the cloud's credentials.

    What would change variables and arguments is left out, and a configuration file that is not
    there is not named.
    """
    variables = os.environ if environment is None else environment
    kept = {k: v for k, v in variables.items() if not k.startswith(_DROPPED)}
    if (file := kept.get("TF_CLI_CONFIG_FILE")) and not Path(file).exists():
        kept["TF_CLI_CONFIG_FILE"] = os.devnull
    return {**kept, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
