"""The table has a plan for each route as it answers: included once or twice, nested, mounted, added later."""

# No postponed annotations: the handlers name classes and callables of their own test.

import logging
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from fastapi_cacheinval import CallerDependentRoute, cached
from fastapi_cacheinval.routes.fastapi_private import effective_route_at
from fastapi_cacheinval.routes.plan import Sharing


def user(authorization: Annotated[str, Header()] = "") -> str:
    return authorization


def page() -> str:
    return "page"


@pytest.fixture
def router(probe) -> APIRouter:
    """A router with one cached route."""
    made = APIRouter()
    made.get("/it", dependencies=[probe, cached(ttl=60, shared=True)])(page)
    return made


def test_an_includes_dependencies_protect_the_route(table) -> None:
    """scope["route"] knows nothing of them: the route would look open."""
    router = APIRouter()
    router.get("/it", dependencies=[cached(ttl=60)])(page)
    app = FastAPI()
    app.include_router(router, dependencies=[Depends(user)])
    with pytest.raises(CallerDependentRoute):
        table(app).audit()


def test_a_router_included_twice_is_two_routes(table, router, ask) -> None:
    """Each inclusion has its own plan, found from inside the request by the inclusion's own context."""
    app = FastAPI()
    app.include_router(router, prefix="/open")
    app.include_router(router, prefix="/closed", dependencies=[Depends(user)])
    made = table(app)
    assert [plan.path for plan in made.plans] == ["/open/it", "/closed/it"]
    for prefix, count in (("/open", 1), ("/closed", 2)):
        plan = made.plan_for(ask(app, f"{prefix}/it"))
        assert plan in made.plans
        assert plan.path == f"{prefix}/it"
        assert len(plan.uncovered) == count


def test_nested_includes_add_up(table, router, ask) -> None:
    """Prefixes and dependencies of every level are in the plan."""
    middle = APIRouter(prefix="/middle", dependencies=[Depends(user)])
    middle.include_router(router, prefix="/inner")
    app = FastAPI()
    app.include_router(middle, prefix="/outer")
    plan = table(app).plan_for(ask(app, "/outer/middle/inner/it"))
    assert plan.path == "/outer/middle/inner/it"
    assert len(plan.uncovered) == 2


def test_a_route_of_the_app_itself_is_found(table, probe, ask) -> None:
    """It never has an include's context."""
    app = FastAPI()
    app.get("/it/{item_id}", dependencies=[probe])(page)
    assert table(app).plan_for(ask(app, "/it/5")).path == "/it/{item_id}"


def test_a_mounted_app_is_found(table, router, ask) -> None:
    """Its routes carry the mount's prefix, and its own overrides' provider."""
    inner = FastAPI()
    inner.include_router(router, prefix="/inner")
    app = FastAPI()
    app.mount("/sub", inner)
    made = table(app)
    plan = made.plan_for(ask(app, "/sub/inner/it"))
    assert plan.path == "/sub/inner/it"
    assert plan.provider is inner
    assert plan in made.plans


@pytest.mark.parametrize("outer", [FastAPI, Starlette])
def test_apps_mounted_in_apps_are_found(table, router, ask, outer) -> None:
    """At any depth, in FastAPI and in plain Starlette, with the mounts' own parameters in the path."""
    innermost = FastAPI()
    innermost.include_router(router)
    middle = Starlette(routes=[Mount("/b/{shop:int}", app=innermost)])
    app = outer(routes=[Route("/x", lambda request: PlainTextResponse("")), Mount("/a", app=middle)])
    made = table(app)
    plan = made.plan_for(ask(app, "/a/b/5/it"))
    assert plan.path == "/a/b/{shop}/it"
    assert plan in made.plans


def test_an_app_mounted_in_an_included_router_is_found(table, router, ask) -> None:
    """Its requests carry the mount's context, which is not the route's."""
    inner = FastAPI()
    inner.get("/direct", dependencies=[Depends(user), *router.routes[0].dependencies])(page)
    inner.include_router(router, prefix="/included")
    outer = APIRouter()
    outer.mount("/sub", inner)
    app = FastAPI()
    app.include_router(outer, prefix="/outer")
    made = table(app)
    for path in ("/outer/sub/direct", "/outer/sub/included/it"):
        plan = made.plan_for(ask(app, path))
        assert plan.path == path
        assert plan in made.plans


def test_a_mounts_context_is_not_taken_for_the_routes(probe, ask) -> None:
    """The accessor returns the context only where it is this very route's."""
    inner = FastAPI()
    inner.get("/it", dependencies=[probe])(page)
    outer = APIRouter()
    outer.mount("/sub", inner)
    app = FastAPI()
    app.include_router(outer)
    scope = ask(app, "/sub/it")
    assert "effective_route_context" in scope["fastapi"]
    assert effective_route_at(scope) is scope["route"]


def test_a_router_both_included_and_mounted_has_a_plan_for_each(table, router, ask) -> None:
    """The same route object answers below both, with other dependencies."""
    app = FastAPI()
    app.include_router(router, prefix="/included", dependencies=[Depends(user)])
    app.mount("/mounted", router)
    made = table(app)
    assert len(made.plan_for(ask(app, "/included/it")).uncovered) == 2
    assert len(made.plan_for(ask(app, "/mounted/it")).uncovered) == 1


def test_an_app_mounted_in_itself_ends(table) -> None:
    """A cycle of mounts is walked once."""
    app = FastAPI()
    app.get("/it")(page)
    app.mount("/again", app)
    assert [plan.path for plan in table(app).plans] == ["/it"]


def test_a_route_added_later_is_found(table, router, probe, ask) -> None:
    """Directly, by an include, and in a router included before: each is analysed at its first use."""
    app = FastAPI()
    app.include_router(router)
    made = table(app)
    assert made.plan_for(ask(app, "/it")).path == "/it"
    app.get("/direct", dependencies=[probe, cached(ttl=5)])(page)
    late = APIRouter()
    late.get("/included", dependencies=[probe])(page)
    app.include_router(late, prefix="/late", dependencies=[Depends(user)])
    router.get("/inner", dependencies=[probe])(page)
    for path in ("/direct", "/late/included", "/inner", "/it"):
        assert made.plan_for(ask(app, path)).path == path
    assert made.plan_for(ask(app, "/late/included")).sharing is Sharing.UNPROVED
    assert {plan.path for plan in made.plans} == {"/it", "/inner", "/direct", "/late/included"}


def test_a_route_added_later_that_may_not_be_cached_is_logged_and_not_shared(table, caplog) -> None:
    """No client gets an error for what the author did."""
    app = FastAPI()
    made = table(app)
    app.get("/it", dependencies=[cached(ttl=60, tags=["{nothing}"])])(page)
    with caplog.at_level(logging.ERROR):
        plan = made.plan_for({"type": "http", "route": app.routes[-1]})
    assert plan.sharing is Sharing.UNPROVED
    assert not plan.front
    assert "nothing" in caplog.text


def test_a_route_that_the_table_cannot_see_is_analysed_by_itself(table, probe, ask) -> None:
    """Behind a plain callable the route is met on its first request, and never at the front."""
    hidden, policy = FastAPI(), cached(ttl=60)
    hidden.get("/it", dependencies=[probe, policy])(page)

    async def opaque(scope: Any, receive: Any, send: Any) -> None:
        await hidden(scope, receive, send)

    app = FastAPI()
    app.mount("/sub", opaque)
    made = table(app)
    assert made.plans == ()
    plan = made.plan_for(ask(app, "/sub/it"))
    assert plan.cached is policy.dependency
    assert not plan.front
    assert made.plan_for(ask(app, "/sub/it")) is plan


def test_what_is_not_fastapis_has_no_plan(table) -> None:
    """Plain routes and requests without a route."""
    seen: list[Any] = []

    def plain(request: Request) -> PlainTextResponse:
        seen.append(dict(request.scope))
        return PlainTextResponse("")

    app = FastAPI(routes=[Route("/it", plain)])
    TestClient(app).get("/it")
    made = table(app)
    assert made.plan_for(seen[0]) is None
    assert made.plan_for({"type": "http"}) is None


def test_an_address_used_again_leaks_no_plan(table) -> None:
    """A route that is gone is still held, so that no later route can stand at its address."""
    made = table(FastAPI())
    for count in range(200):
        route = APIRoute(f"/it/{count}", page)
        assert made.plan_for({"type": "http", "route": route}).path == f"/it/{count}"
        del route
