"""What counts as reading the caller: schemes, cookies, headers in dependencies, the raw request."""

# No postponed annotations: the handlers name classes and callables of their own test.

from functools import partial, wraps
from inspect import Parameter, Signature
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Request, Response, Security
from fastapi.requests import HTTPConnection
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
    OpenIdConnect,
)
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, Field

from fastapi_cacheinval import CacheTags, CallerDependentRoute, cached
from fastapi_cacheinval.routes.plan import Sharing

oauth2 = OAuth2PasswordBearer(tokenUrl="token", auto_error=False)


class Scheme(SecurityBase):
    """A scheme of the user's own that FastAPI hands no request."""

    def __call__(self) -> str:
        return "alice"


@wraps(oauth2)
async def wrapped(*, token: str = "") -> str:
    return token


def token_header(token: Annotated[str, Header()] = "") -> str:
    return token


def session_cookie(session: Annotated[str, Cookie()] = "") -> str:
    return session


def raw(request: Request) -> str:
    return str(request.url)


def connection(connection: HTTPConnection) -> str:
    return str(connection.url)


class SubRequest(Request):
    pass


def raw_subclass(request: SubRequest) -> str:
    return str(request.url)


class Reader:
    def __init__(self, request: Request) -> None:
        self.request = request


class Instance:
    def __call__(self, session: Annotated[str, Cookie()] = "") -> str:
        return session


class Method:
    def user(self, authorization: Annotated[str, Header()] = "") -> str:
        return authorization


def generator(request: Request) -> Any:
    yield request.url


async def async_generator(token: Annotated[str, Header()] = "") -> Any:
    yield token


def two(request: Request, text: str) -> str:
    return text


class Tokens(BaseModel):
    token: str = ""


def header_model(tokens: Annotated[Tokens, Header()]) -> Tokens:
    return tokens


def deep(token: Annotated[str, Depends(token_header)]) -> str:
    return token


READERS = [
    oauth2,
    HTTPBasic(auto_error=False),
    HTTPBearer(auto_error=False),
    APIKeyHeader(name="x-key", auto_error=False),
    APIKeyCookie(name="key", auto_error=False),
    APIKeyQuery(name="key", auto_error=False),
    OpenIdConnect(openIdConnectUrl="/", auto_error=False),
    Scheme(),
    partial(Scheme()),
    wrapped,
    token_header,
    session_cookie,
    raw,
    connection,
    raw_subclass,
    Reader,
    Instance(),
    Method().user,
    generator,
    async_generator,
    partial(two, text="x"),
    header_model,
    deep,
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: getattr(reader, "__name__", type(reader).__name__))
@pytest.mark.parametrize("place", ["parameter", "route", "app", "security"])
def test_a_dependency_that_reads_the_caller_is_refused_under_a_bare_policy(table, reader, place) -> None:
    """Each kind of caller-dependent callable is refused wherever it is declared, with route, parameter and ways out."""
    outer = [Depends(reader)] if place == "app" else []
    app = FastAPI(dependencies=outer)
    here = [Depends(reader)] if place == "route" else []
    marker = Depends(reader) if place == "parameter" else Security(reader, scopes=["a"])

    def plain() -> str:
        return ""

    def taking(value: Any = marker) -> str:
        return ""

    handler = taking if place in ("parameter", "security") else plain
    app.get("/it", dependencies=[cached(ttl=60), *here])(handler)
    with pytest.raises(CallerDependentRoute) as caught:
        table(app).audit()
    assert caught.value.route == "/it"
    assert caught.value.parameters
    for way_out in ("partition_by", "guarded_by", "shared=True"):
        assert way_out in str(caught.value)


@pytest.mark.parametrize("name", ["authorization", "cookie", "proxy_authorization", "x_api_key"])
def test_a_credential_as_the_handlers_own_header_is_caller_dependent(table, name) -> None:
    """Underscores become hyphens before the name is compared."""

    def handler(header: Annotated[str, Header()] = "") -> str:
        return header

    handler.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[str, Header()], default="")]
    )
    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    with pytest.raises(CallerDependentRoute, match=name.replace("_", "-")):
        table(app).audit()


@pytest.mark.parametrize("alias", ["Authorization", "X-API-Key"])
def test_a_credential_under_an_alias_is_caller_dependent(table, alias) -> None:
    """The alias is what is read, whatever the parameter is called."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    def handler(harmless: Annotated[str, Header(alias=alias)] = "") -> str:
        return harmless

    with pytest.raises(CallerDependentRoute, match=alias.lower()):
        table(app).audit()


@pytest.mark.parametrize("alias", ["authorization", "cookie"])
def test_a_credential_in_the_handlers_header_model_is_caller_dependent(table, alias) -> None:
    """A model's field counts as a header of its own."""

    class Fields(BaseModel):
        lang: str = ""
        secret: str = Field("", alias=alias)  # type: ignore[literal-required]

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    def handler(fields: Annotated[Fields, Header()]) -> str:
        return ""

    with pytest.raises(CallerDependentRoute, match=alias):
        table(app).audit()


@pytest.mark.parametrize("extra", ["allow", "forbid"])
def test_a_header_model_that_sees_other_headers_is_caller_dependent(table, extra) -> None:
    """With extra other than ignore the model is handed every header of the request."""

    class Fields(BaseModel):
        model_config = {"extra": extra}
        lang: str = ""

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    def handler(fields: Annotated[Fields, Header()]) -> str:
        return ""

    with pytest.raises(CallerDependentRoute, match="every header"):
        table(app).audit()


def test_a_cookie_of_the_handler_is_caller_dependent(table) -> None:
    """A cookie is never part of the variant."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    def handler(session: Annotated[str, Cookie()] = "") -> str:
        return session

    with pytest.raises(CallerDependentRoute, match="session"):
        table(app).audit()


@pytest.mark.parametrize("kind", [Request, HTTPConnection, SubRequest])
def test_the_raw_request_in_the_handler_is_caller_dependent(table, kind) -> None:
    """The handler may read anything of it."""
    app = FastAPI()

    def handler(it) -> str:
        return ""

    handler.__annotations__["it"] = kind
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    with pytest.raises(CallerDependentRoute, match="raw request"):
        table(app).audit()


def test_what_never_sees_the_request_is_shared(plan) -> None:
    """A database session, a response parameter, query parameters and the cache's own tags tell no callers apart."""
    app = FastAPI(dependencies=[Depends(lambda: None)])

    def session() -> Any:
        yield object()

    def page(number: int = 1, size: int = 10) -> int:
        return number * size

    @app.get("/it", dependencies=[cached(ttl=60)])
    def handler(
        response: Response,
        tags: CacheTags,
        db: Annotated[Any, Depends(session)],
        at: Annotated[int, Depends(page)],
        accept_language: Annotated[str, Header()] = "en",
    ) -> str:
        return ""

    found = plan(app)
    assert found.sharing is Sharing.PROVED
    assert found.uncovered == ()
    assert found.front
    assert found.headers == (b"accept-language",)


def test_shared_true_declares_what_cannot_be_proved(plan) -> None:
    """The author's word lets the route start, and the evidence stays in the plan."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, shared=True), Depends(token_header)])
    def handler(request: Request) -> str:
        return ""

    found = plan(app)
    assert found.sharing is Sharing.DECLARED
    assert len(found.uncovered) == 2
