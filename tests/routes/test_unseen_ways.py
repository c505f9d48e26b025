"""A way to a route that is not in the tree of routes: the request is answered behind all that stands on it."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from fastapi_cacheinval import CacheMiddleware, cached, invalidates
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Answer, Call, ask, scope_of, until

pytestmark = pytest.mark.anyio

KEY = {"x-key": "alice"}


class Shelf:
    """A catalogue of one price, which a PUT changes once `commit` is set."""

    def __init__(self) -> None:
        self.price = 1
        self.commit = asyncio.Event()
        self.pending: int | None = None
        self.app = FastAPI()
        self.fill(self.app)

    def fill(self, router: Any, *, shared: bool | None = None) -> None:
        @router.get("/prices", dependencies=[cached(ttl=60, tags=["prices"], shared=shared)])
        async def read() -> int:
            return self.price

        @router.put("/prices", dependencies=[invalidates("prices")])
        async def write(price: int) -> str:
            self.pending = price
            return "written"

    async def needs_key(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Answer 401 to a request without a key."""
        if scope["type"] == "http" and b"x-key" not in dict(scope["headers"]):
            await PlainTextResponse("key", 401)(scope, receive, send)
        else:
            await app(scope, receive, send)

    async def names(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Add a field that names the caller."""

        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                who = dict(scope["headers"]).get(b"x-key", b"nobody")
                message = {**message, "headers": [*message["headers"], (b"x-for", who)]}
            await send(message)

        await app(scope, receive, named)

    async def commits(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Commit what the handler has written, after the response has begun."""
        await app(scope, receive, send)
        if self.pending is not None:
            await self.commit.wait()
            self.price, self.pending = self.pending, None


Does = Callable[..., Any]


async def called(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Do nothing of its own."""
    await app(scope, receive, send)


def closure(app: Any, does: Does) -> Any:
    async def layer(scope: Any, receive: Any, send: Any) -> None:
        await does(app, scope, receive, send)

    return layer


class Inner:
    """Holds the app as `inner`, in a slot."""

    __slots__ = ("does", "inner")

    def __init__(self, app: Any, does: Does) -> None:
        self.inner, self.does = app, does

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.does(self.inner, scope, receive, send)

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        await self(scope, receive, send)


class Listed:
    """Holds the app in a mapping of lists."""

    def __init__(self, app: Any, does: Does) -> None:
        self.apps, self.does = {"a": [app]}, does

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.does(self.apps["a"][0], scope, receive, send)


class Lazy:
    """Makes its app at the first request."""

    def __init__(self, app: Any, does: Does) -> None:
        self.make, self.made = lambda: closure(app, does), cast("Any", None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.made = self.made or self.make()
        await self.made(scope, receive, send)


class Looks:
    """Has every attribute that the app has."""

    def __init__(self, app: Any, does: Does) -> None:
        self.__dict__.update(_inner=app, _does=does)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._does(self._inner, scope, receive, send)


class TwoApps:
    """Its `app` is not what it calls."""

    def __init__(self, app: Any, does: Does) -> None:
        self.app, self.called = app, closure(app, does)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.called(scope, receive, send)


def routed(app: Any, does: Does) -> Any:
    """A plain route whose endpoint is the wrapper."""
    return Router([Route("/{rest:path}", endpoint=Inner(app, does))])


WRAPPERS: dict[str, Callable[[Any, Does], Any]] = {
    "closure": closure,
    "a slot": Inner,
    "a bound method": lambda app, does: Inner(app, does).run,
    "a mapping": Listed,
    "a partial": lambda app, does: partial(does, app),
    "a lazy app": Lazy,
    "all attributes": Looks,
    "another app": TwoApps,
    "two closures": lambda app, does: closure(closure(app, does), called),
    "an endpoint": routed,
}

Wrap = Callable[[Any], Any]


def mounted(shelf: Shelf, wrap: Wrap) -> Any:
    app = FastAPI()
    app.mount("/partners", wrap(shelf.app))
    app.mount("/public", shelf.app)
    return app


def mounted_last(shelf: Shelf, wrap: Wrap) -> Any:
    app = FastAPI()
    app.mount("/public", shelf.app)
    app.mount("/partners", wrap(shelf.app))
    return app


def nested(shelf: Shelf, wrap: Wrap) -> Any:
    app, between = FastAPI(), FastAPI()
    between.mount("/", wrap(shelf.app))
    app.mount("/partners", between)
    app.mount("/public", shelf.app)
    return app


def as_middleware_of_a_mount(shelf: Shelf, wrap: Wrap) -> Any:
    return FastAPI(routes=[Mount("/partners", shelf.app, middleware=[Middleware(wrap)]), Mount("/public", shelf.app)])


def included(shelf: Shelf, wrap: Wrap) -> Any:
    router = APIRouter()
    shelf.fill(router)
    app = FastAPI()
    app.mount("/partners", wrap(router))
    app.include_router(router, prefix="/public")
    return app


def listed_twice(shelf: Shelf, wrap: Wrap) -> Any:
    partners, public, app = FastAPI(), FastAPI(), FastAPI()
    partners.router.routes.extend(shelf.app.routes)
    public.router.routes.extend(shelf.app.routes)
    app.mount("/partners", wrap(partners))
    app.mount("/public", public)
    return app


def around_itself(shelf: Shelf, wrap: Wrap) -> Any:
    app = FastAPI()
    router = APIRouter()
    shelf.fill(router)
    app.include_router(router, prefix="/public")
    app.include_router(router)
    app.mount("/partners", wrap(app))
    return app


def entered_again(shelf: Shelf, wrap: Wrap) -> Any:
    """The wrapper gives the whole app another path than came."""
    app = FastAPI()
    app.mount("/public", shelf.app)

    async def again(scope: Any, receive: Any, send: Any) -> None:
        await app.router({**scope, "path": "/public/prices", "root_path": ""}, receive, send)

    app.mount("/partners", wrap(again))
    return app


def by_default(shelf: Shelf, wrap: Wrap) -> Any:
    """What no route takes goes to the wrapper."""
    app = FastAPI()
    app.mount("/public", shelf.app)
    wrapped = wrap(shelf.app)

    async def rest(scope: Any, receive: Any, send: Any) -> None:
        await wrapped({**scope, "path": scope["path"].removeprefix("/partners")}, receive, send)

    app.router.default = rest
    return app


BUILDS = [
    mounted,
    mounted_last,
    nested,
    as_middleware_of_a_mount,
    included,
    listed_twice,
    around_itself,
    entered_again,
    by_default,
]


EVERY = [(build, closure) for build in BUILDS] + [(mounted, wrapper) for wrapper in WRAPPERS.values()]


async def asked(app: Any, path: str, **more: Any) -> Answer:
    return await ask(app, path, **more)


@pytest.mark.parametrize("honour_headers", [False, True])
@pytest.mark.parametrize(("build", "wrapper"), EVERY)
async def test_a_check_on_a_way_that_nobody_sees_runs_on_every_request(
    build: Any,
    wrapper: Any,
    honour_headers: bool,
) -> None:
    """Whoever has no key gets 401, however often callers with a key and the public were given the page."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf, lambda app: wrapper(app, shelf.needs_key)), honour_headers=honour_headers)
    for _ in range(3):
        assert (await asked(app, "/partners/prices", headers=KEY)).status_code == 200
        assert (await asked(app, "/partners/prices")).status_code == 401
        assert (await asked(app, "/public/prices")).status_code == 200
    assert_hit(await asked(app, "/public/prices"))


@pytest.mark.parametrize(("build", "wrapper"), EVERY)
async def test_what_is_written_on_a_way_that_nobody_sees_goes_to_its_caller_alone(build: Any, wrapper: Any) -> None:
    """A field for alice reaches neither bob nor the public."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf, lambda app: wrapper(app, shelf.names)))
    for _ in range(3):
        for who in ("alice", "bob"):
            answer = await asked(app, "/partners/prices", headers={"x-key": who})
            assert answer.headers["x-for"] == who
            assert "x-for" not in (await asked(app, "/public/prices", headers={"x-key": who})).headers


@pytest.mark.parametrize(("build", "wrapper"), [each for each in EVERY if each[0] is not entered_again])
async def test_a_commit_on_a_way_that_nobody_sees_is_waited_for(build: Any, wrapper: Any) -> None:
    """The client of the PUT hears nothing before the commit, and the next read by either way has the new price."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf, lambda app: wrapper(app, shelf.commits)))
    for path in ("/partners/prices", "/public/prices"):
        assert (await asked(app, path)).body == b"1"
    writing = Call(app, scope_of("/partners/prices?price=2", method="PUT"))
    await until(lambda: shelf.pending == 2, "the handler")
    assert not writing.messages
    shelf.commit.set()
    assert (await writing.answer()).headers["cacheinval-purge"] == "done"
    for path in ("/partners/prices", "/public/prices"):
        assert (await asked(app, path)).body == b"2"


async def test_a_host_may_be_such_a_way() -> None:
    """One app for two hosts, one of them behind a closure that wants a key; and once more for all others."""
    shelf = Shelf()
    routes = [Host("partners.test", closure(shelf.app, shelf.needs_key)), Mount("/", shelf.app)]
    app = CacheMiddleware(FastAPI(routes=routes))
    for _ in range(3):
        assert (await asked(app, "/prices", host="partners.test", headers=KEY)).status_code == 200
        assert (await asked(app, "/prices", host="partners.test")).status_code == 401
        assert (await asked(app, "/prices", host="other.test")).status_code == 200
    assert_hit(await asked(app, "/prices", host="other.test"))


async def test_a_page_behind_such_a_way_is_a_hit_behind_it() -> None:
    """From the second request on the page is cached at its route, behind what stands on the way."""
    shelf = Shelf()
    app = CacheMiddleware(mounted(shelf, lambda app: closure(app, shelf.needs_key)))
    for _ in range(2):
        await asked(app, "/partners/prices", headers=KEY)
    assert_hit(await asked(app, "/partners/prices", headers=KEY))


class CommitsInHandle(APIRoute):
    """A route class that commits after its answer."""

    shelf: Shelf

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await self.shelf.commits(super().handle, scope, receive, send)


class CommitsInMount(Mount):
    """A mount that commits after the answer of its app."""

    shelf: Shelf

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await self.shelf.commits(super().handle, scope, receive, send)


def by_route_class(shelf: Shelf) -> Any:
    kind = type("Committing", (CommitsInHandle,), {"shelf": shelf})
    app = FastAPI()
    app.router.route_class = kind
    shelf.fill(app, shared=True)
    return app


def by_routes_app(shelf: Shelf) -> Any:
    app = FastAPI()
    shelf.fill(app, shared=True)
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.app = closure(route.app, shelf.commits)
    return app


def by_mount_class(shelf: Shelf) -> Any:
    kind = type("Committing", (CommitsInMount,), {"shelf": shelf})
    return FastAPI(routes=[kind("/", shelf.app)])


def by_router_class(shelf: Shelf) -> Any:
    class Committing(APIRouter):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await shelf.commits(super().handle, scope, receive, send)

    router = Committing()
    shelf.fill(router)
    app = FastAPI()
    app.include_router(router)
    return app


@pytest.mark.parametrize("build", [by_route_class, by_routes_app, by_mount_class, by_router_class])
async def test_a_commit_of_a_route_mount_or_router_of_ones_own_is_waited_for(build: Any) -> None:
    """What replaces a method of the framework's may commit after the answer, so the answer waits."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf))
    assert (await asked(app, "/prices")).body == b"1"
    writing = Call(app, scope_of("/prices?price=2", method="PUT"))
    await until(lambda: shelf.pending == 2, "the handler")
    assert not writing.messages
    shelf.commit.set()
    assert (await writing.answer()).headers["cacheinval-purge"] == "done"
    assert (await asked(app, "/prices")).body == b"2"


async def test_nobody_waits_for_a_fill_by_headers_that_became_one_by_policy() -> None:
    """Under `honour_headers` the next request for the path is not held until a timeout."""
    shelf = Shelf()
    app = CacheMiddleware(mounted(shelf, lambda app: closure(app, shelf.needs_key)), honour_headers=True)
    # Far below the five seconds that a request waits for another.
    async with asyncio.timeout(2.5):
        assert (await asked(app, "/partners/prices", headers=KEY)).status_code == 200
        assert (await asked(app, "/partners/prices")).status_code == 401
