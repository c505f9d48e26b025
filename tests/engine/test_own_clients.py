"""`from_client` and `from_url` on many event loops: each has connections of its own, and nothing hangs."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from starlette.testclient import TestClient

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import CALM, SECRET
from tests.helpers.life import client_of, counting_app, loop_threads
from tests.servers import Valkey, until

# Real seconds that no call may take: what hung, hung for ever.
_AT_ONCE = 20.0


class Noting(Redis):
    """A subclass, as tracing libraries make one: it sees each command."""

    seen: list[Any]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Note the command's name."""
        self.seen.append(args[0])
        return await super().execute_command(*args, **options)


def _noting(server: Valkey) -> Redis:
    client = Noting(port=server.port)
    client.seen = []
    return client


CLIENTS: dict[str, Callable[[Valkey], Any]] = {
    "plain": lambda server: Redis(port=server.port),
    "resp3": lambda server: Redis(port=server.port, protocol=3),
    "socket": lambda server: Redis(unix_socket_path=str(server.socket)),
    "url": lambda server: Redis.from_url(server.url),
    "pool": lambda server: Redis(connection_pool=BlockingConnectionPool(port=server.port, max_connections=10)),
    "single": lambda server: Redis(port=server.port, single_connection_client=True),
    "subclass": _noting,
}
SOURCES = [*CLIENTS, "from_url"]


def made(server: Valkey, kind: str, **options: Any) -> HTTPCache:
    """A cache over a client of this kind, or by URL."""
    given: dict[str, Any] = {"secret": SECRET, **CALM, **options}
    if kind == "from_url":
        return HTTPCache.from_url(server.url, **given)
    return HTTPCache.from_client(CLIENTS[kind](server), **given)


def clients(server: Valkey) -> int:
    """How many connections there are, but for the test's own."""
    return int(server.info("clients")["connected_clients"]) - 1


def in_time(work: Callable[[], Any]) -> Any:
    """What a function gives in a thread without a loop; fails where it takes too long."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_AT_ONCE)
    assert found, "it hangs"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@pytest.mark.parametrize("kind", SOURCES)
def test_each_task_of_a_worker_purges_on_a_loop_of_its_own(redis_server: Valkey, kind: str) -> None:
    """Six `asyncio.run`, as Celery does: each purge has its number, and no connection is left."""
    cache = made(redis_server, kind)
    before = clients(redis_server)
    for number in range(1, 7):
        assert in_time(lambda: asyncio.run(cache.invalidate("it"))).seq == number
    until(lambda: clients(redis_server) == before, "the end of all connections")


@pytest.mark.parametrize("kind", SOURCES)
def test_each_block_of_a_worker_has_a_loop_of_its_own(redis_server: Valkey, kind: str) -> None:
    """`async with cache:` on one loop after another, with `deliver` in it."""
    cache = made(redis_server, kind)

    async def task() -> int:
        async with cache:
            await cache.deliver("it")
            return (await cache.invalidate("it")).seq

    assert [in_time(lambda: asyncio.run(task())) for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_test_client_without_a_block_gives_each_request_a_loop(redis_server: Valkey, kind: str) -> None:
    """Misses, hits and purges are right on each of eight loops that nobody stops, and none hangs."""
    app, counted = counting_app(made(redis_server, kind))
    client = TestClient(app)
    for round_ in range(1, 3):
        assert_miss(in_time(lambda: client.get("/it")))
        assert_hit(in_time(lambda: client.get("/it")))
        assert in_time(lambda: client.put("/it")).headers["cacheinval-purge"] == "done"
        assert counted.calls == round_
    until(lambda: clients(redis_server) == 0, "the end of all connections")


@pytest.mark.parametrize("kind", SOURCES)
def test_test_clients_with_blocks_one_after_another_and_in_each_other(redis_server: Valkey, kind: str) -> None:
    """Each block has its loop and its lifespan; what one purges the other obeys."""
    app, _ = counting_app(made(redis_server, kind))
    with TestClient(app) as one:
        assert_miss(in_time(lambda: one.get("/it")))
        with TestClient(app) as two:
            assert_hit(in_time(lambda: two.get("/it")))
            in_time(lambda: two.put("/it"))
        assert_miss(in_time(lambda: one.get("/it")))
    with TestClient(app) as three:
        assert_hit(in_time(lambda: three.get("/it")))
    until(lambda: clients(redis_server) == 0, "the end of all connections")


@pytest.mark.parametrize("kind", SOURCES)
def test_threads_that_each_have_a_loop_purge_at_the_same_time(redis_server: Valkey, kind: str) -> None:
    """Three loops in three threads, and a thread without one beside them: each purge has a number later than the last."""
    cache = made(redis_server, kind)

    async def purge() -> list[int]:
        async with cache:
            return [(await cache.invalidate("it")).seq for _ in range(20)]

    with loop_threads(3) as threads:
        running = [asyncio.run_coroutine_threadsafe(purge(), thread.loop) for thread in threads]
        numbers = [in_time(lambda: cache.invalidate_sync("it", timeout=_AT_ONCE)).seq for _ in range(20)]
        for each in running:
            numbers += each.result(_AT_ONCE)
    assert len(numbers) == 80
    for first in range(0, 80, 20):
        own = numbers[first : first + 20]
        assert own == sorted(set(own))
    # Two that wait for each other on one loop share a line.
    assert 60 <= max(numbers) == len(set(numbers)) <= 80


@pytest.mark.parametrize("kind", SOURCES)
def test_plain_functions_purge_from_threads_without_a_loop(redis_server: Valkey, kind: str) -> None:
    """`invalidate_sync` makes a loop for each call, one after another and four at a time."""
    cache = made(redis_server, kind)
    for number in range(1, 4):
        assert in_time(lambda: cache.invalidate_sync("it")).seq == number
    threads = [threading.Thread(target=cache.invalidate_sync, args=("it",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_AT_ONCE)
    assert in_time(lambda: cache.invalidate_sync("it")).seq == 8


def test_a_client_whose_pool_has_connections_of_a_loop_that_is_gone(redis_server: Valkey) -> None:
    """A start-up script has used it with `asyncio.run`: the cache is not touched by what is left of that."""
    client = Redis(port=redis_server.port)

    async def at_start_up() -> None:
        await client.ping()

    asyncio.run(at_start_up())
    cache = HTTPCache.from_client(client, secret=SECRET, **CALM)
    app, _ = counting_app(cache)

    async def serve() -> list[str]:
        async with client_of(app) as http:
            return [(await http.get("/it")).headers["cache-status"] for _ in range(2)]

    for _ in range(2):
        began = time.monotonic()
        first, second = in_time(lambda: asyncio.run(serve()))
        assert "disconnected" not in first
        assert "hit" in second
        assert time.monotonic() - began < _AT_ONCE
    # What the script has left open is the app's own, and would be told of in another test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for connection in client.connection_pool._available_connections:
            # Some releases close it as it is freed, which needs its loop.
            writer: Any = connection._writer
            transport = writer.transport
            connection._reader = connection._writer = None
            transport._sock.close()
            transport._sock, transport._closing = None, True
        client.connection_pool.reset()
        gc.collect()


def test_a_client_that_the_app_uses_beside_the_cache(redis_server: Valkey) -> None:
    """The app's own client is not closed, holds none of the cache's connections, and goes on on its own loop."""
    client = Redis(port=redis_server.port)

    async def serve() -> None:
        await client.set("mine", b"1", ex=60)
        held = {id(each) for each in client.connection_pool._available_connections}
        cache = HTTPCache.from_client(client, secret=SECRET, **CALM)
        async with cache:
            await cache.invalidate("it")
            await asyncio.to_thread(cache.invalidate_sync, "it")
            await asyncio.to_thread(lambda: asyncio.run(cache.invalidate("it")))
            assert await client.get("mine") == b"1"
        assert await client.get("mine") == b"1"
        assert {id(each) for each in client.connection_pool._available_connections} == held
        await client.aclose()

    asyncio.run(serve())


def test_a_subclass_stays_what_it_is(redis_server: Valkey) -> None:
    """Commands of the cache go through a subclass's own methods, on every loop."""
    client = _noting(redis_server)
    cache = HTTPCache.from_client(client, secret=SECRET, **CALM)
    for _ in range(2):
        asyncio.run(cache.invalidate("it"))
    assert isinstance(client, Noting)
    assert client.seen.count("EVALSHA") == 2


def test_a_client_that_cannot_be_made_again_is_refused_at_once() -> None:
    """A pool with a constructor of its own: the error comes at construction, and says what to use."""

    class Odd(BlockingConnectionPool):
        def __init__(self, *, of_its_own: int) -> None:
            super().__init__(port=of_its_own)

    with pytest.raises(ConfigurationError, match="from_url"):
        HTTPCache.from_client(Redis(connection_pool=Odd(of_its_own=1)))
