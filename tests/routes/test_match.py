"""Our own match finds the plan of the route that would answer, in the order of the table."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.routes.fastapi_private import effective_route_at
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.route_levels import route_path, start_of
from fastapi_cacheinval.routes.table import RouteTable

SCOPE: dict[str, Any] = {"type": "http", "headers": [(b"host", b"api.example.com")], "path_params": {}}


def page() -> str:
    return "page"


def plain(request: Any) -> PlainTextResponse:
    return PlainTextResponse("plain")


def build() -> FastAPI:
    """Overlapping routes of every kind."""
    inner = FastAPI()
    inner.get("/items/special")(page)
    inner.get("/items/{item_id:int}")(page)
    rooted = FastAPI()
    rooted.root_path = "/elsewhere"
    rooted.get("/it")(page)
    router = APIRouter(prefix="/router")
    router.get("/{name}")(page)
    router.post("/{name}")(page)
    router.mount("/sub", inner)
    nested = APIRouter()
    nested.include_router(router, prefix="/nested")
    app = FastAPI()
    app.get("/items/special")(page)
    app.get("/items/{item_id}")(page)
    app.put("/items/{item_id}")(page)
    app.api_route("/both", methods=["GET", "POST"])(page)
    app.include_router(nested)
    app.include_router(router, prefix="/again")
    app.router.routes.append(Route("/items/plain/{rest:path}", plain))
    app.mount("/mounted", inner)
    app.get("/mounted/hidden")(page)
    app.mount("/rooted", rooted)
    app.mount("/starlette", Starlette(routes=[Mount("/deep", app=inner), Route("/it", plain)]))
    app.get("/{rest:path}")(page)
    return app


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/items/special", "/items/special"),
        ("GET", "/items/5", "/items/{item_id}"),
        ("PUT", "/items/special", "/items/{item_id}"),
        ("DELETE", "/items/5", None),
        ("HEAD", "/items/5", None),
        ("POST", "/both", "/both"),
        ("GET", "/nested/router/it", "/nested/router/{name}"),
        ("POST", "/nested/router/it", "/nested/router/{name}"),
        ("GET", "/again/router/it", "/again/router/{name}"),
        ("GET", "/again/sub/items/5", "/again/sub/items/{item_id}"),
        ("GET", "/items/plain/a/b", None),
        ("HEAD", "/items/plain/a/b", None),
        ("GET", "/mounted/items/special", "/mounted/items/special"),
        ("GET", "/mounted/items/x", None),
        ("GET", "/mounted/hidden", None),
        ("GET", "/rooted/it", None),
        ("GET", "/starlette/deep/items/7", "/starlette/deep/items/{item_id}"),
        ("GET", "/starlette/it", None),
        ("GET", "/starlette/nothing", None),
        ("GET", "/anything/else", "/{rest}"),
        ("GET", "/", "/{rest}"),
        ("POST", "/anything/else", None),
    ],
)
def test_the_first_full_match_counts(table, method, path, expected) -> None:
    """Methods that do not match are passed over, and a mount that matches is never left again."""
    found = table(build()).match(method, path, SCOPE)
    assert (None if found is None else found.path) == expected


SEGMENTS = st.sampled_from(
    [
        "items",
        "special",
        "5",
        "x",
        "both",
        "nested",
        "router",
        "again",
        "sub",
        "mounted",
        "hidden",
        "rooted",
        "starlette",
        "deep",
    ]
)


class _Answered:
    """Keeps the scope that the route which answered has left."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.scope: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        await self.app(scope, receive, send)


_app = build()
_app.router.redirect_slashes = False
_kept = _Answered(_app)
_client = TestClient(_kept)
_table = RouteTable(_app, middleware_stack_of(_app))


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"]),
    segments=st.lists(SEGMENTS, max_size=5),
    slash=st.booleans(),
)
@settings(max_examples=200)
def test_it_agrees_with_the_framework(method: str, segments: list[str], slash: bool) -> None:
    """For any path and method the plan is that of the route which really answers."""
    path = "/" + "/".join(segments) + ("/" if slash and segments else "")
    response = _client.request(method, path)
    found = _table.match(method, path, SCOPE)
    if response.status_code == 200 and effective_route_at(_kept.scope) is not None:
        assert found is not None
        assert found is _table.plan_for(_kept.scope)
    else:
        assert found is None


@pytest.mark.parametrize("root_path", ["", "/api", "/api/v1"])
@pytest.mark.parametrize("owner", ["server", "app"])
def test_the_root_path_is_no_part_of_the_route(table, root_path, owner) -> None:
    """Whether the server gives it or the app insists on it, and whether the path has it or not."""
    app = FastAPI()
    app.root_path = root_path if owner == "app" else ""
    app.get("/it")(page)
    made = table(app)
    scope = {**SCOPE, "root_path": root_path if owner == "server" else ""}
    assert made.match("GET", f"{root_path}/it", scope).path == "/it"
    assert made.match("GET", "/it", scope).path == "/it"
    assert made.match("GET", f"{root_path}x/it", scope) is None


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "x"])
@pytest.mark.parametrize("root_path", ["", "/", "/a", "/a/", "/a/b"])
def test_the_route_path_is_starlettes(path, root_path) -> None:
    """Ours and Starlette's own agree, empty and partial prefixes included."""
    from starlette._utils import get_route_path

    try:
        expected = get_route_path({"path": path, "root_path": root_path})
    except IndexError:
        return
    assert route_path(path, root_path) == expected


def test_a_host_route_answers_for_its_host_only(table) -> None:
    """The headers of the request at hand say which host it is."""
    inner = FastAPI()
    inner.get("/it")(page)
    app = FastAPI()
    app.router.routes.append(Host("api.example.com", app=inner))
    app.get("/it/{rest:path}")(page)
    made = table(app)
    assert made.match("GET", "/it", SCOPE).provider is inner
    other = {**SCOPE, "headers": [(b"host", b"example.com")]}
    assert made.match("GET", "/it", other) is None
    assert made.match("GET", "/it/x", other).provider is app


class Picky(BaseRoute):
    """Takes what carries a certain header."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        return (Match.FULL if any(name == b"x-picky" for name, _ in scope["headers"]) else Match.NONE), {}


def test_a_foreign_route_is_asked_itself(table) -> None:
    """Only it knows what it matches, and it has no plan."""
    app = FastAPI(routes=[Picky()])
    app.get("/it")(page)
    made = table(app)
    assert made.match("GET", "/it", SCOPE).path == "/it"
    assert made.match("GET", "/it", {**SCOPE, "headers": [(b"x-picky", b"1")]}) is None


def test_routes_added_later_are_matched(table) -> None:
    """In the app, in a router included before, and in a mounted app."""
    inner, router = FastAPI(), APIRouter()
    app = FastAPI()
    app.mount("/sub", inner)
    app.include_router(router, prefix="/router")
    made = table(app)
    app.get("/it")(page)
    assert made.match("GET", "/it", SCOPE).path == "/it"
    router.get("/it")(page)
    assert made.match("GET", "/router/it", SCOPE).path == "/router/it"
    inner.get("/it")(page)
    assert made.match("GET", "/sub/it", SCOPE).path == "/sub/it"


def test_the_match_works_from_the_middlewares_own_place() -> None:
    """What add_middleware hands the middleware leads to the same routes as the app itself."""
    app = FastAPI()
    app.get("/it")(page)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    with TestClient(app) as client:
        assert client.get("/it").status_code == 200
    step: Any = app.middleware_stack
    while not isinstance(step, CacheMiddleware):
        step = step.app
    inside = middleware_stack_of(step.app)
    assert inside.app is app
    found = RouteTable(None, inside).match("GET", "/it", SCOPE)
    assert found is not None
    assert found.path == "/it"


@pytest.mark.parametrize(
    ("pattern", "start"),
    [
        ("^/route/17/(?P<number>[^/]+)$", "/route/17/"),
        (r"^/v1\.0/it\-s/(?P<name>[^/]+)$", "/v1.0/it-s/"),
        ("^/it$", "/it"),
        ("^/(?P<path>.*)$", "/"),
        ("^/items/?$", "/items"),
        ("^/items?$", "/item"),
        ("^/a{0,1}b$", "/"),
        ("^/a|/b$", ""),
        ("(?i)^/a$", ""),
        ("/a", ""),
        ("^(?:/a)?/b", ""),
        (r"^/\d+$", "/"),
        ("^", ""),
    ],
)
def test_the_start_of_a_pattern_begins_all_that_it_matches(pattern: str, start: str) -> None:
    """Routes that begin otherwise are passed over; where a pattern does not plainly say it, none is."""
    assert start_of(re.compile(pattern)) == start


_PIECES = st.sampled_from(
    ["/", "a", "b", "-", r"\.", r"\+", "?", "*", "(?P<x>a)", "[ab]", "|", r"\w", "{0,1}", ".", "(?:a)?"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=6).map("".join), st.text("ab/-.+x", max_size=6))
def test_no_pattern_matches_what_has_not_its_start(pattern: str, path: str) -> None:
    """Whatever a route's own pattern is made of."""
    try:
        compiled = re.compile(f"^{pattern}$")
    except re.error:
        return
    if compiled.match(path):
        assert path.startswith(start_of(compiled))
