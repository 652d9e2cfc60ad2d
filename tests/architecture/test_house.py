"""The house's own rules: what is public is listed, nothing is banned by habit only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for p in (ROOT / "src/constellation").rglob("*.py") if "stubs" not in p.parts)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Say whether click has taken the function: nobody calls it by its name."""
    calls = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(isinstance(c, ast.Attribute) and c.attr == "command" for c in calls)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_every_module_says_what_it_answers_and_lists_what_is_public(path: Path) -> None:
    tree = _tree(path)
    assert ast.get_docstring(tree), "no module docstring"
    assigned = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and any(
            isinstance(t, ast.Name) and t.id == "__all__"
            for t in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
    ]
    if path.name == "__main__.py":
        return
    assert assigned, "no __all__"
    listed = set(ast.literal_eval(assigned[0].value))  # type: ignore[arg-type] # None fails too
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                defined |= {t.id for t in parts if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {a.asname or a.name for a in node.names}
    assert listed <= defined, f"listed but not there: {sorted(listed - defined)}"
    functions_and_classes = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not _is_command(node)
    }
    assert functions_and_classes <= listed, (
        f"public but not listed: {sorted(functions_and_classes - listed)}"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_no_function_is_longer_than_sixty_lines_and_no_file_than_four_hundred(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


PROVIDERS = {p.name for p in (ROOT / "src/constellation/providers").iterdir() if p.is_dir()}


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if "services" in p.parts],
    ids=lambda p: str(p.relative_to(ROOT / "src")),
)
def test_a_node_program_asks_the_provider_of_its_machine_and_names_none(path: Path) -> None:
    named = {
        node.module.split(".")[2]
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module.startswith("constellation.providers.")
    }
    assert not named & PROVIDERS, "`providers.select` knows which one it is"


def test_no_module_imports_in_a_circle_nor_do_its_type_hints() -> None:
    graph = grimp.build_graph("constellation", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    TopologicalSorter(imports).prepare()  # CycleError names the circle
