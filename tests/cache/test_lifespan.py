"""The cache starts, audits and stops with the app's lifespan, or says why it cannot."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Cookie, FastAPI

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.life import LifespanByHand, client_of, counting_app

pytestmark = pytest.mark.anyio


def unsound_app(cache: HTTPCache | None = None, **options: Any) -> FastAPI:
    """An app that the audit refuses."""
    app = FastAPI(**options)
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/mine", dependencies=[cached(ttl=60)])
    async def mine(session: Annotated[str, Cookie()] = "nobody") -> str:
        return session

    @app.get("/free")
    async def free() -> str:
        return "free"

    return app


async def test_the_cache_runs_from_startup_to_shutdown() -> None:
    """It is started before `startup.complete` is sent and stopped before `shutdown.complete` is."""
    cache = HTTPCache()
    app, _ = counting_app(cache)
    lifespan = LifespanByHand(app)
    assert not cache.running
    assert (await lifespan.tell("startup"))["type"] == "lifespan.startup.complete"
    assert cache.running
    assert (await lifespan.tell("shutdown"))["type"] == "lifespan.shutdown.complete"
    assert not cache.running
    await lifespan.ended()


async def test_the_apps_own_lifespan_may_use_the_cache_at_both_ends() -> None:
    """The cache starts before the app's own start-up and stops after its own shutdown."""
    cache = HTTPCache()
    seen: list[bool] = []

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncGenerator[None]:
        seen.append(cache.running)
        yield
        seen.append(cache.running)

    app, _ = counting_app(cache, lifespan=life)
    lifespan = LifespanByHand(app)
    await lifespan.tell("startup")
    await lifespan.tell("shutdown")
    await lifespan.ended()
    assert seen == [True, True]


async def test_a_block_of_the_cache_inside_a_running_app_leaves_it_running() -> None:
    """`async with cache:` in code that also runs inside the app does not stop the app's cache."""
    cache = HTTPCache()
    app, _ = counting_app(cache)
    lifespan = LifespanByHand(app)
    await lifespan.tell("startup")
    runtime = cache._core.runtime
    async with cache:
        pass
    assert cache._core.runtime is runtime
    await lifespan.tell("shutdown")
    await lifespan.ended()


async def test_without_a_lifespan_the_first_request_starts_and_audits() -> None:
    """No lifespan at all: the first request starts the cache, and the second is a hit."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    async with client_of(app) as client:
        assert_miss(await client.get("/it"))
        assert_hit(await client.get("/it"))
    assert cache.running
    assert counted.calls == 1
    await cache.stop()


async def test_a_failing_startup_of_the_app_is_passed_on_and_stops_the_cache() -> None:
    """The app's own start-up raises: the server hears its `startup.failed`, and the cache does not stay up."""
    cache = HTTPCache()

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncGenerator[None]:
        raise LookupError("no database")
        yield

    app, _ = counting_app(cache, lifespan=life)
    lifespan = LifespanByHand(app)
    said = await lifespan.tell("startup")
    assert said["type"] == "lifespan.startup.failed"
    assert "no database" in said["message"]
    with pytest.raises(LookupError):
        await lifespan.ended()
    assert not cache.running
    assert len(lifespan.said) == 1


async def test_a_failing_audit_fails_the_startup_with_its_message_and_shuts_the_app_down() -> None:
    """A caller-dependent route: `startup.failed` names route, parameter and ways out; the app's lifespan ends."""
    cache = HTTPCache()
    seen: list[str] = []

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncGenerator[None]:
        seen.append("up")
        yield
        seen.append("down")

    lifespan = LifespanByHand(unsound_app(cache, lifespan=life))
    said = await lifespan.tell("startup")
    assert said["type"] == "lifespan.startup.failed"
    for part in ("/mine", "session", "partition_by", "guarded_by", "shared=True"):
        assert part in said["message"]
    with pytest.raises(CallerDependentRoute):
        await lifespan.ended()
    assert seen == ["up", "down"]
    assert [message["type"] for message in lifespan.said] == ["lifespan.startup.failed"]
    assert not cache.running


async def test_without_a_lifespan_every_request_of_an_unsound_app_gets_500_with_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody heard of the audit at start: each request says it, for the faultless routes too, and it is logged once."""
    async with client_of(unsound_app()) as client:
        for path in ("/mine", "/free", "/nowhere", "/mine"):
            answer = await client.get(path)
            assert answer.status_code == 500
            assert "partition_by" in answer.text
            assert (await client.post(path)).status_code == 500
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


async def test_a_source_that_cannot_start_fails_the_startup() -> None:
    """What is attached raises at start: `startup.failed` with its message, not an app that serves without it."""
    cache = HTTPCache()

    @asynccontextmanager
    async def source() -> AsyncGenerator[None]:
        raise ConnectionError("no database to listen to")
        yield

    cache.attach(source())
    app, _ = counting_app(cache)
    lifespan = LifespanByHand(app)
    said = await lifespan.tell("startup")
    assert said == {"type": "lifespan.startup.failed", "message": "no database to listen to"}
    with pytest.raises(ConnectionError):
        await lifespan.ended()
    assert not cache.running


async def test_routes_added_while_the_app_starts_are_audited_and_served_from_the_front() -> None:
    """The audit comes after the app's own start-up, so a route added there is cached like any other."""
    cache = HTTPCache()
    calls: list[int] = []

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        @app.get("/late", dependencies=[cached(ttl=60)])
        async def late() -> int:
            calls.append(1)
            return len(calls)

        yield

    app, _ = counting_app(cache, lifespan=life)
    lifespan = LifespanByHand(app)
    await lifespan.tell("startup")
    async with client_of(app) as client:
        assert_miss(await client.get("/late"))
        hits = cache._core.counters.hits
        assert_hit(await client.get("/late"))
    # The front lookup's common hit is counted apart.
    assert cache._core.counters.hits == hits + 1
    assert calls == [1]
    await lifespan.tell("shutdown")
    await lifespan.ended()


async def test_an_unsound_route_added_while_the_app_starts_fails_the_startup() -> None:
    """A caller-dependent route that the app's own start-up adds is refused like one declared before."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        @app.get("/late", dependencies=[cached(ttl=60)])
        async def late(session: Annotated[str, Cookie()] = "nobody") -> str:
            return session

        yield

    app, _ = counting_app(lifespan=life)
    lifespan = LifespanByHand(app)
    said = await lifespan.tell("startup")
    assert said["type"] == "lifespan.startup.failed"
    assert "/late" in said["message"]
    with pytest.raises(CallerDependentRoute):
        await lifespan.ended()


async def test_a_route_added_after_the_start_is_cached_and_an_unsound_one_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Routes that appear while the app serves: a sound one is cached; a caller-dependent one runs for each, and is logged."""
    cache = HTTPCache()
    app, _ = counting_app(cache)
    async with client_of(app) as client:
        await client.get("/it")
        calls: list[int] = []

        @app.get("/sound", dependencies=[cached(ttl=60)])
        async def sound() -> int:
            calls.append(1)
            return len(calls)

        @app.get("/mine", dependencies=[cached(ttl=60)])
        async def mine(session: Annotated[str, Cookie()] = "nobody") -> str:
            return session

        assert_miss(await client.get("/sound"))
        assert_hit(await client.get("/sound"))
        assert (await client.get("/mine", headers={"cookie": "session=alice"})).json() == "alice"
        assert (await client.get("/mine", headers={"cookie": "session=bob"})).json() == "bob"
    assert "/mine" in caplog.text
    await cache.stop()


async def test_a_second_life_after_the_first_starts_again() -> None:
    """Startup and shutdown, twice, on one loop: what is stored survives, and the cache runs both times."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    for _ in range(2):
        lifespan = LifespanByHand(app)
        await lifespan.tell("startup")
        assert cache.running
        async with client_of(app) as client:
            assert (await client.get("/it")).json() == 1
        await lifespan.tell("shutdown")
        await lifespan.ended()
    assert counted.calls == 1
