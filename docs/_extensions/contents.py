"""The navigation of the site: the sections of `index.md`, and the pages that each of them links to, in their order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_SECTION = re.compile(r"^## (?P<title>.+)\n(?P<rest>(?:(?!## ).*\n?)*)", re.MULTILINE)
_PAGE = re.compile(r"\]\((?P<page>[\w-]+)\.(?:md|rst)\)")


def sections(text: str) -> list[tuple[str, list[str]]]:
    """Each heading of the second level with the names of the pages that are linked to below it, each name once."""
    found = []
    for section in _SECTION.finditer(text):
        pages = dict.fromkeys(match["page"] for match in _PAGE.finditer(section["rest"]))
        if pages:
            found.append((section["title"], list(pages)))
    return found


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    if name == app.config.root_doc:
        source[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n"
            for title, pages in sections(source[0])
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    return {"parallel_read_safe": True}
