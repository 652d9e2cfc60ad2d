"""Which files of this project does a program need? Those that its imports name, and no others.

Imports are read from the sources, also inside functions, never by running them; a block under
`if TYPE_CHECKING:` is skipped, since it does not run either. A package of the closure brings its
data files (root certificates) along. Names that a program only builds as text are not seen: the
project has none.
Source: Python Language Reference, section 5.4 and 7.11 (import statements).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["closure", "imported_names"]

_PACKAGE = "constellation"
_SOURCE_ONLY = {".py", ".pyi", ".pyc", ".typed", ".proto"}


def closure(
    package: Path, programs: tuple[str, ...], *, without: frozenset[str] = frozenset()
) -> tuple[Path, ...]:
    """Give the files below `package` that the modules `programs` need, relative, sorted.

    Args:
        package: the folder of the `constellation` package.
        programs: dotted names, e.g. `constellation.services.agent.main`.
        without: dotted names of modules that are left out, with what they alone need: whoever
            imports one of them, in a function, gets an error when that runs.

    Raises:
        FormatError: a module that is imported is not there, or is not Python.
    """
    if gone := sorted(name for name in without if _find(package, name) is None):
        raise FormatError(f"module {gone[0]} is to be left out, but is not below {package}")
    waiting, seen, files = list(programs), set(without), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _find(package, name)
        if path is None:
            raise FormatError(f"module {name} is imported, but is not below {package}")
        files.add(str(path.relative_to(package)))
        if path.name == "__init__.py":
            files.update(str(p.relative_to(package)) for p in _data(path.parent))
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        here = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported, attributes in imported_names(path.read_text(), package=here, where=name):
            waiting.append(imported)
            waiting += [f"{imported}.{a}" for a in attributes if _find(package, f"{imported}.{a}")]
    return tuple(sorted(package.joinpath(f).relative_to(package) for f in files))


def imported_names(
    source: str, *, package: str, where: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (module of this project, names taken from it) for each import that may run.

    Raises:
        FormatError: `source` is not Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise FormatError(f"{where}: not Python: {error}") from None
    for node in _running(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == _PACKAGE:
                    yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join((*above, module) if module else above)
            if module.split(".")[0] == _PACKAGE:
                yield module, tuple(alias.name for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children: list[ast.AST] = [*node.orelse]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _running(child)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _find(package: Path, name: str) -> Path | None:
    parts = name.split(".")[1:]
    for path in (
        package.joinpath(*parts, "__init__.py"),
        package.joinpath(*parts).with_suffix(".py"),
    ):
        if path.is_file() and (parts or path.name == "__init__.py"):
            return path
    return None


def _data(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_file() and path.suffix not in _SOURCE_ONLY and not path.name.startswith("."):
            yield path
