"""Names in tag templates are bound to validated values, as FastAPI would validate them."""

# No postponed annotations: the handlers name classes and callables of their own test.

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, Optional, Union
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Path, Query, Request
from pydantic import AliasChoices, BaseModel, Field
from starlette.testclient import TestClient

from fastapi_cacheinval import ConfigurationError, cached, invalidates
from fastapi_cacheinval.routes.bindings import InvalidParameter


class Colour(Enum):
    RED = "red"


class Filters(BaseModel):
    size: int = 3
    colour: Colour = Field(Colour.RED, alias="color")


class Pair(NamedTuple):
    left: int
    right: int


@dataclass
class Record:
    left: int = 0


@pytest.fixture
def value(plan, ask):
    """The bound value of the template's only name, inside the route that answers a request."""

    def bound(app: FastAPI, url: str, path: str = "/it/{item_id}") -> Any:
        ((_, binding),) = plan(app, path).bindings.items()
        return binding.value(Request(ask(app, url)))

    return bound


@pytest.fixture
def cached_app(probe):
    """An app with one cached route that carries one tag, and a probe that runs before the handler's own fields."""

    def make(handler: Any, tag: str, path: str = "/it/{item_id}") -> FastAPI:
        app = FastAPI()
        app.get(path, dependencies=[probe, cached(ttl=60, shared=True, tags=[tag])])(handler)
        return app

    return make


@pytest.mark.parametrize("spelling", ["42", "042", "+42", "%2042"])
def test_spellings_of_one_number_are_one_value(value, cached_app, spelling) -> None:
    """The purge of 42 finds what was stored under any spelling that FastAPI takes for it."""

    def handler(item_id: int) -> int:
        return item_id

    assert value(cached_app(handler, "item:{item_id}"), f"/it/{spelling}") == 42


def test_a_path_parameter_under_an_alias_has_both_names(value, cached_app) -> None:
    """The template may use the Python name or the path's."""

    def handler(number: Annotated[int, Path(alias="item_id")]) -> int:
        return number

    assert value(cached_app(handler, "item:{number}"), "/it/042") == 42
    assert value(cached_app(handler, "item:{item_id}"), "/it/042") == 42


def test_a_path_name_that_nothing_declares_is_taken_as_it_is(value, cached_app) -> None:
    """Its path convertor, if any, has made it what the handler would see in the request."""

    def handler() -> str:
        return ""

    assert value(cached_app(handler, "item:{item_id}"), "/it/042") == "042"
    typed = cached_app(handler, "item:{item_id}", "/it/{item_id:int}")
    assert value(typed, "/it/042") == 42


@pytest.mark.parametrize(("query", "expected"), [("", 7), ("?number=08", 8), ("?number=8&number=9", 9)])
def test_a_query_parameter_has_its_default_and_its_last_value(value, cached_app, query, expected) -> None:
    """As FastAPI reads it."""

    def handler(number: int = 7) -> int:
        return number

    assert value(cached_app(handler, "n:{number}", "/it"), f"/it{query}", "/it") == expected


def test_a_query_parameter_under_an_alias_has_both_names(value, cached_app) -> None:
    """The template may use the Python name or the request's."""

    def handler(number: Annotated[int, Query(alias="n")] = 0) -> int:
        return number

    assert value(cached_app(handler, "n:{number}", "/it"), "/it?n=05", "/it") == 5
    assert value(cached_app(handler, "n:{n}", "/it"), "/it?n=05", "/it") == 5


def test_an_enum_is_validated_to_its_member(value, cached_app) -> None:
    """Rendering takes the member's value."""

    def handler(colour: Colour) -> str:
        return ""

    assert value(cached_app(handler, "c:{colour}", "/it"), "/it?colour=red", "/it") is Colour.RED


def test_a_uuid_in_any_spelling_is_one_value(value, cached_app) -> None:
    """Hyphens and case make no difference."""

    def handler(item_id: UUID) -> str:
        return ""

    wanted = UUID("12345678-1234-5678-1234-567812345678")
    assert value(cached_app(handler, "i:{item_id}"), f"/it/{wanted.hex.upper()}") == wanted


@pytest.mark.parametrize(
    ("tag", "query", "expected"),
    [
        ("s:{size}", "?size=04", 4),
        ("s:{size}", "", 3),
        ("c:{colour}", "?color=red", Colour.RED),
        ("c:{color}", "", Colour.RED),
    ],
)
def test_a_query_models_fields_are_bound(value, cached_app, tag, query, expected) -> None:
    """By name or alias, with their defaults."""

    def handler(filters: Annotated[Filters, Query()]) -> str:
        return ""

    assert value(cached_app(handler, tag, "/it"), f"/it{query}", "/it") == expected


def test_a_dependencys_parameter_is_bound(value, cached_app) -> None:
    """The tree's parameters are the route's, too."""

    def page(number: int = 1) -> int:
        return number

    def handler(at: int = Depends(page)) -> int:
        return at

    assert value(cached_app(handler, "p:{number}", "/it"), "/it?number=02", "/it") == 2


def test_the_handlers_own_parameter_comes_first(value, cached_app) -> None:
    """A dependency that declares the same name with another type does not change the tag."""

    def text(item_id: str) -> str:
        return item_id

    def handler(item_id: int, it: str = Depends(text)) -> int:
        return item_id

    assert value(cached_app(handler, "i:{item_id}"), "/it/042") == 42


def test_an_invalid_value_raises(plan, cached_app) -> None:
    """FastAPI answers 422, and nothing is collapsed, stored or purged for it."""

    def handler(item_id: int, number: int) -> int:
        return item_id

    app = cached_app(handler, "i:{item_id}:{number}")
    for text, query in (("x", b"number=1"), ("9" * 5000, b"number=1")):
        scope = {"type": "http", "path_params": {"item_id": text}, "query_string": query, "headers": []}
        with pytest.raises(InvalidParameter):
            plan(app, "/it/{item_id}").bindings["item_id"].value(Request(scope))
    scope = {"type": "http", "path_params": {"item_id": "1"}, "query_string": b"", "headers": []}
    with pytest.raises(InvalidParameter, match="number"):
        plan(app, "/it/{item_id}").bindings["number"].value(Request(scope))


def test_a_mounts_path_parameter_is_bound(plan, probe, ask) -> None:
    """A template below a mount may use the mount's names."""
    inner = FastAPI()

    @inner.get("/it", dependencies=[probe, cached(ttl=60, shared=True, tags=["shop:{shop}"])])
    def handler() -> str:
        return ""

    app = FastAPI()
    app.mount("/shops/{shop}", inner)
    binding = plan(app, "/shops/{shop}/it").bindings["shop"]
    assert binding.value(Request(ask(app, "/shops/a/it"))) == "a"


def test_invalidations_are_bound_too(plan) -> None:
    """A mutation's templates take the same validated values."""
    app = FastAPI()

    @app.put("/it/{item_id}", dependencies=[invalidates("item:{item_id}", "items")])
    def handler(item_id: int) -> int:
        return item_id

    found = plan(app, "/it/{item_id}")
    assert [template.text for each in found.invalidations for template in each.templates] == ["item:{item_id}", "items"]
    request = Request({"type": "http", "path_params": {"item_id": "042"}, "query_string": b"", "headers": []})
    assert found.bindings["item_id"].value(request) == 42


@pytest.mark.parametrize("declare", [lambda tag: cached(ttl=60, tags=[tag]), invalidates])
def test_an_unknown_name_is_an_error_at_start(table, declare) -> None:
    """A typing error must not become a tag that nothing ever carries."""
    app = FastAPI()

    def handler(item_id: int) -> int:
        return item_id

    app.api_route("/it/{item_id}", methods=["GET", "POST"], dependencies=[declare("item:{itemid}")])(handler)
    with pytest.raises(ConfigurationError, match=r"/it/\{item_id\}.*'itemid'"):
        table(app).audit()


STRUCTURED = [
    list[int],
    set[str],
    frozenset[int],
    tuple[int, ...],
    Sequence[int],
    Optional[list[int]],  # noqa: UP045 - a type of its own
    Union[int, list[int]],  # noqa: UP007
    Annotated[list[int], Query()],
]


@pytest.mark.parametrize("annotation", STRUCTURED, ids=str)
def test_a_list_valued_name_is_an_error_at_start(table, annotation) -> None:
    """A tag holds one value."""
    app = FastAPI()

    def handler(ids: Annotated[annotation, Query()] = None) -> str:  # type: ignore[valid-type]
        return ""

    app.get("/it", dependencies=[cached(ttl=60, tags=["ids:{ids}"])])(handler)
    with pytest.raises(ConfigurationError, match="'ids' holds a list"):
        table(app).audit()


@pytest.mark.parametrize("annotation", [list[int], dict[str, int], Pair, Record, Filters])
def test_a_structured_field_of_a_query_model_is_an_error_at_start(table, annotation) -> None:
    """The same inside a model, and for models and records themselves."""

    class Model(BaseModel):
        inner: annotation = None  # type: ignore[valid-type]

    app = FastAPI()

    def handler(model: Annotated[Model, Query()]) -> str:
        return ""

    app.get("/it", dependencies=[cached(ttl=60, tags=["inner:{inner}"])])(handler)
    with pytest.raises(ConfigurationError, match="'inner' holds a list"):
        table(app).audit()


def test_a_choice_of_aliases_is_bound(value, cached_app) -> None:
    """Each choice names the parameter; FastAPI's own reading decides which it takes."""

    def handler(number: Annotated[int, Query(validation_alias=AliasChoices("n", "num"))] = 0) -> int:
        return number

    app = cached_app(handler, "n:{num}", "/it")

    class Seen:
        number = 0

    @app.get("/seen")
    def seen(number: Annotated[int, Query(validation_alias=AliasChoices("n", "num"))] = 0) -> int:
        Seen.number = number
        return number

    for url in ("?n=04", "?num=05"):
        TestClient(app).get(f"/seen{url}")
        assert value(app, f"/it{url}", "/it") == Seen.number
