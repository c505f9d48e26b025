"""The reference and the navigation of the documentation's site leave nothing out."""

from __future__ import annotations

import inspect
import re
import runpy
from importlib import import_module
from typing import Any

import pytest

from tests.helpers.documents import PAGES, ROOT

DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.rst").read_text("utf-8")
sections = runpy.run_path(str(DOCS / "conf.py"))["sections"]


def entries() -> dict[str, dict[str, str]]:
    """By module, the names that the reference has an entry for, with the directive of each."""
    found: dict[str, dict[str, str]] = {}
    here: dict[str, str] = {}
    for directive, name in re.findall(r"^\.\. ((?:py:module)|auto\w+):: (\S+)$", REFERENCE, re.MULTILINE):
        if directive == "py:module":
            here = found.setdefault(name, {})
        else:
            here[name] = directive
    return found


def directive_of(thing: Any) -> str:
    """The directive that shows a thing with all that can be said of its kind."""
    if inspect.isclass(thing):
        return "autoexception" if issubclass(thing, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(thing) else "autodata"


def public_modules() -> set[str]:
    """The modules that users import from, as the pages show it."""
    pages = "\n".join(page.read_text("utf-8") for page in PAGES)
    return {
        name
        for name in re.findall(r"^from (fastapi_cacheinval[\w.]*) import", pages, re.MULTILINE)
        if hasattr(import_module(name), "__all__")
    }


def test_every_module_that_the_pages_import_from_is_in_the_reference() -> None:
    """No page shows an import that the reference does not know."""
    assert public_modules() - set(entries()) == set()


@pytest.mark.parametrize("module", sorted({*entries(), "fastapi_cacheinval"}))
def test_every_public_name_has_an_entry(module: str) -> None:
    """Each name of `__all__` has one entry of its kind, and the reference names nothing else."""
    there = import_module(module)
    wanted = {name: directive_of(getattr(there, name)) for name in there.__all__ if not name.startswith("__")}
    assert entries()[module] == wanted


@pytest.mark.parametrize("module", sorted(entries()))
def test_every_entry_says_something(module: str) -> None:
    """Each class, function and public method has a docstring: an entry is more than a signature."""
    silent = []
    for name in entries()[module]:
        thing = getattr(import_module(module), name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        if not inspect.getdoc(thing):
            silent.append(name)
        for member in vars(thing) if inspect.isclass(thing) else ():
            held = getattr(thing, member)
            if not member.startswith("_") and inspect.isroutine(held) and not inspect.getdoc(held):
                silent.append(f"{name}.{member}")
    assert silent == []


def test_the_navigation_has_every_page_once() -> None:
    """The sections of the index hold each page of the folder, and none twice."""
    listed = [page for _, pages in sections((DOCS / "index.md").read_text("utf-8")) for page in pages]
    pages = {file.stem for file in (*DOCS.glob("*.md"), *DOCS.glob("*.rst"))} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_a_section_keeps_the_order_of_its_links() -> None:
    """A heading without links is no section; a page that is linked to twice stands once."""
    text = "# T\n\n## A\n\n[b](b.md) and [a](a.rst), [b](b.md#x)\n\n## Empty\n\nwords\n\n## C\n\n[c](c.md)\n"
    assert sections(text) == [("A", ["b", "a"]), ("C", ["c"])]
