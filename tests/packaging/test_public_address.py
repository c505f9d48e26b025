"""A release has the address that it is published at."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from scripts.public_address import absolute_links, main, with_urls

ROOT = Path(__file__).resolve().parents[2]
URL = "https://code.example.org/team/fastapi-cacheinval"


def test_every_link_of_the_readme_works_on_an_index() -> None:
    """None is relative any more, and each leads to a file of the tag."""
    made = absolute_links((ROOT / "README.md").read_text("utf-8"), URL, "v1.2.3")
    links = re.findall(r"\]\(([^)]+)\)", made)
    ours = [link.removeprefix(f"{URL}/blob/v1.2.3/") for link in links if link.startswith(URL)]
    assert len(ours) > 5
    assert all((ROOT / link.partition("#")[0]).is_file() for link in ours)
    assert all(link.startswith(("https://", "#")) for link in links)


def test_the_metadata_have_the_places() -> None:
    """`[project.urls]` is what was missing; nothing else of the file changes."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    made = tomllib.loads(with_urls(text, URL, "v1.2.3"))
    urls = made["project"].pop("urls")
    assert made == tomllib.loads(text)
    assert urls == {
        "Source": URL,
        "Documentation": f"{URL}/blob/v1.2.3/docs/index.md",
        "Changelog": f"{URL}/blob/v1.2.3/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    }


@pytest.mark.parametrize(
    "address", ["", "code.example.org/x", "http://code.example.org/x", 'https://a"b', "https://a b"]
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    """Before any file is written."""
    with pytest.raises(SystemExit, match="not the address"):
        main(str(tmp_path), address, "v1")
