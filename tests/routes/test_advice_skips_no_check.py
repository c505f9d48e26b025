"""The line of a refusal is promised only where nothing that the handler does itself could be a check that a hit skips."""

# No postponed annotations: the handlers name classes and callables of their own test.

import functools
import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials, OAuth2PasswordBearer
from starlette.authentication import requires
from starlette.responses import HTMLResponse

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, PartitionBy, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.advice import left_by, line_in
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

oauth2 = OAuth2PasswordBearer(tokenUrl="token")
optional_oauth2 = OAuth2PasswordBearer(tokenUrl="token", auto_error=False)
basic = HTTPBasic()


class User:
    def __init__(self, name: str) -> None:
        self.id = name


class Page:
    def __init__(self, request: Request, number: int = 1) -> None:
        self.number, self.address = number, str(request.url)


def known(token: str) -> User:
    if token not in ("alice", "bob"):
        raise HTTPException(401)
    return User(token)


def token_of(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def untyped_user(token: Annotated[str, Depends(oauth2)]):  # type: ignore[no-untyped-def]
    return known(token)


def optional_user(token: Annotated[str | None, Depends(optional_oauth2)]) -> User | None:
    return None if token is None else known(token)


def read_claims(token: Annotated[str, Depends(oauth2)]) -> dict[str, str]:
    return {"sub": known(token).id}


def advice_of(table: Any, handler: Callable[..., Any]) -> str:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    return str(refused.value.advice)


@requires("authenticated")
def by_starlette(request: Request) -> str:
    return request.url.path


def permitted(handler: Any) -> Any:
    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        known(token_of(kwargs["request"]))
        return handler(*args, **kwargs)

    return wrapper


@permitted
def by_own_decorator(request: Request) -> str:
    return "for those who may"


@pytest.mark.parametrize("handler", [by_starlette, by_own_decorator])
def test_a_decorator_that_is_handed_the_request_may_check_it(table, handler: Any) -> None:
    """`requires("authenticated")` is one: no word is promised that would have a hit skip it."""
    advice = advice_of(table, handler)
    assert "this line works" not in advice.lower()
    assert "Its decorators are handed 'request' too, and a hit skips what they check" in advice


def handed_on(request: Request) -> str:
    return known(token_of(request)).id


def rendered(request: Request) -> HTMLResponse:
    return HTMLResponse(str({"request": request}))


def kept(request: Request) -> str:
    same = request
    return str(same)


def in_a_function(request: Request) -> str:
    return "".join(str(part) for part in [lambda: request.url])


def by_attribute(request: Request) -> str:
    return str(request.scope)


@pytest.mark.parametrize("handler", [handed_on, rendered, kept, in_a_function, by_attribute])
def test_a_request_that_is_handed_on_may_be_asked_who_it_is(table, handler: Any) -> None:
    """The line comes with what has to be true for it."""
    advice = advice_of(table, handler)
    assert "This line works" not in advice
    assert re.search(
        r"If whatever \w+ hands 'request' to, such as a template, neither tells callers apart nor refuses them, this "
        r"line works: cached\(\.\.\., request_is_shared=True\)\.$",
        advice,
    )


async def for_all(request: Request, number: int = 1) -> str:
    return f"{request.url_for('for_all')} {request.query_params.get('x')} {number} {request.base_url} {request.method}"


def test_a_request_of_which_only_what_the_key_holds_is_read_is_for_all(table) -> None:
    """Its URLs, its query and its path: the line is promised."""
    assert advice_of(table, for_all).endswith("This line works: cached(..., request_is_shared=True).")


def test_credentials_that_nobody_has_checked_are_said_to_be_that(table) -> None:
    """A handler that takes them from a scheme checks them itself, and a hit skips it; a name alone is no key of them."""

    def by_password(who: Annotated[HTTPBasicCredentials, Depends(basic)]) -> str:
        return who.username

    def by_token(token: Annotated[str, Depends(oauth2)]) -> str:
        return known(token).id

    def by_cookie(session: Annotated[str, Cookie()]) -> str:
        return known(session).id

    advice = advice_of(table, by_password)
    assert "a hit skips what by_password checks of it: check it in a dependency" in advice
    assert "If by_password checks nothing of it, this line works" in advice
    assert "(value.username, value.password)" in advice
    advice = advice_of(table, by_token)
    assert "If by_token checks nothing of it, this line works: cached(..., partition_by=oauth2" in advice
    assert "A hit skips what by_cookie checks of it: let session_of_caller check that." in advice_of(table, by_cookie)


async def test_the_handlers_annotation_says_of_what_type_an_untyped_dependency_is(table) -> None:
    """As the dependencies of libraries are: a line by which its value is no key would cache nothing."""

    def build(policy: Any) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/it", dependencies=[policy])
        def read_own(user: Annotated[User, Depends(untyped_user)]) -> str:
            return user.id

        return app

    with pytest.raises(CallerDependentRoute) as refused:
        table(build(cached(ttl=60))).audit()
    assert line_in(refused.value.advice) == "partition_by=PartitionBy(untyped_user, key=lambda value: value.id)"
    app = build(cached(ttl=60, partition_by=PartitionBy(untyped_user, key=lambda value: value.id)))
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        answer = await ask(app, "/it", headers={"authorization": "Bearer alice"})
    assert_hit(answer)


def test_a_key_is_one_for_nobody_too(table) -> None:
    """Where the annotation allows None."""

    def read_own(user: Annotated[User | None, Depends(optional_user)]) -> str:
        return user.id if user else ""

    assert "PartitionBy(optional_user, key=lambda value: value and value.id)" in advice_of(table, read_own)


def test_a_key_that_is_guessed_is_said_to_be(table) -> None:
    """With what there is in its place, as far as a class tells."""

    def paged(page: Annotated[Page, Depends()]) -> int:
        return page.number

    def claimed(claims: Annotated[dict[str, str], Depends(read_claims)]) -> str:
        return claims["sub"]

    advice = advice_of(table, paged)
    assert "In place of id write what tells callers apart: Page has address, number." in advice
    assert "this line works with that: " in advice
    advice = advice_of(table, claimed)
    assert "In place of 'sub' write what tells callers apart in a dict." in advice
    assert "key=lambda value: value['sub']" in advice


def test_a_key_that_the_line_does_not_have_is_not_spoken_of(table) -> None:
    """The dependency is named as it is, since it stands in a list as well."""

    def untyped(token: Annotated[str, Depends(oauth2)]):  # type: ignore[no-untyped-def]
        return token

    def page(who: Annotated[Any, Depends(untyped)]) -> str:
        return str(who)

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60), Depends(untyped)])(page)
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    assert refused.value.advice == f"{left_by('untyped')}cached(..., partition_by=untyped)."
