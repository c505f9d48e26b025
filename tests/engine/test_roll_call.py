"""Another service in the namespace is warned of; replicas and releases are not, and nothing depends on any of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.fleet import CALM, SECRET, eventually
from tests.helpers.http import ask
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

LOGGER = "fastapi_cacheinval.cache"
HOUR_MS = 3_600_000


def users(app: FastAPI) -> None:
    """The first release of a service."""

    @app.get("/users/{number}", dependencies=[cached(ttl=60)])
    async def read_user(number: int) -> int:
        return number


def users_of_the_next_release(app: FastAPI) -> None:
    """It keeps one route and has others beside it."""
    users(app)

    @app.get("/teams/{number}", dependencies=[cached(ttl=60)])
    async def read_team(number: int) -> int:
        return number

    @app.put("/teams/{number}", dependencies=[invalidates("team:{number}")])
    async def write_team(number: int) -> int:
        return number


def orders(app: FastAPI) -> None:
    """Another service: its mutations alone concern the cache."""

    @app.put("/orders/{number}", dependencies=[invalidates("order:{number}")])
    async def write_order(number: int) -> int:
        return number


def plain(app: FastAPI) -> None:
    """A service that caches by headers."""

    @app.get("/plain")
    async def read_plain() -> str:
        return "plain"


class Served:
    """A replica whose clock stands; it says its routes when that is moved."""

    def __init__(self, url: str, declare: Callable[[FastAPI], None], options: dict[str, Any]) -> None:
        self.clock = FakeClock()
        given: dict[str, Any] = {"secret": SECRET, **CALM, **options}
        self.cache = HTTPCache.from_url(url, clock=self.clock, **given)
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=self.cache)
        declare(self.app)

    async def say(self, server: Valkey) -> None:
        """Say the routes, and wait until they are in Redis."""
        key, name = f"{{{self.cache.settings.namespace}}}:routes", self.cache._core.engine.apps.route_set.name.decode()
        if server.execute("HEXISTS", key, name):
            # It may have been said in this very millisecond.
            server.execute("HSET", key, name, "0000000000001")
        self.clock.tick(1300)
        await eventually(lambda: (server.execute("HSTRLEN", key, name) or 0) > 13, "its routes in Redis")
        # One more answer over the same connection comes after that of the roll.
        await ask(self.app, "/nowhere")


@contextlib.asynccontextmanager
async def serving(server: Valkey, *declared: Callable[[FastAPI], None], **options: Any) -> AsyncIterator[list[Served]]:
    """A replica for each, which has had its first request."""
    made = [Served(server.url, declare, options) for declare in declared]
    async with contextlib.AsyncExitStack() as stack:
        for each in made:
            await each.cache.start()
            stack.push_async_callback(each.cache.stop)
            await ask(each.app, "/nowhere")
        yield made


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What has been said of other services."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def test_a_service_that_joins_anothers_namespace_is_warned_and_so_is_the_other(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Once each, with a route of the other and the line to write, however often they ask."""
    with caplog.at_level(logging.WARNING, LOGGER):
        async with serving(redis_server, users, orders) as (one, two):
            await one.say(redis_server)
            assert warned(caplog) == []
            await two.say(redis_server)
            await eventually(lambda: len(warned(caplog)) == 1, "the warning of the one that joined")
            assert "/users/{number}" in warned(caplog)[0]
            assert "HTTPCache.from_url(url, namespace=...)" in warned(caplog)[0]
            await one.say(redis_server)
            await eventually(lambda: len(warned(caplog)) == 2, "the warning of the one that was there")
            assert "/orders/{number}" in warned(caplog)[1]
            for each in (one, two, one, two):
                await each.say(redis_server)
            assert len(warned(caplog)) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [(users, users), (users, users_of_the_next_release), (users_of_the_next_release, users), (plain, plain)],
)
async def test_replicas_and_releases_are_not_warned_of(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture, first: Any, second: Any
) -> None:
    """A rolling release has at least one route in common with the last, in either direction."""
    with caplog.at_level(logging.WARNING, LOGGER):
        async with serving(redis_server, first, second) as both:
            for each in (*both, *both):
                await each.say(redis_server)
    assert warned(caplog) == []


async def test_services_in_namespaces_of_their_own_do_not_hear_of_each_other(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """One Redis, two namespaces."""
    with caplog.at_level(logging.WARNING, LOGGER):
        async with serving(redis_server, users, namespace="a") as (one,), serving(redis_server, orders) as (two,):
            for each in (one, two, one):
                await each.say(redis_server)
    assert warned(caplog) == []


async def test_versions_of_one_namespace_are_compared_too(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """They share the log of purges, so that two services are told apart, and two releases are none."""
    with caplog.at_level(logging.WARNING, LOGGER):
        async with (
            serving(redis_server, users, version="1") as (one,),
            serving(redis_server, users_of_the_next_release, version="2") as (two,),
            serving(redis_server, orders, version="3") as (three,),
        ):
            for each in (one, two):
                await each.say(redis_server)
            assert warned(caplog) == []
            await three.say(redis_server)
            await eventually(lambda: len(warned(caplog)) == 2, "a warning for each of the two sets")


async def test_the_roll_is_bounded_and_ends_by_itself(redis_server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """64 sets at most, an hour at most, and what is no set is passed over."""
    key = "{cacheinval}:routes"
    stamp = f"{int(redis_server.execute('TIME')[0]) * 1000:013d}"
    for number in range(80):
        redis_server.execute("HSET", key, f"other{number}", stamp + "x")
    redis_server.execute("HSET", key, "old", "0000000000001x")
    redis_server.execute("HSET", key, "long", stamp + "x" * 2000)
    redis_server.execute("HSET", key, "garbage", "no time at all")
    with caplog.at_level(logging.WARNING, LOGGER):
        async with serving(redis_server, users) as (one,):
            one.clock.tick(1300)
            await eventually(lambda: not redis_server.execute("HEXISTS", key, "old"), "the end of what is old")
            left = {str(name) for name in redis_server.execute("HKEYS", key)}
            assert left == {f"other{number}" for number in range(80)}
            assert 0 < int(redis_server.execute("PTTL", key)) <= HOUR_MS
    assert warned(caplog) == []


async def test_a_redis_that_is_away_or_holds_something_else_there_costs_nothing(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """No start is slower for it, no request fails, and nothing is logged."""
    redis_server.execute("SET", "{cacheinval}:routes", "a string", "EX", "60")
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with serving(redis_server, users) as (one,):
            one.clock.tick(1300)
            assert (await ask(one.app, "/users/1")).status_code == 200
            assert (await ask(one.app, "/users/1")).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
