"""`PartitionBy` keeps responses apart by a part of a dependency's value, and a value that no key holds is never a 500."""

# No postponed annotations: the handlers name classes and callables of their own test.

import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Annotated, Any, NamedTuple, Self
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Security
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBasicCredentials, HTTPBearer

from fastapi_cacheinval import CachePolicy, ConfigurationError, PartitionBy, cached
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio


@dataclass
class User:
    name: str
    tenant: str


def current_user(x_user: Annotated[str, Header()]) -> User:
    if x_user == "mallory":
        raise HTTPException(403)
    return User(x_user, x_user[0])


def tenant_of(user: User) -> str:
    return user.tenant


def by(who: str) -> dict[str, str]:
    return {"x-user": who}


async def async_user(x_user: Annotated[str, Header()]) -> User:
    return current_user(x_user)


def yielded_user(x_user: Annotated[str, Header()]) -> Iterator[User]:
    yield current_user(x_user)


async def async_yielded_user(x_user: Annotated[str, Header()]) -> AsyncIterator[User]:
    yield current_user(x_user)


@pytest.mark.parametrize("dependency", [current_user, async_user, yielded_user, async_yielded_user])
@pytest.mark.parametrize("marked", [Depends, lambda it: Security(it, scopes=["a"])])
async def test_callers_of_one_key_share_and_others_do_not(dependency: Any, marked: Any) -> None:
    """The dependency runs on every request; what its key gives decides who shares, and who is refused never hits."""
    shop = Shop()
    policy = cached(ttl=60, partition_by=PartitionBy(marked(dependency), key=tenant_of))

    @shop.app.get("/it", dependencies=[policy])
    async def it(user: Annotated[User, marked(dependency)]) -> str:
        shop.count()
        return user.tenant

    for who in ("alice", "bob", "anna", "bert"):
        answer = await shop.ask("/it", headers=by(who))
        assert answer.body == f'"{who[0]}"'.encode()
    assert_hit(answer)
    assert shop.calls == 2
    assert (await shop.ask("/it", headers=by("mallory"))).status_code == 403


async def test_it_stands_in_a_tuple_and_beside_a_guard() -> None:
    """Its value is told from the neighbour's, and the guard still runs."""
    shop = Shop()

    def country(x_country: Annotated[str, Header()]) -> str:
        return x_country

    def admin(user: Annotated[User, Depends(current_user)]) -> None:
        if user.name == "eve":
            raise HTTPException(401)

    covers = (country, PartitionBy(current_user, key=tenant_of))

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=covers, guarded_by=admin)])
    async def it() -> int:
        return shop.count()

    def asked(who: str, where: str) -> Any:
        return shop.ask("/it", headers={**by(who), "x-country": where})

    bodies = [(await asked(who, where)).body for who, where in [("alice", "b"), ("bob", "a"), ("anna", "b")]]
    assert bodies == [b"1", b"2", b"1"]
    assert (await asked("eve", "b")).status_code == 401


def _raising(value: Any) -> Any:
    raise ZeroDivisionError(value)


KEYS: dict[str, Any] = {
    "raises": _raising,
    "a list": lambda user: [user.name],
    "a float": lambda user: 1.5,
    "the object": lambda user: user,
    "a list in a tuple": lambda user: (user.name, [1]),
}


@pytest.mark.parametrize("key", KEYS)
async def test_a_value_that_no_key_holds_is_forwarded_and_logged_once(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a 500: each caller gets their own answer from the app, `Cache-Status` says why, and so does the log."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=PartitionBy(current_user, key=KEYS[key]))])
    async def it(user: Annotated[User, Depends(current_user)]) -> str:
        return user.name

    with caplog.at_level(logging.DEBUG, "fastapi_cacheinval"):
        for who in ("alice", "alice", "bob"):
            answer = await shop.ask("/it", headers=by(who))
            assert (answer.status_code, answer.body) == (200, f'"{who}"'.encode())
            assert answer.cache is not None
            assert answer.cache.detail == "partition"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "/it" in errors[0].getMessage()
    assert (errors[0].exc_info is not None) is (key == "raises")
    assert shop.cache.statistics().responses == 0
    assert shop.cache.statistics().bypassed == 3


class Loud(str):
    """A text whose methods raise."""

    __slots__ = ()

    def encode(self, *_given: Any, **_named: Any) -> Any:
        raise ZeroDivisionError


def _nested(depth: int) -> Any:
    value: Any = ()
    for _ in range(depth):
        value = (value,)
    return value


async def _later(value: Any) -> str:
    return str(value)


@pytest.mark.parametrize(
    "value",
    [Loud("x"), _nested(100_000), 10**5_000, (1, Loud("x"))],
    ids=["loud", "deep", "long", "in a tuple"],
)
@pytest.mark.parametrize("keyed", [True, False])
async def test_no_value_makes_a_request_fail(value: Any, keyed: bool) -> None:
    """Whatever its methods do, and however deep or long it is."""
    shop = Shop()

    def unsaid(x_user: Annotated[str, Header()]):  # type: ignore[no-untyped-def]
        return value

    part = PartitionBy(unsaid, key=lambda found: found) if keyed else unsaid

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=part)])
    async def it() -> str:
        return "page"

    for _ in range(2):
        answer = await shop.ask("/it", headers=by("alice"))
        assert (answer.status_code, answer.body) == (200, b'"page"')
        assert answer.cache is not None
        assert answer.cache.detail == "partition"
    assert shop.cache.statistics().bypassed == 2


def test_an_async_key_is_refused_when_it_is_made() -> None:
    """Nobody would await it; an object with an async call is one as well."""

    class Later:
        async def __call__(self, value: Any) -> str:
            return str(value)

    for key in (_later, partial(_later), Later()):
        with pytest.raises(ConfigurationError, match="do what has to be awaited in the dependency"):
            PartitionBy(current_user, key=key)


async def test_a_key_that_gives_a_coroutine_leaves_none_behind() -> None:
    """It is forwarded, and nothing warns of a coroutine that was never awaited."""
    shop = Shop()

    @shop.app.get(
        "/it", dependencies=[cached(ttl=60, partition_by=PartitionBy(current_user, key=lambda u: _later(u.name)))]
    )
    async def it() -> str:
        return "page"

    answer = await shop.ask("/it", headers=by("alice"))
    assert answer.cache is not None
    assert answer.cache.detail == "partition"


async def test_the_same_of_a_partition_without_a_key() -> None:
    """What the signature does not say is found out on the request."""
    shop = Shop()

    def unsaid(x_user: Annotated[str, Header()]):  # type: ignore[no-untyped-def]
        return {"name": x_user}

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=unsaid)])
    async def it() -> str:
        return "page"

    for _ in range(2):
        answer = await shop.ask("/it", headers=by("alice"))
        assert answer.status_code == 200
        assert answer.cache is not None
        assert answer.cache.detail == "partition"


class Colour(Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


class Kept(str):  # noqa: SLOT000 - it keeps more
    role: str

    def __new__(cls, name: str, role: str) -> Self:
        made = super().__new__(cls, name)
        made.role = role
        return made


class KeptNumber(int):
    __slots__ = ()

    def __init__(self, _value: int) -> None:
        self.role = "admin"  # type: ignore[misc]


class Pair(NamedTuple):
    tenant: int
    user: str


def gives(annotation: Any) -> Any:
    def dependency(x_user: Annotated[str, Header()]) -> annotation:  # pyright: ignore[reportInvalidTypeForm]
        return x_user

    return dependency


def yields(annotation: Any) -> Any:
    def dependency(x_user: Annotated[str, Header()]) -> Iterator[annotation]:  # pyright: ignore[reportInvalidTypeForm]
        yield x_user

    return dependency


def partially(annotation: Any) -> Any:
    return partial(gives(annotation))


def as_instance(annotation: Any) -> Any:
    class Dependency:
        def __call__(self, x_user: Annotated[str, Header()]) -> annotation:  # pyright: ignore[reportInvalidTypeForm]
            return x_user

    return Dependency()


SHAPES = [gives, yields, partially, as_instance]
FIT = [str, bytes, int, bool, UUID, Colour, None, Any, object, Name, Pair, str | None, tuple[str, int], tuple[str, ...]]
UNFIT = [
    User,
    dict[str, str],
    list,
    float,
    set[int],
    User | None,
    tuple[str, User],
    Annotated[User, "x"],
    Kept,
    KeptNumber,
]


def audit(policy: Any, endpoint: Any = lambda: "") -> None:
    app = FastAPI()
    app.get("/it", dependencies=[policy], response_model=None)(endpoint)
    inside = middleware_stack_of(app)
    RouteTable(inside.app, inside).audit()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("annotation", FIT, ids=str)
def test_an_annotation_that_a_key_can_hold_starts(shape: Any, annotation: Any) -> None:
    """And so does one that says nothing."""
    audit(cached(ttl=60, partition_by=shape(annotation)))
    audit(cached(ttl=60, partition_by=PartitionBy(shape(User), key=shape(annotation))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("annotation", UNFIT, ids=str)
def test_an_annotation_that_no_key_can_hold_fails_the_start(shape: Any, annotation: Any) -> None:
    """The error names the type and the line that works."""
    with pytest.raises(ConfigurationError, match=r"PartitionBy\(.*key="):
        audit(cached(ttl=60, partition_by=shape(annotation)))
    if shape is gives:
        with pytest.raises(ConfigurationError, match="its key"):
            audit(cached(ttl=60, partition_by=PartitionBy(shape(User), key=shape(annotation))))
        audit(cached(ttl=60, partition_by=PartitionBy(shape(annotation), key=str)))


def test_the_line_for_a_text_that_keeps_more_has_all_of_it() -> None:
    """A part of it alone would give one caller what belongs to another."""
    with pytest.raises(ConfigurationError, match=re.escape("key=lambda value: (str(value), value.role)")):
        audit(cached(ttl=60, partition_by=gives(Kept)))


async def test_values_of_two_classes_are_two_callers() -> None:
    """They are equal, and the handler tells them apart."""
    shop = Shop()

    class Unsaid:
        def __call__(self, x_user: Annotated[str, Header()]):  # type: ignore[no-untyped-def]
            return Name("alice") if x_user == "guest" else "alice"

    who = Unsaid()

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=who)])
    async def it(caller: Annotated[Any, Depends(who)]) -> str:
        return type(caller).__name__

    said = [(await shop.ask("/it", headers=by(name))).body for name in ("admin", "guest", "admin", "guest")]
    assert said == [b'"str"', b'"Name"', b'"str"', b'"Name"']
    assert shop.cache.statistics().hits == 2


def test_schemes_say_what_they_give() -> None:
    """A key in a header is a text; credentials are an object."""
    audit(cached(ttl=60, partition_by=APIKeyHeader(name="x-key")))
    for scheme in (HTTPBasic(), HTTPBearer()):
        with pytest.raises(ConfigurationError, match="Credentials"):
            audit(cached(ttl=60, partition_by=scheme))

    def name(of: HTTPBasicCredentials) -> str:
        return of.username

    audit(cached(ttl=60, partition_by=PartitionBy(HTTPBasic(), key=name)))


def test_a_class_gives_an_instance_of_itself() -> None:
    """Which is a partition if it is a text."""

    class Tenant:
        def __init__(self, x_user: Annotated[str, Header()]) -> None:
            self.name = x_user

    class Text(str):
        __slots__ = ()

        def __new__(cls, x_user: Annotated[str, Header()]) -> Self:
            return super().__new__(cls, x_user)

    with pytest.raises(ConfigurationError, match="Tenant"):
        audit(cached(ttl=60, partition_by=Tenant))
    audit(cached(ttl=60, partition_by=PartitionBy(Tenant, key=lambda tenant: tenant.name)))
    audit(cached(ttl=60, partition_by=Text))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PartitionBy("user", key=str),
        lambda: PartitionBy(current_user, key="name"),  # type: ignore[call-overload]
        lambda: PartitionBy(PartitionBy(current_user, key=str), key=str),
        lambda: cached(ttl=60, guarded_by=PartitionBy(current_user, key=str)),
        lambda: cached(ttl=60, guarded_by=(current_user, PartitionBy(current_user, key=str))),
        lambda: cached(ttl=60, shared=True, partition_by=PartitionBy(current_user, key=str)),
        lambda: CachePolicy(60, partition_by=[PartitionBy(current_user, key=str), 3]),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(make: Any) -> None:
    """A configuration error where the line stands."""
    with pytest.raises(ConfigurationError):
        make()


async def test_two_keys_of_one_dependency_are_two_partitions() -> None:
    """The cache tells their values apart, and policies compare by their parts."""
    assert PartitionBy(current_user, key=tenant_of) == PartitionBy(current_user, key=tenant_of)
    assert PartitionBy(current_user, key=tenant_of) != PartitionBy(current_user, key=str)
    shop = Shop()
    covers = (PartitionBy(current_user, key=tenant_of), PartitionBy(current_user, key=lambda user: user.name))

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=covers)])
    async def it() -> int:
        return shop.count()

    for who, body in (("alice", b"1"), ("anna", b"2"), ("alice", b"1")):
        assert (await shop.ask("/it", headers=by(who))).body == body
