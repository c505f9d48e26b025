"""What is changed after the start is looked at again before anything is handed out by what was true at the start."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
import logging
from collections.abc import Callable
from types import MethodType
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from fastapi.routing import APIRoute
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from fastapi_cacheinval.testing import FakeClock, assert_hit
from tests.helpers.http import Call, ask, scope_of, until
from tests.helpers.layers import Names, NeedsKey

pytestmark = pytest.mark.anyio

KEY = {"x-key": "alice"}


def needs_key(x_key: Annotated[str | None, Header()] = None) -> None:
    if x_key is None:
        raise HTTPException(401)


class Site:
    """An app with a page of its own, one in a router and one in a mounted app, behind a cache that has started."""

    def __init__(self, cache: HTTPCache | None = None, **options: Any) -> None:
        self.app, self.inner, self.router = FastAPI(), FastAPI(), APIRouter()
        self.written: list[str] = []
        for router in (self.app, self.inner, self.router):
            self._fill(router)
        self.app.include_router(self.router, prefix="/included")
        self.app.mount("/mounted", self.inner)
        self.mount: Any = self.app.routes[-1]
        self.gzip: Any = GZipMiddleware(self.app)
        self.cache = cache or HTTPCache()
        self.asgi = CacheMiddleware(self.gzip, self.cache, **options)

    def _fill(self, router: Any) -> None:
        @router.get("/page/{name}", dependencies=[cached(ttl=60, tags=["pages"])])
        async def page(name: str) -> str:
            return name

        @router.get("/plain", dependencies=[cached(ttl=60, tags=["pages"])])
        async def plain() -> str:
            return "plain"

        @router.put("/page/{name}", dependencies=[invalidates("pages")])
        async def write(name: str) -> str:
            self.written.append(name)
            return name

    async def started(self) -> "Site":
        """The app after its start, and after a first request to something else."""
        assert (await ask(self.asgi, "/nothing")).status_code == 404
        return self

    async def status(self, path: str, headers: Any = None) -> int:
        return (await ask(self.asgi, path, headers=headers)).status_code


def routes_of(app: Any) -> list[Any]:
    """Those that answer GET: one whose path says something and one whose path says nothing."""
    return [route for route in app.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())]


def add_middleware(site: Site) -> None:
    site.inner.add_middleware(NeedsKey)


def wrap_the_mount(site: Site) -> None:
    site.mount.app = NeedsKey(site.mount.app)


def replace_the_mounts_handle(site: Site) -> None:
    site.mount.handle = NeedsKey(site.mount.app)


def wrap_the_stack(site: Site) -> None:
    site.inner.middleware_stack = NeedsKey(site.inner.build_middleware_stack())


def replace_the_builder(site: Site) -> None:
    build = site.inner.build_middleware_stack
    site.inner.build_middleware_stack = lambda: NeedsKey(build())  # type: ignore[method-assign]


def wrap_the_router(site: Site) -> None:
    site.inner.router.middleware_stack = NeedsKey(site.inner.router.middleware_stack)


def wrap_a_middleware(site: Site) -> None:
    site.gzip.app = NeedsKey(site.gzip.app)


def wrap_the_routes_app(site: Site) -> None:
    for app in (site.app, site.inner):
        for route in routes_of(app):
            route.app = NeedsKey(route.app)


def replace_the_routes_handle(site: Site) -> None:
    async def handle(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await NeedsKey(self.app)(scope, receive, send)

    for app in (site.app, site.inner):
        for route in routes_of(app):
            route.handle = MethodType(handle, route)


def add_a_dependency(site: Site) -> None:
    for app in (site.app, site.inner):
        for route in routes_of(app):
            node = get_parameterless_sub_dependant(depends=Depends(needs_key), path=route.path_format)
            route.dependant.dependencies.insert(0, node)


def replace_a_route(site: Site) -> None:
    """Another route in the place of the first, so that the list is no longer and no shorter."""
    for app in (site.app, site.inner):
        for old in routes_of(app):
            new = APIRoute(old.path, old.endpoint, dependencies=[*old.dependencies, Depends(needs_key)])
            app.router.routes[app.routes.index(old)] = new


def replace_the_list(site: Site) -> None:
    """Another list of as many routes."""
    for app in (site.app, site.inner):
        routes = [*app.router.routes]
        for old in routes_of(app):
            new = APIRoute(old.path, old.endpoint, dependencies=[*old.dependencies, Depends(needs_key)])
            routes[routes.index(old)] = new
        app.router.routes = routes


def in_a_closure(app: Any) -> Any:
    """A wrapper whose inner app nobody can see."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        await NeedsKey(app)(scope, receive, send)

    return layer


def put_in_place(site: Site, mount: Any) -> None:
    site.app.router.routes[site.app.routes.index(site.mount)] = mount


def put_in_front(site: Site, mount: Any) -> None:
    site.app.router.routes.insert(0, mount)


def put_in_a_new_list(site: Site, mount: Any) -> None:
    site.app.router.routes = [mount]


def replace_the_caches_app(site: Site) -> None:
    site.asgi.app = NeedsKey(site.asgi.app)


CHANGES: dict[Callable[[Site], None], tuple[str, ...]] = {
    add_middleware: ("/mounted",),
    wrap_the_mount: ("/mounted",),
    replace_the_mounts_handle: ("/mounted",),
    wrap_the_stack: ("/mounted",),
    replace_the_builder: ("/mounted",),
    wrap_the_router: ("/mounted",),
    wrap_a_middleware: ("", "/mounted", "/included"),
    replace_the_caches_app: ("", "/mounted", "/included"),
    wrap_the_routes_app: ("", "/mounted"),
    replace_the_routes_handle: ("", "/mounted"),
    add_a_dependency: ("", "/mounted"),
    replace_a_route: ("", "/mounted"),
    replace_the_list: ("", "/mounted"),
}
CASES = [(change, prefix) for change, prefixes in CHANGES.items() for prefix in prefixes]


@pytest.mark.parametrize(("change", "prefix"), CASES)
async def test_what_is_put_in_front_of_a_route_before_its_first_request_is_asked_every_time(
    change: Callable[[Site], None], prefix: str
) -> None:
    """After the audit, and before anything is stored: no request without a key gets what one with a key has stored."""
    site = await Site().started()
    change(site)
    for path in (f"{prefix}/page/one", f"{prefix}/plain"):
        for _ in range(3):
            assert await site.status(path, KEY) == 200
        assert await site.status(path) == 401
        assert await site.status(path, KEY) == 200


LATER = [case for case in CASES if case[0] not in (add_middleware, replace_the_builder)]


@pytest.mark.parametrize(("change", "prefix"), LATER)
async def test_what_is_put_in_front_of_a_warm_route_is_seen_by_the_next_lookup(
    change: Callable[[Site], None], prefix: str
) -> None:
    """The next request that comes as far as the route ends the front hits of all its pages."""
    site = await Site().started()
    for name in ("page/one", "plain", "page/one", "plain"):
        answer = await ask(site.asgi, f"{prefix}/{name}")
    assert_hit(answer)
    change(site)
    assert await site.status(f"{prefix}/page/three", KEY) == 200
    for name in ("page/one", "plain", "page/three"):
        assert await site.status(f"{prefix}/{name}") == 401
        for _ in range(2):
            assert await site.status(f"{prefix}/{name}", KEY) == 200
        assert await site.status(f"{prefix}/{name}") == 401


@pytest.mark.parametrize("clock", [FakeClock, lambda: None], ids=["standing", "running"])
@pytest.mark.parametrize(("change", "prefix"), LATER)
async def test_what_is_put_in_front_of_a_warm_route_ends_its_front_hits(
    change: Callable[[Site], None], prefix: str, clock: Callable[[], Any]
) -> None:
    """Without any other request: a front hit looks at the routes itself, at most a hundred looks' time later."""
    for path in (f"{prefix}/page/one", f"{prefix}/plain"):
        site = Site(HTTPCache(clock=clock()))
        for _ in range(2):
            answer = await ask(site.asgi, path)
        assert_hit(answer)
        change(site)
        async with asyncio.timeout(20):
            while (await ask(site.asgi, path)).status_code != 401:
                assert clock() is None
        for _ in range(2):
            assert await site.status(path, KEY) == 200
        assert await site.status(path) == 401


OF_THE_ROUTE = (wrap_the_routes_app, replace_the_routes_handle, add_a_dependency, replace_a_route, replace_the_list)


@pytest.mark.parametrize("change", OF_THE_ROUTE)
@pytest.mark.parametrize("asked", [0, 1, 2])
async def test_what_is_put_before_a_route_that_no_tree_shows_is_asked_every_time(
    change: Callable[[Site], None], asked: int
) -> None:
    """The app stands in a closure: its routes are met at their first requests, and looked at again at the next ones."""
    site = Site()
    app = site.app

    async def closure(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    site.asgi = CacheMiddleware(closure, site.cache)
    for path in ("/page/one", "/plain"):
        for _ in range(asked):
            assert await site.status(path) == 200
    change(site)
    for path in ("/page/one", "/plain"):
        for _ in range(2):
            assert await site.status(path, KEY) == 200
        assert await site.status(path) == 401
        assert await site.status(path, KEY) == 200


async def test_what_is_put_around_a_route_that_no_tree_shows_names_its_own_caller() -> None:
    """What it writes is not stored, although the route was met without it."""
    site = Site()
    app = site.app

    async def closure(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    site.asgi = CacheMiddleware(closure, site.cache)
    for _ in range(2):
        assert (await ask(site.asgi, "/page/one", headers=KEY)).headers.get("x-user") is None
    route = routes_of(app)[0]
    route.app = Names(route.app)
    for path in ("/page/one", "/page/two"):
        for who in ("alice", "bob", "alice"):
            answer = await ask(site.asgi, path, headers={"x-key": who})
            assert answer.headers.get_list("x-user") == [who]


async def test_front_hits_look_at_every_route_of_many() -> None:
    """Each looks at some, so that none takes long; a change of any route is found in one round."""
    app = FastAPI()
    for number in range(200):
        app.get(f"/{number}", dependencies=[cached(ttl=60)])(lambda: "page")
    asgi = CacheMiddleware(app, HTTPCache(clock=FakeClock()))
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    for changed in (0, 77, 199):
        for _ in range(2):
            answer = await ask(asgi, f"/{changed}")
        assert_hit(answer)
        stock = routes[changed].app
        routes[changed].app = NeedsKey(stock)
        answers = [(await ask(asgi, f"/{changed}")).status_code for _ in range(8)]
        assert answers[-1] == 401
        routes[changed].app = stock


async def test_a_look_that_took_long_is_followed_by_another_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at everything again takes its time, and so may a machine that is busy: the next change is found in time."""
    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60)])(lambda: "page")
    clock = FakeClock()
    asgi = CacheMiddleware(app, HTTPCache(clock=clock))
    (route,) = (route for route in app.routes if isinstance(route, APIRoute))
    look = RouteTable.look

    def slowly(table: RouteTable) -> bool:
        clock.tick(0.005)
        return look(table)

    monkeypatch.setattr(RouteTable, "look", slowly)
    for _ in range(3):
        for _ in range(2):
            answer = await ask(asgi, "/it")
        assert_hit(answer)
        clock.tick(0.001)
        stock = route.app
        route.app = NeedsKey(stock)
        clock.tick(0.02)
        assert (await ask(asgi, "/it")).status_code == 401
        route.app = stock
        clock.tick(0.02)


@pytest.mark.parametrize("wrap", [NeedsKey, in_a_closure])
@pytest.mark.parametrize("put", [put_in_place, put_in_front, put_in_a_new_list])
async def test_a_mount_put_before_a_warm_page_ends_its_front_hits(put: Any, wrap: Any) -> None:
    """At once, where the clock stands still."""
    site = Site(HTTPCache(clock=FakeClock()))
    for _ in range(2):
        answer = await ask(site.asgi, "/mounted/page/one")
    assert_hit(answer)
    put(site, Mount("/mounted", wrap(site.inner)))
    assert await site.status("/mounted/page/one") == 401


async def test_a_middleware_of_a_mounted_app_that_commits_is_waited_for_however_late_it_was_added() -> None:
    """The first request that the mounted app ever gets is a PUT through it."""
    site = await Site().started()
    commit = asyncio.Event()

    def committing(app: Any) -> Any:
        async def layer(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            await commit.wait()

        return layer

    site.inner.add_middleware(committing)
    writing = Call(site.asgi, scope_of("/mounted/page/one", method="PUT"))
    await until(lambda: site.written == ["one"], "the handler")
    assert not writing.messages
    commit.set()
    assert (await writing.answer()).headers["cacheinval-purge"] == "done"


async def test_an_exception_handler_that_is_added_later_is_known_at_once() -> None:
    """What it answers is its caller's alone."""
    app = FastAPI()

    class Gone(HTTPException):
        pass

    @app.get("/it", dependencies=[cached(ttl=60, statuses={200, 404})])
    async def it() -> None:
        raise Gone(404)

    asgi = CacheMiddleware(app)
    for _ in range(2):
        assert (await ask(asgi, "/it")).body == b'{"detail":"Not Found"}'

    def named(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(request.headers.get("x-key", ""), 404)

    other = FastAPI()
    other.get("/it", dependencies=[cached(ttl=60, statuses={200, 404})])(it)
    asgi = CacheMiddleware(other)
    assert (await ask(asgi, "/nothing")).status_code == 404
    layer: Any = other.middleware_stack
    while not hasattr(layer, "_exception_handlers"):
        layer = layer.app
    layer._exception_handlers[Gone] = named
    for who in ("alice", "bob"):
        assert (await ask(asgi, "/it", headers={"x-key": who})).body == who.encode()


async def test_the_log_says_that_a_changed_route_is_not_cached_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the way out; no client hears of it."""
    site = await Site().started()
    route = routes_of(site.app)[0]
    inner = NeedsKey(route.app)

    async def hides(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    route.app = hides
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert await site.status("/page/one", KEY) == 200
            assert await site.status("/page/one") == 401
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len([line for line in said if "/mounted" not in line]) == 1
    assert "hides around its app" in said[0]


async def test_a_change_that_is_taken_back_is_forgotten() -> None:
    """The route is cached again."""
    site = await Site().started()
    route = routes_of(site.app)[0]
    stock = route.app
    route.app = NeedsKey(stock)
    assert await site.status("/page/one") == 401
    route.app = stock
    for _ in range(2):
        answer = await ask(site.asgi, "/page/one")
    assert_hit(answer)


async def test_an_app_that_is_the_same_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a mounted app's first request, which makes its stack, nor any later one has the routes looked at again."""
    site = await Site().started()
    looked: list[object] = []
    stock = RouteTable._look_again

    def counted(self: RouteTable) -> None:
        looked.append(self)
        stock(self)

    monkeypatch.setattr(RouteTable, "_look_again", counted)
    site.inner.add_middleware(NeedsKey)
    for _ in range(3):
        for prefix in ("", "/included", "/mounted"):
            assert await site.status(f"{prefix}/page/one", KEY) == 200
            assert (await ask(site.asgi, f"{prefix}/page/one", method="PUT", headers=KEY)).status_code == 200
    # For the middleware that was added.
    assert len(looked) == 1


def test_an_attribute_that_is_made_anew_each_time_is_no_change() -> None:
    """A property that gives another object at each read is not watched, or every request would look again."""

    class Route(APIRoute):
        @property
        def dependency_overrides_provider(self) -> Any:
            return object()

        @dependency_overrides_provider.setter
        def dependency_overrides_provider(self, value: Any) -> None:
            pass

    app = FastAPI()
    app.router.route_class = Route
    app.get("/it")(lambda: "page")
    inside = middleware_stack_of(app)
    table = RouteTable(inside.app, inside)
    assert not any(known.changed for known in table._survey.known)


@pytest.mark.parametrize("wrap", [NeedsKey, in_a_closure])
@pytest.mark.parametrize("put", [put_in_place, put_in_front, put_in_a_new_list])
async def test_a_mount_put_in_the_place_of_another_after_the_start(put: Any, wrap: Any) -> None:
    """What it asks of a caller is asked from the first request that is no front hit."""
    site = await Site().started()
    for _ in range(2):
        assert await site.status("/mounted/page/old") == 200
    put(site, Mount("/mounted", wrap(site.inner)))
    for _ in range(3):
        assert await site.status("/mounted/page/new", KEY) == 200
        assert await site.status("/mounted/page/new") == 401
    # What was stored before goes with the routes that were there.
    assert await site.status("/mounted/page/old") == 401


@pytest.mark.parametrize("wrap", [NeedsKey, in_a_closure])
async def test_an_app_that_is_mounted_once_more_after_the_start(wrap: Any) -> None:
    """The second way is looked at where the paths of cached routes do not tell, as under a page for every path."""
    site = Site()
    site.app.get("/{rest}", dependencies=[cached(ttl=60)])(lambda rest: rest)
    for _ in range(2):
        assert await site.status("/mounted/page/a") == 200
    site.app.mount("/more", wrap(site.inner))
    for _ in range(3):
        assert await site.status("/more/page/a", KEY) == 200
        assert await site.status("/more/page/a") == 401


async def test_a_path_that_was_none_of_the_caches_is_cached_once_its_route_is() -> None:
    """What was seen of a path is a hint: a route with a policy that comes later is looked up there."""
    app = FastAPI()
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.get("/{page}")(lambda page: f"plain {page}")
    for _ in range(3):
        assert (await ask(app, "/it")).headers.get("cache-status") is None
    app.get("/it", dependencies=[cached(ttl=60)])(lambda: "cached")
    app.router.routes.insert(0, app.router.routes.pop())
    answers = [await ask(app, "/it") for _ in range(3)]
    assert {answer.body for answer in answers} == {b'"cached"'}
    assert_hit(answers[-1])


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_a_path_is_no_hint_under_another_root_path(root_path: str) -> None:
    """The same path below a root path is another one: what is cached there is a hit."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.get("/api/it")(lambda: "plain")
    app.get("/it", dependencies=[cached(ttl=60)])(lambda: "cached")
    for _ in range(2):
        await ask(app, "/api/it")
    answers = [await ask(app, "/api/it", root_path=root_path) for _ in range(3)]
    assert answers[-1].body == (b'"cached"' if root_path else b'"plain"')
    if root_path:
        assert_hit(answers[-1])
