"""Where imports may point: one way between packages, and in no circle between modules."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "engine": {"engine"},
    "plots": {"plots", "engine"},
    "zoo": {"zoo", "engine", "limits"},
    "study": {"study", "zoo", "engine", "limits"},
    "cli": {"cli", "study", "zoo", "engine", "limits"},
    "ui": {"ui", "study", "plots", "zoo", "engine", "limits"},
}
SHARED = {"limits", "terminal"}  # small modules of the package itself that all may use
FORBIDDEN = {
    "engine": {"streamlit", "plotly", "PIL"},
    "plots": {"streamlit", "torch"},
    "zoo": {"streamlit", "plotly"},
    "study": {"streamlit", "plotly"},
    "cli": {"streamlit", "plotly"},
}


def modules():
    """Return every module of the package by its dotted name."""
    found = {}
    for file in (ROOT / "explorer").rglob("*.py"):
        parts = list(file.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(file, lazy=True):
    """Return the dotted names that a file imports; lazy: in functions, too. What only type checkers see is left out."""
    names = []

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            return
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.extend([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return names


def test_every_package_is_covered():
    packages = {path.name for path in (ROOT / "explorer").iterdir() if (path / "__init__.py").exists()}
    assert packages == set(ALLOWED)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package):
    files = [file for name, file in modules().items() if name.split(".")[1:2] == [package]]
    assert files
    for file in files:
        for name in imported(file):
            top, *rest = name.split(".")
            assert top not in FORBIDDEN.get(package, set()), f"{file}: {name}"
            if top == "explorer" and rest:
                assert rest[0] in ALLOWED[package] | SHARED, f"{file}: {name}"


def test_no_imports_go_in_a_circle():
    """Neither at the top of modules nor inside functions."""
    known = modules()
    graph = {
        name: {
            other for other in imported(file) if other in known and other != name and not name.startswith(other + ".")
        }
        for name, file in known.items()
        if name.split(".")[1:2] != ["engine"]
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_a_circle_would_be_found():
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).static_order())


def test_pages_use_no_private_names_of_other_files():
    for file in [*(ROOT / "pages").glob("*.py"), *(ROOT / "explorer" / "ui").rglob("*.py")]:
        for name in imported(file):
            assert not (name.startswith("explorer") and name.rpartition(".")[2].startswith("_")), f"{file}: {name}"


def test_the_map_in_the_readme_names_places_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("## Map of the code") : text.index("## Limits")]
    places = re.findall(r"`((?:explorer|pages|tests|benchmarks)/[\w/.]*)`", part)
    assert len(places) > 15
    for place in places:
        assert (ROOT / place).exists(), place
    packages = {path.name for path in (ROOT / "explorer" / "engine").iterdir() if (path / "__init__.py").exists()}
    for package in packages:
        assert f"`explorer/engine/{package}/`" in part, package
