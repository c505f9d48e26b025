"""No file knows more than a dozen others of the package, but those that put parts together and say so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fastapi_cacheinval"
NAME = PACKAGE.name
MOST = 12
MOST_LINES = 300
# The façade's own names, and what only wires parts together.
ROOTS = ("__init__.py", "engine/internals.py", "engine/tiers.py", "framework/parts.py")
SAYS = "composition root of"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def _imported(tree: ast.AST) -> Iterator[str]:
    """The modules of the package that are imported anywhere in a file, for types alone as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            if node.module is not None and node.module.partition(".")[0] == NAME:
                names = [f"{node.module}.{each.name}" for each in node.names]
                # From a package its modules may be imported, each of which is one.
                yield from [name for name in names if _is_module(name)] or [node.module]
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.partition(".")[0] == NAME)


def _is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_at_most_a_dozen_modules(file: str) -> None:
    """What needs more is two things, or there are too many small ones below it."""
    imported = set(_imported(ast.parse((PACKAGE / file).read_text())))
    assert file in ROOTS or len(imported) <= MOST, sorted(imported)


@pytest.mark.parametrize("root", ROOTS)
def test_a_composition_root_says_that_it_is_one(root: str) -> None:
    """A root is no excuse for a file that has become too large: its docstring names it."""
    assert SAYS in (ast.get_docstring(ast.parse((PACKAGE / root).read_text())) or "")


def test_nothing_else_says_that_it_is_a_composition_root() -> None:
    """The list above is all of them."""
    assert sorted(file for file in FILES if SAYS in (PACKAGE / file).read_text()) == sorted(ROOTS)


@pytest.mark.parametrize("file", FILES)
def test_a_package_hides_no_imports(file: str) -> None:
    """Only the packages that users import from give names of others: a dozen is a dozen, not a dozen packages."""
    public = ("", "contrib", "inspector", "sources", "testing")
    folder = file.removesuffix("__init__.py").rstrip("/")
    if file.endswith("__init__.py") and folder.partition("/")[0] not in public:
        assert list(_imported(ast.parse((PACKAGE / file).read_text()))) == []


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_read_in_one_sitting(file: str) -> None:
    """At most three hundred lines, and sixty for one function."""
    text = (PACKAGE / file).read_text()
    assert len(text.splitlines()) <= MOST_LINES
    functions = (each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    assert [each.name for each in functions if (each.end_lineno or 0) - each.lineno + 1 > 60] == []
