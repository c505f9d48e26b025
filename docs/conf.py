"""How Sphinx makes the site of the documentation; `make docs` runs it."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi_cacheinval.version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "fastapi-cacheinval"
author = "the fastapi-cacheinval authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
exclude_patterns = ["examples", "grafana"]
root_doc = "index"

myst_enable_extensions = ["deflist"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4

autodoc_class_signature = "separated"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# Types of other packages, whose sites are not asked, and what our signatures name without being public.
_FOREIGN = (
    "asyncio|collections|confluent_kafka|contextlib|datetime|enum|fastapi|httpx|opentelemetry|os|pathlib|pytest|re"
)
_FOREIGN += "|_pytest|pytest|re|redis|sqlalchemy|ssl|starlette|types|typing|uuid"
nitpick_ignore_regex = [
    ("py:.*", rf"({_FOREIGN})\b.*"),
    ("py:.*", r"fastapi_cacheinval\..*\..*"),
    ("py:.*", r"fastapi_cacheinval\.(cache|dependencies|errors|middleware)\..*"),
]

html_favicon = "../fastapi_cacheinval/inspector/static/icon.svg"
html_theme = "furo"
html_title = f"fastapi-cacheinval {release}"
html_static_path = ["_static"]
html_show_sourcelink = False
# The drawing program stands beside the pages, so that reading them asks nobody else.
mermaid_use_local = "mermaid/mermaid.esm.min.mjs"

_SECTION = re.compile(r"^## (?P<title>.+)\n(?P<rest>(?:(?!## ).*\n?)*)", re.MULTILINE)
_PAGE = re.compile(r"\]\((?P<page>[\w-]+)\.(?:md|rst)\)")

# The public names of the first release. Later ones have `versionadded` in their docstrings, and are never added here.
_FIRST_NAMES = Path(__file__).parent / "names-0.1.0.txt"
_FIRST_VERSION = _FIRST_NAMES.stem.removeprefix("names-")
_OF_THE_FIRST = frozenset(_FIRST_NAMES.read_text("utf-8").split())
_WITH_A_VERSION = {"class", "data", "exception", "function"}


def sections(text: str) -> list[tuple[str, list[str]]]:
    """Each heading of the second level with the names of the pages that are linked to below it, each name once."""
    found = []
    for section in _SECTION.finditer(text):
        pages = dict.fromkeys(match["page"] for match in _PAGE.finditer(section["rest"]))
        if pages:
            found.append((section["title"], list(pages)))
    return found


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Make the navigation of the site from the sections of its first page."""
    if name == app.config.root_doc:
        source[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n"
            for title, pages in sections(source[0])
        )


def text_below(body: list[ast.stmt], name: str) -> str:
    """The text below the assignment of a name; empty where there is none."""
    for statement, after in pairwise(body):
        match statement, after:
            case (
                ast.Assign(targets=[ast.Name(id=assigned)]) | ast.AnnAssign(target=ast.Name(id=assigned)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if assigned == name:
                return cleandoc(text)
    return ""


def text_of(module: str, name: str) -> str:
    """The text of a value, from the module that it comes from."""
    spec = find_spec(module)
    body = ast.parse(Path(spec.origin).read_text("utf-8")).body if spec and spec.origin else []
    for statement in body:
        if (
            isinstance(statement, ast.ImportFrom)
            and statement.module
            and name in {each.name for each in statement.names}
        ):
            return text_of(statement.module, name)
    return text_below(body, name)


def _complete(_app: Sphinx, what: str, name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """Give a value the text of its own in place of its class's, and each name of the first release its version.

    Members came with their class.
    """
    if what == "data":
        module, _, value = name.rpartition(".")
        lines[:] = text_of(module, value).splitlines()
    if what in _WITH_A_VERSION and name in _OF_THE_FIRST:
        lines += ["", f".. versionadded:: {_FIRST_VERSION}", ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("autodoc-process-docstring", _complete)
