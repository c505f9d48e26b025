"""The count of the words of the documentation."""

from __future__ import annotations

import pytest

from scripts.words import main, words
from tests.helpers.documents import PAGES, ROOT


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("A page's *first* line.\n", 4),
        ("| `ttl` | 5 s |\n|---|---|\n", 3),
        ("See [Tags](tags.md).\n", 2),
        ("<!-- part of: docs/examples/app.py -->\nafter\n", 1),
        ("before\n\n```python\ncache = HTTPCache()\n```\n\nafter\n", 2),
        ("```text\none\n```\nbetween\n```text\ntwo\n```\n", 1),
    ],
)
def test_words_that_are_read_count(text: str, count: int) -> None:
    """Prose and tables do; blocks of code, comments, the targets of links and punctuation do not."""
    assert words(text) == count


def test_every_page_has_a_line_and_the_last_is_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    """The README and each page once, and their sum."""
    main()
    *lines, total = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for _, name in lines] == [page.relative_to(ROOT).as_posix() for page in PAGES]
    assert total == [f"{sum(int(count.replace(',', '')) for count, _ in lines):,}", "in all"]
