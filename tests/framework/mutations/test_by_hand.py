"""Invalidation by hand: `invalidate`, `invalidate_url`, `clear`, from anywhere, with receipts and listeners."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval import CacheMiddleware, CacheNotRunning, ConfigurationError, HTTPCache, Receipt, cached
from fastapi_cacheinval.ports.log import Proposal
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale, capture_invalidations
from tests.helpers.mutations import Shop, ask, get, settle, until

pytestmark = pytest.mark.anyio


def _shop() -> Shop:
    shop = Shop()

    @shop.app.get(
        "/products/{number}", dependencies=[cached(ttl=60, stale_while_revalidate=60, tags=["product:{number}", "all"])]
    )
    async def read(number: str, page: int = 1) -> int:
        return shop.read()

    return shop


async def test_a_hard_invalidation_is_obeyed_when_the_call_returns() -> None:
    """By any one of a response's tags; what does not carry the tag stays."""
    shop = _shop()
    await shop.get("/products/1")
    await shop.get("/products/2")
    receipt = await shop.cache.invalidate("product:1", "unknown")
    assert receipt == Receipt(term=1, seq=1, tags=("product:1", "unknown"), soft=False)
    assert_miss(await shop.get("/products/1"))
    assert_hit(await shop.get("/products/2"))
    await shop.cache.invalidate("all")
    assert_miss(await shop.get("/products/1"))
    assert_miss(await shop.get("/products/2"))


async def test_a_soft_invalidation_makes_stale() -> None:
    """Served once more as stale, refreshed behind that; a hard one before it is not softened by it."""
    shop = _shop()
    await shop.get("/products/1")
    assert (await shop.cache.invalidate("product:1", soft=True)).soft
    assert_stale(await shop.get("/products/1"))
    await settle()
    assert_hit(await shop.get("/products/1"))
    await shop.cache.invalidate("product:1")
    await shop.cache.invalidate("product:1", soft=True)
    assert_miss(await shop.get("/products/1"))


async def test_receipts_count_up_and_say_what_was_asked() -> None:
    """Numbers follow each other; tags come back in normal form, in order, once each; empty ones are dropped and counted."""
    shop = _shop()
    first = await shop.cache.invalidate("a", "b c", "a", "")
    second = await shop.cache.invalidate_url("/products/1?page=2", soft=True)
    third = await shop.cache.clear()
    assert (first.seq, first.tags, first.paths, first.everything) == (1, ("a", "b%20c"), (), False)
    assert (second.seq, second.tags, second.paths, second.soft) == (2, (), ("/products/1",), True)
    assert (third.seq, third.tags, third.paths, third.everything) == (3, (), (), True)
    assert {receipt.term for receipt in (first, second, third)} == {1}
    assert (first.replicas, first.seconds) == (None, None)
    assert shop.cache.statistics().dropped_tags == 1


async def test_waiting_for_all_tells_how_many_replicas_and_how_long() -> None:
    """In one process that is the one, at once."""
    shop = _shop()
    receipt = await shop.cache.invalidate("a", wait="all")
    assert (receipt.replicas, receipt.seconds) == (1, 0.0)
    with pytest.raises(ConfigurationError):
        await shop.cache.invalidate("a", wait="some")  # type: ignore[arg-type]


async def test_an_invalidation_without_any_tag_left_purges_nothing() -> None:
    """It is no `clear()`, whatever a client's data has come to; its receipt has the last number."""
    shop = _shop()
    await shop.get("/products/1")
    await shop.cache.invalidate("other")
    assert await shop.cache.invalidate() == Receipt(term=1, seq=1, tags=(), soft=False)
    assert await shop.cache.invalidate("", "") == Receipt(term=1, seq=1, tags=(), soft=False)
    assert_hit(await shop.get("/products/1"))


async def test_a_tag_cannot_reach_the_caches_own() -> None:
    """Text that looks like the reserved tags of a path or of everything is percent-encoded, and purges nothing of the kind."""
    shop = _shop()
    await shop.get("/products/1")
    await shop.cache.invalidate("\x01all", "\x01path:/products/1", "path:/products/1")
    assert_hit(await shop.get("/products/1"))


@settings(max_examples=40)
@given(st.lists(st.text(max_size=30) | st.just("x" * 3000), max_size=4))
def test_no_text_makes_an_invalidation_raise(texts: list[str]) -> None:
    """Tags and paths may carry a client's data, lone surrogates, NULs and brackets included."""
    cache = HTTPCache(clock=FakeClock())

    async def run() -> None:
        await cache.invalidate(*texts)
        for text in texts:
            await cache.invalidate_url(text)
            await cache.invalidate_url("//" + text)

    asyncio.run(run())


@pytest.mark.parametrize("hostile", ["//[", "http://[", "http://[::1", "//\ud800", "http://a]/x", ""])
async def test_a_hostile_url_is_no_error(hostile: str) -> None:
    """What no URL parser takes is purged as the path that it stands for, if any."""
    shop = _shop()
    await shop.get("/products/1")
    await shop.cache.invalidate_url(hostile)
    assert_hit(await shop.get("/products/1"))


@pytest.mark.parametrize(
    "url",
    [
        "/products/café 1",
        "/products/caf%C3%A9%201",
        "/products/café 1?page=2",
        "/products/caf%C3%A9%201?page=2#top",
        "http://shop.test/products/caf%C3%A9%201",
        "https://other.test/products/caf%C3%A9%201?x",
    ],
)
async def test_a_url_is_purged_in_all_its_queries_and_by_either_spelling(url: str) -> None:
    """Encoded as browsers show it or decoded as handlers see it, with or without host and query."""
    shop = _shop()
    targets = ("/products/café 1", "/products/café 1?page=2")
    for target in (*targets, "/products/2"):
        await shop.get(target)
    await shop.cache.invalidate_url(url)
    for target in targets:
        assert_miss(await shop.get(target))
    assert_hit(await shop.get("/products/2"))


async def test_a_path_with_a_per_cent_sign_of_its_own_is_purged_as_it_stands() -> None:
    """A decoded path may look encoded."""
    shop = _shop()
    await shop.get("/products/%41")
    await shop.cache.invalidate_url("/products/%41")
    assert_miss(await shop.get("/products/%41"))


async def test_a_soft_url_and_a_soft_clear_make_stale() -> None:
    """`soft=` means the same everywhere."""
    shop = _shop()
    for soften in (lambda: shop.cache.invalidate_url("/products/1", soft=True), lambda: shop.cache.clear(soft=True)):
        await shop.get("/products/1")
        await settle()
        assert_hit(await shop.get("/products/1"))
        await soften()
        assert_stale(await shop.get("/products/1"))
        await settle()


async def test_clear_purges_everything_of_this_cache_only() -> None:
    """Another cache in the same process keeps what it has."""
    shop, other = _shop(), _shop()
    for each in (shop, other):
        await each.get("/products/1")
        await each.get("/products/2")
    await shop.cache.clear()
    assert_miss(await shop.get("/products/1"))
    assert_miss(await shop.get("/products/2"))
    assert_hit(await other.get("/products/1"))


async def test_an_invalidation_in_the_handler_of_the_very_response_is_not_undone_by_it() -> None:
    """A GET that purges its own tag while it is filled is answered, and not kept."""
    shop = Shop()

    @shop.app.get("/own", dependencies=[cached(ttl=60, tags=["own"])])
    async def read() -> int:
        value = shop.read()
        await shop.cache.invalidate("own")
        return value

    await shop.get("/own")
    again = await shop.get("/own")
    assert_miss(again)
    assert "detail=superseded" in again.headers["cache-status"]
    assert shop.reads == 2


async def test_plain_handlers_and_threads_invalidate_synchronously() -> None:
    """`invalidate_sync` in a `def` handler has its number when it returns, and so in any thread while the app runs."""
    shop = _shop()
    receipts: list[Receipt] = []

    @shop.app.post("/hook")
    def hook() -> None:
        receipts.append(shop.cache.invalidate_sync("product:1"))
        receipts.append(shop.cache.invalidate_sync("product:2", soft=True))

    await shop.get("/products/1")
    await ask(shop.app, "POST", "/hook")
    assert [(receipt.seq, receipt.soft) for receipt in receipts] == [(1, False), (2, True)]
    assert_miss(await shop.get("/products/1"))
    thread = threading.Thread(target=lambda: receipts.append(shop.cache.invalidate_sync("product:1")))
    thread.start()
    await until(lambda: len(receipts) == 3)
    thread.join()
    assert_miss(await shop.get("/products/1"))


async def test_a_synchronous_call_on_the_loop_says_what_to_do_instead() -> None:
    """It would wait for the loop that it blocks."""
    shop = _shop()
    with pytest.raises(CacheNotRunning, match=r"await cache\.invalidate\(\)"):
        shop.cache.invalidate_sync("a")


def test_a_script_invalidates_without_a_loop_of_its_own() -> None:
    """No `async with`, no middleware: the call makes what it needs, again and again, and listeners hear of it."""
    cache = HTTPCache()
    heard: list[Receipt] = []

    async def listen(receipt: Receipt) -> None:
        heard.append(receipt)

    cache.add_listener(listen)
    assert cache.invalidate_sync("a").seq == 1
    assert cache.invalidate_sync("a", soft=True).seq == 2
    assert [receipt.seq for receipt in heard] == [1, 2]


def test_a_worker_invalidates_with_the_cache_as_a_context() -> None:
    """`async with cache:` is all that a worker needs; listeners have heard of every purge when it ends."""
    cache = HTTPCache()
    heard: list[int] = []

    async def listen(receipt: Receipt) -> None:
        await asyncio.sleep(0)
        heard.append(receipt.seq)

    async def work() -> None:
        cache.add_listener(listen)
        async with cache:
            await cache.invalidate("a")
            await cache.invalidate_url("/a")
            await cache.clear()

    asyncio.run(work())
    assert heard == [1, 2, 3]


async def test_what_was_filled_before_the_start_of_another_loop_obeys_purges_from_it() -> None:
    """One cache, two loops in two threads: a purge on one is obeyed on the other."""
    shop = _shop()
    await shop.get("/products/1")
    done: list[Receipt] = []

    def elsewhere() -> None:
        async def run() -> None:
            async with shop.cache:
                done.append(await shop.cache.invalidate("product:1"))

        asyncio.run(run())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await until(lambda: done)
    thread.join()
    assert_miss(await shop.get("/products/1"))


async def test_listeners_hear_every_purge_after_it_has_its_number(caplog: pytest.LogCaptureFixture) -> None:
    """By hand and by mutation, in order; one that fails is logged once and keeps nobody else from hearing."""
    shop = _shop()
    heard: list[tuple[int, bool]] = []

    async def fails(receipt: Receipt) -> None:
        raise RuntimeError("out of paper")

    async def listen(receipt: Receipt) -> None:
        heard.append((receipt.seq, receipt.soft))

    @shop.app.put("/products/{number}")
    async def write(number: str) -> None: ...

    shop.cache.add_listener(fails)
    shop.cache.add_listener(listen)
    await shop.cache.start()
    with caplog.at_level(logging.ERROR, "fastapi_cacheinval"):
        await shop.cache.invalidate("a")
        await shop.put("/products/1")
        await shop.cache.invalidate("a", soft=True)
        await shop.cache.invalidate()
        await settle()
    assert heard == [(1, False), (2, False), (3, True)]
    assert [record.message.partition(":")[0] for record in caplog.records] == ["a purge listener failed"]
    shop.cache.remove_listener(listen)
    shop.cache.remove_listener(listen)
    await shop.cache.invalidate("a")
    await settle()
    assert len(heard) == 3


async def test_a_slow_listener_does_not_keep_the_purge_from_returning() -> None:
    """The write is answered; what listens has its own time."""
    shop = _shop()
    go = asyncio.Event()

    async def slow(receipt: Receipt) -> None:
        await go.wait()

    shop.cache.add_listener(slow)
    await shop.cache.start()
    assert (await shop.cache.invalidate("a")).seq == 1
    go.set()
    await settle()


async def test_captured_invalidations_are_those_of_the_block() -> None:
    """Tests see what was purged in a block, by hand and by requests, and nothing after it."""
    shop = _shop()
    await shop.cache.invalidate("before")
    with capture_invalidations(shop.cache) as receipts:
        await shop.cache.invalidate("inside")
        assert [receipt.tags for receipt in receipts] == [("inside",)]
    await shop.cache.invalidate("after")
    assert [receipt.tags for receipt in receipts] == [("inside",)]


async def test_an_app_that_begins_after_purges_goes_on_from_their_numbers() -> None:
    """Purges before the first request count, and nothing that is filled afterwards is hurt by them."""
    cache = HTTPCache()
    assert (await cache.invalidate("price")).seq == 1
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return 1

    await get(app, "/price")
    assert_hit(await get(app, "/price"))
    assert (await cache.invalidate("price")).seq == 2
    assert_miss(await get(app, "/price"))


async def test_purges_from_many_threads_each_have_a_number_of_their_own() -> None:
    """No number twice, none left out, whoever purges at the same moment, and every one is obeyed."""
    shop = _shop()
    await shop.cache.start()
    log: Any = shop.cache._core.bus
    seqs: list[int] = []
    together = threading.Barrier(4)

    def purge(number: int) -> None:
        together.wait()
        for each in range(25):
            seqs.append(log.publish_now(Proposal((f"{number}-{each}",), soft=False)).seq)  # noqa: PERF401

    threads = [threading.Thread(target=purge, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seqs) == list(range(1, 101))
    assert shop.cache.statistics().applied == 100
    cells: Any = shop.cache._core.engine.replica.cells
    assert len(cells) == 100
