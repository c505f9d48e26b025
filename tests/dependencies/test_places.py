"""`cached()` on app, router, include, nested router, mounted app, route and parameter; the innermost one wins."""

# No postponed annotations: the handlers name callables of their own test.

import copy
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from fastapi.security import APIKeyHeader

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, PartitionBy, cached
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss
from tests.helpers.life import Counted, client_of

pytestmark = pytest.mark.anyio


def policy(ttl: float, *tags: str) -> Any:
    """A dependency with a lifetime that tells it from others."""
    return cached(ttl=ttl, tags=tags, jitter=0, early_refresh=0)


class Site:
    """An app with a cache on a clock, to which the tests add their routes."""

    def __init__(self, **options: Any) -> None:
        self.cache = HTTPCache(clock=FakeClock())
        self.app = FastAPI(**options)
        self.app.add_middleware(CacheMiddleware, cache=self.cache)
        self.counted = Counted()

    async def lifetime(self, path: str) -> int | None:
        """For how long the route's responses live, seen from a miss and the hit after it; None where it is not cached."""
        async with client_of(self.app) as client:
            first, second = await client.get(path), await client.get(path)
        assert first.status_code == 200, first.text
        if "cache-status" not in first.headers:
            assert first.json() != second.json()
            return None
        assert_miss(first)
        assert_hit(second)
        assert first.json() == second.json()
        return int(first.headers["cache-status"].partition("ttl=")[2].partition(";")[0])

    async def tags(self, path: str) -> list[str]:
        """The tags that its responses carry."""
        async with client_of(self.app) as client:
            return (await client.get(path)).headers.get("surrogate-key", "").split()


def add_page(router: FastAPI | APIRouter, site: Site, path: str = "/page", *dependencies: Any) -> None:
    """A route that answers how often it ran."""

    @router.get(path, dependencies=[*dependencies])
    async def page() -> int:
        return site.counted()


async def test_on_the_app_it_counts_for_every_route() -> None:
    """Declared once for all: routes of the app, of routers and of nested routers."""
    site = Site(dependencies=[policy(10, "app")])
    add_page(site.app, site)
    inner, outer = APIRouter(), APIRouter()
    add_page(inner, site)
    outer.include_router(inner, prefix="/inner")
    site.app.include_router(outer, prefix="/outer")
    assert await site.lifetime("/page") == 10
    assert await site.lifetime("/outer/inner/page") == 10
    assert await site.tags("/outer/inner/page") == ["app"]


async def test_the_innermost_of_all_wins() -> None:
    """App, include, router, route: each level takes over from the one outside it; only the last is in force."""
    site = Site(dependencies=[policy(10, "app")])
    router = APIRouter(dependencies=[policy(30, "router")])
    bare = APIRouter()
    add_page(router, site, "/plain")
    add_page(router, site, "/own", policy(40, "route"))
    add_page(bare, site, "/plain")
    site.app.include_router(router, prefix="/a", dependencies=[policy(20, "include")])
    site.app.include_router(bare, prefix="/b", dependencies=[policy(20, "include")])
    site.app.include_router(bare, prefix="/c")
    assert await site.lifetime("/a/own") == 40
    assert await site.lifetime("/a/plain") == 30
    assert await site.lifetime("/b/plain") == 20
    assert await site.lifetime("/c/plain") == 10
    # The outer ones are inert: neither their lifetime nor their tags count.
    assert await site.tags("/a/own") == ["route"]
    assert await site.tags("/b/plain") == ["include"]


async def test_a_copy_of_a_router_has_the_same_policies(table) -> None:
    """Libraries that make versions of an app copy its routes with all that they declare; covers stay what they are."""

    class Needs:
        def __call__(self, x_user: Annotated[str, Header()] = "") -> str:
            return x_user

    needs = Needs()
    declared: list[Any] = [
        cached(CachePolicy(ttl=60, statuses={200: 60, 404: 1})),
        cached(ttl=60, partition_by=PartitionBy(needs, key=str)),
    ]

    def page(user: Annotated[str, Depends(needs)]) -> str:
        return user

    copied = copy.deepcopy(declared)
    assert [each.dependency.policy for each in copied] == [each.dependency.policy for each in declared]
    app = FastAPI()
    app.get("/page", dependencies=copied)(page)
    app.get("/other", dependencies=[copy.copy(each) for each in declared])(page)
    table(app).audit()


async def test_of_two_on_one_route_the_last_wins() -> None:
    """In the order in which FastAPI runs them."""
    site = Site()
    add_page(site.app, site, "/page", policy(10), policy(20))
    assert await site.lifetime("/page") == 20


async def test_as_a_parameter_it_is_the_innermost() -> None:
    """`Annotated[None, cached(...)]` on a handler's parameter runs after the decorator's dependencies."""
    site = Site()

    @site.app.get("/annotated", dependencies=[policy(10)])
    async def annotated(_cached: Annotated[None, cached(ttl=20, jitter=0)]) -> int:
        return site.counted()

    @site.app.get("/default")
    def default(_cached: None = cached(ttl=30, jitter=0)) -> int:
        return site.counted()

    assert await site.lifetime("/annotated") == 20
    assert await site.lifetime("/default") == 30


async def test_a_router_included_twice_is_two_routes() -> None:
    """The same router under two prefixes with two policies: two lifetimes, two responses."""
    site = Site()
    router = APIRouter()
    add_page(router, site)
    site.app.include_router(router, prefix="/short", dependencies=[policy(10, "short")])
    site.app.include_router(router, prefix="/long", dependencies=[policy(60, "long")])
    site.app.include_router(router, prefix="/not")
    assert await site.lifetime("/short/page") == 10
    assert await site.lifetime("/long/page") == 60
    assert await site.lifetime("/not/page") is None
    assert site.counted.calls == 4
    await site.cache.invalidate("short")
    async with client_of(site.app) as client:
        assert_miss(await client.get("/short/page"))
        assert_hit(await client.get("/long/page"))


async def test_a_mounted_apps_policies_are_its_own() -> None:
    """The outer app's dependencies do not run for a mounted app, so its policy does not count there."""
    site = Site(dependencies=[policy(10)])
    inner = FastAPI(dependencies=[policy(20)])
    bare = FastAPI()
    add_page(inner, site)
    add_page(bare, site)
    site.app.mount("/inner", inner)
    site.app.mount("/bare", bare)
    assert await site.lifetime("/inner/page") == 20
    assert await site.lifetime("/bare/page") is None


@pytest.mark.parametrize("ttl", [0, 0.0])
async def test_a_lifetime_of_nothing_switches_an_inherited_policy_off(ttl: float) -> None:
    """`cached(ttl=0)` on a route: it is not cached, not annotated, and its neighbours are."""
    site = Site(dependencies=[policy(10)])
    add_page(site.app, site, "/off", cached(ttl=ttl))
    add_page(site.app, site, "/on")
    assert await site.lifetime("/off") is None
    assert await site.lifetime("/on") == 10
    assert site.cache.statistics().responses == 1


async def test_a_switched_off_route_may_read_the_caller() -> None:
    """The audit has nothing against a route that is not cached after all."""
    site = Site(dependencies=[policy(10)])
    key = APIKeyHeader(name="x-key")

    @site.app.get("/mine", dependencies=[cached(ttl=0)])
    async def mine(mine: str = Depends(key)) -> str:
        return mine

    async with client_of(site.app) as client:
        for name in ("alice", "bob"):
            answer = await client.get("/mine", headers={"x-key": name})
            assert answer.json() == name
            assert "cache-status" not in answer.headers


async def test_fields_replace_the_policys_and_tags_unite() -> None:
    """`cached(policy, ttl=..., tags=[...])` builds upon a shared policy, which stays as it is."""
    site = Site()
    catalogue = CachePolicy(10, tags=["catalogue"], jitter=0, early_refresh=0)
    add_page(site.app, site, "/one", cached(catalogue, ttl=20, tags=["one"]))
    add_page(site.app, site, "/two", cached(catalogue))
    assert await site.lifetime("/one") == 20
    assert await site.tags("/one") == ["catalogue", "one"]
    assert await site.lifetime("/two") == 10
    assert await site.tags("/two") == ["catalogue"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
async def test_on_unsafe_methods_it_is_inert(method: str) -> None:
    """Declared for a router of both: the unsafe route runs every time and says nothing of a cache, whatever it reads."""
    site = Site(dependencies=[policy(10)])

    @getattr(site.app, method)("/page")
    async def write() -> int:
        return site.counted()

    async with client_of(site.app) as client:
        answers = [await client.request(method, "/page") for _ in range(2)]
    assert [answer.json() for answer in answers] == [1, 2]
    assert all("cache-status" not in answer.headers for answer in answers)
    assert site.cache.statistics().responses == 0


async def test_a_route_of_several_methods_caches_its_get() -> None:
    """`methods=["GET", "POST"]`: GET is answered from the cache, POST runs and purges the path."""
    site = Site()

    @site.app.api_route("/page", methods=["GET", "POST"], dependencies=[policy(10)])
    async def page() -> int:
        return site.counted()

    assert await site.lifetime("/page") == 10
    async with client_of(site.app) as client:
        assert (await client.post("/page")).json() == 2
        answer = await client.get("/page")
        assert_miss(answer)
        assert answer.json() == 3


async def test_without_the_middleware_the_handler_runs_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An app that forgot it works uncached; the log has one line for the declaration, however many requests come."""
    app, counted = FastAPI(), Counted()

    @app.get("/page", dependencies=[cached(ttl=60)])
    async def page() -> int:
        return counted()

    async with client_of(app) as client:
        answers = [await client.get("/page") for _ in range(3)]
    assert [answer.json() for answer in answers] == [1, 2, 3]
    assert all("cache-status" not in answer.headers for answer in answers)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "CacheMiddleware" in record.getMessage()
    assert "/page" in record.getMessage()
