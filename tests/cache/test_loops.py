"""One cache on several event loops, one after another and at the same time."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

import httpx
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, Receipt, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.life import LifespanByHand, client_of, counting_app, loop_threads


async def get(app: FastAPI, path: str = "/it") -> httpx.Response:
    """One request on the running loop."""
    async with client_of(app) as client:
        return await client.get(path)


async def put(app: FastAPI) -> None:
    """One mutation on the running loop."""
    async with client_of(app) as client:
        assert (await client.put("/it")).status_code == 200


def test_loops_one_after_another_share_what_is_stored() -> None:
    """Each `asyncio.run` is a new loop: the second is answered from what the first stored, and purges reach the third."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    assert_miss(asyncio.run(get(app)))
    assert_hit(asyncio.run(get(app)))
    asyncio.run(put(app))
    assert_miss(asyncio.run(get(app)))
    assert counted.calls == 2


def test_loops_that_are_gone_are_forgotten() -> None:
    """Fifty short-lived loops do not stay in memory with the cache."""
    cache = HTTPCache()

    async def touch() -> None:
        await cache._core.started()

    for _ in range(50):
        asyncio.run(touch())
    assert len(cache._core.runtimes) == 1


def test_loops_at_the_same_time_share_what_is_stored_and_purged() -> None:
    """A fill on one loop is a hit on the other; a mutation on the other is obeyed on the first at once."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    with loop_threads(2) as (one, two):
        for _ in range(20):
            one.run(get(app))
            assert_hit(two.run(get(app)))
            two.run(put(app))
            assert_miss(one.run(get(app)))
            assert_hit(two.run(get(app)))
            one.run(put(app))
        assert counted.calls == 40
        for thread in (one, two):
            thread.run(cache.stop())


def test_readers_on_other_loops_never_get_what_a_writer_has_purged() -> None:
    """Three reading loops beside a writing thread: no read that began after a purge returned is older than its write."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    data = {"written": 0, "promised": 0}
    ended = threading.Event()

    @app.get("/it", dependencies=[cached(ttl=60, tags=["it"])])
    async def read() -> int:
        written = data["written"]
        # Here a purge may overtake the fill.
        await asyncio.sleep(0)
        return written

    async def read_on() -> int:
        reads = 0
        async with client_of(app) as client:
            # Once at least, however late a busy machine lets it begin.
            while not reads or not ended.is_set():
                least = data["promised"]
                seen = (await client.get("/it")).json()
                assert seen >= least, f"read {seen} after the purge of {least}"
                reads += 1
                # A hit awaits nothing: the loop would have time for nobody else.
                await asyncio.sleep(0)
        await cache.stop()
        return reads

    with loop_threads(3) as readers:
        reading = [asyncio.run_coroutine_threadsafe(read_on(), reader.loop) for reader in readers]
        for number in range(1, 101):
            data["written"] = number
            cache.invalidate_sync("it")
            data["promised"] = number
        ended.set()
        assert all(future.result(30) > 0 for future in reading)


def test_one_loop_may_stop_while_another_goes_on() -> None:
    """Stopped on its own loop, the cache still answers on the other, and what is attached stays until its own loop stops."""
    notes: list[str] = []

    class Source:
        async def __aenter__(self) -> Self:
            notes.append("up")
            return self

        async def __aexit__(self, *_error: object) -> None:
            notes.append("down")

    cache = HTTPCache()
    cache.attach(Source())
    app, counted = counting_app(cache)
    with loop_threads(2) as (one, two):
        for thread in (one, two):
            thread.run(get(app))
        two.run(cache.stop())
        assert notes == ["up"]
        assert_hit(one.run(get(app)))
        one.run(cache.stop())
        assert notes == ["up", "down"]
    assert counted.calls == 1


def test_a_source_of_a_loop_that_was_closed_under_it_is_entered_again() -> None:
    """Without any stop the loop is gone, and what lived on it too: the next start brings it up on the new loop."""
    loops: list[asyncio.AbstractEventLoop] = []

    class Source:
        async def __aenter__(self) -> Self:
            loops.append(asyncio.get_running_loop())
            return self

        async def __aexit__(self, *_error: object) -> None:
            assert asyncio.get_running_loop() is loops[-1]

    cache = HTTPCache()
    cache.attach(Source())

    async def life(*, stop: bool) -> None:
        await cache.start()
        assert loops[-1] is asyncio.get_running_loop()
        if stop:
            await cache.stop()

    asyncio.run(life(stop=False))
    asyncio.run(life(stop=True))
    assert len(loops) == 2


def test_starts_and_stops_in_many_threads_at_once_leave_nothing() -> None:
    """Eight threads that start and stop on loops of their own: no error, and no loop is kept."""
    cache = HTTPCache()
    errors: list[Exception] = []

    async def life() -> None:
        async with cache:
            await cache.invalidate("it")

    def live() -> None:
        try:
            for _ in range(20):
                asyncio.run(life())
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=live) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not cache._core.runtimes
    assert cache.statistics().applied == 160


def test_a_listener_hears_on_the_loop_where_the_purge_was_made() -> None:
    """Two loops, one listener: it runs where its caller is."""
    cache = HTTPCache()
    heard: list[asyncio.AbstractEventLoop] = []

    async def note(_receipt: Receipt) -> None:
        heard.append(asyncio.get_running_loop())

    async def purge() -> None:
        async with cache:
            await cache.invalidate("it")

    cache.add_listener(note)
    with loop_threads(2) as (one, two):
        one.run(purge())
        two.run(purge())
        assert heard == [one.loop, two.loop]


def test_a_lifespan_on_one_loop_and_requests_on_another() -> None:
    """A server that runs the lifespan in a loop of its own: requests elsewhere start their own half and share the rest."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    with loop_threads(2) as (one, two):
        life = one.run(_made(app))
        one.run(life.tell("startup"))
        assert_miss(two.run(get(app)))
        assert_hit(two.run(get(app)))
        two.run(cache.stop())
        one.run(life.tell("shutdown"))
        one.run(life.ended())
    assert counted.calls == 1


async def _made(app: FastAPI) -> LifespanByHand:
    return LifespanByHand(app)
