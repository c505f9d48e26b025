"""When the front lookup is on: only where a hit before routing skips nothing that matters."""

# No postponed annotations: the handlers name classes and callables of their own test.

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Request
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match, Mount

from fastapi_cacheinval import cached


class KeyCheck:
    """A middleware that might refuse a request."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class OwnGZip(GZipMiddleware):
    """A subclass of a harmless one may do anything."""


def page() -> str:
    return "page"


def app_with(*dependencies: Any, handler: Any = page, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.get("/it", dependencies=list(dependencies))(handler)
    return app


def test_a_proved_route_is_served_at_the_front(plan, table) -> None:
    """And the log has nothing to say."""
    app = app_with(cached(ttl=60))
    assert plan(app).front
    assert table(app).describe() == []


def test_a_route_without_a_policy_is_not(plan, table) -> None:
    """Nothing is stored for it, and nothing is said of it."""
    app = app_with()
    assert not plan(app).front
    assert table(app).describe() == []


@pytest.mark.parametrize("cover", ["partition_by", "guarded_by"])
def test_a_cover_turns_it_off(plan, table, cover) -> None:
    """Covers run on every request, even those that read no caller."""
    covers: dict[str, Any] = {cover: page}
    app = app_with(cached(ttl=60, **covers))
    assert not plan(app).front
    (line,) = table(app).describe()
    assert "/it" in line


def scheme_like(authorization: Annotated[str, Header()] = "") -> None: ...
def with_cookie(session: Annotated[str, Cookie()] = "") -> None: ...
def with_request(request: Request) -> None: ...


@pytest.mark.parametrize("reader", [scheme_like, with_cookie, with_request])
def test_shared_true_does_not_open_it_for_a_dependency_that_reads_the_caller(plan, reader) -> None:
    """Even where the author says that the response is the same for all."""
    found = plan(app_with(cached(ttl=60, shared=True), Depends(reader)))
    assert not found.front
    assert reader.__name__ in (found.front_off or "")


def test_shared_true_opens_it_for_a_handler_that_takes_the_request(plan) -> None:
    """There the author's word is enough: no check is skipped."""

    def handler(request: Request) -> str:
        return ""

    assert plan(app_with(cached(ttl=60, shared=True), handler=handler)).front


@pytest.mark.parametrize("middleware", [KeyCheck, OwnGZip])
def test_middleware_inside_turns_it_off_for_the_whole_app(table, middleware) -> None:
    """An API-key middleware answered 401 cold and the cached page warm."""
    app = app_with(cached(ttl=60), middleware=[Middleware(middleware)])
    made = table(app)
    assert not made.plans[-1].front
    (line,) = made.describe()
    assert middleware.__name__ in line
    assert table(app, front=True).plans[-1].front


def test_harmless_middleware_leaves_it_on(plan) -> None:
    """The short list."""
    app = app_with(cached(ttl=60), middleware=[Middleware(GZipMiddleware), Middleware(CORSMiddleware)])
    assert plan(app).front


def test_front_false_turns_it_off_everywhere(plan, table) -> None:
    """Whatever else is true."""
    app = app_with(cached(ttl=60))
    assert not plan(app, front=False).front
    assert table(app, front=False).describe() == ["The front lookup is off for the whole app: front=False."]


class Handling(APIRoute):
    def get_route_handler(self) -> Any:
        return super().get_route_handler()


class Handle(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


class Matching(APIRoute):
    def matches(self, scope: Any) -> Any:
        return super().matches(scope)


class Quiet(APIRoute):
    """Overrides nothing that sees a request."""

    marker = True


@pytest.mark.parametrize(
    ("route_class", "front"), [(Handling, False), (Handle, False), (Matching, False), (Quiet, True)]
)
@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize("word", [None, True])
def test_a_route_class_that_may_look_at_the_request_turns_it_off(plan, route_class, front, included, word) -> None:
    """The author's word for the middleware says nothing of the route class."""
    app = FastAPI()
    router = APIRouter(route_class=route_class) if included else app.router
    router.route_class = route_class
    router.add_api_route("/it", page, dependencies=[cached(ttl=60, shared=True)])
    if included:
        app.include_router(router)
    found = plan(app, front=word)
    assert found.front is front
    assert front or route_class.__name__ in (found.front_off or "")


class Picky(BaseRoute):
    def matches(self, scope: Any) -> Any:
        return Match.NONE, {}


@pytest.mark.parametrize("word", [None, True])
@pytest.mark.parametrize("shared", [None, True])
@pytest.mark.parametrize("layer", [KeyCheck, CORSMiddleware])
def test_what_is_put_around_a_routes_app_turns_it_off(plan, layer, shared, word) -> None:
    """A hit before routing would skip it, whatever the route's path says; `CORSMiddleware` answers by `Origin`."""
    app = app_with(cached(ttl=60, shared=shared))
    route: Any = app.routes[-1]
    route.app = layer(route.app)
    found = plan(app, front=word)
    assert not found.front
    assert layer.__name__ in (found.front_off or "")


def test_a_harmless_layer_around_a_routes_app_leaves_it_on(plan) -> None:
    """What compresses there says by what it chooses."""
    app = app_with(cached(ttl=60))
    route: Any = app.routes[-1]
    route.app = GZipMiddleware(route.app)
    assert plan(app).front


def test_a_route_that_matches_in_its_own_way_turns_it_off_for_those_after_it(table) -> None:
    """It may take a request with another header away from them."""
    app = FastAPI()
    app.get("/before", dependencies=[cached(ttl=60)])(page)
    app.router.routes.append(Picky())
    app.get("/after", dependencies=[cached(ttl=60)])(page)
    assert {plan.path: plan.front for plan in table(app).plans} == {"/before": True, "/after": False}


class OwnRouter(APIRouter):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


def test_a_router_class_of_the_users_own_turns_it_off(plan) -> None:
    """Included, it handles the request before its routes do."""
    app, router = FastAPI(), OwnRouter()
    router.get("/it", dependencies=[cached(ttl=60)])(page)
    app.include_router(router)
    assert not plan(app).front


class OwnApp(FastAPI):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class OwnMount(Mount):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


def _mounted_with_middleware(inner: FastAPI) -> FastAPI:
    inner.add_middleware(KeyCheck)
    app = FastAPI()
    app.mount("/sub", inner)
    return app


def _mount_with_middleware(inner: FastAPI) -> FastAPI:
    return FastAPI(routes=[Mount("/sub", app=inner, middleware=[Middleware(KeyCheck)])])


def _wrapped(inner: FastAPI) -> FastAPI:
    return FastAPI(routes=[Mount("/sub", app=KeyCheck(inner))])


def _through_starlette(inner: FastAPI) -> FastAPI:
    middle = Starlette(routes=[Mount("/sub", app=inner)], middleware=[Middleware(KeyCheck)])
    return FastAPI(routes=[Mount("", app=middle)])


def _in_an_include(inner: FastAPI) -> FastAPI:
    router, app = APIRouter(), FastAPI()
    inner.add_middleware(KeyCheck)
    router.mount("/sub", inner)
    app.include_router(router)
    return app


def _own_mount(inner: FastAPI) -> FastAPI:
    return FastAPI(routes=[OwnMount("/sub", app=inner)])


WAYS = [_mounted_with_middleware, _mount_with_middleware, _wrapped, _through_starlette, _in_an_include, _own_mount]


@pytest.mark.parametrize("build", WAYS)
@pytest.mark.parametrize("word", [None, True])
def test_middleware_on_the_way_to_a_mounted_app_turns_it_off_there(plan, build, word) -> None:
    """And front=True, which speaks for the app's own, does not speak for it."""
    assert not plan(build(app_with(cached(ttl=60))), "/sub/it", front=word).front


def test_an_application_class_of_the_users_own_turns_it_off(plan) -> None:
    """Mounted, its call is on the way."""
    inner = OwnApp()
    inner.get("/it", dependencies=[cached(ttl=60)])(page)
    app = FastAPI()
    app.mount("/sub", inner)
    assert not plan(app, "/sub/it").front


def test_a_plain_mounted_app_leaves_it_on(plan) -> None:
    """With harmless middleware too."""
    app = FastAPI()
    app.mount("/sub", app_with(cached(ttl=60), middleware=[Middleware(GZipMiddleware)]))
    assert plan(app, "/sub/it").front


def test_a_middleware_beside_the_app_does_not_count(plan) -> None:
    """One mounted app's middleware does not touch the others' routes."""
    app = _mounted_with_middleware(FastAPI())
    app.get("/it", dependencies=[cached(ttl=60)])(page)
    assert plan(app).front


def test_overridden_dependencies_turn_it_off(table) -> None:
    """Before routing nobody looks at the overrides."""
    app = app_with(cached(ttl=60))
    made = table(app)
    scope = {"type": "http", "route": app.routes[-1]}
    assert made.plan_for(scope).front
    app.dependency_overrides[page] = page
    assert not made.plan_for(scope).front


@pytest.mark.parametrize("mounted", [False, True])
def test_cors_on_the_way_makes_the_origin_select_the_variant(plan, mounted: bool) -> None:
    """It answers by Origin without always saying so in Vary, in a mounted application as in the outer one."""
    app = app_with(cached(ttl=60), middleware=[Middleware(CORSMiddleware, allow_origins=["*"])])
    outer = FastAPI()
    outer.mount("/sub", app)
    found = plan(outer, "/sub/it") if mounted else plan(app)
    assert found.headers == (b"origin",)


def test_a_middleware_of_a_mounted_application_may_commit_after_the_response(plan) -> None:
    """A mutation's answer waits for it, as it does for a middleware of the outer application."""
    inner = FastAPI(middleware=[Middleware(KeyCheck)])
    inner.post("/it")(page)
    outer = FastAPI()
    outer.mount("/sub", inner)
    outer.post("/own")(page)
    assert plan(outer, "/sub/it").commits_late
    assert not plan(outer, "/own").commits_late
