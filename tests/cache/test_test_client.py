"""Starlette's test client, which gives each test, or each request, an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from fastapi import Cookie, FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale
from tests.helpers.life import counting_app


def test_inside_a_with_block_the_app_lives_on_one_loop() -> None:
    """Miss, hit, purge, miss; the cache has stopped after the block, and a second block finds what the first stored."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    with TestClient(app) as client:
        assert_miss(client.get("/it"))
        assert_hit(client.get("/it"))
        client.put("/it")
        assert_miss(client.get("/it"))
        assert len(cache._core.runtimes) == 1
    assert not cache._core.runtimes
    with TestClient(app) as client:
        assert_hit(client.get("/it"))
    assert counted.calls == 2


def test_without_a_with_block_every_request_has_a_loop_of_its_own() -> None:
    """No lifespan and a new loop per request: the same answers all the same."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    client = TestClient(app)
    assert_miss(client.get("/it"))
    assert_hit(client.get("/it"))
    client.put("/it")
    assert_miss(client.get("/it"))
    assert_hit(client.get("/it"))
    assert counted.calls == 2
    assert len(cache._core.runtimes) <= 1


def test_a_stale_answer_of_a_loop_that_ends_at_once_does_not_stop_later_refreshes() -> None:
    """The refresh is lost with its loop; a later request on another loop is not kept from refreshing."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    calls: list[int] = []

    @app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=60, jitter=0, early_refresh=0)])
    async def read() -> int:
        calls.append(1)
        if len(calls) == 2:
            await asyncio.Event().wait()
        return len(calls)

    client = TestClient(app)
    client.get("/")
    clock.tick(20)
    # This one's refresh waits, and is cancelled with its loop.
    assert_stale(client.get("/"))
    assert cache._core.counters.refreshes == {"cancelled": 1}
    assert_stale(client.get("/"))
    hit = client.get("/")
    assert_hit(hit)
    assert hit.json() == 3


def test_a_failing_audit_raises_in_the_with_block() -> None:
    """A test of an unsound app fails where it enters the client, with the audit's own error."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware)

    @app.get("/mine", dependencies=[cached(ttl=60)])
    async def mine(session: Annotated[str, Cookie()] = "nobody") -> str:
        return session

    with pytest.raises(CallerDependentRoute, match="/mine"), TestClient(app):
        pytest.fail("the client was entered")
    answer = TestClient(app).get("/mine")
    assert answer.status_code == 500
    assert "partition_by" in answer.text


def test_an_app_whose_own_startup_fails_raises_its_own_error() -> None:
    """The cache does not stand before the app's error."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncGenerator[None]:
        raise LookupError("no database")
        yield

    app, _ = counting_app(lifespan=life)
    with pytest.raises(LookupError, match="no database"), TestClient(app):
        pytest.fail("the client was entered")


def test_two_clients_at_once_on_one_app() -> None:
    """Two blocks, one in the other, each with its loop: both are served, and the outer goes on when the inner has ended."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    with TestClient(app) as one:
        assert_miss(one.get("/it"))
        with TestClient(app) as two:
            assert_hit(two.get("/it"))
            two.put("/it")
        assert_miss(one.get("/it"))
    assert counted.calls == 2
    assert not cache._core.runtimes


def test_handler_errors_reach_the_test() -> None:
    """The test client raises what the handler raised; the cache neither hides nor stores it."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware)
    calls: list[int] = []

    @app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("once")
        return len(calls)

    client = TestClient(app)
    with pytest.raises(ZeroDivisionError):
        client.get("/")
    assert_miss(client.get("/"))
    assert_hit(client.get("/"))


def test_websockets_pass_through_the_client() -> None:
    """A websocket of an app with the middleware works as without it."""
    app, _ = counting_app()

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    app.router.add_websocket_route("/ws", echo)
    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
