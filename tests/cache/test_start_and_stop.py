"""What start and stop do, in what order, and what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Self

import pytest
from fastapi import FastAPI

from fastapi_cacheinval import (
    CacheMiddleware,
    CacheNotRunning,
    ConfigurationError,
    HTTPCache,
    Receipt,
    cached,
    invalidates,
)
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale
from tests.helpers.http import until
from tests.helpers.life import Counted, LifespanByHand, client_of, counting_app

pytestmark = pytest.mark.anyio


class Source:
    """Something attached that can be entered again; it notes what happens to it."""

    def __init__(self, notes: list[str], name: str = "source") -> None:
        self._notes = notes
        self._name = name

    async def __aenter__(self) -> Self:
        self._notes.append(f"{self._name} up")
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._notes.append(f"{self._name} down")


async def test_start_and_stop_may_be_called_twice() -> None:
    """The second start keeps what the first made, the second stop does nothing, and stopping first is harmless."""
    cache = HTTPCache()
    await cache.stop()
    await cache.start()
    runtime = cache._core.runtime
    await cache.start()
    assert cache._core.runtime is runtime
    await cache.stop()
    await cache.stop()
    assert not cache.running
    with pytest.raises(CacheNotRunning):
        _ = cache._core.runtime


async def test_a_cache_works_without_any_middleware() -> None:
    """`async with cache:` is enough for a script that only purges; receipts are numbered one after another."""
    async with HTTPCache() as cache:
        receipts = [await cache.invalidate("a"), await cache.invalidate_url("/b"), await cache.clear(soft=True)]
    assert [receipt.seq for receipt in receipts] == [1, 2, 3]
    assert not cache.running


def test_without_a_loop_a_cache_does_not_run() -> None:
    """In a plain script: a purge that needs the loop says what is missing, and nothing runs."""
    cache = HTTPCache()
    assert not cache.running
    with pytest.raises(CacheNotRunning, match="async with cache"):
        cache.invalidate_soon("a")


async def test_nested_blocks_stop_the_cache_with_the_last_one() -> None:
    """Two blocks at once on one loop, ended in either order: the cache runs until both have ended."""
    cache = HTTPCache()
    ends = [asyncio.Event(), asyncio.Event()]

    async def block(end: asyncio.Event) -> None:
        async with cache:
            await end.wait()

    tasks = [asyncio.create_task(block(end)) for end in ends]
    await until(lambda: cache.running)
    ends[0].set()
    await tasks[0]
    assert cache.running
    ends[1].set()
    await tasks[1]
    assert not cache.running


async def test_a_block_ends_a_cache_whose_app_was_asked_inside_it() -> None:
    """An app without a lifespan is asked in a block, also after a stop, in a second block, or with one that is done: the block ends the cache."""
    cache = HTTPCache()
    app, _ = counting_app(cache)
    async with client_of(app) as client:
        async with cache:
            assert_miss(await client.get("/it"))
            assert_hit(await client.get("/it"))
        assert not cache.running
        async with cache:
            await cache.stop()
            await client.put("/it")
            assert cache.running
        assert not cache.running
        async with cache:
            async with cache:
                await client.get("/it")
            assert cache.running
            await client.get("/it")
        assert not cache.running


async def test_a_block_leaves_a_cache_that_began_before_it_or_for_an_app_inside_it() -> None:
    """Begun by a request, by `start()`, or inside the block by a lifespan: blocks end, and the cache runs on until its stop."""
    cache = HTTPCache()
    app, _ = counting_app(cache)
    async with client_of(app) as client:
        await client.get("/it")
        async with cache:
            await client.get("/it")
        assert cache.running
        await cache.stop()
    async with cache:
        await cache.start()
    assert cache.running
    await cache.stop()
    lifespan = LifespanByHand(app)
    async with cache:
        await lifespan.tell("startup")
    assert cache.running
    await lifespan.tell("shutdown")
    await lifespan.ended()
    assert not cache.running


async def test_a_request_under_way_at_the_end_of_its_block_is_answered() -> None:
    """The block ends while a handler runs: its client gets the response, and the cache stays stopped."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    begun, go = asyncio.Event(), asyncio.Event()

    @app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        begun.set()
        await go.wait()
        return "whole"

    async with client_of(app) as client:
        async with cache:
            asked = asyncio.create_task(client.get("/"))
            await begun.wait()
        assert not cache.running
        go.set()
        assert (await asked).json() == "whole"
        assert not cache.running


async def test_a_block_that_a_stop_ended_early_takes_no_other_with_it() -> None:
    """Stopped inside one block, started by another: the end of the first leaves the second its cache."""
    cache = HTTPCache()
    end = asyncio.Event()

    async def block() -> None:
        async with cache:
            await end.wait()

    first = asyncio.create_task(block())
    await until(lambda: cache.running)
    await cache.stop()
    async with cache:
        end.set()
        await first
        assert cache.running
    assert not cache.running


async def test_what_is_stored_survives_a_stop() -> None:
    """A stopped and started cache still has its responses, and still knows what was purged."""
    app, counted = counting_app(cache := HTTPCache())
    async with client_of(app) as client:
        await client.get("/it")
        await cache.stop()
        assert_hit(await client.get("/it"))
        await cache.stop()
        await cache.invalidate("it")
        await client.get("/it")
        assert counted.calls == 2
    await cache.stop()


async def test_stop_cancels_a_refresh_and_waits_for_its_cleaning_up() -> None:
    """A refresh under way is cancelled at stop; its handler's `finally` has run when stop returns, and nothing is left."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    notes: list[str] = []

    @app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=60, jitter=0, early_refresh=0)])
    async def read() -> str:
        if not notes:
            notes.append("filled")
            return "first"
        notes.append("refreshing")
        try:
            await asyncio.Event().wait()
        finally:
            notes.append("cleaned up")
        return "never"

    async with client_of(app) as client:
        await client.get("/")
        clock.tick(20)
        assert_stale(await client.get("/"))
        await until(lambda: "refreshing" in notes)
        assert cache.statistics().refreshing == 1
        await cache.stop()
        assert notes == ["filled", "refreshing", "cleaned up"]
        assert cache.statistics().refreshing == 0
        assert cache._core.counters.refreshes["cancelled"] == 1


async def test_a_refresh_that_had_not_begun_is_cancelled_and_releases_who_waits() -> None:
    """Stopped in the same moment as a refresh is ordered: its handler never runs, and its flight is over."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    counted = Counted()

    @app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=60, jitter=0, early_refresh=0)])
    async def read() -> int:
        return counted()

    async with client_of(app) as client:
        await client.get("/")
        clock.tick(20)
        runtime = cache._core.runtime
        # A stale answer from the front awaits nothing, so the refresh that it orders has not begun here.
        assert_stale(await client.get("/"))
        assert (runtime.refreshing, len(runtime.flights)) == (1, 1)
        await cache.stop()
    assert counted.calls == 1
    assert (runtime.refreshing, len(runtime.flights)) == (0, 0)
    assert cache._core.counters.refreshes == {"cancelled": 1}


async def test_stop_waits_for_a_purge_and_for_the_listeners_that_hear_of_it() -> None:
    """A listener that is still telling others when the app stops is waited for, also where the purge itself only begins."""
    cache = HTTPCache()
    told: list[tuple[str, ...]] = []
    begun = asyncio.Event()
    go = asyncio.Event()

    async def tell(receipt: Receipt) -> None:
        begun.set()
        await go.wait()
        told.append(receipt.tags)

    cache.add_listener(tell)
    await cache.start()
    cache._core.runtime.own(cache._core.purger.purge(("a",), soft=False))
    stopping = asyncio.create_task(cache.stop())
    await begun.wait()
    assert not stopping.done()
    go.set()
    await stopping
    assert told == [("a",)]


async def test_what_could_not_be_finished_at_stop_is_logged_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that never ends holds the stop for `staleness_bound` and no longer, and an error says how many."""
    cache = HTTPCache(staleness_bound=0.05)

    async def tell(_receipt: Receipt) -> None:
        await asyncio.Event().wait()

    cache.add_listener(tell)
    async with cache:
        await cache.invalidate("a")
        await cache.invalidate("b")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "stopped with 2 purge(s) or listener(s) unfinished after 0.05 s (staleness_bound): "
        "what they purge may be served until its lifetime ends"
    )


async def test_stopping_in_peace_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A start, a purge and a stop leave no word above INFO."""
    async with HTTPCache() as cache:
        await cache.invalidate("a")
    assert not caplog.records


async def test_listeners_hear_every_purge_in_order_and_a_failing_one_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Tags, paths, everything and softness reach each listener with their number, from mutations too."""
    cache = HTTPCache()
    heard: list[Receipt] = []

    async def fail(_receipt: Receipt) -> None:
        raise OSError("the other cache is down")

    async def note(receipt: Receipt) -> None:
        heard.append(receipt)

    cache.add_listener(fail)
    cache.add_listener(note)
    app, _ = counting_app(cache)
    async with client_of(app) as client:
        await client.put("/it")
        await cache.invalidate("a", "b", soft=True)
        await cache.invalidate_url("/c?x=1")
        await cache.clear()
        await until(lambda: len(heard) == 4)
        cache.remove_listener(note)
        cache.remove_listener(note)
        await cache.invalidate("d")
        await cache.stop()
    assert [receipt.seq for receipt in heard] == [1, 2, 3, 4]
    assert (heard[0].tags, heard[0].paths) == (("it",), ("/it",))
    assert (heard[1].tags, heard[1].soft) == (("a", "b"), True)
    assert heard[2].paths == ("/c",)
    assert heard[3].everything
    assert "the other cache is down" in caplog.text


async def test_listeners_hear_purges_made_where_the_cache_does_not_run() -> None:
    """A script that purges without `async with cache:`, and a plain function in a thread: the listener has heard when the call returns."""
    cache = HTTPCache()
    heard: list[int] = []

    async def note(receipt: Receipt) -> None:
        heard.append(receipt.seq)

    cache.add_listener(note)
    await cache.invalidate("a")
    assert heard == [1]
    await asyncio.to_thread(cache.invalidate_sync, "b")
    assert heard == [1, 2]


async def test_sources_are_entered_at_start_and_left_at_stop_in_reverse() -> None:
    """Attached sources live exactly as long as the cache, at each of its lives; `statistics()` names them."""
    notes: list[str] = []
    cache = HTTPCache()
    cache.attach(Source(notes, "one"))
    cache.attach(Source(notes, "two"))
    for _ in range(2):
        async with cache:
            notes.append("running")
            assert len(cache.statistics().sources) == 2
            with pytest.raises(ConfigurationError, match="before the app starts"):
                cache.attach(Source(notes))
    assert notes == ["one up", "two up", "running", "two down", "one down"] * 2


async def test_a_source_that_fails_leaves_those_before_it_and_the_cache_not_running() -> None:
    """The first is left again, the error comes out of start, and the next start tries again."""
    notes: list[str] = []
    cache = HTTPCache()
    cache.attach(Source(notes, "one"))

    class Once(Source):
        async def __aenter__(self) -> Self:
            if "failed" not in notes:
                notes.append("failed")
                raise ConnectionError("not yet")
            return await super().__aenter__()

    cache.attach(Once(notes, "two"))
    with pytest.raises(ConnectionError, match="not yet"):
        await cache.start()
    assert not cache.running
    assert notes == ["one up", "failed", "one down"]
    async with cache:
        assert notes[3:] == ["one up", "two up"]


async def test_a_source_that_fails_at_its_end_does_not_keep_the_cache() -> None:
    """What the end of something attached raises comes out of stop; those before it are left and the cache is stopped all the same."""
    notes: list[str] = []
    cache = HTTPCache()
    cache.attach(Source(notes, "one"))

    @asynccontextmanager
    async def failing() -> AsyncGenerator[None]:
        yield
        raise ConnectionError("no goodbye")

    cache.attach(failing())
    await cache.start()
    with pytest.raises(ConnectionError, match="no goodbye"):
        await cache.stop()
    assert not cache.running
    assert notes == ["one up", "one down"]


async def test_a_block_that_begins_while_sources_are_left_waits_and_enters_them_again() -> None:
    """Another block's end is under way: the new one has a cache, and sources, of its own, and its end is the end."""
    notes: list[str] = []
    leaving, go = asyncio.Event(), asyncio.Event()
    cache = HTTPCache()

    class Slow(Source):
        async def __aexit__(self, *error: object) -> None:
            leaving.set()
            await go.wait()
            await super().__aexit__(*error)

    cache.attach(Slow(notes))

    async def block() -> None:
        async with cache:
            notes.append("running")
            await cache.deliver("a")

    first = asyncio.create_task(block())
    await leaving.wait()
    second = asyncio.create_task(block())
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, second)
    assert notes == ["source up", "running", "source down"] * 2
    assert not cache.running


@pytest.mark.parametrize("names", [["a", "a", "a"], ["a-1", "a", "a"], ["a", "a-1", "a-2", "a", "a"]])
def test_sources_of_one_name_are_told_apart(names: list[str]) -> None:
    """However they are called, statistics lose none of them."""

    class Named(Source):
        def __init__(self, name: str) -> None:
            super().__init__([])
            self.name = name

    cache = HTTPCache()
    for name in names:
        cache.attach(Named(name))
    sources = cache.statistics().sources
    assert len(sources) == len(names)
    assert set(names) <= set(sources)


async def test_purges_of_a_source_reach_the_log_until_it_is_left() -> None:
    """A source may purge with its last breath: it is left before the cache lets go of the log."""
    cache = HTTPCache()

    @asynccontextmanager
    async def source() -> AsyncGenerator[None]:
        yield
        await cache.invalidate("last")

    cache.attach(source())
    async with cache:
        pass
    assert cache.statistics().applied == 1


who: ContextVar[str] = ContextVar("who", default="nobody")


class Identity:
    """Middleware outside ours that keeps the caller in a context variable."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            who.set(dict(scope["headers"]).get(b"x-who", b"nobody").decode())
        await self._app(scope, receive, send)


@pytest.mark.parametrize("lifespan", [True, False])
async def test_a_refresh_runs_as_its_own_caller_also_where_a_request_started_the_cache(lifespan: bool) -> None:
    """It gets the context variables of the request that it repeats, and never those of the very first one."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.add_middleware(Identity)
    seen: list[str] = []

    @app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=60, jitter=0, early_refresh=0)])
    async def read() -> None:
        seen.append(who.get())

    life = LifespanByHand(app)
    if lifespan:
        await life.tell("startup")
    async with client_of(app) as client:
        await asyncio.create_task(client.get("/", headers={"x-who": "alice"}))
        clock.tick(20)
        await asyncio.create_task(client.get("/", headers={"x-who": "bob"}))
        await until(lambda: len(seen) == 2)
    # The refresh re-enters the app below what stands outside the cache, which has set them.
    assert seen == ["alice", "bob"]
    if lifespan:
        await life.tell("shutdown")
        await life.ended()
    await cache.stop()


async def test_invalidate_sync_refuses_to_block_the_loop() -> None:
    """On the loop's own thread it raises at once, and nothing is purged."""
    async with HTTPCache() as cache:
        with pytest.raises(CacheNotRunning, match="would block"):
            cache.invalidate_sync("a")
        assert cache.statistics().applied == 0
        receipt = await asyncio.to_thread(cache.invalidate_sync, "a", soft=True)
        assert (receipt.seq, receipt.tags, receipt.soft) == (1, ("a",), True)


async def test_a_plain_handler_may_purge_while_it_answers() -> None:
    """`invalidate_sync` in a `def` handler, which runs in a thread: the next read is made anew."""
    cache = HTTPCache()
    app, counted = counting_app(cache)

    @app.get("/purge")
    def purge() -> int:
        return cache.invalidate_sync("it").seq

    async with client_of(app) as client:
        await client.get("/it")
        assert (await client.get("/purge")).json() == 1
        assert (await client.get("/it")).json() == 2
    assert counted.calls == 2
    await cache.stop()


async def test_invalidates_on_the_whole_app_is_inert_on_reads() -> None:
    """Declared for all routes, it purges on writes alone, and is no start-up error."""
    cache = HTTPCache()
    app = FastAPI(dependencies=[invalidates("all")])
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/")
    async def read() -> None:
        pass

    @app.post("/")
    async def write() -> None:
        pass

    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 200
        assert cache.statistics().applied == 0
        assert (await client.post("/")).status_code == 200
        assert cache.statistics().applied == 1
    await cache.stop()
