"""The two lines that are said at the start: what is cached and how, and what turned the front lookup off."""

# No postponed annotations: the handlers name classes and callables of their own test.

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_cacheinval import cached


def user(x_user: Annotated[str, Header()] = "") -> str:
    return x_user


def page() -> str:
    return "page"


def of_user(of: Annotated[str, Depends(user)]) -> str:
    return of


def app_of(*policies: dict[str, Any]) -> FastAPI:
    app = FastAPI()
    for number, policy in enumerate(policies):
        app.get(f"/{number}", dependencies=[cached(ttl=60, **policy)])(page)
    app.get("/plain")(page)
    app.post("/post")(page)
    return app


def test_each_way_of_caching_is_counted(table) -> None:
    """Front, route, partitioned, guarded, and what is not cached at all."""
    app = app_of({}, {}, {"partition_by": user}, {"guarded_by": user}, {"partition_by": user, "guarded_by": user})
    app.get("/off", dependencies=[cached(ttl=0)])(page)
    assert table(app).summary() == [
        "5 of 8 routes cached: 2 front, 0 route, 2 partitioned, 1 guarded.",
        "The front lookup is off for /2, /3, /4: partition_by and guarded_by run on every request.",
    ]


def test_one_route_is_a_route(table) -> None:
    """And the docs' own routes are nobody's."""
    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60)])(page)
    assert table(app).summary() == ["1 of 1 route cached: 1 front, 0 route, 0 partitioned, 0 guarded."]


def test_what_turned_it_off_for_the_whole_app_is_named(table) -> None:
    """By its name, once, however many routes there are."""
    app = app_of({}, {})
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    first, second = table(app).summary()
    assert "0 front, 2 route" in first
    assert second == (
        "The front lookup is off for the whole app: starlette.middleware.base.BaseHTTPMiddleware would be skipped by a "
        "hit."
    )
    assert table(app_of({}), front=False).summary()[1] == "The front lookup is off for the whole app: front=False."


def test_what_turned_it_off_for_some_is_named_with_them(table) -> None:
    """Those of one reason together, the first three by name."""
    app = app_of({})
    for number in range(5):
        app.get(f"/of/{number}", dependencies=[cached(ttl=60, shared=True)])(of_user)
    first, second = table(app).summary()
    assert "1 front, 5 route" in first
    assert second.startswith("The front lookup is off for /of/0, /of/1, /of/2 and 2 more: shared=True")


def test_an_app_that_caches_nothing_is_told_how_to(table) -> None:
    """In one line."""
    assert table(app_of()).summary() == [
        "0 of 2 routes cached. Declare it: @app.get(..., dependencies=[cached(ttl=60)])."
    ]


def test_an_app_whose_caching_is_switched_off_is_told_so(table) -> None:
    """By its routes; it is not told to declare what it has."""
    app = app_of()
    app.get("/off", dependencies=[cached(ttl=0)])(page)
    app.get("/too", dependencies=[cached(ttl=60, statuses={200: 0})])(page)
    app.post("/by-post", dependencies=[cached(ttl=0)])(page)
    assert table(app).summary() == ["0 of 5 routes cached. cached() is switched off (ttl=0) for /off, /too."]


@pytest.mark.parametrize("by_headers", [True, False])
def test_routes_of_starlettes_own_are_told_of_their_mode(table, by_headers) -> None:
    """Unless it is on."""
    app = Starlette(routes=[Route("/it", lambda request: PlainTextResponse(""))])
    (line,) = table(app).summary(by_headers=by_headers)
    assert ("honour_headers=True" in line) is not by_headers
    assert line.startswith("0 of 0 routes cached.")


def test_a_mounted_app_counts(table) -> None:
    """Its routes are routes of the app."""
    inner, app = app_of({}), FastAPI()
    app.mount("/sub", inner)
    assert table(app).summary()[0].startswith("1 of 3 routes cached: 1 front")
