"""One cache over Redis in scripts, in several event loops, and under Starlette's test client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.testclient import TestClient

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss
from tests.helpers.fleet import CALM, SECRET, eventually, fleet
from tests.helpers.http import ask
from tests.helpers.life import counting_app
from tests.servers import Valkey, tcp_proxy, until


def over(server: Valkey, **options: Any) -> HTTPCache:
    """A cache over a server."""
    given: dict[str, Any] = {"secret": SECRET, **CALM, **options}
    return HTTPCache.from_url(server.url, **given)


def clients(server: Valkey) -> int:
    """How many connections there are, but for the test's own."""
    return int(server.info("clients")["connected_clients"]) - 1


# -- scripts ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_script_purges_without_serving(redis_server: Valkey) -> None:
    """`async with cache:` publishes; it subscribes to nothing, takes no lease, and leaves no connection behind."""
    async with fleet(redis_server.url, 1) as (a,):
        await a.ask()
        await a.written()
        before = clients(redis_server)
        async with over(redis_server) as script:
            for number in range(3):
                receipt = await script.invalidate("item:a")
                assert receipt.seq == number + 1
            assert redis_server.execute("PUBSUB", "NUMSUB", "{cacheinval}:purges")[1] == 1
        await eventually(lambda: a.statistics.applied == 3, "the purges")
        assert_miss(await a.ask())
        await eventually(lambda: clients(redis_server) == before, "the end of its connections")


@pytest.mark.anyio
async def test_a_script_without_redis_queues_and_delivers_when_it_is_back(redis_server: Valkey) -> None:
    """It is told that the purge is queued, and the next one goes straight through."""
    with tcp_proxy(redis_server.port) as proxy:
        script = HTTPCache.from_url(proxy.url, secret=SECRET, staleness_bound=1.5)
        proxy.refuse()
        async with script:
            with pytest.raises(PurgeNotDelivered) as caught:
                await script.invalidate("item:a")
            assert caught.value.queued
            proxy.heal()
            await eventually(lambda: not script.statistics().queue_length, "the queued purge")
            await eventually(lambda: script.statistics().connected, "the log")
            assert (await script.invalidate("item:b")).seq == 2


@pytest.mark.anyio
async def test_a_call_from_nowhere_without_redis_says_that_nothing_is_queued(redis_server: Valkey) -> None:
    """A cache that has not been started has no queue: whoever calls has to repeat it."""
    with tcp_proxy(redis_server.port) as proxy:
        proxy.refuse()
        script = HTTPCache.from_url(proxy.url, secret=SECRET)
        with pytest.raises(PurgeNotDelivered) as caught:
            await script.invalidate("item:a")
        assert not caught.value.queued
        assert script.statistics().queue_length == 0
        proxy.heal()
        assert (await script.invalidate("item:a")).seq == 1


def test_a_plain_function_purges_with_a_loop_of_its_own(redis_server: Valkey) -> None:
    """`invalidate_sync` from a thread without a loop, many times, leaves nothing open."""
    script = over(redis_server)
    before = clients(redis_server)
    for number in range(5):
        assert script.invalidate_sync("item:a").seq == number + 1
    until(lambda: clients(redis_server) == before, "the end of its connections")


# -- several event loops ------------------------------------------------------------------------------


def test_two_event_loops_share_one_replica(redis_server: Valkey, in_thread: Callable[..., Any]) -> None:
    """Each loop has connections of its own; a purge on one is obeyed on the other, and one may end before the other."""
    cache = over(redis_server)
    app, counted = counting_app(cache)

    async def start() -> None:
        await cache.start()

    async def get() -> Any:
        return await ask(app, "/it")

    async def put() -> Any:
        return await ask(app, "/it", method="PUT")

    one, two = in_thread(), in_thread()
    one(start())
    two(start())
    assert redis_server.execute("PUBSUB", "NUMSUB", "{cacheinval}:purges")[1] == 2
    assert_miss(one(get()))
    assert_hit(two(get()))
    assert two(put()).headers["cacheinval-purge"] == "done"
    assert_miss(one(get()))
    assert counted.calls == 2
    # One id in the log for both, which is still there when one of them has stopped.
    assert len(redis_server.execute("HGETALL", "{cacheinval}:acks")) == 2
    one(cache.stop())
    assert len(redis_server.execute("HGETALL", "{cacheinval}:acks")) == 2
    assert_hit(two(get()))
    two(cache.stop())
    assert len(redis_server.execute("HGETALL", "{cacheinval}:acks")) == 1
    until(lambda: clients(redis_server) == 0, "the end of all connections")


@pytest.mark.anyio
async def test_a_stop_waits_for_the_purges_that_are_being_written(redis_server: Valkey) -> None:
    """Another thread may have a purge written on a loop that stops at this moment: it has its number all the same."""
    number = 0
    for started in (HTTPCache.start, HTTPCache.__aenter__):
        cache = over(redis_server)
        await started(cache)
        # Its connection is there, so that the next one is on its way at once.
        await cache.invalidate("it")
        redis_server.execute("CLIENT", "PAUSE", "300", "WRITE")
        purges = [asyncio.create_task(cache.invalidate("it")) for _ in range(5)]
        for _ in range(50):
            await asyncio.sleep(0)
        await cache.stop()
        # They share lines, where they wait for each other.
        seqs = [(await purge).seq for purge in purges]
        assert number + 2 == min(seqs) <= max(seqs) < number + 7
        number = max(seqs)


@pytest.mark.anyio
async def test_a_block_that_begins_while_another_ends_has_its_link_to_the_log(redis_server: Valkey) -> None:
    """The last block waits for work that it owns, and another begins on that loop: its purges get their numbers, and it leaves nothing."""
    cache = over(redis_server)
    go = asyncio.Event()

    async def ended_late() -> None:
        async with cache:
            await cache.invalidate("a")
            cache._core.runtime.own(go.wait())

    ending = asyncio.create_task(ended_late())
    await eventually(lambda: bool(redis_server.execute("EXISTS", "{cacheinval}:log")) and not cache.running, "its end")
    async with cache:
        go.set()
        await ending
        assert (await cache.deliver("b")).seq == 2
        assert cache.statistics().connected
    await eventually(lambda: clients(redis_server) == 0, "the end of its connections")


@pytest.fixture
def in_thread() -> Any:
    """Makes event loops in threads of their own, as functions that run a coroutine there."""
    loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []

    def make() -> Callable[[Any], Any]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        loops.append((loop, thread))
        return lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(20)

    yield make
    for loop, thread in loops:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


# -- Starlette's test client ------------------------------------------------------------------------


def test_a_test_client_with_a_block(redis_server: Valkey) -> None:
    """One loop and one lifespan; a second block finds what the first has stored, after asking the log."""
    cache = over(redis_server)
    app, counted = counting_app(cache)
    with TestClient(app) as client:
        assert_miss(client.get("/it"))
        assert_hit(client.get("/it"))
        client.put("/it")
        assert_miss(client.get("/it"))
    until(lambda: clients(redis_server) == 0, "the end of all connections")
    with TestClient(app) as client:
        assert_hit(client.get("/it"))
    assert counted.calls == 2


def test_a_test_client_without_a_block(redis_server: Valkey) -> None:
    """A loop for each request, none of which is ever stopped: right answers, and no connection or warning is left."""
    cache = over(redis_server)
    app, counted = counting_app(cache)
    client = TestClient(app)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_miss(client.get("/it"))
        assert_hit(client.get("/it"))
        assert client.put("/it").headers["cacheinval-purge"] == "done"
        assert_miss(client.get("/it"))
        assert_hit(client.get("/it"))
        gc.collect()
    assert counted.calls == 2
    assert [str(each.message) for each in caught] == []
    until(lambda: clients(redis_server) == 0, "the end of all connections")


def test_a_loop_that_ends_lets_go_of_its_fill_locks(redis_server: Valkey) -> None:
    """A loop may be over before what it has filled is written: the next request must not wait for a lock of the dead."""
    cache = over(redis_server)
    app, counted = counting_app(cache)
    client = TestClient(app)
    for number in range(1, 21):
        # A script that has to be sent whole takes one way more, which there is hardly time for.
        redis_server.execute("SCRIPT", "FLUSH")
        assert_miss(client.get("/it"))
        assert counted.calls == number
        assert not [key for key in redis_server.execute("KEYS", "*") if key.endswith(":f")]
        client.put("/it")


def test_a_test_client_beside_another_replica(redis_server: Valkey) -> None:
    """What somebody else purges between two requests is obeyed after the bound, although no loop was there to hear of it.

    Until then this replica may serve what it has filled itself.
    """
    clock = FakeClock()
    cache = over(redis_server, clock=clock)
    app, counted = counting_app(cache)
    client = TestClient(app)
    client.get("/it")
    over(redis_server).invalidate_sync("it")
    clock.tick(CALM["staleness_bound"])
    assert_miss(client.get("/it"))
    assert counted.calls == 2
    assert cache.statistics().purges["missed"] == 1


def purge_in_websocket(cache: HTTPCache, app: FastAPI) -> None:
    """The handler of a WebSocket is on a loop that serves no request."""

    @app.websocket("/ws")
    async def purge(websocket: WebSocket) -> None:
        await websocket.accept()
        await cache.invalidate("it")
        await websocket.close()

    with TestClient(app).websocket_connect("/ws") as session, contextlib.suppress(WebSocketDisconnect):
        session.receive_text()


def in_a_block(cache: HTTPCache) -> Any:
    async def purge() -> None:
        async with cache:
            await cache.invalidate("it")

    return asyncio.run(purge())


PURGES: dict[str, Callable[[HTTPCache, FastAPI], Any]] = {
    "a loop of its own": lambda cache, _: asyncio.run(cache.invalidate("it")),
    "softly": lambda cache, _: asyncio.run(cache.invalidate("it", soft=True)),
    "in pieces": lambda cache, _: asyncio.run(cache.invalidate("it", *(f"{number:0>100}" for number in range(20_000)))),
    "a path": lambda cache, _: asyncio.run(cache.invalidate_url("/it")),
    "everything": lambda cache, _: asyncio.run(cache.clear()),
    "a plain function": lambda cache, _: cache.invalidate_sync("it"),
    "a WebSocket": purge_in_websocket,
    "a block": lambda cache, _: in_a_block(cache),
}


@pytest.mark.parametrize("others", [0, 1, 300])
@pytest.mark.parametrize("way", PURGES)
@pytest.mark.parametrize("kept", [True, False], ids=["paused", "ended"])
def test_a_purge_by_hand_is_obeyed_though_no_loop_runs(redis_server: Valkey, kept: bool, way: str, others: int) -> None:
    """The purge is on a loop that serves nothing, and between requests no loop hears of it, nor of what others purge."""
    cache, other = over(redis_server), over(redis_server)
    app, counted = counting_app(cache)
    runner = asyncio.Runner()
    client = TestClient(app)

    def get() -> Any:
        return runner.run(ask(app, "/it")) if kept else client.get("/it")

    with runner:
        for _ in range(2):
            get()
            assert_hit(get())
            asyncio.run(purge_of_others(other, others))
            calls = counted.calls
            PURGES[way](cache, app)
            get()
            assert counted.calls == calls + 1
            # All fences have ended, so that what others store is of use again.
            runner.run(ask(app, "/it", method="PUT"))
            assert cache.statistics().fences == 0
        runner.run(cache.stop())


async def purge_of_others(cache: HTTPCache, count: int) -> None:
    """Another replica purges tags that nothing here carries; many of them are more than one page of the log."""
    async with cache:
        for number in range(count):
            await cache.invalidate(*(f"other:{number}:{piece:0>200}" for piece in range(10)))


def test_many_purges_by_hand_leave_no_more_than_a_few_fences(redis_server: Valkey) -> None:
    """While nobody reads, each of them follows on what is not known here."""
    cache, other = over(redis_server), over(redis_server)
    app, _ = counting_app(cache)
    client = TestClient(app)
    assert_miss(client.get("/it"))

    async def purge() -> None:
        async with other:
            await other.invalidate("other")
        for number in range(600):
            await cache.invalidate(f"it:{number}")

    asyncio.run(purge())
    assert 0 < cache.statistics().fences < 300
    client.put("/it")
    assert cache.statistics().fences == 0


def test_a_purge_by_hand_that_fails_is_none(redis_server: Valkey) -> None:
    """Nothing is queued for it, and its author hears so: what is stored stays of use."""
    with tcp_proxy(redis_server.port) as proxy:
        cache = HTTPCache.from_url(proxy.url, secret=SECRET, **CALM)
        app, _ = counting_app(cache)
        client = TestClient(app)
        assert_miss(client.get("/it"))
        proxy.refuse()
        with pytest.raises(PurgeNotDelivered) as caught:
            cache.invalidate_sync("it")
        assert not caught.value.queued
        assert cache.statistics().fences == 0
        assert_hit(client.get("/it"))
