"""The reference and the navigation of the documentation's site leave nothing out."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import textwrap
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import Any

import pytest

from tests.helpers.documents import PAGES, ROOT

DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.rst").read_text("utf-8")
CONF = runpy.run_path(str(DOCS / "conf.py"))
sections = CONF["sections"]
FIRST = (DOCS / "names-0.1.0.txt").read_text("utf-8").split()


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


def section_of(module: str) -> str:
    """The text of the reference on a module."""
    [text] = re.findall(
        rf"^\.\. py:module:: {module}\n(.*?)(?=^\.\. py:module|\Z)", REFERENCE, re.MULTILINE | re.DOTALL
    )
    return str(text)


def directive_of(name: str, thing: Any) -> str:
    """The directive that shows a thing with all that can be said of its kind."""
    if inspect.isclass(thing) and thing.__name__ == name:
        return "autoexception" if issubclass(thing, BaseException) else "autoclass"
    # A fixture is an object around its function.
    function = inspect.isroutine(thing) or inspect.isroutine(getattr(thing, "__wrapped__", None))
    return "autofunction" if function else "autodata"


def is_method(held: Any) -> bool:
    """Whether a class holds a method or a property, and not a field."""
    return inspect.isroutine(held) or isinstance(held, property | cached_property)


def members(thing: Any) -> Iterator[tuple[str, Any]]:
    """What a class of ours has that is public: methods, properties and fields, those of its bases of ours included."""
    found: dict[str, Any] = {}
    for kind in thing.__mro__ if inspect.isclass(thing) else ():
        if kind.__module__.startswith("fastapi_cacheinval"):
            fields = inspect.get_annotations(kind)
            for name, held in {**dict.fromkeys(fields), **vars(kind)}.items():
                if not name.startswith("_") and (name in fields or is_method(held)):
                    found.setdefault(name, held)
    yield from found.items()


def documented(module: str) -> Iterator[tuple[str, str]]:
    """Each public name of a module with its documentation, members as `module.Class.member`."""
    there = import_module(module)
    for name in entries()[module]:
        thing = getattr(there, name)
        if entries()[module][name] == "autodata":
            yield f"{module}.{name}", CONF["text_of"](module, name)
            continue
        yield f"{module}.{name}", inspect.getdoc(thing) or ""
        for member, held in members(thing):
            said = inspect.getdoc(held) if is_method(held) else text_of_field(thing, member)
            yield f"{module}.{name}.{member}", said or ""


def text_of_field(thing: type, name: str) -> str:
    """The text below a field, in the class that declares it."""
    for kind in thing.__mro__:
        if name in inspect.get_annotations(kind):
            [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            assert isinstance(tree, ast.ClassDef)
            return str(CONF["text_below"](tree.body, name))
    return ""


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
    wanted = {name: directive_of(name, getattr(there, name)) for name in there.__all__ if not name.startswith("__")}
    assert entries()[module] == wanted


@pytest.mark.parametrize("module", sorted(entries()))
def test_every_entry_says_something(module: str) -> None:
    """Each name and each public method has a docstring: an entry is more than a signature."""
    silent = []
    for name in entries()[module]:
        thing = getattr(import_module(module), name)
        value = entries()[module][name] == "autodata"
        if not (CONF["text_of"](module, name) if value else inspect.getdoc(thing)):
            silent.append(name)
        for member, held in members(thing) if not value else ():
            if inspect.isroutine(held) and not inspect.getdoc(held):
                silent.append(f"{name}.{member}")
    assert silent == []


@pytest.mark.parametrize("module", sorted(entries()))
def test_the_members_of_a_base_are_shown(module: str) -> None:
    """A class shows what it has of a base of ours, unless that base has an entry of its own."""
    entered = {getattr(import_module(module), name) for module, names in entries().items() for name in names}
    for name in entries()[module]:
        thing = getattr(import_module(module), name)
        bases = thing.__mro__[1:] if entries()[module][name] == "autoclass" else ()
        hidden = {member for base in bases if base not in entered for member, _ in members(base)} - set(
            getattr(thing, "__dict__", ())
        )
        [options] = re.findall(rf"^\.\. auto\w+:: {name}\n((?:   :.*\n)*)", section_of(module), re.MULTILINE)
        assert not hidden or ":inherited-members:" in options, (name, hidden)


def test_the_names_of_the_first_release_are_public_names() -> None:
    """The list has each name once, in order."""
    assert sorted(set(FIRST)) == FIRST


@pytest.mark.parametrize("module", sorted(entries()))
def test_a_name_that_is_newer_than_the_first_release_says_its_version(module: str) -> None:
    """A name that is not in the list has `versionadded` in its docstring, and a name in it has not."""
    wrong = []
    for name, documentation in documented(module):
        said = re.search(r"^\s*\.\. versionadded:: \d+\.\d+", documentation, re.MULTILINE) is not None
        if said == (name in FIRST):
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize(
    ("what", "name", "shown"),
    [
        ("class", "fastapi_cacheinval.HTTPCache", True),
        ("function", "fastapi_cacheinval.cached", True),
        ("exception", "fastapi_cacheinval.ConfigurationError", True),
        ("data", "fastapi_cacheinval.CacheTags", True),
        ("method", "fastapi_cacheinval.HTTPCache.invalidate", False),
        ("class", "fastapi_cacheinval.NewInAnother", False),
    ],
)
def test_the_site_says_the_version_of_the_first_names(what: str, name: str, *, shown: bool) -> None:
    """Once at each class, function and value of the list; members came with their class."""
    text = ["What it is."] if what != "data" else CONF["text_of"](*name.rsplit(".", 1)).splitlines()
    lines = ["What it is."]
    CONF["_complete"](None, what, name, None, None, lines)
    assert lines == [*text, *(["", ".. versionadded:: 0.1.0", ""] if shown else [])]


def test_the_navigation_has_every_page_once() -> None:
    """The sections of the index hold each page of the folder, and none twice."""
    listed = [page for _, pages in sections((DOCS / "index.md").read_text("utf-8")) for page in pages]
    pages = {file.stem for file in (*DOCS.glob("*.md"), *DOCS.glob("*.rst"))} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_a_section_keeps_the_order_of_its_links() -> None:
    """A heading without links is no section; a page that is linked to twice stands once."""
    text = "# T\n\n## A\n\n[b](b.md) and [a](a.rst), [b](b.md#x)\n\n## Empty\n\nwords\n\n## C\n\n[c](c.md)\n"
    assert sections(text) == [("A", ["b", "a"]), ("C", ["c"])]
