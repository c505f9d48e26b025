"""Which paths a URL may stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.keys import below
from fastapi_cacheinval.core.root_paths import RootPaths


def _known(*roots: str) -> RootPaths:
    paths = RootPaths()
    for root in roots:
        paths.add(root)
    return paths


@pytest.mark.parametrize(
    ("root", "path", "left"),
    [
        ("", "/a", "/a"),
        ("/api", "/api/a", "/a"),
        ("/api", "/api", "/"),
        ("/api", "/apiary", "/apiary"),
        ("/api", "/a", "/a"),
        ("/api/", "/api//a", "/a"),
    ],
)
def test_a_root_path_is_taken_off_where_it_is_a_whole_part(root: str, path: str, left: str) -> None:
    """As a router does it."""
    assert below(root, path) == left


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.test/api/v1/items/7",
        "http://shop.test:8000/api/v1/items/7?page=2#top",
        "//shop.test/api/v1/items/7",
        "/api/v1/items/7",
        "/items/7",
        "items/7",
        "https://shop.test/items/7",
    ],
)
@pytest.mark.parametrize("root", ["/api/v1", "/api/v1/"])
def test_the_path_below_a_known_root_path_is_among_them(url: str, root: str) -> None:
    """Whichever way it is written, with the host or without, and so is the path as it is written."""
    paths = _known("", root).paths_of(url)
    assert "/items/7" in paths
    assert len(paths) <= 2


def test_a_root_path_that_has_to_be_encoded_is_found_in_either_spelling() -> None:
    """`url_for` encodes, and people write as they read."""
    known = _known("/ä b")
    assert "/c d" in known.paths_of("http://h/%C3%A4%20b/c%20d")
    assert "/c d" in known.paths_of("/ä b/c d")


def test_where_no_root_path_is_known_each_end_of_a_whole_url_counts() -> None:
    """A worker that has seen no request purges too much, never nothing; of a plain path it purges that path."""
    worker = RootPaths()
    worker.add("", asked=False)
    assert worker.paths_of("https://shop.test/api/items/7") == ("/api/items/7", "/items/7", "/7", "/")
    assert worker.paths_of("/api/items/7") == ("/api/items/7",)
    assert len(worker.paths_of("https://h" + "/a" * 10_000)) <= 10


def test_root_paths_that_clients_may_choose_are_bounded() -> None:
    """A proxy's header may name them; the first ones stay."""
    known = _known("/api", *(f"/{number}" for number in range(10_000)))
    assert len(known.paths_of("/api/a")) == 2
    assert len(repr(known)) < 2_000


@given(st.text(), st.text(), st.booleans())
def test_no_text_makes_it_raise(root: str, url: str, asked: bool) -> None:
    """Both may carry a client's data."""
    paths = RootPaths()
    paths.add(root, asked=asked)
    assert all(isinstance(path, str) for path in paths.paths_of(url))


def test_a_root_path_without_a_slash_in_front_is_known_with_one() -> None:
    """`FastAPI(root_path="api")` is served below /api by its proxy, and URLs name that."""
    roots = RootPaths()
    roots.add("api", asked=False)
    assert "/items/7" in roots.paths_of("/api/items/7")
    assert "/items/7" in roots.paths_of("https://shop.test/api/items/7")
