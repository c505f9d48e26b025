"""`FakeClock` drives all of the cache's time: nothing waits for the wall's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Response
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale
from tests.helpers.http import until
from tests.helpers.life import Counted, client_of, counting_app, loop_threads

pytestmark = pytest.mark.anyio


def site(clock: FakeClock, **options: Any) -> tuple[FastAPI, HTTPCache, Counted]:
    """An app whose cache lives by the clock."""
    cache = HTTPCache(clock=clock, **options)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    return app, cache, Counted()


async def test_it_stands_still_until_it_is_ticked() -> None:
    """Both of its times move by exactly what is ticked; it starts where it is told and says so."""
    clock = FakeClock(start=5.0)
    wall = clock.wall()
    assert clock.now() == 5.0
    clock.tick(1.5)
    clock.tick(0)
    assert (clock.now(), clock.wall() - wall) == (6.5, 1.5)
    assert repr(clock) == "<FakeClock 6.5 s, 0 waiting>"


async def test_time_only_grows() -> None:
    """A negative tick is refused and changes nothing."""
    clock = FakeClock()
    with pytest.raises(ValueError, match="only grows"):
        clock.tick(-1)
    assert clock.now() == 1_000.0


async def test_alarms_ring_in_order_once_and_not_when_cancelled() -> None:
    """At their moment, in the order of their times and then of their setting, on the loop that set them."""
    clock = FakeClock()
    rung: list[str] = []
    clock.call_later(2, lambda: rung.append("second"))
    clock.call_later(1, lambda: rung.append("first"))
    cancelled = clock.call_later(1, lambda: rung.append("never"))
    clock.call_later(2, lambda: rung.append("third"))
    assert clock.waiting == 4
    cancelled.cancel()
    cancelled.cancel()
    assert clock.waiting == 3
    clock.tick(0.999)
    await asyncio.sleep(0)
    assert not rung
    clock.tick(0.001)
    await asyncio.sleep(0)
    assert rung == ["first"]
    clock.tick(100)
    await asyncio.sleep(0)
    assert rung == ["first", "second", "third"]
    assert clock.waiting == 0


def test_alarms_ring_on_the_loop_that_set_them_whoever_ticks() -> None:
    """Ticked from the test's thread, rung in the loop's; one whose loop is gone is forgotten."""
    clock = FakeClock()
    rung: list[threading.Thread] = []
    done = threading.Event()

    def ring() -> None:
        rung.append(threading.current_thread())
        done.set()

    async def set_alarm() -> threading.Thread:
        clock.call_later(1, ring)
        return threading.current_thread()

    async def forgotten() -> None:
        clock.call_later(1, lambda: rung.append(threading.main_thread()))

    asyncio.run(forgotten())
    with loop_threads(1) as (thread,):
        expected = thread.run(set_alarm())
        clock.tick(1)
        assert done.wait(10)
    assert rung == [expected]


async def test_it_drives_lifetimes_and_ages() -> None:
    """A minute passes in no time: fresh, stale, refreshed, gone."""
    clock = FakeClock()
    app, cache, counted = site(clock)

    @app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=60, jitter=0, early_refresh=0)])
    async def read() -> int:
        return counted()

    async with client_of(app) as client:
        assert_miss(await client.get("/"))
        clock.tick(59)
        hit = await client.get("/")
        assert_hit(hit)
        assert hit.headers["age"] == "59"
        clock.tick(1)
        assert_stale(await client.get("/"))
        await until(lambda: counted.calls == 2 and not cache.statistics().refreshing)
        assert_hit(await client.get("/"))
        clock.tick(120)
        assert_miss(await client.get("/"))
    await cache.stop()


def test_it_drives_lifetimes_through_the_test_client() -> None:
    """The same in a plain test function: the clock is ticked outside the client's loop."""
    clock = FakeClock()
    app, counted = counting_app(HTTPCache(clock=clock))
    with TestClient(app) as client:
        assert_miss(client.get("/it"))
        clock.tick(59)
        assert_hit(client.get("/it"))
        clock.tick(1)
        assert_miss(client.get("/it"))
    assert counted.calls == 2


async def test_it_drives_the_collapse_timeout() -> None:
    """A waiter behind a slow leader goes by itself once `collapse_timeout` has been ticked, and no real time has passed."""
    clock = FakeClock()
    app, cache, counted = site(clock, collapse_timeout=5)
    go = asyncio.Event()

    @app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        call = counted()
        if call == 1:
            await go.wait()
        return call

    async with client_of(app) as client:
        leader = asyncio.create_task(client.get("/"))
        await until(lambda: counted.calls == 1)
        waiter = asyncio.create_task(client.get("/"))
        await until(lambda: clock.waiting == 1)
        clock.tick(4.9)
        await asyncio.sleep(0)
        assert not waiter.done()
        clock.tick(0.1)
        assert (await waiter).json() == 2
        go.set()
        assert (await leader).json() == 1
    assert clock.waiting == 0
    await cache.stop()


async def _session() -> AsyncGenerator[None]:
    yield
    await commit.wait()


commit = asyncio.Event()


async def test_it_drives_the_bound_of_a_held_response() -> None:
    """A slow commit: the mutation's response waits for `hold_timeout` of this clock, then goes as queued."""
    commit.clear()
    clock = FakeClock()
    app, cache, _ = site(clock, hold_timeout=0.1)

    @app.put("/", dependencies=[invalidates("it")])
    async def write(_session: Annotated[None, Depends(_session)]) -> Response:
        return Response(status_code=204)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "PUT", "path": "/", "headers": [], "query_string": b"", "root_path": ""}
    call = asyncio.create_task(app({**scope, "scheme": "http", "http_version": "1.1"}, receive, send))
    await until(lambda: clock.waiting == 1)
    assert not sent
    clock.tick(0.1)
    await until(lambda: sent)
    assert dict(sent[0]["headers"])[b"cacheinval-purge"] == b"queued"
    commit.set()
    await call
    assert cache.statistics().applied == 2
    await cache.stop()


async def test_it_drives_the_refresh_timeout() -> None:
    """A refresh that hangs is given up after `refresh_timeout` of this clock, and another may follow after its pause."""
    clock = FakeClock()
    app, cache, counted = site(clock, refresh_timeout=30)

    @app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=600, jitter=0, early_refresh=0)])
    async def read() -> int:
        call = counted()
        if call == 2:
            await asyncio.Event().wait()
        return call

    async with client_of(app) as client:
        await client.get("/")
        clock.tick(20)
        assert_stale(await client.get("/"))
        await until(lambda: counted.calls == 2)
        clock.tick(30)
        await until(lambda: cache._core.counters.refreshes["timeout"] == 1)
        assert_stale(await client.get("/"))
        assert counted.calls == 2
        clock.tick(2)
        assert_stale(await client.get("/"))
        await until(lambda: cache._core.counters.refreshes["stored"] == 1)
        assert_hit(await client.get("/"))
    assert clock.waiting == 0
    await cache.stop()
