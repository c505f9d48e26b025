"""What we take from FastAPI without its documenting it is what we think it is, on the version at hand."""

# No postponed annotations: the handlers name classes and callables of their own test.

from functools import partial, wraps
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response, Security
from fastapi.dependencies import models
from fastapi.dependencies.utils import get_dependant
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.testclient import TestClient

from fastapi_cacheinval.routes import fastapi_private

# Where FastAPI keeps what we compare with depends on its version.
OLD = hasattr(models.Dependant, "computed_scope")


def page() -> str:
    return "page"


def scoped(scopes: SecurityScopes) -> str:
    return scopes.scope_str


def above(it: Annotated[str, Depends(scoped)]) -> str:
    return it


def plain(it: str = "") -> str:
    return it


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


async def coroutine() -> int:
    return 1


@wraps(generator)
def wrapping() -> Any:
    return 1


class Callable:
    def __call__(self) -> Any:
        yield 1


class AsyncCallable:
    async def __call__(self) -> Any:
        yield 1


CALLS = [
    page,
    plain,
    generator,
    async_generator,
    coroutine,
    wrapping,
    Callable,
    Callable(),
    AsyncCallable(),
    partial(generator),
    partial(Callable()),
    partial(partial(async_generator)),
    HTTPBearer(),
    partial(HTTPBearer()),
    Callable().__call__,
]


@pytest.mark.parametrize("call", CALLS)
def test_late_is_what_fastapi_calls_a_request_scoped_generator(call) -> None:
    """Ours agrees with FastAPI's own classification."""
    dependant: Any = get_dependant(path="/", call=call)
    theirs = dependant.computed_scope if OLD else models._get_computed_scope(dependant=dependant)
    assert fastapi_private.is_late(dependant) is (theirs == "request")


@pytest.mark.parametrize(
    "depends",
    [
        Depends(plain),
        Depends(scoped),
        Depends(above),
        Security(plain, scopes=["a"]),
        Security(scoped, scopes=["b", "a", "b"]),
        Security(above, scopes=["a"]),
        Depends(HTTPBearer()),
        Security(HTTPBearer(), scopes=["a"]),
    ],
)
@pytest.mark.parametrize("outer", [None, ["x"], ["a", "x"]])
def test_scopes_are_those_by_which_fastapi_tells_nodes_apart(depends, outer) -> None:
    """The second part of its dependency cache's key, as a set."""

    def root(it: Any = depends) -> Any:
        return it

    dependant: Any = get_dependant(path="/", call=root, parent_oauth_scopes=outer)
    for node in (dependant, *dependant.dependencies):
        key = node.cache_key if OLD else models._get_cache_key(dependant=node)
        assert fastapi_private.scopes_of(node) == frozenset(key[1])


def test_the_effective_context_is_the_one_that_the_table_saw(ask, probe) -> None:
    """Requests to an included route carry the very object that iter_route_contexts gave."""
    router, middle, app = APIRouter(), APIRouter(), FastAPI()
    router.get("/it", dependencies=[probe])(page)
    middle.include_router(router, prefix="/middle")
    app.include_router(middle, prefix="/outer")
    (found,) = [
        effective for original, effective in fastapi_private.effective_routes(app.routes) if original in router.routes
    ]
    scope = ask(app, "/outer/middle/it")
    assert scope["route"] is router.routes[0]
    at = fastapi_private.effective_route_at(scope)
    assert at is not None
    assert at is found
    assert at.path_format == "/outer/middle/it"
    assert fastapi_private.original_of(at) is router.routes[0]


@pytest.mark.parametrize("included", [True, False])
def test_what_the_handler_makes_or_raises_is_told_before_it_is_sent(included) -> None:
    """The very response object, whether the handler is plain or not; or its error."""
    told: list[Any] = []
    app = FastAPI()
    router = APIRouter() if included else app.router

    def watch(request: Request) -> None:
        fastapi_private.on_end(request.scope, told.append, told.append)

    def plain() -> str:
        return "it"

    async def made() -> Response:
        return Response(b"made")

    def streamed() -> Any:
        yield "it"

    def raising() -> None:
        raise LookupError

    for handler in (plain, made, streamed, raising):
        router.get(f"/{handler.__name__}", dependencies=[Depends(watch)])(handler)
    if included:
        app.include_router(router)
    client = TestClient(app, raise_server_exceptions=False)
    for path in ("/plain", "/made", "/streamed", "/raising"):
        client.get(path)
    assert [isinstance(each, Response) for each in told] == [True, True, True, False]
    assert told[1].body == b"made"
    assert isinstance(told[3], LookupError)


def test_included_routers_are_seen_with_their_includes_dependencies() -> None:
    """At any depth."""
    first, second = Depends(page), Depends(plain)
    router, middle, app = APIRouter(), APIRouter(), FastAPI()
    middle.include_router(router, dependencies=[second])
    app.include_router(middle, dependencies=[first])
    found = list(fastapi_private.included_routers(app.routes))
    assert [each for each, _ in found] == [middle, router]
    assert [[*dependencies] for _, dependencies in found] == [[first], [second]]


def test_a_replacement_is_solved_in_the_nodes_place(ask, probe) -> None:
    """It has the name, the scopes and the exit of the node, and the parameters of the override."""

    def override(scopes: SecurityScopes, token: Annotated[str, Header()] = "") -> str:
        return token

    marker = Security(scoped, scopes=["a"])

    def root(it: Any = marker) -> Any:
        return it

    (node,) = get_dependant(path="/{x}", call=root, parent_oauth_scopes=["p"]).dependencies
    made = fastapi_private.replacement(node, override)
    assert made.name == "it"
    assert made.call is override
    assert [field.name for field in made.header_params] == ["token"]
    assert fastapi_private.scopes_of(made) == {"a", "p"}


def test_fields_are_validated_as_fastapi_does() -> None:
    """Values by name, and what is not valid."""

    def call(number: int, other: int = 3) -> int:
        return number

    fields = get_dependant(path="/", call=call).query_params
    assert fastapi_private.solve_fields(fields, {"number": "07"}) == ({"number": 7, "other": 3}, [])
    assert fastapi_private.solve_fields(fields, {"number": "x"})[1]
    assert fastapi_private.solve_fields(fields, {})[1]
