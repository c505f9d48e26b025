"""Where an app stands, and replicas: they agree on every key, by policy and by headers, wherever the app stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, Request, Response
from starlette.applications import Starlette
from starlette.routing import Host, Mount

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.fleet import filled, found, replicas
from tests.helpers.http import ask
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def site(*, root_path: str = "") -> FastAPI:
    """An app with a page by policy, one by headers, and one that is handed the request."""
    app = FastAPI()
    app.root_path = root_path

    @app.get("/policy/{name}", dependencies=[cached(ttl=60)])
    async def by_policy(name: str) -> str:
        return name

    @app.get("/headers/{name}")
    async def by_headers(name: str, response: Response) -> str:
        response.headers["cache-control"] = "public, max-age=60"
        return name

    @app.get("/request/{name}", dependencies=[cached(ttl=60, shared=True)])
    async def by_request(name: str, request: Request) -> str:
        return f"{name} {request.scope['root_path']}"

    return app


def served(app: Any, cache: HTTPCache, root_path: str = "") -> Any:
    """An app behind the cache, as a server calls it that was told a root path: that is in the path, too."""
    wrapped = CacheMiddleware(app, cache, honour_headers=True)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and root_path:
            sent = root_path.encode() + scope["raw_path"]
            scope = {**scope, "root_path": root_path, "path": root_path + scope["path"], "raw_path": sent}
        await wrapped(scope, receive, send)

    return serve


def nested(inner: Any) -> Any:
    """Two mounts deep."""
    return Starlette(routes=[Mount("/a", Starlette(routes=[Mount("/b", inner)]))])


def hosted(inner: Any) -> Any:
    """Under a host."""
    return Starlette(routes=[Host("shop.test", inner)])


def with_own_middleware(cache: HTTPCache) -> Any:
    """Mounted, with the only middleware in the mounted app."""
    inner = site()
    inner.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)
    return Starlette(routes=[Mount("/a", inner)])


# Each: how it is built over a cache, and what its paths begin with.
PLACES: dict[str, tuple[Callable[[HTTPCache], Any], str]] = {
    "plain": (lambda cache: served(site(), cache), ""),
    "by the server": (lambda cache: served(site(), cache, "/api"), ""),
    "by the server, with a slash": (lambda cache: served(site(), cache, "/api/"), ""),
    "by the framework": (lambda cache: served(site(root_path="/api"), cache), ""),
    "by both": (lambda cache: served(site(root_path="/api"), cache, "/api"), ""),
    "a mount": (lambda cache: served(Starlette(routes=[Mount("/a", site())]), cache), "/a"),
    "a mount below a root path": (lambda cache: served(Starlette(routes=[Mount("/a", site())]), cache, "/api"), "/a"),
    "a nested mount": (lambda cache: served(nested(site()), cache), "/a/b"),
    "a host": (lambda cache: served(hosted(site()), cache), ""),
    "a host in a mount": (lambda cache: served(Starlette(routes=[Mount("/a", hosted(site()))]), cache), "/a"),
    "a middleware in a mount": (with_own_middleware, "/a"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", ["policy", "headers", "request"])
async def test_replicas_agree_wherever_the_app_stands(redis_server: Valkey, place: str, mode: str) -> None:
    """What one fills the other serves; another name is another page."""
    make, prefix = PLACES[place]
    async with replicas(redis_server, make, make) as ((one, cache), (two, _)):
        await filled(one, cache, f"{prefix}/{mode}/x")
        assert await found(two, f"{prefix}/{mode}/x")
        assert not await found(two, f"{prefix}/{mode}/y")


async def test_root_paths_of_server_and_framework_are_the_same_two_parts(redis_server: Valkey) -> None:
    """They stand in different places of the scope; a route that cannot tell is one stored response."""
    makers = [PLACES[name][0] for name in ("by the server", "by the framework", "by both")]
    async with replicas(redis_server, *makers) as ((one, cache), *others):
        await filled(one, cache, "/policy/x")
        for other, _ in others:
            assert await found(other, "/policy/x")


@pytest.mark.parametrize("mode", ["policy", "headers", "request"])
async def test_root_paths_tell_services_apart(redis_server: Valkey, mode: str) -> None:
    """Root paths that differ, none at all among them, are different services, wherever they come from."""
    makers = [
        lambda cache: served(site(), cache),
        lambda cache: served(site(), cache, "/users"),
        lambda cache: served(site(), cache, "/orders"),
        lambda cache: served(site(root_path="/stock"), cache),
    ]
    async with replicas(redis_server, *makers) as all_of_them:
        for app, cache in all_of_them:
            # A miss, although all before it have filled theirs.
            await filled(app, cache, f"/{mode}/x")


async def test_handlers_of_other_names_and_values_share_nothing(redis_server: Valkey) -> None:
    """Two services answer one path: their functions have names and values of their own, and each has its own page."""

    def made(handler: Any) -> Callable[[HTTPCache], Any]:
        def make(cache: HTTPCache) -> Any:
            app = FastAPI()
            app.add_middleware(CacheMiddleware, cache=cache)
            app.add_api_route("/page", handler, dependencies=[cached(ttl=60)])
            return app

        return make

    def page_of(name: str) -> Any:
        async def page() -> str:
            return name

        return page

    async def users() -> str:
        return "users"

    async def orders() -> str:
        return "orders"

    handlers = [users, orders, page_of("acme"), page_of("bolt")]
    async with replicas(redis_server, *map(made, handlers), *map(made, handlers)) as all_of_them:
        for app, cache in all_of_them[:4]:
            await filled(app, cache, "/page")
        for (app, _), body in zip(all_of_them[4:], (b'"users"', b'"orders"', b'"acme"', b'"bolt"'), strict=True):
            assert await found(app, "/page")
            assert (await ask(app, "/page", host="shop.test")).body == body


# -- partitions -----------------------------------------------------------------------------------


def user_id(x_user: Annotated[int, Header()] = 0) -> int:
    return x_user


def tenant_id(x_tenant: Annotated[int, Header()] = 0) -> int:
    return x_tenant


def release(**policy: Any) -> Callable[[HTTPCache], Any]:
    """A release of one app that differs in what its page is partitioned by."""

    def make(cache: HTTPCache) -> Any:
        app = FastAPI()
        app.add_middleware(CacheMiddleware, cache=cache)

        @app.get("/page", dependencies=[cached(ttl=60, **policy)])
        async def page(user: Annotated[int, Depends(user_id)], tenant: Annotated[int, Depends(tenant_id)]) -> Any:
            return {"user": user, "tenant": tenant}

        return app

    return make


async def test_a_release_that_partitions_by_something_else_is_given_nothing_of_the_last(redis_server: Valkey) -> None:
    """User 7 of tenant 8 is not user 8 of tenant 7, nor is (7, 7) in the other order; replicas of one release share."""
    seven = {"x-user": "7", "x-tenant": "7"}
    forth, back = release(partition_by=(user_id, tenant_id)), release(partition_by=(tenant_id, user_id))
    async with replicas(redis_server, forth, back, forth) as ((one, cache), (two, other), (again, _)):
        await filled(one, cache, "/page", headers=seven)
        await filled(two, other, "/page", headers=seven)
        assert await found(again, "/page", headers=seven)
        assert not await found(again, "/page", headers={"x-user": "7", "x-tenant": "8"})
        assert not await found(again, "/page", headers={"x-user": "8", "x-tenant": "7"})


@pytest.mark.parametrize(("before", "after"), [(user_id, tenant_id), (tenant_id, user_id), (user_id, None)])
async def test_tenant_7_is_not_given_what_user_7_had(redis_server: Valkey, before: Any, after: Any) -> None:
    """A release changes or drops the partition of a page that reads only what it is partitioned by."""

    def made(by: Any) -> Callable[[HTTPCache], Any]:
        def make(cache: HTTPCache) -> Any:
            app = FastAPI()
            app.add_middleware(CacheMiddleware, cache=cache)

            # In a list: a name by itself would tell the handlers apart.
            names, given = (["nobody"], None) if by is None else ([by.__name__], Depends(by))

            async def page(value: Any = given) -> Any:
                return f"{names[0]} {value}"

            app.add_api_route("/page", page, dependencies=[cached(ttl=60, partition_by=by)])
            return app

        return make

    seven = {"x-user": "7", "x-tenant": "7"}
    async with replicas(redis_server, made(before), made(after), made(before)) as ((one, cache), (two, own), (same, _)):
        assert (await filled(one, cache, "/page", headers=seven)).body.startswith(f'"{before.__name__} 7'.encode())
        answer = await filled(two, own, "/page", headers=seven)
        assert answer.body.startswith(f'"{after.__name__ if after else "nobody"}'.encode())
        assert await found(same, "/page", headers=seven)
