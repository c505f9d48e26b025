"""What no value tells of, a dependency may leave behind: no line is promised where it may."""

# No postponed annotations: the handlers name callables of their own test.

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Annotated, Any, NamedTuple

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


def remember(user: str) -> None:
    USER.set(user)


class Context:
    def enter(self, user: str) -> None:
        remember(user)


CONTEXT = Context()


def gives_and_keeps(request: Request) -> str:
    request.state.user = user_of(request)
    return user_of(request)


def says_so(request: Request) -> bool:
    USER.set(user_of(request))
    return True


def by_helper(request: Request) -> str:
    remember(user_of(request))
    return "ok"


def by_method(request: Request) -> None:
    CONTEXT.enter(user_of(request))


def by_closure() -> Any:
    leave = remember

    def kept(request: Request) -> None:
        leave(user_of(request))

    return kept


def by_default(request: Request, leave: Annotated[Any, Depends(lambda: remember)] = remember) -> None:
    leave(user_of(request))


async def needs(user: Annotated[str, Depends(gives_and_keeps)]) -> str:
    return user


class Made:
    def __init__(self, request: Request) -> None:
        self.user = user_of(request)
        request.state.user = self.user


class Checks:
    def __call__(self, request: Request) -> str:
        return self.check(request)

    def check(self, request: Request) -> str:
        remember(user_of(request))
        return "ok"


def unseen(request: Request) -> Any:
    return request.app.state.check(request)


# What is left by something else than the code of the dependency, or beside a value.
ELSEWHERE = [
    gives_and_keeps,
    says_so,
    by_helper,
    by_method,
    by_closure(),
    by_default,
    needs,
    Made,
    Checks(),
    partial(by_helper),
    unseen,
]


def refused(table: Any, handler: Any, *dependencies: Any, **policy: Any) -> str:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy), *map(Depends, dependencies)])(handler)
    with pytest.raises(CallerDependentRoute) as raised:
        table(app).audit()
    return raised.value.advice


@pytest.mark.parametrize("leaves", [*LEAVING, *ELSEWHERE])
def test_a_line_rests_on_what_a_guard_may_leave(table, leaves: Any) -> None:
    """With the line alone the handler would read the first caller's name for all, whatever value nobody takes."""
    advice = refused(table, lambda: 1, leaves)
    assert "This line works" not in advice
    assert "may leave in a context or in request.state has to be a value that partition_by names." in advice
    assert " only refuses callers, this line works: cached(..., guarded_by=" in advice


def checks(request: Request) -> None:
    user_of(request)


def raises(request: Request) -> None:
    if "x-user" not in request.headers:
        raise HTTPException(401)


def raises_first(request: Request) -> Iterator[None]:
    if "x-user" not in request.headers:
        raise HTTPException(401)
    yield


class Takes:
    """What it sets is its own."""

    def __init__(self, request: Request) -> None:
        self.user = user_of(request)


def takes(x_user: Annotated[str, Header()]) -> str:
    return x_user


@pytest.mark.parametrize("guard", [checks, raises, raises_first, user_of, Takes, takes])
def test_what_refuses_is_a_guard(table, guard: Any) -> None:
    """Also where the check is in a function that it calls, and where it only reads what FastAPI checks."""
    assert refused(table, lambda: 1, guard) == f"This line works: cached(..., guarded_by={guard.__name__})."


@pytest.mark.parametrize("policy", [{}, {"request_is_shared": True}])
@pytest.mark.parametrize("valueless", [*LEAVING, checks, raises, raises_first, says_so, by_helper])
def test_one_value_for_all_is_never_proposed_as_a_partition(table, valueless: Any, policy: Any) -> None:
    """None, or another constant, would keep nobody apart."""

    def page(request: Request, _: Annotated[Any, Depends(valueless)]) -> Any:
        return request.state.user

    advice = refused(table, page, **policy)
    assert "partition_by=" not in advice
    assert "line works" not in advice
    assert "declare it in dependencies=[Depends(" in advice


class Known(NamedTuple):
    name: str


def known_or_none(x_user: Annotated[str, Header()]) -> Known | None:
    return Known(x_user) if x_user else None


def known_or(x_user: Annotated[str, Header()]) -> Known | None:
    return (x_user and Known(x_user)) or None


def known_in_a_branch(x_user: Annotated[str, Header()]) -> Known | None:
    if x_user:
        return Known(x_user)
    return None


def yields_known(x_user: Annotated[str, Header()]) -> Iterator[Known | None]:
    yield Known(x_user) if x_user else None


async def yields_known_later(x_user: Annotated[str, Header()]) -> AsyncIterator[Known | None]:
    yield Known(x_user) if x_user else None


def one_of_two(x_user: Annotated[str, Header()]) -> str:
    if x_user == "root":
        return "admin"
    return "user"


@pytest.mark.parametrize(
    "gives", [known_or_none, known_or, known_in_a_branch, yields_known, yields_known_later, one_of_two]
)
def test_a_value_or_none_is_a_value(table, gives: Any) -> None:
    """Whatever way the code takes to it."""

    def page(user: Annotated[Any, Depends(gives)]) -> Any:
        return user

    assert "line works: cached(..., partition_by=" in refused(table, page)
