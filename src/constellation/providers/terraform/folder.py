"""What lies in a folder that Terraform works in: the module, the variables, the backend's choice.

The variables are one file of JSON, `constellation.auto.tfvars.json`: the seam between this program
and the modules, which are usable without it. It holds no secret, and neither does the state.
Source: Terraform, "Input variables" (files *.auto.tfvars.json), "Backend configuration".
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import constellation
from constellation.base import decode, files
from constellation.base.errors import Conflict, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Folder", "Mark", "module_source"]

_VARIABLES = "constellation.auto.tfvars.json"
_BACKEND = "backend.tf.json"
_MARK = "constellation.json"
_PLAN = "constellation.tfplan"
_STATE = "terraform.tfstate"
_SUFFIXES = (".tf", ".tf.json", ".tftpl")
_MAX_MARK_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Whose resources a folder's state describes."""

    provider: str
    uid: str


def module_source(name: str) -> Path:
    """Give the folder of a module, e.g. "aws" or "iam/aws".

    Raises:
        ValueError: this package has no such module.
    """
    folder = Path(constellation.__file__).parent / "infra" / name
    if not folder.is_dir():
        raise ValueError(f"no module {name} in {folder.parent}")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """One folder, e.g. constellation-terraform/ of a workspace."""

    path: Path

    @property
    def plan(self) -> Path:
        """Give where a plan is kept until it was applied."""
        return self.path / _PLAN

    def mark(self) -> Mark | None:
        """Say whose resources these are; None: nothing was ever made from here.

        Raises:
            UserError: the mark is damaged.
        """
        try:
            data = (self.path / _MARK).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(self.path)) from None
        return decode.load(Mark, data, what=_MARK, max_bytes=_MAX_MARK_BYTES)

    def fill(
        self, source: Path, *, mark: Mark, variables: Mapping[str, object], backend: str
    ) -> None:
        """Put the module and its variables here; files of an older module go.

        Raises:
            Conflict: the folder's state is of other resources.
        """
        there = self.mark()
        if there is not None and there != mark:
            raise Conflict(
                f"{self.path} has the state of {there.uid} on {there.provider}, not of {mark.uid} "
                f"on {mark.provider}",
                hint="`constellation terminate` first, or use another workspace (-C)",
            )
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = {p.name: p for p in source.iterdir() if p.name.endswith(_SUFFIXES)}
        for old in self.path.iterdir():
            if old.name.endswith(_SUFFIXES) and old.name not in wanted:
                old.unlink()
        for name, path in wanted.items():
            shutil.copyfile(path, self.path / name)
        if backend:
            chosen: dict[str, object] = {"terraform": {"backend": {backend: {}}}}
            files.write_atomic(self.path / _BACKEND, json.dumps(chosen).encode())
        text = json.dumps(variables, indent=2, sort_keys=True) + "\n"
        files.write_atomic(self.path / _VARIABLES, text.encode())
        files.write_atomic(self.path / _MARK, decode.dump(mark))

    def remove(self) -> None:
        """Remove the folder once nothing exists any more; a user's own files in it stay."""
        ours = (_VARIABLES, _BACKEND, _MARK, _PLAN, _STATE, f"{_STATE}.backup")
        shutil.rmtree(self.path / ".terraform", ignore_errors=True)
        for path in [*self.path.iterdir()] if self.path.is_dir() else []:
            if path.name in (*ours, ".terraform.lock.hcl") or path.name.endswith(_SUFFIXES):
                path.unlink()
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
