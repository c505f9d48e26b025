"""Count the words of the README and of each page of the documentation: `python -m scripts.words`.

What a reader does not read does not count: blocks of code, comments, and where links lead.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["main", "words"]

_ROOT = Path(__file__).parents[1]
_UNREAD = re.compile(r"^```.*?^```\s*$|<!--.*?-->|(?<=\])\([^)]*\)", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[A-Za-z0-9][\w'\u2019.-]*")


def words(text: str) -> int:
    """How many words of a page are read; a name in code is a word."""
    return len(_WORD.findall(_UNREAD.sub("", text)))


def main() -> None:
    """Print a line for each page, and the total."""
    total = 0
    for page in (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))):
        count = words(page.read_text("utf-8"))
        total += count
        print(f"{count:6,} {page.relative_to(_ROOT)}")
    print(f"{total:6,} in all")


if __name__ == "__main__":
    main()
