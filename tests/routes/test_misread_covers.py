"""What a newcomer writes into partition_by in place of a `PartitionBy`: its key, or the type of the user."""

# No postponed annotations: the handlers name classes and callables of their own test.

import re
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel

from fastapi_cacheinval import (
    CacheMiddleware,
    CallerDependentRoute,
    ConfigurationError,
    HTTPCache,
    PartitionBy,
    RefusedRoutes,
    cached,
)
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.advice import line_in
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


class User(BaseModel):
    id: str


class Role(BaseModel):
    name: str


class Member(BaseModel):
    id: str
    roles: list[Role] = []


def get_current_user(token: Annotated[str, Depends(oauth2)]) -> User:
    if token not in ("alice", "bob"):
        raise HTTPException(401)
    return User(id=token)


def other_user(token: Annotated[str, Depends(oauth2)]) -> User:
    return get_current_user(token)


def get_member(token: Annotated[str, Depends(oauth2)]) -> Member:
    return Member(id=get_current_user(token).id)


def get_user_or_nobody(token: Annotated[str, Depends(oauth2)]) -> User | None:
    return get_current_user(token)


def get_name(token: Annotated[str, Depends(oauth2)]) -> str:
    return get_current_user(token).id


def key_of_user(user: User) -> str:
    return user.id


def tenant() -> str:
    return "all"


def page(policy: Any, dependency: Any = get_current_user) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/it", dependencies=[policy])
    def read_page(user: Annotated[Any, Depends(dependency)]) -> str:
        return str(getattr(user, "id", user))

    return app


# The lines of the messages name it.
LINE = {**globals(), "PartitionBy": PartitionBy}


def told(table: Any, app: FastAPI) -> str:
    """The one refusal: a cover that is misread has no fault of its own beside it."""
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    assert not isinstance(refused.value, RefusedRoutes)
    return str(refused.value.advice)


COVERS: dict[str, tuple[Any, str]] = {
    "a key alone": (
        lambda user: user.id,
        "partition_by=lambda user: ... is a dependency of its own, which takes its 'user' from the query",
    ),
    "a key with a name": (key_of_user, "partition_by=key_of_user is a dependency of its own, which takes its 'user'"),
    "the type with a key": (
        PartitionBy(User, key=lambda user: user.id),
        "partition_by=User is a dependency of its own, which FastAPI makes of the request",
    ),
    "the type with a key that has a name": (
        PartitionBy(User, key=key_of_user),
        "partition_by=User is a dependency of its own, which FastAPI makes of the request",
    ),
    "the type": (User, "partition_by=User is a dependency of its own, which FastAPI makes of the request"),
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("dependency", [get_current_user, get_user_or_nobody])
@pytest.mark.parametrize("name", COVERS)
async def test_the_line_has_a_partition_by_in_its_place(table, name: str, dependency: Any, beside: bool) -> None:
    """The message says what the cover is, and with the line the app starts and each caller gets their page."""
    cover, said = COVERS[name]
    given = (tenant, cover) if beside else cover
    advice = told(table, page(cached(ttl=60, partition_by=given), dependency))
    assert said in advice
    assert ("partition_by=tenant falls short" in advice) is beside
    assert f"PartitionBy({dependency.__name__}, key=" in advice
    (line,) = re.findall(r"cached\(\.\.\., (.*?)\)\.$", advice)
    assert ("tenant" in line) is beside
    app = page(eval(f"cached(ttl=60, {line})", LINE), dependency)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        for token in ("alice", "bob"):
            answer = await ask(app, "/it", headers={"authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.body.decode()) == (200, f'"{token}"')
    assert_hit(answer)
    assert (await ask(app, "/it", headers={"authorization": "Bearer mallory"})).status_code == 401


def test_a_lambda_may_be_meant_as_a_dependency(table) -> None:
    """It might check what it takes, so the line holds under a condition."""
    advice = told(table, page(cached(ttl=60, partition_by=lambda user: user.id)))
    assert (
        "If not and if the lambda is meant as a key, this line works: cached(..., partition_by=PartitionBy(" in advice
    )


@pytest.mark.parametrize("given", [key_of_user, PartitionBy(User, key=key_of_user)])
def test_a_key_with_a_name_is_kept(table, given: Any) -> None:
    """Its author has written it."""
    advice = told(table, page(cached(ttl=60, partition_by=given)))
    assert "this line works: cached(..., partition_by=PartitionBy(get_current_user, key=key_of_user))." in advice


def test_a_lambda_that_takes_dependencies_is_kept(table) -> None:
    """Nothing of it comes from the query by mistake."""
    cover: Any = lambda token=Depends(oauth2): token  # noqa: B008, E731 - what users write
    advice = told(table, page(cached(ttl=60, partition_by=cover)))
    assert "is a dependency of its own" not in advice
    assert "partition_by=(dependency, " in advice


def test_a_named_check_of_the_query_is_kept(table) -> None:
    """It may refuse the caller."""

    def check(code: str) -> str:
        return code

    advice = told(table, page(cached(ttl=60, partition_by=check)))
    assert "is a dependency of its own" not in advice
    assert "partition_by=(check, PartitionBy(" in advice


def test_a_text_needs_no_key(table) -> None:
    """A key beside a dependency that gives a text goes away."""
    advice = told(table, page(cached(ttl=60, partition_by=lambda name: name), get_name))
    assert "this line works: cached(..., partition_by=get_name)" in advice


@pytest.mark.parametrize(
    "given", ["get_member", "(get_member, get_name)", "PartitionBy(get_member, key=Member.model_dump)"]
)
def test_what_a_proposed_key_leaves_out_is_said_wherever_it_is_proposed(table, given: str) -> None:
    """Of a partition that no key can hold, as of one that is missing."""
    with pytest.raises(ConfigurationError, match="add what else a page may depend on, of roles"):
        table(page(eval(f"cached(ttl=60, partition_by={given})", LINE), get_member)).audit()


def test_a_partition_that_no_key_holds_has_one_in_the_line_for_what_is_missing(table) -> None:
    """Each of the two refusals gives a line that the other one does not refuse."""
    with pytest.raises(CallerDependentRoute) as refused:
        table(page(cached(ttl=60, partition_by=other_user))).audit()
    line = line_in(str(refused.value))
    table(page(eval(f"cached(ttl=60, {line})", LINE))).audit()
