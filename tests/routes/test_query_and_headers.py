"""Which query parameters the key keeps, and which headers are part of the variant."""

# No postponed annotations: the handlers name classes and callables of their own test.

from typing import Annotated, Any, Optional

import pytest
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.security import APIKeyQuery, HTTPBearer
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel, model_validator
from starlette.testclient import TestClient

from fastapi_cacheinval import cached
from fastapi_cacheinval.routes.parameters import model_of


def page(number: int = 1, size: Annotated[int, Query(alias="per-page")] = 10) -> int:
    return number * size


def app_with(handler: Any, *dependencies: Any) -> FastAPI:
    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60, shared=True), *dependencies])(handler)
    return app


def test_the_handlers_and_its_dependencies_query_parameters_are_kept(plan) -> None:
    """Nothing else can change the response, so nothing else splits the cache."""

    def handler(q: str = "", at: int = Depends(page)) -> str:
        return q

    assert plan(app_with(handler)).query == {"q", "number", "per-page"}


def test_a_covers_query_parameters_are_kept(plan) -> None:
    """What a guard or a partition reads may be written down for the handler in ways that are not seen."""

    def guard(key: str = "") -> None:
        pass

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, guarded_by=guard)])
    def handler(q: str = "") -> str:
        return q

    assert plan(app).query == {"q", "key"}


def test_every_alias_is_kept(plan) -> None:
    """Alias, validation alias, choices and the first part of a path of aliases."""

    def handler(
        a: Annotated[str, Query(alias="alpha")] = "",
        b: Annotated[str, Query(validation_alias="beta")] = "",
        c: Annotated[str, Query(validation_alias=AliasChoices("gamma", "c3"))] = "",
    ) -> str:
        return a

    assert plan(app_with(handler)).query >= {"alpha", "beta", "gamma", "c3"}


class Filters(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    colour: str = Field("", alias="color")
    sizes: list[int] = Field(default_factory=list[int], validation_alias=AliasChoices("size", AliasPath("box", 0)))


@pytest.mark.parametrize("annotation", [Filters, Annotated[Filters, Query()]])
def test_a_query_models_fields_are_kept(plan, annotation) -> None:
    """Each under every name that it may have."""

    def handler(filters: Annotated[annotation, Query()] = None) -> str:  # type: ignore[valid-type]
        return ""

    assert plan(app_with(handler)).query >= {"colour", "color", "sizes", "size", "box"}


OPTIONAL = Optional[Filters]  # noqa: UP045 - a type of its own


@pytest.mark.parametrize("annotation", [Filters, OPTIONAL, Filters | None, Annotated[Filters, 1]])
def test_an_optional_model_is_seen_as_the_model(annotation) -> None:
    """Newer versions of FastAPI take it for a group of parameters."""

    class Declared:
        name = alias = "filters"
        field_info = Query()

    Declared.field_info.annotation = annotation
    assert model_of(Declared()) is Filters


class Before(BaseModel):
    colour: str = ""

    @model_validator(mode="before")
    @classmethod
    def look(cls, values: Any) -> Any:
        return values


class Wrapped(BaseModel):
    colour: str = ""

    @model_validator(mode="wrap")
    @classmethod
    def look(cls, values: Any, handler: Any) -> Any:
        return handler(values)


class OwnInit(BaseModel):
    colour: str = ""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


class Everything(RootModel[dict[str, Any]]):
    pass


class Child(Before):
    pass


class After(BaseModel):
    colour: str = ""

    @model_validator(mode="after")
    def look(self) -> "After":
        return self


class Allowing(BaseModel, extra="allow"):
    colour: str = ""


class Forbidding(BaseModel, extra="forbid"):
    colour: str = ""


@pytest.mark.parametrize("model", [Before, Wrapped, OwnInit, Everything, Child, Allowing, Forbidding])
def test_a_model_that_is_handed_the_rest_of_the_query_keeps_it_whole(plan, model) -> None:
    """An undeclared parameter may change what such a model makes, or whether it is valid."""

    def handler(filters: Annotated[model, Query()]) -> str:  # type: ignore[valid-type]
        return ""

    assert plan(app_with(handler)).query is None


def test_a_validator_of_the_finished_model_keeps_only_its_fields(plan) -> None:
    """It sees what the fields hold and no more."""

    def handler(filters: Annotated[After, Query()]) -> str:
        return ""

    assert plan(app_with(handler)).query == {"colour", "filters"}


@pytest.mark.parametrize("place", ["handler", "dependency"])
def test_a_raw_request_keeps_the_whole_query(plan, place) -> None:
    """It may read any parameter by hand."""

    def raw(request: Request) -> str:
        return request.url.query

    def handler(it: str = Depends(raw)) -> str:
        return it

    assert plan(app_with(raw if place == "handler" else handler)).query is None


def test_a_scheme_of_fastapis_own_keeps_no_more_than_it_reads(plan) -> None:
    """A bearer token is no query parameter; an API key in the query is one; a subclass may read anything."""

    class Own(HTTPBearer):
        pass

    def handler(q: str = "") -> str:
        return q

    assert plan(app_with(handler, Depends(HTTPBearer()))).query == {"q"}
    assert plan(app_with(handler, Depends(APIKeyQuery(name="key")))).query == {"q", "key"}
    assert plan(app_with(handler, Depends(Own()))).query is None


def test_the_caches_own_dependencies_keep_nothing(plan) -> None:
    """cached() takes the request, and must not keep the whole query for it."""

    def handler() -> str:
        return ""

    assert plan(app_with(handler)).query == frozenset()


class Wanted(BaseModel):
    accept_language: str = ""
    x_theme: str = Field("", alias="X-Theme")
    merged_name: Annotated[str, Header(convert_underscores=False)] = ""
    raw_name: str = Header("", convert_underscores=False)


def test_the_handlers_headers_are_the_variant(plan) -> None:
    """Lower-case, hyphens for underscores unless that is switched off, aliases as they are, sorted."""

    def handler(
        accept_language: Annotated[str, Header()] = "",
        under_score: Annotated[str, Header(convert_underscores=False)] = "",
        theme: Annotated[str, Header(alias="X-Theme")] = "",
    ) -> str:
        return ""

    assert plan(app_with(handler)).headers == (b"accept-language", b"under_score", b"x-theme")


HEADERS = ["accept-language", "accept_language", "x-theme", "x_theme", "raw-name", "raw_name"]


@pytest.mark.parametrize("name", [*HEADERS, "merged-name", "merged_name"])
def test_a_header_models_fields_are_the_variant(plan, name) -> None:
    """A header is in the variant exactly where sending it changes what the handler is given."""

    def handler(wanted: Annotated[Wanted, Header()]) -> Wanted:
        return wanted

    app = app_with(handler)
    app.get("/plain")(handler)
    client = TestClient(app)
    read = client.get("/plain", headers={name: "value"}).json() != client.get("/plain").json()
    assert (name.encode() in plan(app).headers) is read


def test_a_dependencys_header_is_not_the_variant(plan) -> None:
    """Under shared=True it is the author's word that it makes no difference; elsewhere it is caller-dependent."""

    def dependency(x_trace: Annotated[str, Header()] = "") -> str:
        return x_trace

    def handler(it: str = Depends(dependency), authorization: Annotated[str, Header()] = "") -> str:
        return it

    assert plan(app_with(handler)).headers == ()
