"""No lifespan: the first requests start the cache, share one start, wait for the log's first word, and then collapse."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from tests.helpers.fleet import CALM, SECRET
from tests.helpers.life import Counted, client_of
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


def cold(url: str, *, honour_headers: bool = False, **options: Any) -> tuple[HTTPCache, FastAPI, Counted]:
    """A cache that nobody has started, an app with a slow page and its mutation, and how often the page was made."""
    given: Any = {"secret": SECRET, **CALM, **options}
    cache = HTTPCache.from_url(url, **given)
    app, counted = FastAPI(), Counted()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=honour_headers)
    declared = [] if honour_headers else [cached(ttl=60, tags=["it"])]

    @app.get("/it", dependencies=declared)
    async def read(response: Response) -> int:
        await asyncio.sleep(0.05)
        if honour_headers:
            response.headers["cache-control"] = "public, max-age=60"
        return counted()

    @app.put("/it", dependencies=[invalidates("it")])
    async def write() -> None: ...

    return cache, app, counted


async def burst(app: FastAPI, count: int = 20) -> list[httpx.Response]:
    """So many requests at once."""
    async with client_of(app) as client:
        return await asyncio.gather(*(client.get("/it") for _ in range(count)))


@pytest.mark.parametrize("honour_headers", [False, True], ids=["policy", "headers"])
async def test_a_cold_burst_makes_one_handler_call(redis_server: Valkey, *, honour_headers: bool) -> None:
    """Twenty first requests at once: one forward, which is stored, in touch with the log."""
    cache, app, counted = cold(redis_server.url, honour_headers=honour_headers)
    answers = await burst(app)
    assert [answer.status_code for answer in answers] == [200] * 20
    assert counted.calls == 1
    said = [answer.headers["cache-status"] for answer in answers]
    assert not [each for each in said if "disconnected" in each]
    assert len([each for each in said if "stored" in each]) == 1
    await cache.stop()


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.01])
async def test_a_burst_that_comes_in_while_the_cache_starts_waits_with_the_first(
    redis_server: Valkey, wait: float
) -> None:
    """Later requests of the burst do not pass the start of the first one."""
    cache, app, counted = cold(redis_server.url)
    redis_server.execute("CLIENT", "PAUSE", "300", "ALL")
    first = asyncio.create_task(burst(app, 1))
    await asyncio.sleep(wait)
    rest = await burst(app, 10)
    answers = [*await first, *rest]
    assert counted.calls == 1
    assert not [answer for answer in answers if "disconnected" in answer.headers["cache-status"]]
    await cache.stop()


async def test_a_cold_burst_over_two_replicas_makes_one_handler_call(redis_server: Valkey) -> None:
    """Both are cold, the data is the same: the fill lock counts from the first request on."""
    cache, app, counted = cold(redis_server.url)
    given: Any = {"secret": SECRET, **CALM}
    other = HTTPCache.from_url(redis_server.url, **given)
    twin = CacheMiddleware(app.build_middleware_stack(), cache=other)
    answers = await asyncio.gather(burst(app, 10), burst(twin, 10))  # type: ignore[arg-type]
    assert {answer.status_code for each in answers for answer in each} == {200}
    assert counted.calls == 1
    await cache.stop()
    await other.stop()


async def test_a_second_loop_waits_for_its_own_start(redis_server: Valkey) -> None:
    """The app has been looked at on the first loop; the first burst on another one collapses all the same."""
    cache, app, counted = cold(redis_server.url)
    await burst(app)

    async def elsewhere() -> list[httpx.Response]:
        await cache.invalidate("it")
        answers = await burst(app)
        await cache.stop()
        return answers

    answers = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert counted.calls == 2
    assert not [answer for answer in answers if "disconnected" in answer.headers["cache-status"]]
    await cache.stop()


async def test_a_first_request_that_is_cancelled_leaves_the_start_to_the_next(redis_server: Valkey) -> None:
    """Its client goes away while the log is silent: those who waited with it are served, by one handler call."""
    cache, app, counted = cold(redis_server.url)
    redis_server.execute("CLIENT", "PAUSE", "300", "ALL")
    first = asyncio.create_task(burst(app, 1))
    await asyncio.sleep(0.01)
    rest = asyncio.create_task(burst(app, 10))
    await asyncio.sleep(0.01)
    first.cancel()
    answers = await rest
    assert counted.calls == 1
    assert not [answer for answer in answers if "disconnected" in answer.headers["cache-status"]]
    await cache.stop()


async def test_a_first_burst_of_mutations_and_reads(redis_server: Valkey) -> None:
    """Mutations start the cache as well: each is purged under its number, and nothing is queued."""
    cache, app, _ = cold(redis_server.url)
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.put("/it") for _ in range(10)), *(client.get("/it") for _ in range(10)))
    assert [answer.headers["cacheinval-purge"] for answer in answers[:10]] == ["done"] * 10
    assert cache.statistics().queue_length == 0
    await cache.stop()


async def test_without_redis_a_cold_burst_is_served_after_a_bounded_wait(redis_server: Valkey) -> None:
    """A silent server: all are answered, by forwards of their own where need be, and later ones do not wait again."""
    with tcp_proxy(redis_server.port) as proxy:
        proxy.black_hole()
        cache, app, _ = cold(proxy.url, redis_timeout=0.2, staleness_bound=1.5)
        began = time.monotonic()
        answers = await burst(app)
        assert [answer.status_code for answer in answers] == [200] * 20
        assert time.monotonic() - began < 10
        began = time.monotonic()
        await burst(app)
        assert time.monotonic() - began < 0.7
        await cache.stop()


async def test_a_source_that_cannot_begin_fails_each_first_request_and_is_tried_again(redis_server: Valkey) -> None:
    """Requests that wait for one start get its error; the next request starts anew."""
    tries: list[int] = []

    class Source:
        async def __aenter__(self) -> Self:
            tries.append(1)
            await asyncio.sleep(0.01)
            if len(tries) == 1:
                raise LookupError("no broker")
            return self

        async def __aexit__(self, *_error: object) -> None: ...

    cache, app, counted = cold(redis_server.url)
    cache.attach(Source())
    assert [answer.status_code for answer in await burst(app, 5)] == [500] * 5
    assert [answer.status_code for answer in await burst(app, 5)] == [200] * 5
    assert (len(tries), counted.calls) == (2, 1)
    await cache.stop()


async def test_a_source_may_use_the_cache_while_it_begins(redis_server: Valkey) -> None:
    """A source that purges, and opens a block of its own, when it is entered does not wait for itself."""

    class Source:
        async def __aenter__(self) -> Self:
            await cache.deliver("it")
            async with cache:
                await cache.invalidate("it")
            return self

        async def __aexit__(self, *_error: object) -> None: ...

    cache, app, counted = cold(redis_server.url)
    cache.attach(Source())
    await asyncio.wait_for(burst(app), 20)
    assert counted.calls == 1
    await cache.stop()
