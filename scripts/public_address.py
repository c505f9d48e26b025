"""Give a copy of the project the address that it is published at: `python -m scripts.public_address FOLDER URL TAG`.

A relative link leads nowhere on the page of an index: those of the README become links to the files of the tag.
`[project.urls]` names the places.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["absolute_links", "main", "with_urls"]

_RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")


def absolute_links(text: str, url: str, tag: str) -> str:
    """A Markdown text whose relative links lead to the files of a tag, as GitHub, GitLab and Forgejo serve them."""
    return _RELATIVE.sub(lambda link: f"{url}/blob/{tag}/{link[1]}", text)


def with_urls(pyproject: str, url: str, tag: str) -> str:
    """A pyproject.toml with the labels that indexes know, beside what `[project]` has."""
    places = {
        "Source": url,
        "Documentation": f"{url}/blob/{tag}/docs/index.md",
        "Changelog": f"{url}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{url}/issues",
    }
    table = "".join(f'{label} = "{place}"\n' for label, place in places.items())
    return f"{pyproject.rstrip()}\n\n[project.urls]\n{table}"


def main(folder: str, url: str, tag: str) -> None:
    """Rewrite README.md and pyproject.toml in a folder."""
    address = url.rstrip("/")
    if not re.fullmatch(r'https://[^\s"]+', address):
        sys.exit(f"not the address of a repository: {url} (https://…)")
    for name, change in (("README.md", absolute_links), ("pyproject.toml", with_urls)):
        path = Path(folder, name)
        path.write_text(change(path.read_text("utf-8"), address, tag), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
