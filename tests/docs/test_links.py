"""Links lead somewhere, and every page can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.documents import PAGES, ROOT, prose


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    """Each relative link names a file of the repository, and a heading of it where it has a fragment."""
    for link in links(page):
        if link.startswith("https://"):
            continue
        target, _, fragment = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_file(), link
        assert file.is_relative_to(ROOT), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert fragment in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                link
            )


def test_every_page_is_in_the_index_or_in_the_readme() -> None:
    """No page is without a way to it."""
    reachable = {
        (page.parent / link).resolve() for page in (ROOT / "README.md", ROOT / "docs/index.md") for link in links(page)
    }
    assert [page.name for page in PAGES if page.name != "README.md" and page.resolve() not in reachable] == []
