"""What of the project's sources comes with a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError
from constellation.image import programs
from constellation.image.closure import closure, imported_names
from constellation.image.sources import package_folder

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names(package: Path, program: str) -> set[str]:
    return {str(p) for p in closure(package, (program,))}


def test_imports_bring_modules_their_packages_and_data_but_nothing_else(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        {
            "__init__.py": "",
            "py.typed": "",
            "a/__init__.py": "",
            "a/main.py": "from constellation.b import one\n",
            "b/__init__.py": "",
            "b/root.pem": "certificate",
            "b/one.py": "def f():\n    import constellation.c.late\n",
            "b/two.py": "",
            "c/__init__.py": "",
            "c/late.py": "",
        },
    )
    assert names(package, "constellation.a.main") == {
        "__init__.py",
        "a/__init__.py",
        "a/main.py",
        "b/__init__.py",
        "b/one.py",
        "b/root.pem",
        "c/__init__.py",
        "c/late.py",
    }


def test_an_import_for_types_alone_brings_nothing() -> None:
    source = "if TYPE_CHECKING:\n    import constellation.b\nelse:\n    import constellation.c\n"
    found = imported_names(source, package="constellation", where="x")
    assert list(found) == [("constellation.c", ())]


def test_a_relative_import_is_followed() -> None:
    found = imported_names("from .two import x\n", package="constellation.b", where="x")
    assert list(found) == [("constellation.b.two", ("x",))]


def test_a_module_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    package = write(tmp_path, {"__init__.py": "", "m.py": "import constellation.gone\n"})
    with pytest.raises(FormatError, match=r"constellation\.gone"):
        closure(package, ("constellation.m",))


def test_no_program_on_a_node_brings_the_cli_the_daemon_or_the_image_build() -> None:
    package = package_folder()
    for group in (programs.NODE_PROGRAMS, programs.BUNDLE_PROGRAMS):
        mains = tuple(f"constellation.services.{p}.main" for p in programs.present(package, group))
        for file in closure(package, mains):
            unwanted = ("cli", "cluster", "config", "image", "providers/local/daemon")
            assert not str(file).startswith(tuple(f"{u}/" for u in unwanted)), file
