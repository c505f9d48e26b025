"""`assert_hit`, `assert_miss`, `assert_stale` and `capture_invalidations`, with every client people test with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale, capture_invalidations
from tests.helpers.life import counting_app

ASSERTIONS: dict[str, Callable[[Any], None]] = {"hit": assert_hit, "miss": assert_miss, "stale": assert_stale}


class Said:
    """A response that says this of a cache."""

    def __init__(self, value: str | None, status_code: int = 200, **more: str) -> None:
        self.status_code = status_code
        self.headers = {**({} if value is None else {"cache-status": value}), **more}


CASES = [
    ("cacheinval; hit; ttl=60", {"hit"}),
    ("cacheinval; hit; ttl=0", {"hit"}),
    ("cacheinval; hit; ttl=-1", {"stale"}),
    ("cacheinval; fwd=uri-miss; ttl=60; stored", {"miss"}),
    ("cacheinval; fwd=uri-miss; ttl=60; collapsed", {"miss"}),
    ("cacheinval; fwd=uri-miss; detail=set-cookie", {"miss"}),
    ("cacheinval; fwd=bypass; detail=disabled", {"miss"}),
    ("cacheinval; fwd=stale; ttl=59; stored", {"miss"}),
    ("cacheinval; fwd=stale; fwd-status=503; ttl=-5", {"stale"}),
    ("origin-cache; hit; ttl=5, cacheinval; fwd=uri-miss", {"miss"}),
    ("cacheinval; hit; ttl=5, cdn; fwd=uri-miss", {"hit"}),
    ("cdn; hit; ttl=5", set[str]()),
    ("", set[str]()),
    (None, set[str]()),
    ("\u20ac not a header", set[str]()),
]


@pytest.mark.parametrize(("value", "holds"), CASES)
def test_exactly_the_right_assertions_hold(value: str | None, holds: set[str]) -> None:
    """Each kind of answer passes its own assertion and fails the other two with an AssertionError, never anything else."""
    response = Said(value)
    for name, check in ASSERTIONS.items():
        if name in holds:
            check(response)
        else:
            with pytest.raises(AssertionError, match="expected"):
                check(response)


@pytest.mark.parametrize(
    ("check", "response", "words"),
    [
        (
            assert_hit,
            Said("cacheinval; fwd=uri-miss; detail=set-cookie", 201),
            ["a fresh hit", "set-cookie", "status: 201", "cache-status: cacheinval; fwd=uri-miss"],
        ),
        (assert_hit, Said("cacheinval; fwd=vary-miss"), ["went forward (vary-miss)"]),
        (assert_hit, Said("cacheinval; hit; ttl=-5", age="65"), ["from the cache with ttl=-5", "age: 65"]),
        (assert_miss, Said("cacheinval; hit; ttl=60"), ["made by the app", "from the cache with ttl=60"]),
        (assert_stale, Said("cacheinval; hit; ttl=60"), ["a stale answer", "ttl=60"]),
        (assert_hit, Said(None, etag='"x"'), ["no cached()", "middleware", 'etag: "x"']),
        (assert_hit, Said("cdn; hit"), ["no Cache-Status of ours", "cache-status: cdn; hit"]),
    ],
)
def test_a_failure_tells_the_whole_story(check: Callable[[Any], None], response: Said, words: list[str]) -> None:
    """What was expected, why it is not so, the status and the fields that say more."""
    with pytest.raises(AssertionError) as raised:
        check(response)
    for word in words:
        assert word in str(raised.value)


def test_they_work_with_the_test_client() -> None:
    """Starlette's client, sync."""
    clock = FakeClock()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache(clock=clock))

    @app.get("/it", dependencies=[cached(ttl=10, stale_while_revalidate=60, jitter=0, early_refresh=0)])
    async def read() -> str:
        return "it"

    with TestClient(app) as client:
        assert_miss(client.get("/it"))
        assert_hit(client.get("/it"))
        clock.tick(20)
        assert_stale(client.get("/it"))


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_they_work_with_both_generations_of_httpx(library: Any) -> None:
    """Their responses share no class; the assertions take either."""
    app, _ = counting_app()
    async with library.AsyncClient(transport=library.ASGITransport(app), base_url="http://test") as client:
        assert_miss(await client.get("/it"))
        assert_hit(await client.get("/it"))
        with pytest.raises(AssertionError, match="cache-status: cacheinval; hit"):
            assert_miss(await client.get("/it"))


def test_purges_are_captured_from_mutations_and_by_hand_in_order() -> None:
    """Receipts of this cache alone, while the block runs alone, through a test client with its own loop."""
    cache, other = HTTPCache(), HTTPCache()
    app, _ = counting_app(cache)
    with TestClient(app) as client:
        client.put("/it")
        with capture_invalidations(cache) as purges:
            assert purges == []
            client.put("/it")
            cache.invalidate_sync("by-hand", soft=True)
            other.invalidate_sync("other")
            client.get("/it")
        cache.invalidate_sync("after")
    assert [(purge.tags, purge.paths, purge.soft) for purge in purges] == [
        (("it",), ("/it",), False),
        (("by-hand",), (), True),
    ]
    assert [purge.seq for purge in purges] == [2, 3]


@pytest.mark.anyio
async def test_captures_nest_and_end_with_an_exception() -> None:
    """Two at once see the same; one whose block raises is off afterwards."""
    cache = HTTPCache()

    async def fail(_receipt: object) -> None:
        raise ZeroDivisionError

    with capture_invalidations(cache) as outer:
        with pytest.raises(ZeroDivisionError), capture_invalidations(cache) as inner:
            await fail(await cache.clear())
        await cache.invalidate_url("/p")
    await cache.invalidate("after")
    assert [purge.everything for purge in inner] == [True]
    assert [(purge.everything, purge.paths) for purge in outer] == [(True, ()), (False, ("/p",))]


@pytest.mark.anyio
async def test_captures_see_purges_of_other_threads() -> None:
    """A plain function in a thread purges: the receipt is there when it returns."""
    cache = HTTPCache()
    async with cache:
        with capture_invalidations(cache) as purges:
            await asyncio.gather(*(asyncio.to_thread(cache.invalidate_sync, f"t{number}") for number in range(10)))
    assert sorted(purge.tags[0] for purge in purges) == sorted(f"t{number}" for number in range(10))
    assert [purge.seq for purge in purges] == list(range(1, 11))


@pytest.mark.anyio
async def test_a_purge_of_nothing_is_not_captured() -> None:
    """Tags with nothing left of them write no line, and the receipt has the log's last number."""
    cache = HTTPCache()
    with capture_invalidations(cache) as purges:
        receipt = await cache.invalidate("", "")
    assert purges == []
    assert (receipt.seq, receipt.tags) == (0, ())
    assert cache.statistics().dropped_tags == 2
