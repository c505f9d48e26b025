"""Purges that threads have an event loop make: while it turns, while it stands still, and when it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.engine import for_threads
from fastapi_cacheinval.engine.for_threads import ForThreads
from tests.helpers.fleet import PATIENT, QUICK, eventually, fleet, of_age
from tests.helpers.life import loop_threads
from tests.servers import Valkey, until

pytestmark = pytest.mark.anyio

CALLS = 5


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLS) as pool:
        yield pool


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each look of a thread at its work took at the most, in seconds."""
    seen: list[float] = []
    module: Any = for_threads
    wait = module.wait

    def counted(futures: Any, timeout: float) -> Any:
        seen.append(timeout)
        return wait(futures, timeout)

    monkeypatch.setattr(for_threads, "wait", counted)
    return seen


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no loop that turns is taken for one that stands still."""
    monkeypatch.setattr(for_threads, "_LONGEST", 15.0)


def publishing(cache: HTTPCache) -> list[int]:
    """The threads in which a cache's purges are written, as they begin."""
    begun: list[int] = []
    core: Any = cache._core
    publish = core.bus.publish

    async def noted(proposal: Any) -> Any:
        begun.append(threading.get_ident())
        return await publish(proposal)

    core.bus.publish = noted
    return begun


def here() -> tuple[ForThreads, set[asyncio.Task[None]]]:
    """The running loop for other threads, and the tasks that they have it run."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    return ForThreads(loop, lambda work, context: tasks.add(loop.create_task(work, context=context))), tasks


def soon() -> float:
    return time.monotonic() + 20


# -- one loop ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
async def test_a_loop_that_turns_does_the_work_and_its_errors_are_raised(pool: ThreadPoolExecutor) -> None:
    """In the thread that waits; on the loop nothing fails."""
    loop, tasks = here()

    async def works() -> int:
        await asyncio.sleep(0)
        return 1

    async def fails() -> int:
        raise LookupError("nothing there")

    assert await asyncio.wrap_future(pool.submit(loop.do, works, soon())) == 1
    with pytest.raises(LookupError, match="nothing there"):
        await asyncio.wrap_future(pool.submit(loop.do, fails, soon()))
    assert [task.exception() for task in tasks] == [None, None]


async def test_only_the_first_thread_finds_out_that_a_loop_stands_still(
    pool: ThreadPoolExecutor, looks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those after it do not wait at all, until the loop has given the sign; what it did not begin it never does."""
    loop, tasks = here()

    async def works() -> int:
        return 1

    # Their own thread waits: the loop stands still.
    assert pool.submit(loop.do, works, soon()).result() is None
    assert looks
    looks.clear()
    for _ in range(CALLS):
        assert pool.submit(loop.do, works, soon()).result() is None
    assert not looks
    await eventually(lambda: not loop._stands_still, "the sign")
    assert not tasks
    monkeypatch.setattr(for_threads, "_LONGEST", 15.0)
    assert await asyncio.wrap_future(pool.submit(loop.do, works, soon())) == 1


@pytest.mark.usefixtures("patient")
async def test_the_work_has_the_context_of_the_thread(pool: ThreadPoolExecutor) -> None:
    """Its span belongs to the one that the thread is in."""
    loop, _ = here()
    span: ContextVar[str] = ContextVar("span")

    async def works() -> str:
        return span.get()

    def call() -> str | None:
        span.set("of the thread")
        return loop.do(works, soon())

    assert await asyncio.wrap_future(pool.submit(copy_context().run, call)) == "of the thread"


@pytest.mark.usefixtures("patient")
async def test_past_the_deadline_the_work_goes_on(pool: ThreadPoolExecutor) -> None:
    """`TimeoutError` in the thread; the loop, which turns, brings it to its end."""
    loop, tasks = here()
    go, done = asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        await go.wait()
        done.set()
        return 1

    with pytest.raises(TimeoutError):
        await asyncio.wrap_future(pool.submit(loop.do, slow, time.monotonic() + 0.05))
    go.set()
    await done.wait()
    assert len(tasks) == 1


def test_a_loop_that_ends_or_is_closed_does_not_do_the_work(pool: ThreadPoolExecutor) -> None:
    """Whether it ends in the middle of it, between two turns, or has ended long ago."""
    begun = threading.Event()
    kept: list[tuple[ForThreads, Future[int | None]]] = []

    async def never() -> int:
        begun.set()
        return await asyncio.get_running_loop().create_future()

    async def run() -> None:
        loop, _ = here()
        kept.append((loop, pool.submit(loop.do, never, soon())))
        await asyncio.to_thread(begun.wait)

    asyncio.run(run())
    loop, made = kept[0]
    assert made.result(20) is None
    assert loop.do(never, soon()) is None
    paused = asyncio.new_event_loop()
    other = ForThreads(paused, lambda _, context: context)
    assert other.do(never, soon()) is None
    paused.close()
    assert other.do(never, soon()) is None


# -- purges -----------------------------------------------------------------------------------------


async def test_invalidate_sync_has_its_receipt_though_the_loop_waits_for_it(
    redis_server: Valkey, pool: ThreadPoolExecutor
) -> None:
    """Each has a number, of one line; every replica has applied it, this one too, whose loop has not turned once."""
    async with fleet(redis_server.url, 1, **PATIENT) as (a,):
        of_age(redis_server)
        await a.ask()

        def purge(number: int) -> Receipt:
            return a.cache.invalidate_sync(f"item:{number}", wait="all")

        receipts = list(pool.map(purge, range(CALLS)))
        assert sorted(receipt.seq for receipt in receipts) == list(range(1, CALLS + 1))
        assert [receipt.replicas for receipt in receipts] == [1] * CALLS
        assert a.statistics.applied == CALLS
        assert redis_server.execute("XLEN", "{cacheinval}:log") == CALLS


async def test_a_loop_that_stands_still_in_the_middle_of_a_purge_is_not_waited_for(
    redis_server: Valkey, pool: ThreadPoolExecutor
) -> None:
    """It has written the purge and cannot read the answer: the thread writes it once more, which does no harm."""
    cache = HTTPCache.from_url(redis_server.url, **PATIENT)
    async with cache:
        await cache.invalidate("first")
        begun = publishing(cache)
        redis_server.execute("CLIENT", "PAUSE", "300", "WRITE")
        made = pool.submit(cache.invalidate_sync, "it", timeout=20)
        await eventually(lambda: begun, "the purge on this loop")
        assert made.result().seq in {2, 3}
        assert begun[0] == threading.get_ident() != begun[1]
        await eventually(lambda: redis_server.execute("XLEN", "{cacheinval}:log") == 3, "both lines")


async def test_a_timeout_past_a_loop_that_stands_still_leaves_the_purge_in_the_queue(
    redis_server: Valkey, pool: ThreadPoolExecutor
) -> None:
    """`TimeoutError`, and the purge goes on, as on a loop that turns."""
    async with HTTPCache.from_url(redis_server.url, **PATIENT) as cache:
        await cache.invalidate("first")
        redis_server.pause()
        with pytest.raises(TimeoutError):
            pool.submit(cache.invalidate_sync, "it", timeout=0.5).result()
        assert cache.statistics().queue_length == 1
        redis_server.resume()
        await eventually(lambda: cache.statistics().queue_length == 0, "the delivery")


def test_a_thread_that_waits_for_a_loop_that_ends_writes_the_purge_itself(
    redis_server: Valkey, pool: ThreadPoolExecutor
) -> None:
    """`asyncio.run` ends without a stop of the cache, and cancels all that it has begun."""
    cache = HTTPCache.from_url(redis_server.url, **PATIENT)
    made: list[Future[Receipt]] = []
    begun = publishing(cache)

    async def run() -> None:
        await cache.start()
        redis_server.execute("CLIENT", "PAUSE", "300", "WRITE")
        made.append(pool.submit(cache.invalidate_sync, "it", timeout=20))
        await eventually(lambda: begun, "the purge on this loop")

    asyncio.run(run())
    assert made[0].result(20).seq >= 1


def test_a_loop_that_turns_is_found_beside_one_that_stands_still(
    redis_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache on two loops: no connection is made for a purge that the other one can write."""
    monkeypatch.setattr(for_threads, "_LONGEST", 1.0)
    cache = HTTPCache.from_url(redis_server.url, **PATIENT)
    go = threading.Event()
    with loop_threads(2) as (one, two):
        one.run(cache.start())
        two.run(cache.start())
        asyncio.run_coroutine_threadsafe(_stand(go), one.loop)
        try:
            until(lambda: cache.statistics().connected, "the log")
            before = redis_server.info("stats")["total_connections_received"]
            for number in range(CALLS):
                assert cache.invalidate_sync("it", timeout=20).seq == number + 1
            assert redis_server.info("stats")["total_connections_received"] == before
        finally:
            go.set()
        two.run(cache.stop())
        one.run(cache.stop())


async def _stand(go: threading.Event) -> None:
    go.wait()


async def test_a_purge_on_another_loop_is_written_again_in_a_new_term(
    redis_server: Valkey, pool: ThreadPoolExecutor
) -> None:
    """The cache is started in this process: what it has purged of late a server that lost it is told."""
    async with HTTPCache.from_url(redis_server.url, **QUICK) as cache:
        await cache.start()
        await eventually(lambda: cache.statistics().connected, "the lease")
        await asyncio.wrap_future(pool.submit(on_another_loop, cache))
        redis_server.clear()
        await eventually(lambda: redis_server.execute("ZSCORE", "{cacheinval}:tags", "hit"), "the purge once more")
        await cache.stop()


# -- listeners --------------------------------------------------------------------------------------


def in_a_thread(cache: HTTPCache) -> None:
    cache.invalidate_sync("it")


def on_another_loop(cache: HTTPCache) -> None:
    asyncio.run(cache.invalidate("it"))


@pytest.mark.parametrize("purge", [in_a_thread, on_another_loop])
@pytest.mark.parametrize("shared", [True, False], ids=["redis", "one process"])
async def test_listeners_hear_on_the_loop_of_the_app(
    redis_server: Valkey, pool: ThreadPoolExecutor, purge: Callable[[HTTPCache], None], *, shared: bool
) -> None:
    """Their clients belong to it; a purge that a thread has made waits for no listener, and each is told once."""
    cache = HTTPCache.from_url(redis_server.url, **PATIENT) if shared else HTTPCache()
    heard: list[asyncio.AbstractEventLoop] = []

    async def listen(_: Receipt) -> None:
        heard.append(asyncio.get_running_loop())

    cache.add_listener(listen)
    async with cache:
        pool.submit(purge, cache).result()
        assert not heard
        await eventually(lambda: heard, "the word")
        await asyncio.wrap_future(pool.submit(purge, cache))
        await eventually(lambda: len(heard) == 2, "the next one")
    assert heard == [asyncio.get_running_loop()] * 2
