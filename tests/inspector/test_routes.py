"""The routes on the page: what they did, what they declare, and very many of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fastapi_cacheinval import RouteStatistics, cached, invalidates
from fastapi_cacheinval.inspector.routes import Routes
from tests.helpers.http import until
from tests.inspector.inspected import Inspected

pytestmark = pytest.mark.anyio


async def labels(inspected: Inspected, query: str = "") -> list[str]:
    """The routes that are listed."""
    told = await inspected.json(f"/api/routes?{query}")
    return [each["route"] for each in told["routes"]]


async def test_a_route_tells_what_it_did_and_what_it_declares() -> None:
    """Counts, memory and time saved stand beside who shares it, its key, its tags and what purges it."""
    inspected = Inspected()
    for _ in range(3):
        await inspected.shop.ask("/items/1")
    (row,) = (await inspected.json("/api/routes"))["routes"]
    assert (row["route"], row["requests"], row["hits"], row["misses"]) == ("GET /items/{item}", 3, 2, 1)
    assert row["responses"] == 1
    assert row["size_bytes"] > 100
    declared = row["declared"]
    assert (declared["shared_by"], declared["ttl"], declared["lookup"]) == ("everyone", 60.0, "front")
    assert declared["tags"] == ["item:{item}", "items"]
    assert declared["purged_by"] == ["PUT /items/{item}"]
    assert "path" in declared["key"]


async def test_a_route_that_nobody_asked_is_listed_too() -> None:
    """It comes after those that were asked, with nothing counted."""
    inspected = Inspected()

    @inspected.shop.app.get("/a-quiet-one", dependencies=[cached(ttl=60)])
    async def quiet() -> None: ...

    await inspected.shop.ask("/items/1")
    told = await inspected.json("/api/routes")
    assert [each["route"] for each in told["routes"]] == ["GET /items/{item}", "GET /a-quiet-one"]
    assert told["routes"][1]["requests"] == 0
    assert (told["matching"], told["all"]) == (2, 2)
    assert await labels(inspected, "q=quiet") == ["GET /a-quiet-one"]
    assert await labels(inspected, "q=QUIET") == []


async def test_holes_of_the_audit_are_told() -> None:
    """A page that nothing purges is on the page, in the audit's own words."""
    inspected = Inspected()

    @inspected.shop.app.get("/unpurged", dependencies=[cached(ttl=60, tags=["nobody"])])
    async def unpurged() -> None: ...

    holes = (await inspected.json("/api/routes"))["holes"]
    assert "GET /unpurged is cached, and no mutation purges it." in holes


async def test_the_largest_come_first_by_what_was_asked_for() -> None:
    """Each column sorts, and what is none is refused."""
    inspected = Inspected()

    @inspected.shop.app.get("/missed", dependencies=[cached(ttl=60)])
    async def missed(page: int) -> str:
        return "x" * 5_000

    for number in range(4):
        await inspected.shop.ask(f"/missed?page={number}")
    for _ in range(9):
        await inspected.shop.ask("/items/1")
    inspected.inspector._routes._counted = -1.0
    items, large = "GET /items/{item}", "GET /missed"
    assert await labels(inspected) == [items, large]
    assert await labels(inspected, "sort=hits") == [items, large]
    for sort in ("misses", "size_bytes", "responses"):
        assert await labels(inspected, f"sort={sort}") == [large, items]
    assert (await inspected.get("/api/routes?sort=__class__")).status_code == 400


@pytest.mark.parametrize(
    ("query", "first", "count"),
    [
        ("", 0, 25),
        ("limit=10&offset=20", 20, 10),
        ("limit=10&offset=995", 995, 10),
        ("limit=10&offset=1095", 1095, 5),
        ("limit=100000", 0, 100),
        ("offset=5000", None, 0),
        ("offset=-1&limit=-5", 0, 25),
        ("offset=1e9&limit=x", 0, 25),
        ("offset=99999999999999999999", 0, 25),
        ("offset=%D9%A3", 3, 25),
    ],
)
async def test_very_many_routes_come_in_pages(query: str, first: int | None, count: int) -> None:
    """A page is bounded, whatever was asked for, and pages lie side by side: asked ones first, the others after them."""
    inspected = Inspected()
    counts = {f"GET /route/{number}": RouteStatistics(hits=5_000 - number) for number in range(1_000)}
    rest = {f"GET /route/{number}": None for number in range(1_000, 1_100)}
    routes: Any = inspected.inspector._routes
    routes._counts, routes._counted, routes._auditing = counts, 1e12, True
    routes._by_label = {**dict.fromkeys(counts), **rest}
    told = await inspected.json(f"/api/routes?{query}")
    assert (told["matching"], told["all"], len(told["routes"])) == (1_100, 1_100, count)
    if first is not None:
        expected = [f"GET /route/{number}" for number in range(first, first + count)]
        assert [each["route"] for each in told["routes"]] == expected


async def test_the_audit_is_read_in_a_thread_and_nobody_waits_twice() -> None:
    """Ten thousand routes take a second to read: the loop goes on, and another page is answered without them meanwhile."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    routes: Routes = inspected.inspector._routes
    threads: list[threading.Thread] = []
    go_on = threading.Event()
    audit = inspected.shop.cache.audit()

    class Slow:
        def audit(self) -> Any:
            threads.append(threading.current_thread())
            go_on.wait(20)
            return audit

        def statistics(self) -> Any:
            return inspected.shop.cache.statistics()

    slow: Any = Slow()
    routes._cache = slow
    first = asyncio.create_task(inspected.json("/api/routes"))
    await until(lambda: threads, "the audit under way")
    (row,) = (await inspected.json("/api/routes"))["routes"]
    assert "declared" not in row
    go_on.set()
    (row,) = (await first)["routes"]
    assert row["declared"]["tags"] == ["item:{item}", "items"]
    assert threads == [threads[0]]
    assert threads[0] is not threading.main_thread()


async def test_hostile_route_names_are_filtered_as_text() -> None:
    """A filter is no pattern: what has a meaning elsewhere has none here."""
    inspected = Inspected()

    @inspected.shop.app.put("/odd/{name}", dependencies=[invalidates("odd:{name}")])
    async def odd(name: str) -> None: ...

    assert await labels(inspected, "q=.*") == []
    assert await labels(inspected, "q=%00") == []
    assert await labels(inspected, "q={item}") == ["GET /items/{item}"]
