"""A dependency that gives no value works by a refusal, or by what it leaves behind: no line is promised for the latter."""

# No postponed annotations: the handlers name callables of their own test.

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request

from fastapi_cacheinval import CallerDependentRoute, cached

USER: ContextVar[Any] = ContextVar("USER", default=None)


def user_of(request: Request) -> str:
    name = request.headers.get("x-user")
    if name is None:
        raise HTTPException(401)
    return name


@contextlib.contextmanager
def context(value: Any) -> Iterator[None]:
    if value is None:
        raise ValueError
    token = USER.set(value)
    yield
    USER.reset(token)


async def opens(request: Request) -> AsyncIterator[None]:
    with context(request):
        yield


def opens_untyped(request: Request):  # type: ignore[no-untyped-def]
    with context(request):
        yield


def keeps(request: Request) -> None:
    request.state.user = user_of(request)


def keeps_untyped(request: Request):  # type: ignore[no-untyped-def]
    request.state.user = user_of(request)


def keeps_by_item(request: Request) -> None:
    request.scope["who"] = user_of(request)


def keeps_by_name(request: Request) -> None:
    setattr(request.state, "user", user_of(request))  # noqa: B010


def refuses_and_keeps(x_user: Annotated[str, Header()]) -> None:
    if not x_user:
        raise HTTPException(401)
    USER.set(x_user)


class Keeps:
    def __call__(self, request: Request) -> None:
        USER.set(request)


LEAVING = [
    opens,
    opens_untyped,
    keeps,
    keeps_untyped,
    keeps_by_item,
    keeps_by_name,
    refuses_and_keeps,
    Keeps(),
]


def refused(table: Any, handler: Any, *dependencies: Any, **policy: Any) -> str:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy), *map(Depends, dependencies)])(handler)
    with pytest.raises(CallerDependentRoute) as raised:
        table(app).audit()
    return raised.value.advice


@pytest.mark.parametrize("leaves", LEAVING)
def test_what_may_leave_who_is_calling_is_given_no_line(table, leaves: Any) -> None:
    """With the line the handler would read the first caller's name for all."""
    advice = refused(table, lambda: 1, leaves)
    assert "line works" not in advice
    assert "gives no value: if it leaves who is calling in a context or in request.state, give that as a" in advice
    assert "If it only refuses callers, name it in guarded_by." in advice


def checks(request: Request) -> None:
    user_of(request)


def raises(request: Request) -> None:
    if "x-user" not in request.headers:
        raise HTTPException(401)


def raises_first(request: Request) -> Iterator[None]:
    if "x-user" not in request.headers:
        raise HTTPException(401)
    yield


@pytest.mark.parametrize("guard", [checks, raises, raises_first, user_of])
def test_what_refuses_is_a_guard(table, guard: Any) -> None:
    """Also where the check is in a function that it calls."""
    assert refused(table, lambda: 1, guard) == f"This line works: cached(..., guarded_by={guard.__name__})."


@pytest.mark.parametrize("policy", [{}, {"request_is_shared": True}])
@pytest.mark.parametrize("valueless", [*LEAVING, checks, raises, raises_first])
def test_none_is_never_proposed_as_a_partition(table, valueless: Any, policy: Any) -> None:
    """It would keep nobody apart."""

    def page(request: Request, _: Annotated[Any, Depends(valueless)]) -> Any:
        return request.state.user

    advice = refused(table, page, **policy)
    assert "partition_by=" not in advice
    assert "line works" not in advice
    assert "declare it in dependencies=[Depends(" in advice
