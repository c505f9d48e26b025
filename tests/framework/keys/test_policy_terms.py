"""What a policy says of what is stored is a part of the key: a release that says something else shares nothing."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI, Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    field_validator,
)

from fastapi_cacheinval import CachePolicy, ResponseToStore, cached
from fastapi_cacheinval.core.policy import PolicyFields
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable


def never(response: ResponseToStore) -> bool:
    return False


def always(response: ResponseToStore) -> bool:
    return True


def at_most(size: int) -> Any:
    return lambda response: len(response.body) <= size


async def item(item_id: int) -> int:
    return item_id


def terms_of(*policy: CachePolicy, **fields: Any) -> bytes:
    """The terms of a route with a policy of a minute, but for what is named."""
    app = FastAPI()
    given = fields if policy else {"ttl": 60, **fields}
    app.add_api_route("/items/{item_id}", item, dependencies=[cached(*policy, **given)])
    [plan] = RouteTable(app, middleware_stack_of(app)).plans
    assert plan.known_everywhere
    return plan.terms


# What a field may say beside its default; None where it says nothing of what is stored, or covers have their own names.
FIELDS: dict[str, list[Any] | None] = {
    "ttl": [61, 60.5, timedelta(hours=1)],
    "stale_while_revalidate": [1, 2.5],
    "stale_if_error": [1, 2.5],
    "tags": [["item:{item_id}"], ["items"], ["items", "item:{item_id}"], ["items,item:{item_id}"]],
    "shared": [True],
    "statuses": [{200, 404}, {404}, {200: 60, 404: 5}, {200: 60, 404: 6}, {200: 5, 404: 60}],
    "cache_control": ["no-cache", "max-age=10"],
    "downstream_ttl": [0, 10],
    "vary": [["x-country"], ["x-country", "x-beta"]],
    "request_is_shared": [True],
    "ttl_from_response": [True],
    "should_store": [never, always, at_most(5)],
    "partition_by": None,
    "guarded_by": None,
    "jitter": None,
    "early_refresh": None,
    "soft_timeout": None,
    "hard_timeout": None,
}


def test_each_field_of_a_policy_is_decided_about() -> None:
    """Nobody adds a field and forgets what another release may say of it."""
    assert set(FIELDS) == set(PolicyFields.__annotations__)


@pytest.mark.parametrize("name", [name for name, values in FIELDS.items() if values])
def test_what_a_policy_says_of_what_is_stored_is_in_its_terms(name: str) -> None:
    """Two releases that say something else have other terms; two that say the same have the same ones."""
    values = FIELDS[name] or []

    def every() -> list[bytes]:
        return [terms_of(), *(terms_of(**{name: value}) for value in values)]

    assert len(set(every())) == len(values) + 1
    assert every() == every()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ttl": 60}, {"ttl": 60.0}),
        ({"ttl": 60}, {"ttl": timedelta(minutes=1)}),
        ({"ttl": 60}, {"statuses": [200]}),
        ({"ttl": 60}, {"statuses": {200: 60}}),
        ({"statuses": [200, 404]}, {"statuses": {404: 60, 200: 60}}),
        ({"tags": ["a", "b"]}, {"tags": ["b", "a"]}),
        ({"tags": ["a", "b"]}, {"tags": ["a", "b", "a"]}),
        ({"vary": ["X-A", "x-b"]}, {"vary": ["x-b", "x-a", "X-A"]}),
        ({"downstream_ttl": 10}, {"downstream_ttl": timedelta(seconds=10)}),
        ({"shared": None}, {"shared": False}),
        ({}, {"jitter": 0.5}),
        ({}, {"early_refresh": 0}),
        ({}, {"hard_timeout": 5}),
        ({"stale_if_error": 60}, {"stale_if_error": 60, "soft_timeout": 5}),
    ],
)
def test_what_says_the_same_has_the_same_terms(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A release that spells it differently, or changes what promises nothing of what is stored, keeps its pages."""
    assert terms_of(**one) == terms_of(**other)


def test_a_policy_and_its_fields_say_the_same() -> None:
    """Whether a policy is made first, or replaced in part."""
    assert terms_of(CachePolicy(60, tags=["items"])) == terms_of(tags=["items"])
    assert terms_of(CachePolicy(5), ttl=60) == terms_of()
    assert terms_of(CachePolicy(60, tags=["a"]), tags=["b"]) == terms_of(tags=["a", "b"])


# -- what becomes of a parameter before it stands in a tag -----------------------------------------


class Size(enum.Enum):
    SMALL = "s"


class Sizes(enum.Enum):
    SMALL = "S"


def cut(by: str) -> Callable[[str], str]:
    return lambda text: text.strip(by)


# Types of one parameter whose values render otherwise, for some request.
TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    uuid.UUID,
    Decimal,
    date,
    Size,
    Sizes,
    Literal["s", "m"],
    str | int,
    int | str,
    str | None,
    Annotated[str, AfterValidator(str.lower)],
    Annotated[str, AfterValidator(str.upper)],
    Annotated[str, BeforeValidator(str.lower)],
    Annotated[str, PlainValidator(str.lower)],
    Annotated[str, AfterValidator(lambda text: text[0])],
    Annotated[str, AfterValidator(lambda text: text[1])],
    Annotated[str, AfterValidator(cut("a"))],
    Annotated[str, AfterValidator(cut("b"))],
    Annotated[str, StringConstraints(to_lower=True)],
    Annotated[str, StringConstraints(to_upper=True)],
    Annotated[str, StringConstraints(strip_whitespace=True)],
    Annotated[str, Field(pattern="a")],
    Annotated[str, Field(pattern="b")],
    Annotated[Decimal, Field(max_digits=4)],
    Annotated[Decimal, Field(max_digits=5)],
]


def model_of(kind: Any, default: Any = "s") -> Any:
    return type("Filter", (BaseModel,), {"__annotations__": {"size": kind}, "size": default, "__module__": __name__})


class ByMethod(BaseModel):
    size: str = "s"

    @field_validator("size")
    @classmethod
    def lower(cls, size: str) -> str:
        return size.lower()


def typed_terms(kind: Any, place: str) -> bytes:
    """The terms of a route with a parameter of a type, in its path, its query, a model of that, or a dependency."""
    app = FastAPI()

    def page(size: Any) -> None: ...

    def sized(size: Any) -> None: ...

    def filtered(given: Any) -> None: ...

    given = {"path": Path(), "dependency": Query(), "query": Query(), "model": Query()}[place]
    page.__annotations__ = {"size": Annotated[kind, given], "return": None}
    sized.__annotations__ = {"size": Annotated[kind, given], "return": None}
    filtered.__annotations__ = {"given": Annotated[model_of(kind), given], "return": None}
    handler: Any = {"path": page, "query": page, "model": filtered}.get(place, lambda: None)
    policy = cached(ttl=60, tags=["of:{size}"])
    needs = [policy, Depends(sized)] if place == "dependency" else [policy]
    app.add_api_route("/{size}" if place == "path" else "/", handler, dependencies=needs)
    [plan] = RouteTable(app, middleware_stack_of(app)).plans
    assert plan.known_everywhere
    return plan.terms


@pytest.mark.parametrize("place", ["path", "query", "model", "dependency"])
def test_what_a_parameter_becomes_before_it_stands_in_a_tag_is_in_the_terms(place: str) -> None:
    """A release that converts it otherwise purges other tags; two of the same types have the same terms."""
    terms = [typed_terms(kind, place) for kind in TYPES]
    assert len(set(terms)) == len(TYPES)
    assert terms == [typed_terms(kind, place) for kind in TYPES]


def test_defaults_and_aliases_of_what_a_tag_holds_are_in_the_terms() -> None:
    """Of a parameter, and of a field of a query's model; with them the validators that a model has as methods."""

    def terms(given: Any) -> bytes:
        app = FastAPI()

        def page(given: Any) -> None: ...

        page.__annotations__ = {"given": given, "return": None}
        app.add_api_route("/", page, dependencies=[cached(ttl=60, tags=["of:{size}"])])
        [plan] = RouteTable(app, middleware_stack_of(app)).plans
        return plan.terms

    def every() -> list[bytes]:
        kinds = [
            model_of(str),
            model_of(str, "m"),
            model_of(str, Field("s", alias="s")),
            model_of(str, Field("s", alias="t")),
            model_of(str, Field(default_factory=lambda: "s")),
            ByMethod,
        ]
        return [terms(Annotated[kind, Query()]) for kind in kinds]

    assert len(set(every())) == 6
    assert every() == every()


def test_a_parameter_that_stands_in_no_tag_is_not_in_the_terms() -> None:
    """Its type may change from one release to the next."""

    def terms(kind: Any) -> bytes:
        app = FastAPI()

        def page(size: str, other: Any) -> None: ...

        page.__annotations__ = {"size": str, "other": kind, "return": None}
        app.add_api_route("/{size}", page, dependencies=[cached(ttl=60, tags=["of:{size}"])])
        [plan] = RouteTable(app, middleware_stack_of(app)).plans
        return plan.terms

    assert terms(int) == terms(str)
