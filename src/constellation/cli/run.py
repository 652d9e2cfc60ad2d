"""How a command runs: its workspace, its output format, one event loop, errors as exit codes."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from constellation.config.workspace import Workspace

__all__ = ["Settings", "confirm", "program", "run", "settings", "standard_options"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every command knows: output ("text" or "json"), whether to ask, the folder."""

    output: str
    yes: bool
    folder: Path | None

    def workspace(self, default: str = ".") -> Workspace:
        """Give the workspace: -C, else `default`."""
        from constellation.config.workspace import Workspace

        return Workspace(folder=(self.folder or Path(default)).absolute())


def standard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command -o, --yes and -C, which may also stand before its name."""
    for option in (
        click.option(
            "-C",
            "--workspace",
            "folder",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder with the cluster's files.",
        ),
        click.option("-y", "--yes", is_flag=True, help="Answer every question with yes."),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["text", "json"]),
            help="Result as text (default) or JSON.",
        ),
    ):
        command = option(command)
    return command


def settings(context: click.Context, chosen: dict[str, Any]) -> Settings:
    """Take the standard options out of `chosen`; those before the command's name count too."""
    output, yes, folder = chosen.pop("output"), chosen.pop("yes"), chosen.pop("folder")
    outer = context.obj if isinstance(context.obj, Settings) else None
    merged = Settings(
        output=output or (outer.output if outer else "text"),
        yes=yes or (outer.yes if outer else False),
        folder=folder or (outer.folder if outer else None),
    )
    root = context.find_root()
    root.obj = merged
    return merged


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; Ctrl-C cancels it at its next await and ends with 130."""
    return asyncio.run(work)


def program() -> str:
    """Give the word that starts this program as the user started it, for commands to copy."""
    return shlex.quote(os.environ.get("CONSTELLATION_COMMAND") or "constellation")


def confirm(question: str, *, chosen: Settings) -> None:
    """Ask, unless --yes; without a terminal nobody can answer.

    Raises:
        UserError: the answer was no, or nobody was there to give one.
    """
    from constellation.base.errors import UserError

    if chosen.yes:
        return
    if not sys.stdin.isatty():
        raise UserError("needs an answer and there is no terminal", where="--yes", hint="add --yes")
    if not click.confirm(question, err=True):
        raise UserError("stopped: the answer was no")
