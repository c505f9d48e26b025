"""Inside requests: what is committed is purged with what the route declares, once, whatever the answer is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Base, Label, Product, Store, tags_of
from tests.helpers.mutations import ask, begin, get, until

pytestmark = pytest.mark.anyio

PRODUCT_1 = {"product:1", "brand:1", "products"}


class Shop:
    """An app over asynchronous sessions; its routes declare nothing that they purge, and differ in when they commit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.cache = HTTPCache(hold_timeout=5)
        self.sessions = async_sessionmaker(engine)
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=self.cache)
        self.collector = collect_changes(self.sessions, self.cache, TAGS)

        async def session() -> AsyncIterator[AsyncSession]:
            async with self.sessions() as session:
                yield session
                await session.commit()

        self.late: Any = Depends(session)
        self.prompt: Any = Depends(session, scope="function")

        @self.app.get("/products/{number}", dependencies=[cached(ttl=60)])
        async def read(number: int, tags: CacheTags) -> int:
            async with self.sessions() as session:
                product = await session.get_one(Product, number)
                tags.add(f"product:{number}", f"brand:{product.brand_id}")
                return product.price

    async def price(self, number: int = 1) -> Any:
        return (await get(self.app, f"/products/{number}")).json()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all([Product(id=1, brand_id=1, price=1), Product(id=2, brand_id=1, price=1)])
        await session.commit()
    shop = Shop(engine)
    async with shop.cache:
        yield shop
    shop.collector.stop()
    await engine.dispose()


@pytest.mark.parametrize("scope", ["late", "prompt"])
async def test_a_commit_of_a_yield_dependency_is_seen_by_the_next_request(shop: Shop, scope: str) -> None:
    """G2 with nothing declared: the answer waits for the commit and its purge, of which there is one."""
    own = {"late": shop.late, "prompt": shop.prompt}[scope]

    @shop.app.put("/write")
    async def write(session: AsyncSession = own) -> int:
        (await session.get_one(Product, 1)).price = 2
        return 2

    assert await shop.price() == 1
    assert_hit(await get(shop.app, "/products/1"))
    with capture_invalidations(shop.cache) as receipts:
        answer = await ask(shop.app, "PUT", "/write")
    assert (answer.status_code, answer.purge) == (200, "done")
    after = await get(shop.app, "/products/1")
    assert_miss(after)
    assert after.json() == 2
    assert tags_of(receipts) == [PRODUCT_1]


async def test_a_request_makes_one_purge_of_what_it_declares_and_what_it_commits(shop: Shop) -> None:
    """Two commits, a declared tag and an added one: one line in the log."""

    @shop.app.put("/write", dependencies=[invalidates("declared")])
    async def write(tags: CacheTags, session: AsyncSession = shop.late) -> None:
        (await session.get_one(Product, 1)).price = 2
        await session.commit()
        (await session.get_one(Product, 2)).price = 2
        tags.add("added")

    with capture_invalidations(shop.cache) as receipts:
        await ask(shop.app, "PUT", "/write")
    assert tags_of(receipts) == [PRODUCT_1 | {"product:2", "declared", "added"}]


async def test_a_rolled_back_session_purges_nothing(shop: Shop) -> None:
    """An HTTPException ends the dependency before its commit."""

    @shop.app.put("/write")
    async def write(session: AsyncSession = shop.late) -> None:
        (await session.get_one(Product, 1)).price = 2
        await session.flush()
        raise HTTPException(409)

    assert await shop.price() == 1
    with capture_invalidations(shop.cache) as receipts:
        answer = await ask(shop.app, "PUT", "/write")
    assert (answer.status_code, answer.purge, receipts) == (409, None, [])
    assert_hit(await get(shop.app, "/products/1"))


@pytest.mark.parametrize("way", ["raised", "returned", "returned before the commit"])
async def test_an_error_after_the_commit_still_purges_what_was_committed(shop: Shop, way: str) -> None:
    """What stands in the database counts, whatever the client is told; what the route declares is not purged."""

    @shop.app.put("/write", dependencies=[invalidates("declared")], response_model=None)
    async def write(session: AsyncSession = shop.late) -> JSONResponse:
        (await session.get_one(Product, 1)).price = 2
        if way != "returned before the commit":
            await session.commit()
        if way == "raised":
            raise HTTPException(404)
        return JSONResponse({}, 404)

    assert await shop.price() == 1
    with capture_invalidations(shop.cache) as receipts:
        answer = await ask(shop.app, "PUT", "/write")
    assert (answer.status_code, answer.purge) == (404, "done")
    assert tags_of(receipts) == [PRODUCT_1]
    assert await shop.price() == 2


async def test_a_get_that_writes_purges_by_itself(shop: Shop) -> None:
    """A safe request has no purge to join: `commit()` returns when its own is made."""

    @shop.app.get("/touch")
    async def touch() -> int:
        async with shop.sessions() as session:
            (await session.get_one(Product, 1)).price += 1
            await session.commit()
            return len(receipts)

    with capture_invalidations(shop.cache) as receipts:
        assert (await get(shop.app, "/touch")).json() == 1
    assert tags_of(receipts) == [PRODUCT_1]


async def test_a_background_task_purges_by_itself_at_its_commit(shop: Shop) -> None:
    """The answer has gone; other tasks after it do not keep the purge waiting."""
    free = asyncio.Event()

    async def later() -> None:
        async with shop.sessions() as session:
            (await session.get_one(Product, 1)).price = 5
            await session.commit()
        await free.wait()

    @shop.app.put("/write")
    async def write(background: BackgroundTasks) -> None:
        background.add_task(later)

    assert await shop.price() == 1
    with capture_invalidations(shop.cache) as receipts:
        call = begin(shop.app, "PUT", "/write")
        await until(lambda: receipts)
        assert not call.task.done()
        assert await shop.price() == 5
        free.set()
        assert (await call.answer()).purge is None
    assert tags_of(receipts) == [PRODUCT_1]


async def test_a_task_that_outlives_its_request_purges_by_itself(shop: Shop) -> None:
    """It has the request's context, whose purge is over."""
    over = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await over.wait()
        async with shop.sessions() as session:
            (await session.get_one(Product, 1)).price = 5
            await session.commit()

    @shop.app.put("/write")
    async def write() -> None:
        tasks.append(asyncio.create_task(later()))

    with capture_invalidations(shop.cache) as receipts:
        await ask(shop.app, "PUT", "/write")
        over.set()
        await tasks[0]
    assert tags_of(receipts) == [PRODUCT_1]


async def test_a_stream_that_writes_purges_by_itself(shop: Shop) -> None:
    """Its answer has begun: nothing is held, and nothing waits for its end."""

    async def rows() -> AsyncIterator[bytes]:
        yield b"a"
        async with shop.sessions() as session:
            (await session.get_one(Product, 1)).price = 5
            await session.commit()
        yield b"%d" % len(receipts)

    @shop.app.post("/write", response_model=None)
    async def write() -> StreamingResponse:
        return StreamingResponse(rows())

    with capture_invalidations(shop.cache) as receipts:
        assert (await ask(shop.app, "POST", "/write")).body == b"a1"
    assert tags_of(receipts) == [PRODUCT_1]


async def test_two_requests_at_once_purge_each_their_own(shop: Shop) -> None:
    """The context of each is its own, in SQLAlchemy's greenlets too."""
    meet = asyncio.Barrier(2)

    @shop.app.put("/write/{number}")
    async def write(number: int, session: AsyncSession = shop.prompt) -> None:
        await session.get_one(Product, number)
        await meet.wait()
        (await session.get_one(Product, number)).price = number if number == 1 else 1

    with capture_invalidations(shop.cache) as receipts:
        await asyncio.gather(ask(shop.app, "PUT", "/write/1"), ask(shop.app, "PUT", "/write/2"))
    assert receipts == []

    @shop.app.put("/move/{number}")
    async def move(number: int) -> None:
        async with shop.sessions() as session:
            product = await session.get_one(Product, number)
            product.brand_id = 10 + number
            await session.commit()
        await meet.wait()

    with capture_invalidations(shop.cache) as receipts:
        await asyncio.gather(ask(shop.app, "PUT", "/move/1"), ask(shop.app, "PUT", "/move/2"))
    assert sorted(tags_of(receipts), key=sorted) == [
        {"product:1", "brand:1", "brand:11", "products"},
        {"product:2", "brand:1", "brand:12", "products"},
    ]


async def test_a_request_that_is_cancelled_after_its_commit_purges(shop: Shop) -> None:
    """The purge is the cache's own."""
    committed = asyncio.Event()

    @shop.app.put("/write")
    async def write() -> None:
        async with shop.sessions() as session:
            (await session.get_one(Product, 1)).price = 5
            await session.commit()
        committed.set()
        await asyncio.Event().wait()

    assert await shop.price() == 1
    call = begin(shop.app, "PUT", "/write")
    await asyncio.wait_for(committed.wait(), 10)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert await shop.price() == 5


# -- plain sessions ----------------------------------------------------------------------------


@pytest.fixture
def plain(store: Store) -> FastAPI:
    """An app of plain functions, which FastAPI runs in threads, and of one that blocks the loop."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=store.cache)

    def session() -> Iterator[Session]:
        with store.sessions.begin() as session:
            yield session

    @app.get("/products/{number}", dependencies=[cached(ttl=60, tags=["product:{number}"])])
    def read(number: int) -> int:
        with store.sessions() as session:
            return session.get_one(Product, number).price

    own: Any = Depends(session, scope="function")

    @app.put("/products/{number}/price")
    def write(number: int, session: Any = own) -> None:
        session.get_one(Product, number).price += 1

    @app.get("/touch/{number}")
    def touch(number: int) -> str:
        with store.sessions.begin() as session:
            session.get_one(Product, number).price += 1
        return threading.current_thread().name

    @app.get("/touch-on-the-loop/{number}")
    async def touch_on_the_loop(number: int) -> str:
        with store.sessions.begin() as session:
            session.get_one(Product, number).price += 1
        return threading.current_thread().name

    @app.put("/put-on-the-loop/{number}")
    async def put_on_the_loop(number: int) -> None:
        with store.sessions.begin() as session:
            session.get_one(Product, number).price += 1

    return app


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/products/1/price"),
        ("GET", "/touch/1"),
        ("GET", "/touch-on-the-loop/1"),
        ("PUT", "/put-on-the-loop/1"),
    ],
)
def test_plain_sessions_in_threads_and_on_the_loop(store: Store, plain: FastAPI, method: str, path: str) -> None:
    """The next request sees the write, wherever it was committed; there is one purge."""
    with TestClient(plain) as client, capture_invalidations(store.cache) as receipts:
        assert [client.get("/products/1").json() for _ in "ab"] == [0, 0]
        client.request(method, path).raise_for_status()
        assert client.get("/products/1").json() == 1
        client.portal.call(_settled, receipts)  # type: ignore[union-attr]
    assert tags_of(receipts) == [PRODUCT_1]


async def _settled(receipts: list[Any]) -> None:
    await until(lambda: receipts)


def test_two_threads_commit_at_once(store: Store, plain: FastAPI) -> None:
    """Each thread has the context of its own request."""
    with TestClient(plain) as client, capture_invalidations(store.cache) as receipts:
        threads = [
            threading.Thread(target=client.put, args=(f"/products/{number}/price",)) for number in (1, 3, 1, 3, 1, 3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(sorted, tags_of(receipts))) == sorted(
        map(sorted, [PRODUCT_1, {"product:3", "brand:2", "products"}] * 3)
    )


async def test_a_websocket_purges_by_itself(shop: Shop) -> None:
    """There is no answer to join."""

    @shop.app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        async with shop.sessions() as session:
            (await session.get_one(Product, 1)).price = 8
            await session.commit()
        await websocket.close()

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/live", "headers": [], "query_string": b"", "root_path": "", "state": {}}
    with capture_invalidations(shop.cache) as receipts:
        await shop.app(scope, receive, send)
    assert tags_of(receipts) == [PRODUCT_1]


def test_labels_are_not_touched_by_reading(store: Store, make_store: Callable[..., Store]) -> None:
    """A session that only reads purges nothing at its commit."""
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        session.get(Label, 1)
    assert receipts == []


async def test_a_cancellation_between_the_commit_and_the_end_loses_nothing(shop: Shop) -> None:
    """The connection is given back after the commit, and that may be cancelled: by then the purge is made."""

    def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    engine = shop.sessions.kw["bind"].sync_engine
    event.listen(engine, "checkin", cancelled)
    event.listen(engine, "reset", cancelled)
    with capture_invalidations(shop.cache) as receipts:
        session = shop.sessions()
        (await session.get_one(Product, 1)).price = 5
        with pytest.raises(asyncio.CancelledError):
            await session.commit()
    event.remove(engine, "checkin", cancelled)
    event.remove(engine, "reset", cancelled)
    assert tags_of(receipts) == [PRODUCT_1]
    assert await shop.price() == 5
