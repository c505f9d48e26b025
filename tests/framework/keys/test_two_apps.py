"""Two apps of the same code: one never answers for the other, however a request comes to either."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Response
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Match, Mount, Route

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.engine.apps import Apps
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

TENANTS = ("acme", "bolt")
Make = Callable[..., Any]


class Tenant:
    """What no signature and no plain value shows: an object that a handler holds on to."""

    def __init__(self, name: str) -> None:
        # What a list holds may change, and does not count.
        self._names = [name]

    @property
    def name(self) -> str:
        """The tenant's."""
        return self._names[0]


def by_object(name: str, cache: HTTPCache | None = None, **options: Any) -> FastAPI:
    """A tenant's app: its handler holds on to an object, so that it has the name and the values of every other's."""
    tenant, app = Tenant(name), FastAPI()
    if cache is not None:
        app.add_middleware(CacheMiddleware, cache=cache, **options)

    @app.get("/page", dependencies=[cached(ttl=60)])
    def page() -> str:
        return tenant.name

    @app.put("/page", dependencies=[invalidates("page")])
    def write() -> None: ...

    return app


def by_number(name: str, cache: HTTPCache | None = None, **options: Any) -> FastAPI:
    """A tenant's app whose handler shows nothing but a number, which names do not count."""
    number, app = TENANTS.index(name), FastAPI()
    if cache is not None:
        app.add_middleware(CacheMiddleware, cache=cache, **options)

    @app.get("/page", dependencies=[cached(ttl=60)])
    def page() -> str:
        return TENANTS[number]

    return app


def fastapi_by_headers(name: str, cache: HTTPCache, **options: Any) -> FastAPI:
    """A tenant's app of FastAPI's that says by headers what may be kept."""
    tenant, app = Tenant(name), FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True, **options)

    @app.get("/page")
    def page(response: Response) -> str:
        response.headers["cache-control"] = "public, max-age=60"
        return tenant.name

    return app


def by_headers(name: str, cache: HTTPCache, **options: Any) -> Any:
    """An app that says by headers what may be kept."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(name, headers={"cache-control": "public, max-age=60"})(scope, receive, send)

    return CacheMiddleware(app, cache, honour_headers=True, **options)


class Dispatcher:
    """Hands a request to the app that `X-Tenant` names; made at the first request for it."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._apps: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        tenant = dict(scope["headers"])[b"x-tenant"].decode()
        if tenant not in self._apps:
            self._apps[tenant] = self._make(tenant)
        await self._apps[tenant](scope, receive, send)


async def said(app: Any, tenant: str, path: str = "/page", **more: Any) -> str:
    """Whose page a request for a tenant's is answered with."""
    return (await ask(app, path, headers={"x-tenant": tenant}, **more)).body.decode().strip('"')


@pytest.mark.parametrize("options", [{}, {"front": True}, {"front": False}, {"honour_headers": True}])
async def test_a_dispatcher_behind_one_middleware(options: dict[str, Any]) -> None:
    """The route table does not see what is in it: its routes are met one by one, and each has its own responses."""
    app = CacheMiddleware(Dispatcher(by_object), HTTPCache(), **options)
    for _ in range(4):
        for tenant in TENANTS:
            assert await said(app, tenant) == tenant
    await app.cache.stop()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (by_object, {}),
        (by_object, {"front": True}),
        (by_object, {"front": False}),
        (by_object, {"honour_headers": True}),
        (by_headers, {}),
    ],
)
async def test_a_dispatcher_over_apps_that_share_one_cache(make: Make, options: dict[str, Any]) -> None:
    """Each app has a middleware of its own, the cache is one: front lookup, route lookup and headers keep them apart."""
    cache = HTTPCache()
    app = Dispatcher(lambda tenant: make(tenant, cache, **options))
    for _ in range(4):
        for tenant in TENANTS:
            assert await said(app, tenant) == tenant
    for tenant in TENANTS:
        assert_hit(await ask(app, "/page", headers={"x-tenant": tenant}))
    await cache.stop()


async def test_the_first_request_of_the_second_app_is_no_front_hit_of_the_first() -> None:
    """Its middleware has not looked at its app yet, and the first app's front is warm."""
    cache = HTTPCache()
    app = Dispatcher(lambda tenant: by_object(tenant, cache))
    for _ in range(3):
        assert await said(app, "acme") == "acme"
    assert cache._core.counters.hits
    assert await said(app, "bolt") == "bolt"
    await cache.stop()


@pytest.mark.parametrize("make", [by_object, by_headers])
@pytest.mark.parametrize("inner", [True, False])
async def test_apps_that_only_their_host_tells_apart(make: Make, inner: bool) -> None:
    """One cache: each app with a middleware of its own, or one middleware around `Host` routes."""
    cache = HTTPCache()
    hosts = {f"{name}.example": name for name in TENANTS}
    if inner:
        app: Any = Starlette(routes=[Host(host, make(name, cache)) for host, name in hosts.items()])
    else:
        routes = [Host(host, by_object(name)) for host, name in hosts.items()]
        app = CacheMiddleware(Starlette(routes=routes), cache)
    for _ in range(4):
        for host, name in hosts.items():
            assert await said(app, name, host=host) == name
            # Whether a host is matched in upper case is Starlette's affair.
            taken, _ = Host(host, Starlette()).matches({"type": "http", "headers": [(b"host", host.upper().encode())]})
            assert await said(app, name, host=host.upper()) == (name if taken is Match.FULL else "Not Found")
            assert await said(app, name, host=f"{host}:8000") == name
    await cache.stop()


@pytest.mark.parametrize("honour_headers", [False, True])
async def test_one_routers_factory_in_every_place_of_one_app(honour_headers: bool) -> None:
    """Includes, mounts, nested mounts and hosts of handlers that differ by an object alone."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, honour_headers=honour_headers)

    def router_of(name: str) -> APIRouter:
        tenant, router = Tenant(name), APIRouter()

        @router.get("/page", dependencies=[cached(ttl=60)])
        def page() -> str:
            return tenant.name

        return router

    places: dict[tuple[str, str], str] = {}
    for name in TENANTS:
        app.include_router(router_of(f"{name} included"), prefix=f"/{name}")
        places[f"/{name}/page", "test"] = f"{name} included"
        mounted, nested = FastAPI(), FastAPI()
        mounted.include_router(router_of(f"{name} mounted"))
        nested.include_router(router_of(f"{name} nested"))
        mounted.mount("/nested", nested)
        app.mount(f"/m/{name}", mounted)
        places[f"/m/{name}/page", "test"] = f"{name} mounted"
        places[f"/m/{name}/nested/page", "test"] = f"{name} nested"
        hosted = FastAPI()
        hosted.include_router(router_of(f"{name} hosted"))
        app.router.routes.append(Host(f"{name}.example", hosted))
        places["/page", f"{name}.example"] = f"{name} hosted"
    for _ in range(4):
        for (path, host), name in places.items():
            assert (await ask(app, path, host=host)).body.decode().strip('"') == name


async def test_two_middlewares_around_one_app_are_one() -> None:
    """What the first has filled the second serves: it is the same app."""
    cache = HTTPCache()
    app = by_object("acme")
    one, two = CacheMiddleware(app, cache), CacheMiddleware(app, cache)
    assert_miss(await ask(one, "/page"))
    assert_hit(await ask(two, "/page"))
    await cache.stop()


async def test_a_purge_reaches_every_app_of_the_cache() -> None:
    """They are kept apart, and are still one cache."""
    cache = HTTPCache()
    app = Dispatcher(lambda tenant: by_object(tenant, cache))
    for _ in range(2):
        for tenant in TENANTS:
            await said(app, tenant)
    await cache.invalidate_url("/page")
    for tenant in TENANTS:
        assert_miss(await ask(app, "/page", headers={"x-tenant": tenant}))
    await cache.stop()


async def test_it_is_said_once_that_apps_of_one_cache_answer_the_same_routes(caplog: pytest.LogCaptureFixture) -> None:
    """One warning for all of them, which says what to write."""
    cache = HTTPCache()
    app = Dispatcher(lambda tenant: by_object(tenant, cache))
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval.cache"):
        for _ in range(3):
            for tenant in (*TENANTS, "coil"):
                await said(app, tenant)
    [record] = [record for record in caplog.records if record.name == "fastapi_cacheinval.cache"]
    assert "an HTTPCache with a namespace of its own" in record.getMessage()
    await cache.stop()


async def test_apps_with_routes_of_their_own_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Two mounted apps over one cache are in order."""
    cache = HTTPCache()
    outer = FastAPI()
    for name in TENANTS:
        outer.mount(f"/{name}", by_object(name, cache, honour_headers=True))
    other = FastAPI()
    other.add_middleware(CacheMiddleware, cache=cache)

    @other.get("/other", dependencies=[cached(ttl=60)])
    def page() -> str:
        return "other"

    with caplog.at_level(logging.WARNING, "fastapi_cacheinval.cache"):
        assert_miss(await ask(other, "/other"))
        assert_hit(await ask(other, "/other"))
    assert not [record for record in caplog.records if record.name == "fastapi_cacheinval.cache"]
    await cache.stop()


def dependency() -> str:
    return "plain"


async def test_overridden_dependencies_of_two_apps_on_one_cache() -> None:
    """Each app overrides in its own way, and takes the overrides away again."""
    cache = HTTPCache()

    def make(tenant: str) -> FastAPI:
        app = FastAPI()
        app.add_middleware(CacheMiddleware, cache=cache)

        @app.get("/page", dependencies=[cached(ttl=60)])
        def page(value: Annotated[str, Depends(dependency)]) -> str:
            return value

        app.dependency_overrides[dependency] = lambda: tenant
        return app

    apps = {tenant: make(tenant) for tenant in TENANTS}
    for _ in range(3):
        for tenant, app in apps.items():
            assert await said(app, tenant) == tenant
    for app in apps.values():
        app.dependency_overrides.clear()
    for app in apps.values():
        assert await said(app, "any") == "plain"
    await cache.stop()


def test_numbers_and_places_are_never_anothers() -> None:
    """An app that is gone leaves its number and its places unused: its responses may still be stored."""

    class App:
        pass

    apps = Apps()
    first, second = App(), App()
    place = (b"/it",)
    assert apps.number(first) == apps.number(first) == 0
    assert apps.number(second) == 1
    assert apps.alone(place, 0)
    del first
    third = App()
    assert apps.number(third) == 2
    assert not apps.alone(place, 2)
    assert not apps.alone(place, 2)
    assert not apps.alone(place, 1)
    assert apps.alone((b"/other",), 2)


def test_places_are_bounded() -> None:
    """A layer that makes up root paths holds no memory, and takes nothing from the only app that is asked by them."""
    apps = Apps()
    one, two = object(), object()
    first, second = apps.number([one]), apps.number([two])
    places = [(b"headers", b"/%d" % each) for each in range(5000)]
    assert all(apps.alone(place, first) for place in places)
    assert all(apps.alone(place, first) for place in places)
    assert len(apps._owners) <= 4097
    # Nothing is known of a place past the bound but that somebody has answered some of them.
    assert not apps.alone((b"headers", b"/new"), second)
    assert not apps.alone(places[-1], first)
    assert apps.alone(places[0], first)


def test_places_that_are_claimed_are_contested_before_any_lookup() -> None:
    """An app that has started and was never asked counts."""
    apps = Apps()
    one, two = apps.number([1]), apps.number([2])
    apps.claim([(b"/it",), (b"/own",)], one)
    apps.claim([(b"/it",)], two)
    assert not apps.alone((b"/it",), one)
    assert not apps.alone((b"/it",), two)
    assert apps.alone((b"/own",), one)


class OneAtATime:
    """Hands a request to the app that `X-Tenant` names, and lets go of the one before."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._tenant = ""
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        tenant = dict(scope["headers"])[b"x-tenant"].decode()
        if tenant != self._tenant:
            self._app = None
            gc.collect()
            self._tenant, self._app = tenant, self._make(tenant)
        await self._app(scope, receive, send)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (by_number, {}),
        (by_number, {"front": True}),
        (by_number, {"front": False}),
        (by_number, {"honour_headers": True}),
        (by_object, {}),
        (by_headers, {}),
        (fastapi_by_headers, {}),
    ],
)
async def test_an_app_that_is_gone_leaves_nothing_to_the_next(make: Make, options: dict[str, Any]) -> None:
    """Tenants' apps are made on demand and let go of, while what they answered is still stored."""
    cache = HTTPCache()
    app = OneAtATime(lambda tenant: make(tenant, cache, **options))
    for _ in range(3):
        for tenant in TENANTS:
            for _ in range(2):
                assert await said(app, tenant) == tenant
    await cache.stop()


def test_what_takes_no_weak_reference_has_a_number_too() -> None:
    """A callable of a class with slots."""

    class Slotted:
        __slots__ = ()

    apps = Apps()
    one, two = Slotted(), Slotted()
    assert [apps.number(one), apps.number(two), apps.number(one)] == [0, 1, 0]


async def test_mounts_of_a_plain_app_by_headers_share_one_cache() -> None:
    """Two mounts, each with its own middleware by headers: their root paths tell them apart, on every replica alike."""
    cache = HTTPCache()

    def page(name: str) -> Any:
        async def answer(request: Any) -> PlainTextResponse:
            return PlainTextResponse(name, headers={"cache-control": "public, max-age=60"})

        return CacheMiddleware(Starlette(routes=[Route("/page", answer)]), cache, honour_headers=True)

    app = Starlette(routes=[Mount(f"/{name}", page(name)) for name in TENANTS])
    for _ in range(3):
        for name in TENANTS:
            assert (await ask(app, f"/{name}/page")).body.decode() == name
    await cache.stop()
