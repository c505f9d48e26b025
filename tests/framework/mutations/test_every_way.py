"""By whichever way a page was cached, an unsafe request on the same URL purges it."""

# No postponed annotations: the handlers name classes of their own test.

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.routing import Host, Mount, Router

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Answer, ask

pytestmark = pytest.mark.anyio


class Shop:
    """Items of one price, read one by one, as a list, and as a page that only a tag leads to."""

    def __init__(self) -> None:
        self.price = 1
        self.location = ""
        self.cache = HTTPCache()

    def routes(self, into: Any) -> Any:
        """The routes, in a FastAPI app or a router."""

        async def read() -> int:
            return self.price

        async def write(response: Response) -> str:
            self.price += 1
            response.headers["Location"] = self.location
            return "written"

        into.get("/items/{number}", name="item", dependencies=[cached(ttl=60)])(read)
        into.get("/items", dependencies=[cached(ttl=60)])(read)
        into.get("/sums/{number}", dependencies=[cached(ttl=60, tags=["sum:{number}"])])(read)
        into.put("/items/{number}", dependencies=[invalidates("sum:{number}")])(write)
        into.post("/orders")(write)
        return into

    @property
    def app(self) -> FastAPI:
        return self.routes(FastAPI())

    @property
    def router(self) -> APIRouter:
        return self.routes(APIRouter())


class Adds:
    """Adds a part of the path to the root path, as Starlette's own mounts do."""

    def __init__(self, app: Any, part: str) -> None:
        self.app, self.part = app, part

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        root = scope.get("root_path", "") + self.part
        if scope["type"] == "http" and scope["path"].startswith(root + "/"):
            scope = {**scope, "root_path": root}
        await self.app(scope, receive, send)


class Sets(Adds):
    """Puts another root path in place of what it was."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, "root_path": self.part}, receive, send)


class Cuts(Adds):
    """Takes a part off the path, as layers do that know no root path."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, "path": scope.get("path", "").removeprefix(self.part)}, receive, send)


class Calls(Adds):
    """Hands requests on."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Hosts(Adds):
    """Names another host than the client did."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name, b"shop.test" if name == b"host" else value) for name, value in scope.get("headers", ())]
        await self.app({**scope, "headers": headers}, receive, send)


def closure(app: Any) -> Any:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return call


def outer(*routes: Any) -> FastAPI:
    return FastAPI(routes=[*routes])


def within(app: FastAPI, *layers: tuple[Any, str]) -> FastAPI:
    for layer, part in layers:
        app.add_middleware(layer, part=part)
    return app


def included(shop: Shop) -> FastAPI:
    app = FastAPI()
    app.include_router(shop.router, prefix="/b")
    app.router.routes.append(Mount("/a", app=Mount("/b", app=shop.app)))
    return app


def with_default(shop: Shop) -> FastAPI:
    app = FastAPI()
    app.router.default = shop.router
    return app


WAYS: dict[str, tuple[Callable[[Shop], Any], str, str]] = {
    "mount in mount": (lambda s: outer(Mount("/a", app=Mount("/b", app=s.app))), "/a/b", ""),
    "three mounts": (lambda s: outer(Mount("/a", app=Mount("/b", app=Mount("/c", app=s.app)))), "/a/b/c", ""),
    "router in mounts": (lambda s: outer(Mount("/a", app=Mount("/b", app=s.router))), "/a/b", ""),
    "mount of a name": (lambda s: outer(Mount("/{who}", app=Mount("/b", app=s.app))), "/ann/b", ""),
    "mount at the root": (lambda s: outer(Mount("", app=Mount("/b", app=s.app))), "/b", ""),
    "mount in host": (lambda s: outer(Host("shop.test", app=Mount("/b", app=s.app))), "/b", ""),
    "host in host": (lambda s: outer(Host("{sub}.test", app=Host("shop.test", app=s.app))), "", ""),
    "host in mount": (lambda s: outer(Mount("/a", app=Host("shop.test", app=s.app))), "/a", ""),
    "wrapped mount": (lambda s: outer(Mount("/a", app=Calls(Mount("/b", app=Calls(s.app, "")), ""))), "/a/b", ""),
    "mount with middleware": (
        lambda s: outer(Mount("/a", app=Mount("/b", app=s.app, middleware=[Middleware(Calls, part="")]))),
        "/a/b",
        "",
    ),
    "mount of routes": (lambda s: outer(Mount("/a", app=Mount("/b", routes=s.router.routes))), "/a/b", ""),
    "router of mount": (lambda s: outer(Mount("/a", app=Router([Mount("/b", app=s.app)]))), "/a/b", ""),
    "beside an include": (included, "/a/b", ""),
    "no application above": (lambda s: Mount("/a", app=Mount("/b", app=s.app)), "/a/b", ""),
    "a host above all": (lambda s: Host("shop.test", app=s.app), "", ""),
    "root path extended": (lambda s: within(s.app, (Adds, "/en")), "/en", ""),
    "extended twice": (lambda s: within(s.app, (Adds, "/shop"), (Adds, "/en")), "/en/shop", ""),
    "extended behind the server's": (lambda s: within(s.app, (Adds, "/en")), "/api/en", "/api"),
    "extended above a mount": (lambda s: within(outer(Mount("/a", app=s.app)), (Adds, "/en")), "/en/a", ""),
    "extended below a mount": (lambda s: outer(Mount("/a", app=Adds(s.app, "/en"))), "/a/en", ""),
    "extended above and below": (
        lambda s: within(outer(Mount("/a", app=Adds(s.app, "/one"))), (Adds, "/en")),
        "/en/a/one",
        "",
    ),
    "extended below two mounts": (lambda s: outer(Mount("/a", app=Mount("/b", app=Adds(s.app, "/en")))), "/a/b/en", ""),
    "replaced": (lambda s: within(s.app, (Sets, "/api/en")), "/api/en", "/api"),
    "removed": (lambda s: within(outer(Mount("/api", app=s.app)), (Sets, "")), "/api", "/api"),
    "path cut": (lambda s: within(s.app, (Cuts, "/en")), "/en", ""),
    "another host": (lambda s: within(outer(Host("shop.test", app=s.app)), (Hosts, "")), "", ""),
    "closure": (lambda s: outer(Mount("/a", app=closure(s.app))), "/a", ""),
    "closure in mounts": (lambda s: outer(Mount("/a", app=Mount("/b", app=closure(s.app)))), "/a/b", ""),
    "closure around a mount": (lambda s: outer(Mount("/a", app=closure(Mount("/b", app=s.app)))), "/a/b", ""),
    "closure and root path": (lambda s: within(outer(Mount("/a", app=closure(s.app))), (Adds, "/en")), "/en/a", ""),
    "default of a router": (with_default, "", ""),
}


def host_of(way: str) -> str:
    return "other.test" if way == "another host" else "shop.test"


async def asked(way: str, app: Any, path: str, **more: Any) -> Answer:
    """One request by a way."""
    return await ask(app, path, host=host_of(way), root_path=WAYS[way][2] if way in WAYS else "", **more)


async def kept(way: str, app: Any, path: str) -> None:
    """Have a page stored: a path that nobody knows to be cached may have to be asked for a few times."""
    for _ in range(4):
        answer = await asked(way, app, path)
        assert answer.status_code == 200, path
    assert_hit(answer)


@pytest.mark.parametrize("honour_headers", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_write_is_seen_by_whichever_way_it_came(way: str, honour_headers: bool) -> None:
    """The page itself, the list above it and what the route declares: each is read anew after a PUT."""
    build, prefix, _ = WAYS[way]
    shop = Shop()
    app = CacheMiddleware(build(shop), cache=shop.cache, honour_headers=honour_headers)
    for page in ("/items/1", "/items", "/sums/1"):
        await kept(way, app, prefix + page)
        writing = await asked(way, app, f"{prefix}/items/1", method="PUT")
        assert writing.headers["cacheinval-purge"] == "done"
        assert (await asked(way, app, prefix + page)).body == b"%d" % shop.price, page


@pytest.mark.parametrize("way", [way for way in WAYS if way != "path cut"])
async def test_a_url_is_purged_whichever_way_it_leads(way: str) -> None:
    """By hand, and as the `Location` of an answer."""
    build, prefix, _ = WAYS[way]
    shop, page = Shop(), f"{prefix}/items/1"
    app = CacheMiddleware(build(shop), cache=shop.cache)
    await kept(way, app, page)
    await shop.cache.invalidate_url(page)
    assert_miss(await asked(way, app, page))
    shop.location = page
    await asked(way, app, f"{prefix}/orders", method="POST")
    assert (await asked(way, app, page)).body == b"%d" % shop.price


@pytest.mark.parametrize("way", WAYS)
async def test_a_url_is_refreshed_whichever_way_it_leads(way: str) -> None:
    """A root path that a layer inside has written is none that a refresh comes by."""
    build, prefix, _ = WAYS[way]
    shop, page = Shop(), f"{prefix}/items/1"
    app = CacheMiddleware(build(shop), cache=shop.cache)
    async with shop.cache:
        await kept(way, app, page)
        shop.price += 1
        assert (await shop.cache.refresh_url(f"http://{host_of(way)}{page}")).outcome == "stored"
        again = await asked(way, app, page)
    assert_hit(again)
    assert again.body == b"2"


async def test_a_route_that_is_an_app_itself_is_followed() -> None:
    """A mount may have nothing but one route as its app, and another method of that is refused as ever."""
    shop = Shop()
    read, _, _, write, _ = [route for route in shop.app.routes if isinstance(route, APIRoute)]
    app = CacheMiddleware(outer(Mount("/read", app=read), Mount("/write", app=write)), cache=shop.cache)
    await kept("", app, "/read/items/1")
    assert (await asked("", app, "/read/items/1", method="PUT")).status_code == 405
    assert_hit(await asked("", app, "/read/items/1"))
    assert (await asked("", app, "/write/items/1", method="PUT")).headers["cacheinval-purge"] == "done"


async def test_a_route_by_its_name_is_purged_behind_two_mounts() -> None:
    """`invalidate_route` and `explain` know the whole path."""
    shop = Shop()
    app = outer(Mount("/a", app=Mount("/b", app=shop.app)))
    app.add_middleware(CacheMiddleware, cache=shop.cache)
    await kept("", app, "/a/b/items/1")
    assert (await shop.cache.explain("http://shop.test/a/b/items/1")).result == "hit"
    await shop.cache.invalidate_route("item", number=1)
    assert_miss(await asked("", app, "/a/b/items/1"))


@pytest.mark.parametrize("order", ["shop first", "desk first"])
@pytest.mark.parametrize("hosts", [("shop.test", "desk.test"), ("{name}.test", "desk.test"), ("shop.test", None)])
async def test_a_path_is_purged_for_all_hosts(hosts: tuple[str, str | None], order: str) -> None:
    """The route that writes stands under another host than the one that is cached."""
    shop, desk, values = Shop(), FastAPI(), [1]

    async def read() -> int:
        return values[0]

    async def write() -> None:
        values[0] = 2

    pages = FastAPI()
    pages.get("/items/{number}", dependencies=[cached(ttl=60)])(read)
    desk.put("/items/{number}")(write)
    ways: list[Any] = [Host(hosts[0], pages), Mount("", desk) if hosts[1] is None else Host(hosts[1], desk)]
    if hosts[1] is not None and (order == "desk first" or "{" in hosts[0]):
        ways.reverse()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=shop.cache)
    app.router.routes.extend(ways)
    assert (await ask(app, "/items/1", host="shop.test")).body == b"1"
    assert_hit(await ask(app, "/items/1", host="shop.test"))
    answer = await ask(app, "/items/1", method="PUT", host="desk.test")
    assert answer.headers["cacheinval-purge"] == "done"
    assert (await ask(app, "/items/1", host="shop.test")).body == b"2"


async def test_where_all_ways_are_in_the_tree_only_cached_paths_are_purged() -> None:
    """A layer that may rewrite the request is no reason to purge what nobody caches."""
    shop = Shop()
    app = CacheMiddleware(within(outer(Mount("/a", app=shop.app)), (Calls, "")), cache=shop.cache)
    await kept("", app, "/a/items/1")
    assert "cacheinval-purge" not in (await asked("", app, "/a/orders", method="POST")).headers


WRAPS: list[tuple[str, Callable[[Any], Any]]] = [
    ("/a", lambda app: Mount("/a", app=app)),
    ("/b", lambda app: outer(Mount("/b", app=app))),
    ("/c", lambda app: Router([Mount("/c", app=app)])),
    ("/d/e", lambda app: Mount("/d", app=Mount("/e", app=app))),
    ("/f", lambda app: Mount("/f", app=app, middleware=[Middleware(Calls, part="")])),
    ("", lambda app: Host("shop.test", app=app)),
    ("", lambda app: outer(Host("{name}.test", app=app))),
    ("", lambda app: Calls(app, "")),
    ("", closure),
    ("/en", lambda app: Adds(app, "/en")),
    ("/ann", lambda app: Mount("/{who}", app=app)),
]


@pytest.mark.parametrize("seed", range(60))
async def test_a_write_is_seen_in_random_trees(seed: int) -> None:
    """Up to five of these around each other, in any order."""
    rng, shop = Random(seed), Shop()
    app: Any = rng.choice([shop.app, shop.router])
    prefix = ""
    for _ in range(rng.randint(1, 5)):
        part, wrap = rng.choice(WRAPS)
        app, prefix = wrap(app), part + prefix
    # A router of FastAPI's needs an app of it somewhere above.
    app = CacheMiddleware(outer(Mount("/", app=app)), cache=shop.cache, honour_headers=rng.random() < 0.3)
    for page in ("/items/1", "/items", "/sums/1"):
        await kept("", app, prefix + page)
        await asked("", app, f"{prefix}/items/1", method="PUT")
        assert (await asked("", app, prefix + page)).body == b"%d" % shop.price, page
