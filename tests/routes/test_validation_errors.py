"""A request that is not valid is answered as without the cache: each error as often, in the same order."""

# No postponed annotations: the handlers name callables of their own test.

import json
import random
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import ask
from tests.helpers.versions import SEES_INCLUDED

pytestmark = pytest.mark.anyio

Asked = list[tuple[str, dict[str, str]]]


async def user(x_user: Annotated[int, Header()]) -> str:
    return str(x_user)


async def tenant(tenant: Annotated[int, Query(ge=1)], session: Annotated[str, Cookie(min_length=2)]) -> str:
    return f"{tenant} {session}"


async def admin(name: Annotated[str, Depends(user)], level: Annotated[int, Query(le=9)] = 0) -> None:
    if name == "7":
        raise HTTPException(403)


async def page_of(number: Annotated[int, Query()]) -> int:
    return number


def count_of(error: RequestValidationError) -> str:
    """How many there are, as the error says it; the endpoint behind that may be another's, which had the same id."""
    return str(error).partition(":")[0]


def on_the_route(policy: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[*policy, Depends(admin)])
    async def it(number: int, name: Annotated[str, Depends(user)], of: Annotated[str, Depends(tenant)]) -> str:
        return f"{number} {name} {of}"

    return app


def behind_others(policy: list[Any]) -> FastAPI:
    app = FastAPI(dependencies=[Depends(page_of), Depends(admin)])
    router = APIRouter(dependencies=[*policy, Depends(page_of)])

    @router.get("/it")
    async def it(of: Annotated[str, Depends(tenant)], name: Annotated[str, Depends(user)]) -> str:
        return f"{name} {of}"

    app.include_router(router, dependencies=[Depends(tenant)])
    return app


def asked_twice(policy: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[Depends(user), *policy, Depends(admin), Depends(user)])
    async def it(
        one: Annotated[str, Depends(user)],
        two: Annotated[str, Depends(user)],
        of: Annotated[str, Depends(tenant)],
    ) -> str:
        return one + two + of

    return app


def at_three_levels(policy: list[Any]) -> FastAPI:
    app = FastAPI(dependencies=policy)
    router = APIRouter(dependencies=policy)

    @router.get("/it", dependencies=[*policy, Depends(admin)])
    async def it(of: Annotated[str, Depends(tenant)], name: Annotated[str, Depends(user)]) -> str:
        return f"{name} {of}"

    app.include_router(router)
    return app


def behind_a_route_class(policy: list[Any]) -> FastAPI:
    app = FastAPI()

    class Telling(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handler = super().get_route_handler()

            async def told(request: Request) -> Response:
                try:
                    response: Response = await handler(request)
                except RequestValidationError as error:
                    return JSONResponse([*map(str, error.errors()), count_of(error)], 400)
                return response

            return told

    router = APIRouter(route_class=Telling, dependencies=policy)

    @router.get("/it", dependencies=[Depends(admin)])
    async def it(of: Annotated[str, Depends(tenant)], name: Annotated[str, Depends(user)]) -> str:
        return f"{name} {of}"

    app.include_router(router)
    return app


def with_a_handler_of_its_own(policy: list[Any]) -> FastAPI:
    app = on_the_route(policy)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse([*map(str, error.errors()), count_of(error), error.body], 400)

    return app


def in_a_mount(policy: list[Any]) -> FastAPI:
    app = FastAPI()
    app.mount("", mounted := FastAPI())

    @mounted.get("/it", dependencies=[*policy, Depends(admin)])
    async def it(of: Annotated[str, Depends(tenant)], name: Annotated[str, Depends(user)]) -> str:
        return f"{name} {of}"

    return app


def overridden(policy: list[Any]) -> FastAPI:
    async def instead(x_other: Annotated[int, Header()], number: int) -> str:
        return f"{x_other} {number}"

    app = on_the_route(policy)
    app.dependency_overrides[user] = instead
    return app


def under_another_override(policy: list[Any]) -> FastAPI:
    app = behind_others(policy)
    app.dependency_overrides[page_of] = lambda: 3
    return app


PLACES = [
    on_the_route,
    behind_others,
    asked_twice,
    at_three_levels,
    behind_a_route_class,
    with_a_handler_of_its_own,
    in_a_mount,
    overridden,
    under_another_override,
]
if not SEES_INCLUDED:
    # A route class of one's own is refused there.
    PLACES.remove(behind_a_route_class)

POLICIES: dict[str, dict[str, Any]] = {
    "partitions": {"partition_by": (tenant, user), "guarded_by": admin},
    "another order": {"partition_by": (user, tenant), "guarded_by": (admin, user)},
    "switched off": {"ttl": 0, "partition_by": (tenant, user)},
}
GOOD = {"x-user": "1", "cookie": "session=abc", "x-other": "2"}
ASKED: Asked = [
    ("tenant=2&number=3", GOOD),
    ("tenant=2&number=3", GOOD),
    ("number=3", {}),
    ("tenant=2&number=3", {**GOOD, "x-user": "x", "x-other": "y"}),
    ("tenant=0&level=10", {"cookie": "session=a"}),
    ("tenant=0&number=x", GOOD),
    ("tenant=2&number=x&level=x", {**GOOD, "x-user": "7"}),
    ("tenant=2&number=1", {**GOOD, "x-user": "7"}),
]


def behind_a_cache(app: FastAPI, **options: Any) -> FastAPI:
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), **options)
    return app


async def answers(app: FastAPI, asked: Asked) -> list[tuple[int, Any]]:
    found = [await ask(app, f"/it?{query}", headers=headers) for query, headers in asked]
    return [(answer.status_code, json.loads(answer.body)) for answer in found]


def told(answers: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Answers as they are; where an included route has no place to look at its errors, each error counts once."""
    if SEES_INCLUDED:
        return answers
    return [
        (
            status,
            sorted({*map(str, body["detail"])})
            if isinstance(body, dict) and isinstance(body.get("detail"), list)
            else body,
        )
        for status, body in answers
    ]


@pytest.mark.parametrize("honours", [False, True], ids=["policies", "honoured"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("place", PLACES)
async def test_what_is_not_valid_is_listed_as_by_the_app_alone(place: Any, policy: Any, *, honours: bool) -> None:
    """Wherever policy and dependencies stand, before and after a hit, and where a dependency is asked for twice."""
    options: dict[str, Any] = {"honour_headers": True} if honours else {}
    fields: dict[str, Any] = {"ttl": 60, **policy}
    alone, behind = place([]), behind_a_cache(place([cached(**fields)]), **options)
    wanted = await answers(alone, ASKED)
    assert 200 in {status for status, _ in wanted}
    assert sum(status in (400, 422) for status, _ in wanted) >= 4
    assert told(await answers(behind, ASKED)) == told(wanted)
    # By now the covers run before the app has a request.
    assert told(await answers(behind, ASKED)) == told(wanted)


async def test_a_cover_that_fails_beside_hits_is_listed_as_by_the_app_alone() -> None:
    """The page is stored for others, and its route is learned: covers run ahead of the app."""
    policy = cached(ttl=60, partition_by=(tenant, user), guarded_by=admin)
    alone, behind = on_the_route([]), behind_a_cache(on_the_route([policy]))
    query, headers = ASKED[0]
    for _ in range(3):
        answer = await ask(behind, f"/it?{query}", headers=headers)
        for each in ASKED[2:]:
            assert await answers(behind, [each]) == await answers(alone, [each])
    assert_hit(answer)


async def test_what_stands_in_covers_alone_is_listed_once() -> None:
    """In its place, whether one cover needs it or several do, at one level or more; what the tree has stays there."""

    async def below(x_below: Annotated[int, Header()]) -> None: ...

    async def guard(it: Annotated[None, Depends(below)], of: Annotated[str, Depends(user)], mark: int) -> None: ...

    async def other(it: Annotated[None, Depends(below)]) -> None: ...

    app = FastAPI(dependencies=[cached(ttl=60, guarded_by=(guard, other))])

    @app.get("/it", dependencies=[cached(ttl=30, partition_by=user, guarded_by=(guard, other))])
    async def it(name: Annotated[str, Depends(user)], last: int) -> str:
        return f"{name} {last}"

    ((status, body),) = await answers(behind_a_cache(app), [("", {})])
    places = [each["loc"] for each in body["detail"]]
    assert status == 422
    assert places == [["header", "x-below"], ["query", "mark"], ["header", "x-user"], ["query", "last"]]


async def test_other_methods_below_a_policy_list_each_error_once() -> None:
    """The covers run there too; what is said of the content stays as it is, and so does the content."""

    def build(policy: list[Any]) -> FastAPI:
        app = FastAPI(dependencies=policy)

        @app.post("/it")
        async def it(name: Annotated[str, Depends(user)], rows: list[int], number: int) -> str:
            return f"{rows} {number} {name}"

        @app.exception_handler(RequestValidationError)
        async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
            return JSONResponse({"errors": [*map(str, error.errors())], "body": error.body}, 422)

        return app

    def told(app: FastAPI) -> list[tuple[int, str]]:
        bodies: list[Any] = [[1, "x", "y"], {}, [1]]
        with TestClient(app) as client:
            found = [client.post("/it", json=body) for body in bodies]
            found.append(client.post("/it", content="{", headers={"content-type": "application/json"}))
        return [(answer.status_code, answer.text) for answer in found]

    assert told(behind_a_cache(build([cached(ttl=60, partition_by=user)]))) == told(build([]))


async def test_an_error_of_the_apps_own_stays_as_it_is() -> None:
    """What a dependency, or the handler, raises by itself is no list of FastAPI's."""
    wrong = [{"type": "missing", "loc": ("header", "x-user"), "msg": "say who", "input": None}] * 2

    async def checked() -> None:
        raise RequestValidationError(wrong)

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=user), Depends(checked)])
    async def it(name: Annotated[str, Depends(user)]) -> str:
        return name

    found = await answers(behind_a_cache(app), [("", {}), ("", GOOD)])
    assert [(status, len(body["detail"])) for status, body in found] == [(422, 2)] * 2


async def test_a_validator_that_says_another_thing_each_time_hides_no_error() -> None:
    """Which entries are a cover's cannot be told then: none is taken out."""
    asked = [0]

    def counting(value: str) -> str:
        asked[0] += 1
        if asked[0] < 3:
            raise ValueError
        return value

    async def who(x_who: Annotated[str, Header(), AfterValidator(counting)]) -> str:
        return x_who

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=who)])
    async def it(name: Annotated[str, Depends(who)]) -> str:
        return name

    found = await answers(behind_a_cache(app), [("", {"x-who": "me"})] * 2)
    assert [status for status, _ in found] == [422, 200]


def test_a_websocket_lists_what_is_not_valid_as_by_the_app_alone() -> None:
    """The policy that it inherits is for HTTP alone, and so are its covers."""

    def told(policy: list[Any]) -> list[Any]:
        found: list[Any] = []
        app = FastAPI(dependencies=policy)

        @app.websocket("/it")
        async def it(name: Annotated[str, Depends(user)]) -> None: ...

        app = behind_a_cache(app) if policy else app
        with TestClient(app) as client:
            try:
                with client.websocket_connect("/it"):
                    pass
            except Exception as error:  # noqa: BLE001 - what the client raises of a closed handshake
                found.append((type(error), getattr(error, "reason", None)))
        return found

    assert told([cached(ttl=60, partition_by=user)]) == told([]) != []


def random_tree(seed: int, *, behind: bool) -> FastAPI:
    """An app of dependencies with parameters of all kinds, which need one another; each of them is a cover."""
    rng = random.Random(seed)
    made: list[Any] = []
    for index in range(rng.randrange(2, 6)):
        annotation = Annotated[int, rng.choice([Header, Query, Cookie])(alias=f"n{rng.randrange(4)}")]
        given: dict[str, Any] = {"value": annotation} if rng.random() < 0.8 else {}
        for number, needed in enumerate(rng.sample(made, min(len(made), rng.randrange(3)))):
            given[f"needed{number}"] = Annotated[Any, Depends(needed)]
        made.append(_function(f"d{index}", given))
    lists: list[list[Any]] = [[Depends(each) for each in rng.sample(made, rng.randrange(len(made)))] for _ in range(3)]
    rng.shuffle(made)
    partitions, guards = made[: len(made) // 2], made[len(made) // 2 :]
    place = rng.choice(lists)
    place.insert(rng.randrange(len(place) + 1), cached(ttl=60, partition_by=partitions, guarded_by=guards))
    if not behind:
        lists = [[each for each in some if each.dependency in made] for some in lists]
    app, router = FastAPI(dependencies=lists[0]), APIRouter(dependencies=lists[1])
    taken = {f"taken{index}": Annotated[Any, Depends(each)] for index, each in enumerate(partitions)}
    handler = _function("it", {"number": Annotated[int, Path()], **taken})
    router.get("/{number}", dependencies=[*lists[2], *map(Depends, guards)])(handler)
    app.include_router(router)
    return behind_a_cache(app) if behind else app


def _function(name: str, annotations: dict[str, Any]) -> Any:
    names = ", ".join(annotations)
    scope: dict[str, Any] = {}
    exec(f"async def {name}({names}):\n    return repr([{names}])", scope)
    scope[name].__annotations__ = annotations
    return scope[name]


async def test_random_trees_list_what_is_not_valid_as_by_the_app_alone() -> None:
    """Every entry, in its order, for covers that need one another and stand anywhere in the tree."""
    compared = 0
    for seed in range(60):
        alone, behind = random_tree(seed, behind=False), random_tree(seed, behind=True)
        rng = random.Random(seed)
        for _ in range(6):
            pairs = [(f"n{index}", rng.choice(["1", "1", "x"])) for index in range(4) if rng.random() < 0.9]
            query = "&".join(f"{name}={value}" for name, value in pairs if rng.random() < 0.7)
            headers = {name: value for name, value in pairs if rng.random() < 0.7}
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in pairs)
            path = f"/{rng.choice('1x')}?{query}"
            one, two = [await ask(app, path, headers=headers) for app in (alone, behind)]
            first, second = [(each.status_code, json.loads(each.body)) for each in (one, two)]
            assert told([first]) == told([second]), seed
            compared += one.status_code == 422
    assert compared > 100
