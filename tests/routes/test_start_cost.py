"""What a start costs, in calls: routes share their dependencies, and each of these is looked at once."""

# No postponed annotations: the dependencies name callables of their own test.

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import OAuth2PasswordBearer

from fastapi_cacheinval import cached

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


def flat(count: int) -> list[Any]:
    """Dependencies that each need the token alone."""

    def made() -> Any:
        def check(token: Annotated[str, Depends(oauth2)]) -> str:
            return token

        # FastAPI unwraps it, and the cache looks at each layer.
        @wraps(check)
        def outer(*values: Any, **named: Any) -> str:
            return check(*values, **named)

        return outer

    return [made() for _ in range(count)]


def chain(count: int) -> list[Any]:
    """Dependencies that each need the one before."""

    def made(below: Any) -> Any:
        def check(token: Annotated[str, Depends(below)]) -> str:
            return token

        return check

    found = [made(oauth2)]
    while len(found) < count:
        found.append(made(found[-1]))
    return found


def app_of(routes: int, dependencies: list[Any]) -> FastAPI:
    app, router = FastAPI(openapi_url=None), APIRouter(dependencies=[*map(Depends, dependencies)])
    policy = cached(ttl=60, guarded_by=tuple(dependencies))
    for number in range(routes):
        router.get(f"/{number}", dependencies=[policy])(eval("lambda: 1"))
    app.include_router(router)
    return app


def calls_of(start: Callable[[FastAPI], Any], app: FastAPI) -> Counter[str]:
    """How often each function of the cache runs, by name."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and "fastapi_cacheinval" in frame.f_code.co_filename:
            calls[frame.f_code.co_name] += 1

    sys.setprofile(note)
    try:
        start(app)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("made", [flat, chain])
def test_each_dependency_is_looked_at_once(table, made: Any) -> None:
    """However many routes have it: only their handlers are more."""
    few, many = (calls_of(table, app_of(count, made(4))) for count in (5, 20))
    for name in ("_is_generator", "portrait_of", "_layers_of", "said_by"):
        # A route has a handler, and a `cached()`.
        assert many[name] - few[name] <= 2 * 15, name
    assert few["_is_generator"] > 0


@pytest.mark.parametrize("made", [flat, chain])
def test_a_start_takes_calls_as_there_are_routes(table, made: Any) -> None:
    """Four times the routes take four times the calls, not sixteen times."""
    few, some, many = (calls_of(table, app_of(count, made(4))).total() for count in (5, 20, 80))
    assert many - some <= 4.2 * (some - few)


def test_a_route_takes_calls_as_there_are_dependencies(table) -> None:
    """Twice as many of them take at most twice the calls."""
    few, some, many = (calls_of(table, app_of(5, flat(count))).total() for count in (4, 8, 16))
    assert many - some <= 2.2 * (some - few)


def test_nothing_is_remembered_after_the_start(table) -> None:
    """The next one looks at all of it again: what has changed since is seen."""
    app = app_of(3, flat(2))
    table(app)
    first, second = (calls_of(table, app)["portrait_of"] for _ in range(2))
    assert first == second > 0
