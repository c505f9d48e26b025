"""Commits in threads while the event loop stands still, because its own thread waits for them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import CacheMiddleware, HTTPCache, Receipt, cached
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.engine import for_threads
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Label, Product, make_engine, tags_of
from tests.helpers.fleet import PATIENT, eventually, nothing_is_left_for_ever, of_age
from tests.helpers.mutations import ask, get, settle
from tests.servers import Valkey, tcp_proxy
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["pytest_runtest_makereport", "redis_server", "shared_valkey"]

pytestmark = pytest.mark.anyio

COMMITS = 8
# For so many seconds a thread waited for the loop, at each of its commits.
ONE_WAIT = 5.0

Work = Callable[[int], None]


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """The log's keys."""
    return ("{",)


@pytest.fixture
def server(redis_server: Valkey) -> Generator[Valkey]:
    """A Redis, in which each key has a TTL after the test, but for those of the log."""
    yield redis_server
    redis_server.revive()
    nothing_is_left_for_ever(redis_server.client)


class Shop:
    """An app with a page of a product, and threads that write to it and to a label of their own."""

    def __init__(self, engine: Engine, cache: HTTPCache, **options: Any) -> None:
        self.engine = engine
        self.cache = cache
        self.sessions = sessionmaker(engine)
        self.collector = collect_changes(self.sessions, cache, TAGS, **options)
        # One commit at a time: SQLite lets no two write.
        self.writing = threading.Lock()
        self.receipts: list[Receipt] = []
        # Whether each commit's purge had its number when `commit()` returned.
        self.purged_at_return: list[bool] = []
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=cache)

        @self.app.get("/products/1", dependencies=[cached(ttl=60, tags=["product:1"])])
        async def read() -> int:
            with Session(engine) as session:
                return session.get_one(Product, 1).price

    def write(self, number: int) -> None:
        """One transaction."""
        with self.writing, self.sessions() as session:
            session.get_one(Product, 1).price += 1
            session.add(Label(id=100 + number))
            session.commit()
            self.purged_at_return.append(any(f"label:{100 + number}" in each.tags for each in tuple(self.receipts)))

    def route(self, method: str, way: Callable[[Work], None]) -> None:
        """A route whose handler stands still until its threads have written."""

        @self.app.api_route("/write", methods=[method])
        async def write() -> None:
            way(self.write)


@asynccontextmanager
async def shop_of(folder: Path, cache: HTTPCache, **options: Any) -> AsyncIterator[Shop]:
    """The shop with its cache started."""
    engine = make_engine(folder)
    with Session(engine) as session:
        session.add(Product(id=1))
        session.commit()
    shop = Shop(engine, cache, **options)
    try:
        async with cache:
            with capture_invalidations(cache) as shop.receipts:
                yield shop
    finally:
        shop.collector.stop()
        engine.dispose()


def submit(write: Work) -> None:
    with ThreadPoolExecutor(1) as pool:
        for number in range(COMMITS):
            pool.submit(write, number).result()


def map_all(write: Work) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(COMMITS)))


def join(write: Work) -> None:
    threads = [threading.Thread(target=write, args=(number,)) for number in range(COMMITS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for_an_event(write: Work) -> None:
    def run(number: int, done: threading.Event) -> None:
        write(number)
        done.set()

    for number in range(COMMITS):
        done = threading.Event()
        threading.Thread(target=run, args=(number, done)).start()
        done.wait()


def share_a_lock(write: Work) -> None:
    lock, begun = threading.Lock(), threading.Event()

    def run(number: int) -> None:
        with lock:
            begun.set()
            write(number)

    for number in range(COMMITS):
        begun.clear()
        thread = threading.Thread(target=run, args=(number,))
        thread.start()
        begun.wait()
        with lock:
            thread.join()


def join_a_loop(write: Work) -> None:
    async def run() -> None:
        for number in range(COMMITS):
            write(number)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join()


WAYS: dict[str, Callable[[Work], None]] = {
    "submit": submit,
    "map": map_all,
    "join": join,
    "event": wait_for_an_event,
    "lock": share_a_lock,
    "another loop": join_a_loop,
}


@pytest.fixture(params=["POST", "GET"])
def method(request: pytest.FixtureRequest) -> str:
    """A safe request has no purge to join, and threads without its context join none either."""
    return str(request.param)


async def written_in_time(shop: Shop, method: str) -> None:
    """Write while the loop stands still: each `commit()` has its purge when it returns, and the next read the last value."""
    began = time.monotonic()
    assert (await ask(shop.app, method, "/write")).status_code == 200
    assert time.monotonic() - began < ONE_WAIT
    assert shop.purged_at_return == [True] * COMMITS
    after = await get(shop.app, "/products/1")
    assert_miss(after)
    assert after.json() == COMMITS


@pytest.mark.parametrize("way", WAYS)
async def test_without_redis_a_commit_waits_for_no_loop(tmp_path: Path, method: str, way: str) -> None:
    """Each `commit()` returns with its purge made, the next read has the last value, and no turn of the loop was waited for."""
    async with shop_of(tmp_path, HTTPCache()) as shop:
        shop.route(method, WAYS[way])
        await get(shop.app, "/products/1")
        assert_hit(await get(shop.app, "/products/1"))
        await written_in_time(shop, method)
        await settle()
        assert len(shop.receipts) == COMMITS
        assert shop.cache.statistics().fences == 0


@pytest.mark.parametrize("way", WAYS)
async def test_with_redis_a_thread_writes_the_purge_that_the_loop_cannot(
    server: Valkey, tmp_path: Path, method: str, way: str
) -> None:
    """Each `commit()` returns with its purge in the log, once; this replica obeys at once, and another reads the same."""
    reader = HTTPCache.from_url(server.url, **PATIENT)
    async with shop_of(tmp_path, HTTPCache.from_url(server.url, **PATIENT)) as shop, reader:
        await reader.start()
        shop.route(method, WAYS[way])
        await get(shop.app, "/products/1")
        await eventually(lambda: shop.cache.statistics().connected, "the lease")
        assert_hit(await get(shop.app, "/products/1"))
        await written_in_time(shop, method)
        assert [receipt.seq for receipt in sorted(shop.receipts, key=lambda each: each.seq)] == list(
            range(1, COMMITS + 1)
        )
        both = (reader, shop.cache)
        await eventually(lambda: all(each.statistics().applied == COMMITS for each in both), "the purges on each")
        await eventually(lambda: shop.cache.statistics().fences == 0, "the end of all fences")
        assert server.execute("XLEN", "{cacheinval}:log") == COMMITS
        await reader.stop()


async def test_a_loop_that_is_only_busy_makes_the_purges_of_threads_over_its_own_connection(
    server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the threadpool of a loop with work of its own nothing is different: no other connection is made."""
    # However busy the machine is besides.
    monkeypatch.setattr(for_threads, "_LONGEST", 15.0)
    async with shop_of(tmp_path, HTTPCache.from_url(server.url, **PATIENT)) as shop:
        await get(shop.app, "/products/1")
        await eventually(lambda: shop.cache.statistics().connected, "the lease")
        await asyncio.to_thread(shop.write, 1_000)
        done = asyncio.Event()

        async def work() -> None:
            while not done.is_set():
                # Work that keeps the loop, and not Python's lock, which the threads need.
                time.sleep(0.002)  # noqa: ASYNC251
                await asyncio.sleep(0)

        busy = asyncio.create_task(work())
        before = server.info("stats")["total_connections_received"]
        for number in range(COMMITS):
            await asyncio.to_thread(shop.write, number)
        done.set()
        await busy
        assert server.info("stats")["total_connections_received"] == before
        assert shop.purged_at_return == [True] * (1 + COMMITS)


async def test_while_the_log_is_out_of_reach_too_the_purges_are_queued_and_said_to_be(
    server: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a loop that turns: nothing is raised, this replica obeys, and the purges go once the log is there again.

    One thread finds out; until the loop has had a turn to look for itself no other one asks.
    """
    caplog.set_level(logging.WARNING, "fastapi_cacheinval.contrib")
    with tcp_proxy(server.port) as proxy:
        async with shop_of(tmp_path, HTTPCache.from_url(proxy.url, staleness_bound=6.0, redis_timeout=2.0)) as shop:
            shop.route("POST", submit)
            await get(shop.app, "/products/1")
            await eventually(lambda: shop.cache.statistics().connected, "the lease")
            assert_hit(await get(shop.app, "/products/1"))
            proxy.refuse()
            began = time.monotonic()
            assert (await ask(shop.app, "POST", "/write")).status_code == 200
            assert time.monotonic() - began < ONE_WAIT
            assert_miss(await get(shop.app, "/products/1"))
            statistics = shop.cache.statistics()
            assert (statistics.queue_length, statistics.purges) == (COMMITS, {"queued": COMMITS})
            assert [record.message for record in caplog.records if "contrib" in record.name] == [
                "a purge of 3 tag(s) after a commit is queued: the log is out of reach"
            ] * COMMITS
            proxy.heal()
            await eventually(lambda: shop.cache.statistics().queue_length == 0, "the delivery")
            await eventually(lambda: shop.cache.statistics().fences == 0, "the end of all fences")
            assert set().union(*tags_of(shop.receipts)) >= {f"label:{100 + number}" for number in range(COMMITS)}


async def test_a_commit_that_waits_for_all_replicas_does_not_wait_for_its_own(server: Valkey, tmp_path: Path) -> None:
    """`wait="all"`: this replica obeys, and says so although its loop stands still; its lease is longer than the test."""
    cache = HTTPCache.from_url(server.url, **PATIENT)
    async with shop_of(tmp_path, cache, wait="all") as shop:
        shop.route("POST", submit)
        await get(shop.app, "/products/1")
        await eventually(lambda: shop.cache.statistics().connected, "the lease")
        of_age(server)
        began = time.monotonic()
        assert (await ask(shop.app, "POST", "/write")).status_code == 200
        assert time.monotonic() - began < ONE_WAIT
        assert [receipt.replicas for receipt in shop.receipts] == [1] * COMMITS


async def test_an_asynchronous_session_on_a_loop_of_its_own_has_the_queue_of_the_app(
    server: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`asyncio.run` in a thread beside the app: the cache is started in this process, so what fails is queued, not raised."""
    caplog.set_level(logging.WARNING, "fastapi_cacheinval.contrib")
    with tcp_proxy(server.port) as proxy:
        async with shop_of(tmp_path, HTTPCache.from_url(proxy.url, staleness_bound=6.0, redis_timeout=2.0)) as shop:
            await get(shop.app, "/products/1")
            await eventually(lambda: shop.cache.statistics().connected, "the lease")
            proxy.refuse()

            async def run() -> None:
                engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}")
                sessions = async_sessionmaker(engine)
                collector = collect_changes(sessions, shop.cache, TAGS)
                async with sessions.begin() as session:
                    _add_label(session, 7)
                collector.stop()
                await engine.dispose()

            await asyncio.to_thread(lambda: asyncio.run(run()))
            assert "a purge of 1 tag(s) after a commit is queued: the log is out of reach" in caplog.text
            proxy.heal()
            await eventually(lambda: any("label:7" in each.tags for each in shop.receipts), "the delivery")


def _add_label(session: AsyncSession, number: int) -> None:
    session.add(Label(id=number))
