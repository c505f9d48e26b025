"""A policy of several routes, or of several ways to one: no line is proposed that adds a check to another."""

# No postponed annotations: the handlers name callables of their own test.

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Security

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, RefusedRoutes, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.advice import left_by
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


def user(x_user: Annotated[str, Header()] = "") -> str:
    if not x_user:
        raise HTTPException(401)
    return x_user


def advice_of(table: Any, app: FastAPI) -> str:
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    return str(refused.value.advice)


def page() -> str:
    return "page"


def twice(policy: Any = None, *, router: Any = None, public: Any = None, mine: Any = None) -> FastAPI:
    """A router that is included for all, and behind a check; each place may have a policy."""

    def listed(*given: Any) -> list[Any]:
        return [each for each in given if each is not None]

    app, shelf = FastAPI(openapi_url=None), APIRouter(dependencies=listed(router))
    shelf.get("/page", dependencies=listed(policy))(page)
    app.include_router(shelf, prefix="/public", dependencies=listed(public))
    app.include_router(shelf, prefix="/mine", dependencies=listed(mine, Security(user, scopes=["a"])))
    return app


USER = "Security(user, scopes=['a'])"


@pytest.mark.parametrize("place", ["policy", "router"])
def test_the_line_for_one_include_is_to_stand_at_that_include(table, place: str) -> None:
    """At the route, or at its router, it would have the public page check who asks."""
    assert advice_of(table, twice(**{place: cached(ttl=60)})) == (
        "The policy is that of /public/page too, which does not run Security(user, scopes=['a']). Take it away where it "
        "stands, and give each include_router() its own, in dependencies=[...]; it counts for all routes below. What "
        "follows is for /mine/page. "
        f"{left_by(USER, module=__name__)}cached(..., guarded_by={USER})."
    )


def test_only_what_the_others_do_not_run_is_named(table) -> None:
    """The public page reads who asks as well; the check alone is missing there."""

    def admin(name: Annotated[str, Depends(user)]) -> None: ...

    def member(name: Annotated[str, Depends(user)]) -> None: ...

    def mine(name: Annotated[str, Depends(user)]) -> str:
        return name

    def told(includes: dict[str, list[Any]]) -> str:
        app, shelf = FastAPI(openapi_url=None), APIRouter()
        shelf.get("/page", dependencies=[cached(ttl=60)])(mine)
        for prefix, checks in includes.items():
            app.include_router(shelf, prefix=prefix, dependencies=[*map(Depends, checks)])
        with pytest.raises(RefusedRoutes) as refused:
            table(app).audit()
        return str(refused.value)

    first = "The policy is that of /public/page"
    assert f"{first} too, which does not run admin." in told({"/public": [], "/mine": [admin]})
    several = told({"/public": [], "/mine": [admin, member], "/club": [member]})
    assert f"{first} and /club/page too, not all of which run admin and member." in several
    assert f"{first} too, which does not run member." in several


async def test_that_line_changes_nothing_for_the_other_include(table) -> None:
    """Both are cached, and each answers as it does alone."""
    own = cached(ttl=60, guarded_by=Security(user, scopes=["a"]))
    app = twice(public=cached(ttl=60), mine=own)
    assert table(app).warnings() == []
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        public, refused = await ask(app, "/public/page"), await ask(app, "/mine/page")
        mine = await ask(app, "/mine/page", headers={"x-user": "alice"})
        assert [each.status_code for each in (public, refused, mine)] == [200, 401, 200]
    assert_hit(public)
    assert_hit(mine)


@pytest.mark.parametrize("place", ["policy", "router"])
def test_a_cover_that_another_way_to_the_route_has_by_itself_is_warned_of(table, place: str) -> None:
    """The public page asks who is there, since the line stands at the route."""
    app = twice(**{place: cached(ttl=60, guarded_by=Security(user, scopes=["a"]))})
    (warning,) = table(app).warnings()
    assert warning.startswith(
        "GET /public/page runs Security(user, scopes=['a']) for its policy alone, and /mine/page, another way to the same "
        "route, runs it without that too"
    )
    assert "include_router(..., dependencies=[Security(user, scopes=['a'])])" in warning


def test_a_guard_that_is_declared_in_the_policy_alone_is_meant(table) -> None:
    """No way has it among its own dependencies, or all have."""
    app, shelf = FastAPI(openapi_url=None), APIRouter()
    shelf.get("/page", dependencies=[cached(ttl=60, guarded_by=user)])(page)
    for prefix in ("/a", "/b"):
        app.include_router(shelf, prefix=prefix)
        app.include_router(shelf, prefix=f"/other{prefix}")
    assert table(app).warnings() == []
    both = APIRouter()
    both.get("/page", dependencies=[cached(ttl=60, guarded_by=user), Depends(user)])(page)
    for prefix in ("/c", "/d"):
        app.include_router(both, prefix=prefix)
    assert table(app).warnings() == []


def test_the_line_for_one_route_of_a_router_is_to_stand_at_that_route(table) -> None:
    """The router's policy is that of the routes beside it too."""

    def mine(who: Annotated[str, Depends(user)]) -> str:
        return who

    def build(*policy: Any) -> FastAPI:
        app = FastAPI(openapi_url=None)
        shelf = APIRouter(dependencies=[cached(ttl=60)])
        shelf.get("/public")(page)
        shelf.get("/mine", dependencies=[*policy])(mine)
        app.include_router(shelf)
        return app

    assert advice_of(table, build()) == (
        "The policy is that of /public too, which does not run user: give /mine one of its own, in the "
        f"dependencies=[...] of the route. {left_by('user')}cached(..., partition_by=user)."
    )
    app = build(cached(ttl=60, partition_by=user))
    table(app).audit()
    assert table(app).warnings() == []


def test_where_all_ways_have_the_check_nothing_is_said_of_places(table) -> None:
    """The line may stand where the policy does."""
    app, shelf = FastAPI(openapi_url=None), APIRouter()
    shelf.get("/page", dependencies=[cached(ttl=60), Depends(user)])(page)
    for prefix in ("/a", "/b"):
        app.include_router(shelf, prefix=prefix)
    assert advice_of(table, app) == f"{left_by('user', module=__name__)}cached(..., guarded_by=user)."
