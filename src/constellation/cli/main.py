"""The command `constellation`: which verbs there are and how errors become exit codes.

0 done, 1 a bug, 2 usage, 3 bad input, 4 not authentic, 5 refused by policy, 6 unavailable, 7
conflict, 130 interrupted (design, section 4). Commands import what they need when they run, so that
`--help` and completion answer at once.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constellation.base.errors import ConstellationError, UserError
from constellation.cli.commands import ALL
from constellation.cli.explain import explain
from constellation.cli.output import show_error
from constellation.cli.run import program, settings, standard_options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["constellation", "main"]

_INTERRUPTED = 130
_FIELD = re.compile(
    r"(?:constellation-conf\.yaml: )?(?P<field>[a-z][A-Za-z]*(?:\.\w+)*)(?P<value>: .*)?"
)
_BUG = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@standard_options
@click.pass_context
def constellation(context: click.Context, /, **chosen: Any) -> None:
    """Kubernetes whose every node proves its boot before it gets a secret.

    Start with `constellation mini up`, or step by step: `config generate local`, `create`, `init`,
    `verify`, `terminate`.
    """
    settings(context, chosen)


for _command in ALL:
    constellation.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code, folder = 0, None
    try:
        with constellation.make_context("constellation", words) as context:
            try:
                constellation.invoke(context)
            finally:
                folder = getattr(context.obj, "folder", None)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _interrupted(words, folder)
    except BrokenPipeError:
        # whoever read us has gone: nothing more to say to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BUG
    except (ConstellationError, OSError, BaseExceptionGroup) as error:
        known = explain(error)
        if known is None:
            raise
        code = _failed(_pointed(known, folder), words)
    return code


def _pointed(error: ConstellationError, folder: Path | None) -> ConstellationError:
    """Name file and line where an error is about a field of the configuration."""
    match = _FIELD.fullmatch(error.where) if isinstance(error, UserError) else None
    if match is None:
        return error
    from constellation.config.reader import place_of
    from constellation.config.workspace import Workspace

    workspace = Workspace(folder=(folder or Path()).absolute())
    place = place_of(match["field"], workspace.config)
    message = str(error).removeprefix(f"{match[0]}: ")
    value = match["value"] or ""
    where = f"{place}: {match['field']}{value}"
    return UserError(message, where=where, hint=error.hint) if place else error


def _failed(error: ConstellationError, words: Sequence[str]) -> int:
    show_error(error, output=_output(words))
    return error.exit_code


def _interrupted(words: Sequence[str], folder: Path | None) -> int:
    there = f" -C {shlex.quote(str(folder))}" if folder is not None else ""
    verb = "mini down" if "mini" in words else "terminate"
    click.echo(
        "Interrupted. What was finished is kept.\n"
        f"Go on:  {program()} {shlex.join(words)}\n"
        f"Remove: {program()}{there} {verb}",
        err=True,
    )
    return _INTERRUPTED


def _output(words: Sequence[str]) -> str:
    flags = ("json", "-ojson", "--output=json", "-o=json")
    return "json" if any(word in flags for word in words) else "text"


if __name__ == "__main__":
    sys.exit(main())
