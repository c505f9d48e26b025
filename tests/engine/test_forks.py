"""One cache over Redis in processes that are forked before its start, while it runs, and while it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_cacheinval import (
    CacheMiddleware,
    CacheNotRunning,
    HTTPCache,
    PurgeNotDelivered,
    Receipt,
    add_tags,
    invalidates,
    purge_with_request,
)
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import CALM, SECRET
from tests.helpers.forks import in_child, in_thread
from tests.helpers.http import ask
from tests.helpers.life import counting_app
from tests.servers import Valkey, tcp_proxy, until


def over(server: Valkey, **options: Any) -> HTTPCache:
    """A cache over a server."""
    given: dict[str, Any] = {"secret": SECRET, **CALM, **options}
    return HTTPCache.from_url(server.url, **given)


def acks(server: Valkey) -> set[str]:
    """The ids under which replicas have read the log."""
    with redis.Redis(port=server.port, decode_responses=True) as client:
        found: Any = client.hgetall("{cacheinval}:acks")
    return set(found) - {"!"}


def test_a_fork_after_construction_is_a_replica_of_its_own(redis_server: Valkey) -> None:
    """A preloaded app is forked before it starts: each child has its own id, and what one has stored the next finds."""
    cache = over(redis_server)
    app, _ = counting_app(cache)

    def serves(result: Callable[[Any], None]) -> Callable[[], None]:
        def work() -> None:
            with TestClient(app) as client:
                result(client.get("/it"))
                deadline = time.monotonic() + 20
                while not cache.statistics().l2.get("write") and not cache.statistics().l2.get("hit"):
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                assert len(acks(redis_server)) == 1

        return work

    in_child(serves(assert_miss))
    in_child(serves(assert_hit))
    with TestClient(app) as client:
        assert_hit(client.get("/it"))


def test_a_fork_of_a_running_cache_starts_anew(redis_server: Valkey) -> None:
    """A child of a process that serves takes another id, and its parent's connections are left alone."""
    cache = over(redis_server)
    app, _ = counting_app(cache)
    with TestClient(app) as client:
        assert_miss(client.get("/it"))
        until(lambda: cache.statistics().l2.get("write"), "the write")
        ours = acks(redis_server)

        def work() -> None:
            with TestClient(app) as other:
                other.put("/it")
                assert len(acks(redis_server)) == 2

        in_child(work)
        until(lambda: cache.statistics().applied == 1, "the child's purge")
        assert_miss(client.get("/it"))
        assert ours <= acks(redis_server)


def _applied(cache: HTTPCache, seq: int) -> bool:
    return cache.statistics().applied == seq


def _purges_and_reports(cache: HTTPCache) -> None:
    async def life() -> None:
        async with cache:
            await cache.invalidate("it")

    if cache._core.connect is None:
        # Until then what it keeps in memory is its parent's.
        asyncio.run(life())
    else:
        cache.invalidate_sync("it")
    cache.statistics()


PURGES: dict[str, Callable[[HTTPCache], Receipt]] = {
    "sync": lambda cache: cache.invalidate_sync("it"),
    "clear": lambda cache: cache.invalidate_sync(everything=True),
    "for all": lambda cache: cache.invalidate_sync("it", wait="all"),
    "thread": lambda cache: in_thread(lambda: cache.invalidate_sync("it")),
    "loop": lambda cache: asyncio.run(cache.invalidate("it")),
    "url": lambda cache: asyncio.run(cache.invalidate_url("/it")),
}


@pytest.mark.parametrize("how", PURGES)
def test_a_fork_of_a_running_cache_purges_by_itself(redis_server: Valkey, how: str) -> None:
    """From its main thread or another: at once, with a number, and the parent obeys and goes on with its own link."""
    cache = over(redis_server)
    app, _ = counting_app(cache)
    with TestClient(app) as client:
        for round_ in range(3):
            assert_miss(client.get("/it"))
            assert_hit(client.get("/it"))
            began = time.monotonic()
            in_child(lambda: PURGES[how](cache))
            # A barrier in a first term waits for whoever may have a lease.
            assert how == "for all" or time.monotonic() - began < 4
            until(partial(_applied, cache, 2 * round_ + 1), "the child's purge")
            assert_miss(client.get("/it"))
            assert client.put("/it").headers["cacheinval-purge"] == "done"


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_a_fork_in_a_handler_is_in_no_request_and_on_no_loop(redis_server: Valkey, kind: str) -> None:
    """A worker pool begins in a mutation: what it changes joins no answer of its parent, and it purges by itself."""
    cache = over(redis_server)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    def work() -> None:
        assert not purge_with_request("it")
        assert not add_tags("it")
        assert not cache.running
        assert cache.loops == ()
        assert not cache.statistics().connected
        with pytest.raises(CacheNotRunning):
            cache.invalidate_soon("it")
        assert cache.invalidate_sync("it").seq == 1

    def handler() -> None:
        in_child(work)
        assert purge_with_request("mine")

    async def coroutine() -> None:
        handler()

    app.post("/job", dependencies=[invalidates("job")])(handler if kind == "function" else coroutine)
    with TestClient(app) as client:
        assert client.post("/job").headers["cacheinval-purge"] == "done"
        assert cache.invalidate_sync("more").seq == 3


def test_a_fork_of_a_running_cache_serves_nothing_by_its_parents_lease(redis_server: Valkey) -> None:
    """Purged after the fork, when only the parent hears of it: the child asks the log before its first answer."""
    cache, other = over(redis_server, staleness_bound=30.0), over(redis_server)
    app, counted = counting_app(cache)
    with TestClient(app) as client:
        assert_miss(client.get("/it"))
        assert_hit(client.get("/it"))

        def work() -> None:
            other.invalidate_sync("it")
            assert asyncio.run(ask(app, "/it")).body == b"2"

        in_child(work)
    assert counted.calls == 1


def test_a_fork_leaves_what_is_queued_to_its_parent(redis_server: Valkey) -> None:
    """A purge without a number is the parent's; the child tells its own loss at once, and has nothing left at its end."""
    with tcp_proxy(redis_server.port) as proxy:
        cache = HTTPCache.from_url(f"redis://127.0.0.1:{proxy.port}", secret=SECRET, **CALM)
        app, _ = counting_app(cache)
        with TestClient(app) as client:
            client.get("/it")
            proxy.refuse()
            proxy.reset()
            assert client.put("/it").headers["cacheinval-purge"] == "queued"

            def work() -> None:
                assert cache.statistics().queue_length == 0
                with pytest.raises(PurgeNotDelivered) as caught:
                    cache.invalidate_sync("it")
                assert not caught.value.queued

            in_child(work)
            proxy.heal()
            until(lambda: cache.statistics().queue_length == 0, "the parent's purge")


def test_a_fork_finds_no_lock_that_another_thread_has(redis_server: Valkey) -> None:
    """The thread that had it is not in the child: purges and reports do not wait for it."""
    for cache in (over(redis_server), HTTPCache()):
        app, _ = counting_app(cache)
        with TestClient(app) as client:
            client.get("/it")
            core = cache._core
            shared = None if core._shared_bus is None else core._shared_bus._shared
            locks = [core._local_bus._lock, core.bodies._lock, *(() if shared is None else (shared.lock,))]
            for lock in locks:
                lock.acquire()
            try:
                in_child(partial(_purges_and_reports, cache))
            finally:
                for lock in locks:
                    lock.release()
            assert client.get("/it").status_code == 200
