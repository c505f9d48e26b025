"""What is kept, looked through: the most used, a search, and other work meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, cached
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.core.tags import path_tag
from fastapi_cacheinval.engine import contents
from fastapi_cacheinval.engine.contents import find, look_through
from fastapi_cacheinval.engine.engine import Engine
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio


def stored(number: int, tags: tuple[str, ...] = ()) -> StoredResponse:
    """A response of one page."""
    return StoredResponse(
        key=b"%032d" % number,
        status=200,
        headers=(),
        body=b"body",
        etag=None,
        last_modified=None,
        tags=(path_tag(f"/page/{number}"), *tags),
        vary=(),
        stamp=Stamp(0, 0, 0, 0.0),
        created=0.0,
        fresh_until=1e9,
        early_refresh_from=1e9,
        fill_seconds=0.1,
        early_refresh=0.0,
        stale_while_revalidate=0.0,
        stale_if_error=0.0,
        must_revalidate=False,
        anonymous=True,
        route="/page/{number}",
    )


def filled(pages: int, tags: int = 1) -> Engine:
    """An engine that keeps so many pages with so many tags each, all of them different."""
    engine = HTTPCache(l1_max_bytes=1 << 30)._core.engine
    for number in range(pages):
        engine.put(stored(number, tuple(f"tag:{number}:{each}" for each in range(tags))), 0.0)
    return engine


async def test_the_most_used_come_first() -> None:
    """Pages by how often they were looked up; tags by how often the pages were that carry them."""
    shop = Shop()

    @shop.app.get("/items/{item}", dependencies=[cached(ttl=60, tags=["item:{item}", "items"])])
    async def read(item: str) -> str:
        return item

    for item in "abbcccc":
        await shop.ask(f"/items/{item}")
    found = await look_through(shop.cache._core.engine, 2)
    assert [page.path for page in found.pages] == ["/items/c", "/items/b"]
    assert [tag.tag for tag in found.hot_tags] == ["items", "item:c"]
    page = found.pages[0]
    assert (page.route, page.status) == ("/items/{item}", 200)
    assert (page.age, round(page.fresh)) == (0.0, 60)
    assert (found.responses, found.looked_at, found.tags) == (3, 3, 4)
    assert found.hot_tags[0].responses == 3
    assert found.hot_tags[0].size_bytes > 3 * 100


@pytest.mark.parametrize(
    ("middleware", "rule", "anonymous"),
    [({}, {}, True), ({}, {"shared": True}, False), ({"front": True}, {}, False), ({"front": False}, {}, False)],
    ids=["proved", "declared", "front", "no front"],
)
async def test_a_page_does_not_say_who_shares_it(
    middleware: dict[str, Any], rule: dict[str, Any], *, anonymous: bool
) -> None:
    """What is kept knows whether a refresh is nobody's, which is another thing: all of these are for everybody."""
    shop = Shop(middleware=middleware)
    shop.app.get("/it", dependencies=[cached(ttl=60, **rule)])(lambda: "it")
    for _ in range(2):
        answer = await shop.ask("/it")
    assert answer.headers["cache-status"].startswith("cacheinval; hit")
    engine = shop.cache._core.engine
    (kept,) = [node.value for node in contents._nodes(engine) if isinstance(node.value, StoredResponse)]
    assert kept.anonymous is anonymous
    (page,) = (await look_through(engine, 2)).pages
    assert not hasattr(page, "shared")


async def test_looking_is_no_use() -> None:
    """What is looked at is no more used than before: the store lets go of the same."""
    engine = filled(10)
    before = [page.uses for page in (await look_through(engine, 10)).pages]
    await find(engine, "page", 10)
    assert [page.uses for page in (await look_through(engine, 10)).pages] == before


async def test_a_search_finds_pages_and_tags() -> None:
    """By a part of the path, the route or the tag; reserved tags are not among them."""
    engine = filled(30)
    found = await find(engine, "page/2", 50)
    assert {page.path for page in found.pages} == {"/page/2", *(f"/page/{number}" for number in range(20, 30))}
    assert found.tags == ()
    assert found.complete
    assert (await find(engine, "tag:7:", 50)).tags == ("tag:7:0",)
    assert (await find(engine, "{number}", 50)).pages != ()
    nothing = await find(engine, "nowhere", 50)
    assert (nothing.pages, nothing.tags, nothing.complete) == ((), (), True)
    assert (await find(engine, "\x01path", 50)).tags == ()


async def test_more_than_was_asked_for_is_said() -> None:
    """A search that stops early says that there may be more."""
    found = await find(filled(30), "tag", 5)
    assert (len(found.tags), found.complete) == (5, False)
    found = await find(filled(30), "page", 5)
    assert (len(found.pages), found.complete) == (5, False)


async def test_variants_are_pages_of_their_own() -> None:
    """What varies is listed by variant, and the record of the variants is not."""
    shop = Shop()

    @shop.app.get("/spoken", dependencies=[cached(ttl=60, vary=["accept-language"])])
    async def read() -> str:
        return "x"

    for language in ("de", "fr"):
        await shop.ask("/spoken", headers={"accept-language": language})
    assert [page.path for page in (await look_through(shop.cache._core.engine, 9)).pages] == ["/spoken", "/spoken"]


async def test_other_work_goes_on_meanwhile() -> None:
    """With two hundred thousand tags other tasks have their turn again and again, in a look and in a search."""
    engine = filled(4_000, 50)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    for look in (look_through(engine, 10), find(engine, "nowhere", 10)):
        turns = 0
        found: Any = await look
        assert turns > 3, found
    task.cancel()
    await asyncio.wait((task,))


async def test_a_look_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is too large to be looked through is looked at in part, and that is said."""
    monkeypatch.setattr(contents, "_SLICE", 0.0)
    monkeypatch.setattr(contents, "_BUDGET", 0.0)
    engine = filled(100)
    found = await look_through(engine, 10)
    assert found.looked_at < found.responses == 100
    assert not (await find(engine, "nowhere", 10)).complete


async def test_tags_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million tags do not become a table of a million."""
    monkeypatch.setattr(contents, "_MOST_TAGS", 50)
    assert (await look_through(filled(100), 10)).tags == 50


async def test_what_goes_meanwhile_does_no_harm() -> None:
    """The store may let go of everything while it is looked through."""
    engine = filled(3_000, 50)
    looking = asyncio.create_task(look_through(engine, 10))
    await asyncio.sleep(0)
    engine.store.clear()
    found = await looking
    # A busy machine may cut the first step short.
    assert 0 < found.looked_at <= 3_000
    assert found.responses == 0
