"""How the commands become their reference page: what `--help` says, in one Markdown file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from constellation.cli.main import constellation

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dump_cli_reference"]

_EXIT_CODES = (
    (0, "done"),
    (1, "a bug"),
    (2, "usage"),
    (3, "bad input: file:line, expected, found, hint"),
    (4, "not authentic"),
    (5, "refused by policy"),
    (6, "unavailable, try again"),
    (7, "conflict: the cluster's state does not allow it"),
    (130, "interrupted"),
)


def dump_cli_reference() -> str:
    """Write the reference page of the command line (Markdown)."""
    lines = [
        "# constellation (command line)",
        "",
        "Generated from the commands themselves; `make docs` writes it anew.",
        "Results go to standard output, progress and errors to standard error.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in _EXIT_CODES),
    ]
    for path, command in _walk("constellation", constellation):
        context = click.Context(command, info_name=path, max_content_width=96, terminal_width=96)
        lines += ["", f"## {path}", "", "```text", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from _walk(f"{path} {name}", inner)
