"""Why a URL is a hit or a miss, as the page is told."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.inspector import Inspector
from tests.helpers.http import ask
from tests.inspector.inspected import LOCAL, Inspected

pytestmark = pytest.mark.anyio


async def test_a_page_is_explained_before_and_after_and_when_it_is_purged() -> None:
    """A miss, a hit with what is stored, and a miss again, by whom it was purged."""
    inspected = Inspected()
    explain = "/api/explain?url=/items/1"
    told = await inspected.json(explain)
    assert (told["result"], told["route"], told["stored"]) == ("miss", "GET /items/{item}", [])
    await inspected.shop.ask("/items/1", host="localhost")
    told = await inspected.json(explain)
    assert told["result"] == "hit"
    (copy,) = told["stored"]
    assert (copy["tier"], copy["usable"], copy["status"]) == ("l1", True, 200)
    assert told["tags"] == copy["tags"] == ["item:1", "items"]
    assert told["last_purge"] is None
    await inspected.shop.ask("/items/1", method="PUT", host="localhost")
    told = await inspected.json(explain)
    assert told["result"] == "miss"
    assert told["last_purge"]["by"] == "PUT /items/{item}"
    assert told["last_purge"]["tags"] == ["item:1"]


async def test_a_path_without_its_slash_and_a_whole_url_are_the_same_page() -> None:
    """What one types is understood; the host of the page itself is meant where none is named."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1", host="localhost")
    for url in ("items/1", "/items/1", " /items/1 ", "http://localhost/items/1", "/items/1?utm_source=mail"):
        assert (await inspected.json(f"/api/explain?url={quote(url)}"))["result"] == "hit", url
    assert (await inspected.json("/api/explain?url=http://other.example/items/1"))["result"] == "miss"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("", 400),
        ("x" * 8193, 400),
        ("/nowhere", 200),
        ("/_cache/api/state", 200),
        ("//", 422),
        ("http://", 422),
        ("://x", 422),
        ("http://[::1/", 422),
        ("/items/%ff%00", 200),
        ("/items/\ud800", 200),
        ("/items/<script>", 200),
        ("/" + "a/" * 4000, 200),
        ("ftp://localhost/items/1", None),
        ("http://user:secret@localhost/items/1", None),
        ("/items/1#fragment", 200),
    ],
)
async def test_whatever_is_typed_is_answered(url: str, status: int | None) -> None:
    """A URL that is none, one that matches nothing, and what no URL may hold: a sentence, and no error of the app's."""
    answer = await Inspected().get("/api/explain?url=" + quote(url, safe="", errors="surrogatepass"))
    assert answer.status_code == status or (status is None and answer.status_code in (200, 422)), answer
    assert b"secret" not in answer.body


async def test_an_inspector_without_an_app_says_so() -> None:
    """Where no app of the cache has started, its routes are not known."""
    answer = await ask(Inspector(HTTPCache(), debug=True), "/api/explain?url=/items/1", **LOCAL)
    assert answer.status_code == 503
    assert b"has started" in answer.body


async def test_below_a_root_path_the_page_below_it_is_meant() -> None:
    """The key of a page holds the root path that the app is served under."""
    inspected = Inspected()
    await inspected.shop.ask("/shop/items/1", host="localhost", root_path="/shop")
    told = await inspected.json("/api/explain?url=/items/1", at="/shop/_cache", root_path="/shop")
    assert told["result"] == "hit"
