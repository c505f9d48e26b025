"""Covers run in the order in which FastAPI would solve the same dependencies without a policy."""

# No postponed annotations: the handlers name callables of their own test.

import inspect
import random
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, SecurityScopes

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, cached
from fastapi_cacheinval.routes.cover_order import order_covers
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

key = APIKeyHeader(name="x-key")
Asked = list[dict[str, str]]


def behind_a_cache(app: FastAPI) -> FastAPI:
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    return app


async def answers(app: FastAPI, asked: Asked) -> list[tuple[int, bytes]]:
    found = [await ask(app, "/it", headers=headers) for headers in asked]
    return [(answer.status_code, answer.body) for answer in found]


class Door:
    """A brake on attempts, and the check of a key; `calls` has the names of both as they run."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def brake(self, request: Request) -> None:
        self.calls.append("brake")
        if self.calls.count("brake") > 3:
            raise HTTPException(429)

    async def who(self, given: Annotated[str, Depends(key)]) -> str:
        self.calls.append("who")
        if given != "right":
            raise HTTPException(403)
        return given


def on_the_route(door: Door, policy: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[*policy, Depends(door.brake)])
    async def it(name: Annotated[str, Depends(door.who)]) -> str:
        return name

    return app


def behind_the_brake(door: Door, policy: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[Depends(door.brake), *policy])
    async def it(name: Annotated[str, Depends(door.who)]) -> str:
        return name

    return app


def on_the_app(door: Door, policy: list[Any]) -> FastAPI:
    app = FastAPI(dependencies=policy)
    router = APIRouter(dependencies=[Depends(door.brake)])

    @router.get("/it")
    async def it(name: Annotated[str, Depends(door.who)]) -> str:
        return name

    app.include_router(router)
    return app


def by_parameters(door: Door, policy: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=policy)
    async def it(braked: Annotated[None, Depends(door.brake)], name: Annotated[str, Depends(door.who)]) -> str:
        return name

    return app


async def test_a_policy_whose_covers_are_reordered_can_be_overridden() -> None:
    """By what the author has of it, as any other dependency."""
    door = Door()
    policy = cached(ttl=60, partition_by=door.who, guarded_by=door.brake)
    app = behind_a_cache(on_the_route(door, [policy]))
    app.dependency_overrides[policy.dependency] = lambda: None
    answers_ = [await ask(app, "/it", headers={"x-key": "right"}) for _ in range(2)]
    assert [str(answer.headers.get("cache-status")) for answer in answers_] == ["None"] * 2


PLACES = [on_the_route, behind_the_brake, on_the_app]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("overridden", [False, True], ids=["plain", "overridden"])
async def test_a_brake_counts_the_attempts_that_the_next_cover_refuses(place: Any, *, overridden: bool) -> None:
    """`guarded_by` names it, and `partition_by` what comes after it in the route: guesses of a key are braked."""
    seen = []
    for cache in (False, True):
        door = Door()
        app = place(door, [cached(ttl=60, partition_by=door.who, guarded_by=door.brake)] if cache else [])
        if overridden:
            app.dependency_overrides[print] = str
        app = behind_a_cache(app) if cache else app
        seen.append((await answers(app, [{"x-key": f"guess{n}"} for n in range(5)]), door.calls))
    assert seen[0] == seen[1]
    assert [status for status, _ in seen[1][0]] == [403, 403, 403, 429, 429]


@pytest.mark.parametrize("place", PLACES)
async def test_the_order_is_kept_ahead_of_the_app(place: Any) -> None:
    """Once the path is known its covers run before the app has the request."""
    door = Door()
    app = behind_a_cache(place(door, [cached(ttl=60, partition_by=door.who, guarded_by=door.brake)]))
    right = {"x-key": "right"}
    first = await ask(app, "/it", headers=right)
    assert_hit(await ask(app, "/it", headers=right))
    assert first.status_code == 200
    assert await answers(app, [{"x-key": "wrong"}, right]) == [
        (403, b'{"detail":"Forbidden"}'),
        (429, b'{"detail":"Too Many Requests"}'),
    ]
    assert door.calls == ["brake", "who"] * 3 + ["brake"]


class Need:
    """A check of a role; all are equal, so FastAPI calls the first of a route and hands its value to the others."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Need)

    def __hash__(self) -> int:
        return 1

    def __call__(self, x_roles: Annotated[str, Header()]) -> str:
        if self.role not in x_roles.split():
            raise HTTPException(403, self.role)
        return f"{self.role} of {x_roles}"


@pytest.mark.parametrize("named", ["first", "second"])
async def test_of_equal_callables_the_first_of_the_route_is_called(named: str) -> None:
    """`partition_by` may name either: the check is that of the app without a cache."""
    needs = {"first": Need("first"), "second": Need("second")}

    def app_with(*policy: Any) -> FastAPI:
        app = FastAPI()

        @app.get("/it", dependencies=[*policy, Depends(needs["first"])])
        async def it(role: Annotated[str, Depends(needs["second"])]) -> str:
            return role

        return app

    asked = [{"x-roles": roles} for roles in ("first", "second", "first second", "second", "none", "first")]
    cached_app = behind_a_cache(app_with(cached(ttl=60, partition_by=needs[named])))
    assert await answers(cached_app, asked) == await answers(app_with(), asked)
    assert_hit(await ask(cached_app, "/it", headers=asked[0]))


async def test_what_a_cover_needs_is_solved_where_the_route_solves_it_first() -> None:
    """The key is asked for by what stands first and is no cover: without one nobody counts an attempt."""
    door = Door()

    async def greeting(given: Annotated[str, Depends(key)]) -> str:
        return "hello"

    def app_with(*policy: Any) -> FastAPI:
        app = FastAPI()

        @app.get("/it", dependencies=[*policy, Depends(greeting), Depends(door.brake)])
        async def it(name: Annotated[str, Depends(door.who)]) -> str:
            return name

        return app

    policy = cached(ttl=60, shared=True, guarded_by=(door.who, door.brake))
    without, app = app_with(), behind_a_cache(app_with(policy))
    for each in (without, app, app):
        door.calls.clear()
        assert [status for status, _ in await answers(each, [{}, {"x-key": "wrong"}])] == [401, 403]
        assert door.calls == ["brake", "who"]


async def test_scopes_are_checked_in_the_order_of_the_route() -> None:
    """The refusal names the scopes that the app alone names."""

    def scoped(scopes: SecurityScopes, x_scopes: Annotated[str, Header()]) -> str:
        if missing := {*scopes.scopes} - {*x_scopes.split()}:
            raise HTTPException(403, f"need {sorted(missing)}")
        return x_scopes

    few, many = Security(scoped, scopes=["x"]), Security(scoped, scopes=["b", "a"])

    def app_with(*policy: Any) -> FastAPI:
        app = FastAPI()

        @app.get("/it", dependencies=[*policy, few])
        async def it(scopes: Annotated[str, many]) -> str:
            return scopes

        return app

    asked = [{"x-scopes": scopes} for scopes in ("", "x", "a b", "a b x", "a x")]
    app = behind_a_cache(app_with(cached(ttl=60, partition_by=many, guarded_by=few)))
    assert await answers(app, asked) == await answers(app_with(), asked)


async def test_a_cover_finds_what_an_earlier_one_has_prepared() -> None:
    """It reads what the route's first dependency has written into the request's state."""

    async def set_tenant(request: Request, x_tenant: Annotated[str, Header()]) -> None:
        request.state.tenant = x_tenant

    async def user(request: Request) -> str:
        return f"user of {request.state.tenant}"

    app = behind_a_cache(FastAPI())

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=user, guarded_by=set_tenant), Depends(set_tenant)])
    async def it(name: Annotated[str, Depends(user)]) -> str:
        return name

    for _ in range(2):
        assert await answers(app, [{"x-tenant": "a"}, {"x-tenant": "b"}]) == [
            (200, b'"user of a"'),
            (200, b'"user of b"'),
        ]


async def test_covers_of_an_outer_policy_keep_the_order_too() -> None:
    """The router's policy is inert, and its covers run all the same: what comes before them comes before them."""
    door = Door()
    app = FastAPI()
    router = APIRouter(dependencies=[cached(ttl=60, partition_by=door.who)])

    @router.get("/it", dependencies=[cached(ttl=60, partition_by=door.who, guarded_by=door.brake), Depends(door.brake)])
    async def it(name: Annotated[str, Depends(door.who)]) -> str:
        return name

    app.include_router(router)
    assert await answers(behind_a_cache(app), [{"x-key": "wrong"}]) == [(403, b'{"detail":"Forbidden"}')]
    assert door.calls == ["brake", "who"]


def noting(calls: list[str], name: str, *needs: Any) -> Any:
    """A dependency that needs others, and notes its calls."""

    async def call(**_: Any) -> str:
        calls.append(name)
        return name

    keyword = inspect.Parameter.KEYWORD_ONLY
    given = [need if hasattr(need, "dependency") else Depends(need) for need in needs]
    parameters = [inspect.Parameter(f"n{index}", keyword, default=need) for index, need in enumerate(given)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


async def test_covers_that_stand_nowhere_else_run_where_the_policy_stands() -> None:
    """As if each were written there: in the order of declaration, and before what comes later in the route."""
    calls: list[str] = []
    first, second, third, user = (noting(calls, name) for name in ("first", "second", "third", "user"))
    admin = noting(calls, "admin", user)
    app = behind_a_cache(FastAPI())
    policy = cached(ttl=60, partition_by=(user, second, first), guarded_by=(admin, third))

    @app.get("/it", dependencies=[policy])
    async def it(name: Annotated[str, Depends(user)]) -> str:
        return name

    for _ in range(3):
        calls.clear()
        assert await answers(app, [{}]) == [(200, b'"user"')]
        assert calls == ["second", "first", "third", "user", "admin"]


@pytest.mark.parametrize("seed", range(40))
async def test_covers_of_random_trees_run_as_they_would_alone(seed: int) -> None:
    """Some dependencies of a tree are covers, in any order: each is called once, and as FastAPI calls it alone."""
    rng, calls, made = random.Random(seed), list[str](), list[Any]()
    for number in range(rng.randrange(2, 9)):
        made.append(noting(calls, str(number), *rng.sample(made, k=min(len(made), rng.randrange(3)))))
    listed = [Depends(each) for each in rng.choices(made, k=rng.randrange(1, 5))]
    place = rng.randrange(len(listed))
    covers = rng.sample(made, k=rng.randrange(1, len(made) + 1))
    split = rng.randrange(len(covers) + 1)
    policy = cached(ttl=60, partition_by=(*covers[:split],), guarded_by=(*covers[split:],))
    runs: list[list[str]] = []
    for own in ([], [policy]):
        app = FastAPI()
        app.get("/it", dependencies=[*listed[:place], *own, *listed[place:]])(lambda: "it")
        app = behind_a_cache(app) if own else app
        calls.clear()
        assert await answers(app, [{}]) == [(200, b'"it"')]
        runs.append([*calls])
    calls.clear()
    assert_hit(await ask(app, "/it"))
    (alone, together), hit = runs, calls
    assert [*dict.fromkeys(together)] == together
    assert [name for name in hit if name in alone] == [name for name in alone if name in hit]
    assert [name for name in together if name in alone and name in hit] == [name for name in alone if name in hit]


def anew(call: Any) -> Any:
    return Depends(call, use_cache=False)


@pytest.mark.parametrize("first", ["check", "policy"])
async def test_a_number_that_is_used_once_is_taken_once(first: str) -> None:
    """One place of the route asks for it with `use_cache=False`, another without, and both are covers."""
    used: list[str] = []

    def nonce(x_nonce: Annotated[str, Header()]) -> str:
        if x_nonce in used:
            raise HTTPException(403)
        used.append(x_nonce)
        return x_nonce

    def signed(of: Annotated[str, anew(nonce)]) -> None:
        pass

    check, policy = Depends(signed), cached(ttl=60, guarded_by=(signed, nonce))
    app = behind_a_cache(FastAPI())
    listed = [check, policy] if first == "check" else [policy, check]
    app.get("/it", dependencies=[*listed, Depends(nonce)])(lambda: "it")
    for number in range(3):
        asked = {"x-nonce": str(number)}
        assert [status for status, _ in await answers(app, [asked, asked])] == [200, 403]


async def test_a_value_that_is_asked_anew_stays_another_than_the_covers() -> None:
    """What the audit goes by is what the author says, also once the routes have been looked at."""

    def endpoint(of: Annotated[str, anew(key)]) -> str:
        return of

    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60, partition_by=key)])(endpoint)
    for _ in range(2):
        inside = middleware_stack_of(app)
        with pytest.raises(CallerDependentRoute, match="without use_cache=False"):
            RouteTable(inside.app, inside).audit()


@pytest.mark.parametrize("seed", range(120))
async def test_what_is_asked_anew_is_called_as_often_as_alone(seed: int) -> None:
    """Dependencies of a tree are covers, and some need others with `use_cache=False`: each is called as alone."""
    rng, calls, made = random.Random(seed), list[str](), list[Any]()

    def some(most: int) -> list[Any]:
        chosen = rng.sample(made, k=min(len(made), rng.randrange(most)))
        return [anew(each) if rng.random() < 0.4 else each for each in chosen]

    for number in range(rng.randrange(2, 7)):
        made.append(noting(calls, str(number), *some(3)))
    taken = some(3)
    listed = [Depends(each) for each in rng.choices(made, k=rng.randrange(1, 4))]
    places = sorted(rng.randrange(len(listed) + 1) for _ in range(rng.choice([1, 1, 1, 2])))
    runs: list[list[str]] = []
    kept: list[str] = []
    for cache in (False, True):
        app = FastAPI()
        own = [*listed]
        for place in reversed(places if cache else []):
            covers = [each for each in made if f"{made.index(each)}" in runs[0]]
            covers = rng.sample(covers, k=rng.randrange(1, len(covers) + 1))
            split = rng.randrange(len(covers) + 1)
            own.insert(place, cached(ttl=60, partition_by=(*covers[:split],), guarded_by=(*covers[split:],)))
            kept += [f"{made.index(each)}" for each in covers]
        app.get("/it", dependencies=own)(noting(calls, "handler", *taken))
        app = behind_a_cache(app) if cache else app
        calls.clear()
        assert (await ask(app, "/it")).body == b'"handler"'
        runs.append([*calls])
    route = app.routes[-1]
    assert isinstance(route, APIRoute)
    before = [*route.dependant.dependencies]
    order_covers(route.dependant)
    assert [*map(id, route.dependant.dependencies)] == [*map(id, before)]
    assert sorted(runs[1]) == sorted(runs[0])
    assert [name for name in runs[1] if name in kept] == [name for name in runs[0] if name in kept]
    for _ in range(2):
        calls.clear()
        assert_hit(await ask(app, "/it"))
        assert {*kept} <= {*calls}
        assert all(calls.count(name) <= runs[0].count(name) for name in calls)


def test_a_second_look_changes_nothing(table: Any) -> None:
    """Another middleware of the same app, and the audit before the start, find what the first has put in order."""
    door = Door()

    async def greeting(given: Annotated[str, Depends(key)]) -> str:
        return "hello"

    app = FastAPI(openapi_url=None)
    policy = cached(ttl=60, shared=True, guarded_by=(door.who, door.brake))

    @app.get("/it", dependencies=[policy, Depends(greeting), Depends(door.brake)])
    async def it(name: Annotated[str, Depends(door.who)]) -> str:
        return name

    def covers() -> list[Any]:
        (route,) = app.routes
        assert isinstance(route, APIRoute)
        place = route.dependant.dependencies[0]
        return [place, *place.dependencies]

    before = covers()
    first = table(app)
    ordered = covers()
    assert [node.name for node in before[1:]] == ["guard_0", "guard_1"]
    assert [node.name for node in ordered[1:]] == [None, "guard_1", "guard_0"]
    table(app)
    assert [*map(id, covers())] == [*map(id, ordered)]
    assert not first.survey.known[0].changed


@pytest.mark.parametrize("before", ["/other", "/i"])
async def test_a_route_that_came_after_the_start_is_in_order_at_once(before: str) -> None:
    """Also where no caller passes, and the routes are looked at for nobody's lookup."""
    door = Door()
    app = behind_a_cache(FastAPI())
    app.get(before, dependencies=[cached(ttl=60)])(lambda: "")
    assert (await ask(app, before)).status_code == 200
    policy = cached(ttl=60, partition_by=door.who, guarded_by=door.brake)

    @app.get("/it", dependencies=[policy, Depends(door.brake)])
    async def it(name: Annotated[str, Depends(door.who)]) -> str:
        return name

    refused = await answers(app, [{"x-key": f"guess{n}"} for n in range(5)])
    assert [status for status, _ in refused] == [403] * 3 + [429] * 2
