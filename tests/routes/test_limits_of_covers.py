"""A route that limits how many calls of a dependency run at once keeps the limit where a cover runs the dependency."""

# No postponed annotations: the handlers name callables of their own test.

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.http import ask
from tests.helpers.versions import LIMITS_CALLS

pytestmark = pytest.mark.anyio
CALLERS = 5
# What FastAPI lets through without a limit, or before it had limits.
ALONE = 1 if LIMITS_CALLS else CALLERS


@pytest.fixture
def anyio_backend() -> str:
    """Its calls are asyncio's."""
    return "asyncio"


def limited(call: Any) -> Any:
    """One call at a time, where FastAPI can say so."""
    options: dict[str, Any] = {"max_concurrency": 1} if LIMITS_CALLS else {}
    return Depends(call, **options)


class Pool:
    """Counts how many have entered and not left."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One that is taken."""
        self.now += 1
        self.most = max(self.most, self.now)
        yield
        self.now -= 1

    async def plain(self, x_token: Annotated[str, Header()]) -> str:
        """One that is taken for the call."""
        with self.taken():
            for _ in range(100):
                await asyncio.sleep(0)
        return x_token

    async def held(self, x_token: Annotated[str, Header()]) -> AsyncIterator[str]:
        """One that is taken until the response is sent."""
        with self.taken():
            for _ in range(100):
                await asyncio.sleep(0)
            yield x_token


async def most_at_once(app: FastAPI, pool: Pool, path: str = "/it") -> int:
    """How many calls of the pool's dependency ran at once while several callers asked."""
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    asked = [ask(app, path, headers={"x-token": str(number)}) for number in range(CALLERS)]
    answers = await asyncio.wait_for(asyncio.gather(*asked), 20)
    assert [answer.body for answer in answers] == [f'"{number}"'.encode() for number in range(CALLERS)]
    return pool.most


@pytest.mark.parametrize("kind", ["plain", "held"])
@pytest.mark.parametrize("field", ["partition_by", "guarded_by"])
async def test_a_cover_has_the_limit_of_the_routes_own_use(field: str, kind: str) -> None:
    """The cover names the dependency alone: what the handler, or a list, says of it counts."""
    pool, app = Pool(), FastAPI()
    one = getattr(pool, kind)
    covers: dict[str, Any] = {"partition_by": one, field: one}

    @app.get("/it", dependencies=[cached(ttl=60, **covers)])
    async def it(it: Annotated[str, limited(one)]) -> str:
        return it

    assert await most_at_once(app, pool) == ALONE


async def test_the_limit_counts_at_every_depth_and_place() -> None:
    """What a cover itself needs has the limit that a later dependency of an include, or below one, asks for."""
    pool, app, router = Pool(), FastAPI(), APIRouter()

    async def user(it: Annotated[str, Depends(pool.held)]) -> str:
        return it

    async def service(it: Annotated[str, limited(pool.held)]) -> str:
        return it

    @router.get("/it", dependencies=[Depends(service)])
    async def it(it: Annotated[str, Depends(user)]) -> str:
        return it

    policy = cached(ttl=60, partition_by=user, guarded_by=service)
    app.include_router(router, prefix="/r", dependencies=[cached(ttl=5), policy])
    assert await most_at_once(app, pool, "/r/it") == ALONE


async def test_routes_share_the_limit_that_they_share_without_the_cache() -> None:
    """One `Depends` in two routes is one limit for both, cached or not."""
    pool, app = Pool(), FastAPI()
    one = limited(pool.plain)

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=pool.plain)])
    async def it(it: Annotated[str, one]) -> str:
        return it

    @app.get("/other")
    async def other(it: Annotated[str, one]) -> str:
        return it

    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    asked = [ask(app, path, headers={"x-token": "1"}) for path in ("/it", "/other") * 3]
    await asyncio.wait_for(asyncio.gather(*asked), 20)
    assert pool.most == (1 if LIMITS_CALLS else 6)


async def test_nothing_waits_for_itself() -> None:
    """A cover that is solved once more than the route says has no limit: the request holds the only place already."""
    pool, app = Pool(), FastAPI()

    async def anew(it: Annotated[str, Depends(pool.held, use_cache=False)]) -> str:
        return it

    @app.get("/it", dependencies=[limited(pool.held), cached(ttl=60, partition_by=(pool.held, anew))])
    async def it(it: Annotated[str, limited(pool.held)]) -> str:
        return it

    assert await most_at_once(app, pool) == (2 if LIMITS_CALLS else 2 * CALLERS)


async def test_what_the_author_says_of_a_cover_stands() -> None:
    """A limit that the cover itself has is kept."""
    pool, app = Pool(), FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=limited(pool.plain))])
    async def it(it: Annotated[str, Depends(pool.plain)]) -> str:
        return it

    assert await most_at_once(app, pool) == ALONE


async def test_without_a_limit_there_is_none() -> None:
    """Nor is there one where FastAPI would never ask it: behind a use that has none."""
    pool, app = Pool(), FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=pool.plain)])
    async def it(it: Annotated[str, Depends(pool.plain)], also: Annotated[str, limited(pool.plain)]) -> str:
        return it

    assert await most_at_once(app, pool) == CALLERS
