"""What no value tells of, a dependency may leave behind: each line asks for it."""

# No postponed annotations: the handlers name callables of their own test.

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.security import HTTPBasic, OAuth2PasswordBearer

from fastapi_cacheinval import CallerDependentRoute, cached
from tests.helpers.advice import left_by

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


class Scope:
    def __init__(self, user: Any) -> None:
        self.user = user

    def __enter__(self) -> None:
        USER.set(self.user)

    def __exit__(self, *_: object) -> None:
        USER.set(None)


def by_a_class(request: Request) -> Iterator[None]:
    with Scope(user_of(request)):
        yield


def deep_1(user: str) -> None:
    deep_2(user)


def deep_2(user: str) -> None:
    deep_3(user)


def deep_3(user: str) -> None:
    deep_4(user)


def deep_4(user: str) -> None:
    USER.set(user)


def by_a_deep_helper(request: Request) -> None:
    deep_1(user_of(request))


CALLBACKS = [remember]


def by_a_callback(request: Request) -> None:
    user = user_of(request)
    any(map(CALLBACKS[0], [user]))


# What no look at names, as far as a few calls lead, would find.
UNSEEN = [by_a_class, by_a_deep_helper, by_a_callback]


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


REFUSING = [checks, raises, raises_first, user_of, Takes, takes]


def refused(table: Any, handler: Any, *dependencies: Any, **policy: Any) -> str:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy), *map(Depends, dependencies)])(handler)
    with pytest.raises(CallerDependentRoute) as raised:
        table(app).audit()
    return raised.value.advice


@pytest.mark.parametrize("leaves", [*LEAVING, *ELSEWHERE, *UNSEEN, *REFUSING])
def test_a_line_asks_what_its_guard_leaves(table, leaves: Any) -> None:
    """Whatever its code looks like: with the line alone the handler might read the first caller's name for all."""
    advice = refused(table, lambda: 1, leaves)
    assert "This line works" not in advice
    assert "in a context variable, request.state or a shared object" in advice
    assert " If not, this line works: cached(..., guarded_by=" in advice


def test_what_each_line_rests_on_is_asked_once(table) -> None:
    """By the names of all covers, and of what these need."""

    def page(user: Annotated[str, Depends(takes)]) -> str:
        return user

    assert refused(table, page, checks, guarded_by=raises) == (
        "guarded_by=raises falls short: it does not cover checks. guarded_by=raises falls short: it does not cover "
        f"takes. {left_by('raises, checks or takes')}cached(..., partition_by=takes, guarded_by=(raises, checks))."
    )
    assert (
        refused(table, lambda: 1, needs)
        == f"{left_by('needs or one of its dependencies')}cached(..., guarded_by=needs)."
    )


@pytest.mark.parametrize("taken", [True, False])
def test_the_value_of_a_partition_is_all_that_its_line_keeps_apart(table, taken: bool) -> None:
    """What it leaves beside that may be of another caller with the same value."""

    def page(user: Annotated[str, Depends(gives_and_keeps)]) -> str:
        return user

    field = "partition_by" if taken else "guarded_by"
    advice = refused(table, page if taken else lambda: 1, *([] if taken else [gives_and_keeps]))
    assert advice == f"{left_by('gives_and_keeps')}cached(..., {field}=gives_and_keeps)."


class Bearer(OAuth2PasswordBearer):
    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]
        USER.set(request)
        return None


basic, own = HTTPBasic(), Bearer(tokenUrl="token")


def test_a_scheme_of_the_framework_leaves_nothing(table) -> None:
    """One that is derived from it may."""
    assert refused(table, lambda: 1, basic) == "This line works: cached(..., guarded_by=basic)."
    assert refused(table, lambda: 1, own) == f"{left_by('own')}cached(..., guarded_by=own)."


@pytest.mark.parametrize("policy", [{}, {"request_is_shared": True}])
@pytest.mark.parametrize("valueless", [keeps, keeps_by_item, by_method, checks, raises, Keeps()])
def test_what_gives_none_is_never_proposed_as_a_partition(table, valueless: Any, policy: Any) -> None:
    """It would keep nobody apart."""

    def page(request: Request, _: Annotated[Any, Depends(valueless)]) -> Any:
        return request.state.user

    advice = refused(table, page, **policy)
    assert "partition_by=" not in advice
    assert "line works" not in advice
    assert "declare it in dependencies=[Depends(" in advice


def known_or_none(x_user: Annotated[str, Header()]) -> str | None:
    return x_user or None


def test_a_value_or_none_is_a_value(table) -> None:
    """It tells callers apart."""

    def page(user: Annotated[Any, Depends(known_or_none)]) -> Any:
        return user

    assert "line works: cached(..., partition_by=known_or_none" in refused(table, page)
