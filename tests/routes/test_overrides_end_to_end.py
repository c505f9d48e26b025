"""Dependency overrides: set, cleared and replaced while the app serves; nothing crosses from one state to another."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale
from tests.helpers.http import until
from tests.helpers.life import client_of

pytestmark = pytest.mark.anyio


def source() -> str:
    """What the app reads in production."""
    return "real"


def fake() -> str:
    """What a test puts in its place."""
    return "fake"


def other() -> str:
    """What another test puts in its place."""
    return "other"


token = OAuth2PasswordBearer("token")


async def admin(_token: Annotated[str, Depends(token)]) -> None:
    """A guard."""


async def tenant(request: Request) -> str:
    """A partition."""
    return request.headers["x-tenant"]


def app_of(cache: HTTPCache, **policy: Any) -> FastAPI:
    """An app with one shared route that answers where its value came from."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    fields: dict[str, Any] = {"ttl": 60, "tags": ["it"], "jitter": 0, "early_refresh": 0, **policy}

    @app.get("/it", dependencies=[cached(**fields)])
    async def read(value: Annotated[str, Depends(source)]) -> str:
        return value

    @app.put("/it", dependencies=[invalidates("it")])
    async def write() -> None:
        pass

    return app


async def test_front_hits_from_before_are_not_served_under_overrides_nor_the_other_way_round() -> None:
    """Real, overridden, cleared, overridden again: each state is answered from its own fills alone."""
    cache = HTTPCache()
    app = app_of(cache)
    async with client_of(app) as client:
        assert (await client.get("/it")).json() == "real"
        hits = cache._core.counters.hits
        assert_hit(await client.get("/it"))
        # The front lookup was on, so that the rest is about it.
        assert cache._core.counters.hits == hits + 1

        app.dependency_overrides[source] = fake
        answer = await client.get("/it")
        assert (answer.json(), "fwd=uri-miss" in answer.headers["cache-status"]) == ("fake", True)
        assert_hit(await client.get("/it"))

        app.dependency_overrides.clear()
        answer = await client.get("/it")
        assert_hit(answer)
        assert answer.json() == "real"

        app.dependency_overrides[source] = other
        assert (await client.get("/it")).json() == "other"
        app.dependency_overrides[source] = fake
        assert (await client.get("/it")).json() == "fake"
    await cache.stop()


async def test_a_replaced_dictionary_counts_like_a_changed_one() -> None:
    """`app.dependency_overrides = {...}`, and `= {}` after it."""
    cache = HTTPCache()
    app = app_of(cache)
    async with client_of(app) as client:
        assert (await client.get("/it")).json() == "real"
        app.dependency_overrides = {source: fake}
        assert (await client.get("/it")).json() == "fake"
        assert_hit(await client.get("/it"))
        app.dependency_overrides = {source: other}
        assert (await client.get("/it")).json() == "other"
        app.dependency_overrides = {}
        assert (await client.get("/it")).json() == "real"
    await cache.stop()


class _Rules(dict[Any, Any]):
    """Overrides by rules in place of entries."""

    def get(self, call: Any, otherwise: Any = None, /) -> Any:
        return self["rule"] if call is source else otherwise


class _Unlisted(Mapping[Any, Any]):
    """Overrides that list nothing."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def __getitem__(self, call: Any) -> Any:
        if call is source:
            return self._rule
        raise KeyError(call)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("made", [lambda rule: _Rules(rule=rule), _Unlisted, lambda rule: ChainMap({}, {source: rule})])
async def test_overrides_are_asked_as_fastapi_asks_them(made: Any) -> None:
    """By `get()`: what they list may not be all that they give, and what they give may change."""
    cache = HTTPCache()
    app = app_of(cache)

    async def who(request: Request) -> str:
        return request.headers["x-who"]

    async with client_of(app) as client:
        for rule, value in ((fake, "fake"), (other, "other"), (fake, "fake")):
            app.dependency_overrides = made(rule)
            assert (await client.get("/it")).json() == value
            answer = await client.get("/it")
            assert_hit(answer)
            assert answer.json() == value
        app.dependency_overrides = made(who)
        for name in ("alice", "bob"):
            assert (await client.get("/it", headers={"x-who": name})).json() == name
    await cache.stop()


async def test_a_route_is_the_same_under_overrides_of_what_it_does_not_ask_for() -> None:
    """Two states of the overrides that give the same for a route share what is stored of it."""
    cache = HTTPCache()
    app = app_of(cache)
    async with client_of(app) as client:
        app.dependency_overrides = {source: fake}
        assert_miss(await client.get("/it"))
        app.dependency_overrides = {source: fake, tenant: other}
        assert_hit(await client.get("/it"))
    await cache.stop()


async def test_a_fresh_lambda_for_each_test_is_a_state_of_its_own() -> None:
    """The usual `lambda: value` per test never gets another's response, also once the first is garbage and its address reused."""
    cache = HTTPCache()
    app = app_of(cache)
    async with client_of(app) as client:
        for number in range(50):
            app.dependency_overrides[source] = lambda number=number: f"{number}"
            assert (await client.get("/it")).json() == f"{number}"
            app.dependency_overrides.clear()
    await cache.stop()


async def test_purges_reach_what_was_filled_in_every_state() -> None:
    """A mutation made under overrides purges what was stored without them, and the other way round."""
    cache = HTTPCache()
    app = app_of(cache)
    async with client_of(app) as client:
        await client.get("/it")
        app.dependency_overrides[source] = fake
        await client.get("/it")
        await client.put("/it")
        assert_miss(await client.get("/it"))
        app.dependency_overrides.clear()
        assert_miss(await client.get("/it"))
        await client.put("/it")
        app.dependency_overrides[source] = fake
        assert_miss(await client.get("/it"))
    await cache.stop()


async def test_an_override_that_reads_the_caller_switches_caching_off_for_its_routes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The original was the same for all, the override is not: nobody gets another's, and the log says so once."""
    cache = HTTPCache()
    app = app_of(cache)

    async def who(request: Request) -> str:
        return request.headers["x-who"]

    async with client_of(app) as client:
        await client.get("/it")
        app.dependency_overrides[source] = who
        for name in ("alice", "bob", "alice"):
            answer = await client.get("/it", headers={"x-who": name})
            assert answer.json() == name
            assert "detail=caller-dependent" in answer.headers["cache-status"]
    assert len([record for record in caplog.records if "overridden" in record.getMessage()]) == 1
    await cache.stop()


async def test_an_overridden_guard_is_the_one_that_is_asked() -> None:
    """A test that lets everybody in, and one that lets nobody in: neither is answered from the other's response."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    async def nobody() -> None:
        raise HTTPException(403)

    async def everybody() -> None:
        pass

    @app.get("/report", dependencies=[cached(ttl=60, guarded_by=admin)])
    async def report() -> str:
        return "secret"

    async with client_of(app) as client:
        assert (await client.get("/report", headers={"authorization": "Bearer x"})).status_code == 200
        assert (await client.get("/report")).status_code == 401
        app.dependency_overrides[admin] = nobody
        assert (await client.get("/report", headers={"authorization": "Bearer x"})).status_code == 403
        app.dependency_overrides[admin] = everybody
        assert (await client.get("/report")).json() == "secret"
        app.dependency_overrides.clear()
        assert (await client.get("/report")).status_code == 401
    await cache.stop()


async def test_an_overridden_partition_keeps_apart_what_it_gives() -> None:
    """`partition_by` overridden with a constant shares among all, and never with what was stored for real callers."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/mine", dependencies=[cached(ttl=60, partition_by=tenant)])
    async def mine(whose: Annotated[str, Depends(tenant)]) -> str:
        return whose

    async with client_of(app) as client:
        assert (await client.get("/mine", headers={"x-tenant": "acme"})).json() == "acme"
        # The same value as a real caller's, made by other means.
        app.dependency_overrides[tenant] = lambda: "acme"
        assert_miss(await client.get("/mine"))
        assert_hit(await client.get("/mine"))
        app.dependency_overrides[tenant] = lambda: "umbrella"
        assert (await client.get("/mine")).json() == "umbrella"
    await cache.stop()


async def test_a_refresh_that_runs_under_other_overrides_does_not_land_in_the_old_state() -> None:
    """Ordered without overrides, run with them: the stale response's own state does not get the override's answer."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app = app_of(cache, ttl=10, stale_while_revalidate=60)
    async with client_of(app) as client:
        assert (await client.get("/it")).json() == "real"
        clock.tick(20)
        stale = await client.get("/it")
        assert_stale(stale)
        # It has been ordered and has not run: a stale answer from the front awaits nothing.
        app.dependency_overrides[source] = fake
        await until(lambda: not cache.statistics().refreshing)
        app.dependency_overrides.clear()
        assert (await client.get("/it")).json() == "real"
    await cache.stop()


async def test_overrides_of_an_included_router_and_of_a_mounted_app() -> None:
    """Each app's own overrides count for its own routes: the outer's do not touch the mounted app's."""
    cache = HTTPCache()
    app, inner = app_of(cache), FastAPI()
    router = APIRouter()

    @router.get("/included", dependencies=[cached(ttl=60)])
    async def included(value: Annotated[str, Depends(source)]) -> str:
        return value

    @inner.get("/mounted", dependencies=[cached(ttl=60)])
    async def mounted(value: Annotated[str, Depends(source)]) -> str:
        return value

    app.include_router(router, prefix="/a")
    app.mount("/b", inner)
    async with client_of(app) as client:
        for _ in range(2):
            assert (await client.get("/a/included")).json() == "real"
            assert (await client.get("/b/mounted")).json() == "real"
        app.dependency_overrides[source] = fake
        assert (await client.get("/a/included")).json() == "fake"
        assert (await client.get("/b/mounted")).json() == "real"
        inner.dependency_overrides[source] = other
        assert (await client.get("/a/included")).json() == "fake"
        assert (await client.get("/b/mounted")).json() == "other"
        app.dependency_overrides.clear()
        assert (await client.get("/a/included")).json() == "real"
        assert (await client.get("/b/mounted")).json() == "other"
    await cache.stop()


async def test_overrides_of_an_app_that_was_mounted_after_the_start() -> None:
    """Front hits of a late mount stop, too, as soon as its dependencies are overridden."""
    cache = HTTPCache()
    app, inner = app_of(cache), FastAPI()

    @inner.get("/late", dependencies=[cached(ttl=60)])
    async def late(value: Annotated[str, Depends(source)]) -> str:
        return value

    async with client_of(app) as client:
        await client.get("/it")
        app.mount("/inner", inner)
        await client.put("/it")
        for _ in range(3):
            assert (await client.get("/inner/late")).json() == "real"
        inner.dependency_overrides[source] = fake
        assert (await client.get("/inner/late")).json() == "fake"
    await cache.stop()


def test_overrides_in_tests_as_they_are_usually_written() -> None:
    """A test client, overrides set and cleared around each test, one app for all: every test sees its own."""
    cache = HTTPCache()
    app = app_of(cache)
    for value in ("one", "two", "one"):
        app.dependency_overrides[source] = lambda value=value: value
        with TestClient(app) as client:
            assert client.get("/it").json() == value
            assert client.get("/it").json() == value
        app.dependency_overrides.clear()
    with TestClient(app) as client:
        assert client.get("/it").json() == "real"
