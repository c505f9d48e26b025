"""A header whose name looks like a credential counts as one, until the author says that it is a variant."""

# No postponed annotations: the handlers name classes and callables of their own test.

from inspect import Parameter, Signature
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Security
from fastapi.security import SecurityScopes
from pydantic import BaseModel, Field

from fastapi_cacheinval import CachePolicy, CallerDependentRoute, ConfigurationError, cached
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.plan import RoutePlan, Sharing
from fastapi_cacheinval.routes.table import RouteTable
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio

CREDENTIALS = [
    "X-Auth-Token",
    "x-access-token",
    "X-JWT-Assertion",
    "x-session-id",
    "X-User-Id",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "Remote-User",
    "api-key",
    "apikey",
    "X-Amz-Security-Token",
    "x-amzn-oidc-identity",
    "X-Amzn-Oidc-Data",
    "Cf-Access-Jwt-Assertion",
    "CF-Access-Client-Id",
    "X-Goog-IAP-JWT-Assertion",
    "X-Goog-Authenticated-User-Email",
    "X-MS-CLIENT-PRINCIPAL",
    "X-Client-Cert",
    "X-SSL-Client-S-DN",
    "X-CSRF-Token",
    "Idempotency-Key",
    "x-hub-signature",
    "X-Secret",
    "x-password",
    "Bearer",
    "DPoP",
    "X-SID",
    "X-OTP",
    "X-PIN",
    "X-Ticket",
    "X-SAML",
    "X-SSO",
    "X-UID",
    "X-HMAC",
    "X-Sig",
    "X-Macaroon",
    "X-Certificate",
    "X-Cert",
    "X-Impersonate",
    "x-key",
    "X-Passcode",
    "X-Passphrase",
    "X-Pwd",
    "X-PW",
    "X-Pass",
    "X-Code",
    "X-Access-Code",
    "X-Login",
    "X-Email",
    "X-Csrf",
    "X-XSRF",
    "X-Creds",
    "X-AuthZ",
    "X-Tok",
    "X-PhpSessId",
    "X-PKey",
]
ORDINARY = ["Accept-Language", "X-Language", "X-Tenant", "User-Agent", "Sec-Fetch-User", "Accept", "X-Currency", "DNT"]
ORDINARY += ["X-Monkey", "X-Keyboard", "X-Shopping", "X-Aside", "X-Design", "X-Liquid"]
ORDINARY += ["X-Country-Code", "X-Passenger-Count", "X-Compass"]
QUERY_CREDENTIALS = [
    "token",
    "api_key",
    "apiKey",
    "apikey",
    "access_token",
    "accessToken",
    "key",
    "sig",
    "signature",
    "X-Amz-Signature",
    "auth",
    "jwt",
    "session",
    "session_id",
    "sid",
    "otp",
    "ticket",
    "password",
    "secret",
    "pw",
    "pwd",
    "passphrase",
    "passcode",
    "pin",
    "code",
    "inviteCode",
    "access_code",
    "share_token",
    "client_secret",
    "user_key",
    "account_key",
    "licence_key",
    "JSESSIONID",
    "PHPSESSID",
    "sessid",
    "csrf",
    "creds",
    "authz",
    "tok",
    "pkey",
]
QUERY_ORDINARY = ["q", "page_token", "nextToken", "keyword", "sort_key", "author", "user_id", "design", "limit"]
# What they name is asked about, whoever asks: it is an identity, and no credential.
QUERY_ORDINARY += ["username", "user", "email", "login", "item_id", "ticket_id", "token_id", "key_id", "country_code"]
QUERY_ORDINARY += ["zip_code", "slug", "passenger", "passive", "pinned", "codec", "secret_name", "token_type"]
QUERY_ORDINARY += ["credit", "tokyo", "license", "user_keyword", "account_id", "pkeys_shown"]


def taking(**parameters: Any) -> Any:
    """A handler with these header parameters."""

    def handler(**given: Any) -> str:
        return str(given)

    keyword = Parameter.KEYWORD_ONLY
    handler.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(name, keyword, annotation=annotation, default=None) for name, annotation in parameters.items()]
    )
    return handler


def plan_of(endpoint: Any, **policy: Any) -> RoutePlan:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy)])(endpoint)
    inside = middleware_stack_of(app)
    table = RouteTable(inside.app, inside)
    table.audit()
    return table.plans[-1]


def by_alias(name: str) -> Any:
    return taking(it=Annotated[str | None, Header(alias=name)])


def by_name(name: str) -> Any:
    return taking(**{name.lower().replace("-", "_"): Annotated[str | None, Header()]})


def unconverted(name: str) -> Any:
    return taking(**{name.lower().replace("-", "_"): Annotated[str | None, Header(convert_underscores=False)]})


def in_a_model(name: str) -> Any:
    class Fields(BaseModel):
        it: str | None = Field(None, alias=name)  # type: ignore[literal-required]

    def handler(fields: Annotated[Fields, Header()]) -> str:
        return str(fields)

    return handler


SPELLINGS = [by_alias, by_name, unconverted, in_a_model]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_handler_that_takes_one_does_not_start(name: str, spelling: Any) -> None:
    """The error names the header, and the word that lets it through."""
    with pytest.raises(CallerDependentRoute, match="looks like a credential") as refused:
        plan_of(spelling(name))
    assert "vary=" in str(refused.value)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_a_variant(name: str, spelling: Any) -> None:
    """As before."""
    assert plan_of(spelling(name)).sharing is Sharing.PROVED


@pytest.mark.parametrize("name", CREDENTIALS)
def test_the_authors_word_lets_it_through(name: str) -> None:
    """Named in `vary`, in any case, it is one more variant; `shared=True` is a word for all of them."""
    found = plan_of(by_alias(name), vary=[name])
    assert found.sharing is Sharing.PROVED
    assert found.headers == (name.lower().encode(),)
    assert plan_of(by_alias(name), shared=True).sharing is Sharing.DECLARED


def test_the_word_is_for_the_name_that_it_names() -> None:
    """Another credential is still one."""
    handler = taking(x_auth_token=Annotated[str | None, Header()], x_user=Annotated[str | None, Header()])
    with pytest.raises(CallerDependentRoute, match="x-user looks like") as refused:
        plan_of(handler, vary=["x-auth-token"])
    assert len(refused.value.parameters) == 1
    assert plan_of(handler, vary=["x-auth-token", "x-user"]).headers == (b"x-auth-token", b"x-user")


def test_x_api_key_needs_the_same_word() -> None:
    """It is a credential that the author may say is none."""
    with pytest.raises(CallerDependentRoute):
        plan_of(by_alias("X-API-Key"))
    assert plan_of(by_alias("X-API-Key"), vary=["X-API-Key"]).headers == (b"x-api-key",)


@pytest.mark.parametrize(
    "vary",
    [
        ["authorization"],
        ["Cookie"],
        ["Proxy-Authorization"],
        ["Range"],
        ["If-None-Match"],
        "x-auth-token",
        ["x auth"],
        [""],
        [3],
        5,
        ["x-täg"],
    ],
)
def test_a_vary_that_cannot_work_is_refused_when_it_is_made(vary: Any) -> None:
    """Credentials that a variant would hold, fields that the cache answers itself, and what is no field's name."""
    with pytest.raises(ConfigurationError, match="vary"):
        CachePolicy(60, vary=vary)


def test_a_dependencys_header_counts_whatever_it_is_called() -> None:
    """`vary` says nothing of a dependency: that is how apps check tokens."""

    def dependency(x_auth_token: Annotated[str | None, Header()] = None) -> None:
        pass

    def handler(it: Annotated[None, Depends(dependency)]) -> str:
        return ""

    with pytest.raises(CallerDependentRoute, match="dependency dependency"):
        plan_of(handler, vary=["x-auth-token"])


def test_a_query_parameter_is_in_the_key_as_it_is() -> None:
    """Each value has its own stored response."""

    def handler(token: Annotated[str, Query()] = "") -> str:
        return token

    assert plan_of(handler).sharing is Sharing.PROVED


def in_the_query(name: str) -> Any:
    return taking(it=Annotated[str | None, Query(alias=name)])


def in_a_query_model(name: str) -> Any:
    class Asked(BaseModel):
        it: str | None = Field(None, alias=name)  # type: ignore[literal-required]

    def dependency(asked: Annotated[Asked, Query()]) -> None:
        pass

    return dependency


def named_in_python(name: str) -> Any:
    """The name is only that of the function's parameter."""
    return taking(**{name.replace("-", "_"): Annotated[str | None, Query(alias="it")]})


def in_the_path(name: str) -> Any:
    handler = taking(**{name.replace("-", "_"): Annotated[str, Path()]})
    parameters = [each.replace(default=Parameter.empty) for each in handler.__signature__.parameters.values()]
    handler.__signature__ = Signature(parameters)
    return handler


def in_a_class(name: str) -> Any:
    class Check:
        def __init__(self, **given: str) -> None:
            pass

    Check.__signature__ = in_the_path(name).__signature__  # type: ignore[attr-defined]
    return Check


PLACES = [in_the_query, in_a_query_model, named_in_python, in_the_path, in_a_class]
IN_PATHS = (in_the_path, in_a_class)


def plan_at(name: str, endpoint: Any, placed: Any, **policy: Any) -> RoutePlan:
    app = FastAPI(openapi_url=None)
    path = "/it/{" + name.replace("-", "_") + "}" if placed in IN_PATHS else "/it"
    app.get(path, dependencies=[cached(ttl=60, **policy)])(endpoint)
    inside = middleware_stack_of(app)
    table = RouteTable(inside.app, inside)
    table.audit()
    return table.plans[-1]


@pytest.mark.parametrize("declared", [Depends, Security])
@pytest.mark.parametrize("placed", PLACES)
@pytest.mark.parametrize("name", QUERY_CREDENTIALS)
def test_a_dependency_that_takes_a_credential_from_the_query_or_the_path_is_a_check(
    name: str, placed: Any, declared: Any
) -> None:
    """It may refuse the same token the next time, so it runs on every request or the app does not start."""
    check = placed(name)

    def handler(it: Annotated[Any, declared(check)] = None) -> str:
        return ""

    def takes_nothing() -> str:
        return ""

    with pytest.raises(CallerDependentRoute, match="looks like a credential"):
        plan_at(name, handler, placed)
    assert plan_at(name, handler, placed, shared=True).sharing is Sharing.DECLARED
    if placed is not in_a_class:
        assert plan_at(name, handler, placed, partition_by=check).sharing is Sharing.COVERED
    assert plan_at(name, takes_nothing, placed, guarded_by=check).sharing is Sharing.COVERED


@pytest.mark.parametrize("placed", PLACES)
@pytest.mark.parametrize("name", QUERY_ORDINARY)
def test_a_dependency_that_takes_anything_else_from_the_query_or_the_path_is_none(name: str, placed: Any) -> None:
    """A filter, a page or the name of an item is in the key, and that is enough."""
    check = placed(name)

    def handler(it: Annotated[Any, Depends(check)] = None) -> str:
        return ""

    assert plan_at(name, handler, placed).sharing is Sharing.PROVED


@pytest.mark.parametrize("name", ["token", "code", "pin"])
def test_what_a_handler_takes_from_the_path_is_in_the_key(name: str) -> None:
    """Each value has its own stored response, as in the query."""
    assert plan_at(name, in_the_path(name), in_the_path).sharing is Sharing.PROVED


@pytest.mark.parametrize("placed", [in_the_query, in_the_path])
@pytest.mark.parametrize("scoped", ["by its place", "by a parameter"])
def test_a_dependency_with_security_scopes_checks_whatever_it_takes(placed: Any, scoped: str) -> None:
    """Its author has said that it checks rights, so the name of what it takes does not matter."""
    check = placed("slug")
    if scoped == "by a parameter":
        given = [*check.__signature__.parameters.values()]
        own = Parameter("scopes", Parameter.KEYWORD_ONLY, annotation=SecurityScopes)
        check.__signature__ = Signature([*given, own])
    depends = Depends(check) if scoped == "by a parameter" else Security(check, scopes=["read"])

    def handler(it: Annotated[Any, depends] = None) -> str:
        return ""

    with pytest.raises(CallerDependentRoute, match="checks security scopes"):
        plan_at("slug", handler, placed)
    assert plan_at("slug", handler, placed, partition_by=depends).sharing is Sharing.COVERED


async def test_a_token_of_the_path_that_is_revoked_gets_no_hit() -> None:
    """A link that is shared by its token is refused once that is revoked, where the check is a guard."""
    live = {"k1"}
    bare, shop = Shop(), Shop()

    def share_link(token: str) -> str:
        if token not in live:
            raise HTTPException(401)
        return token

    @bare.app.get("/shared/{token}/report", dependencies=[cached(ttl=60), Depends(share_link)])
    @shop.app.get("/shared/{token}/report", dependencies=[cached(ttl=60, guarded_by=share_link), Depends(share_link)])
    async def report() -> str:
        return "report"

    assert (await bare.ask("/shared/k1/report")).status_code == 500
    for _ in range(2):
        answer = await shop.ask("/shared/k1/report")
    assert_hit(answer)
    live.clear()
    assert (await shop.ask("/shared/k1/report")).status_code == 401


async def test_a_token_of_the_query_that_is_revoked_gets_no_hit() -> None:
    """The tutorial's `get_query_token` as a guard runs on every request."""
    valid = {"jessica"}
    shop = Shop()

    def get_query_token(token: str) -> None:
        if token not in valid:
            raise HTTPException(401)

    guarded = [Depends(get_query_token), cached(ttl=60, guarded_by=get_query_token)]

    @shop.app.get("/items", dependencies=guarded)
    async def items() -> str:
        return "items"

    for _ in range(2):
        assert (await shop.ask("/items?token=jessica")).status_code == 200
    assert_hit(await shop.ask("/items?token=jessica"))
    valid.clear()
    assert (await shop.ask("/items?token=jessica")).status_code == 401


async def test_what_a_handler_checks_itself_is_checked_on_every_request() -> None:
    """A revoked token gets its 401: the route does not start, or the check is a dependency and a guard."""
    valid = {"alice", "bob"}
    refused = Shop()

    @refused.app.get("/it", dependencies=[cached(ttl=60)])
    async def checks_itself(x_auth_token: Annotated[str, Header()]) -> str:
        if x_auth_token not in valid:
            raise HTTPException(401)
        return x_auth_token

    assert (await refused.ask("/it", headers={"x-auth-token": "alice"})).status_code == 500
    shop = Shop()

    def user(x_auth_token: Annotated[str, Header()]) -> str:
        return await_checked(x_auth_token)

    def await_checked(token: str) -> str:
        if token not in valid:
            raise HTTPException(401)
        return token

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=user)])
    async def it(who: Annotated[str, Depends(user)]) -> str:
        return who

    for who in ("alice", "bob", "alice"):
        answer = await shop.ask("/it", headers={"x-auth-token": who})
        assert answer.body == f'"{who}"'.encode()
    assert_hit(answer)
    valid.remove("alice")
    assert (await shop.ask("/it", headers={"x-auth-token": "alice"})).status_code == 401


async def test_a_declared_variant_is_told_apart_and_said_downstream() -> None:
    """One stored response per value, `Vary` names it, and a name that no parameter takes may be declared as well."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, vary=["X-Edition-Key", "x-theme"])])
    async def it(x_edition_key: Annotated[str, Header()]) -> str:
        shop.count()
        return x_edition_key

    for _ in range(2):
        for edition in ("one", "two"):
            answer = await shop.ask("/it", headers={"x-edition-key": edition})
            assert answer.body == f'"{edition}"'.encode()
            assert answer.headers["vary"] == "x-edition-key, x-theme"
    assert_hit(answer)
    await shop.ask("/it", headers={"x-edition-key": "one", "x-theme": "dark"})
    assert shop.calls == 3


def test_a_refusal_that_names_one_variant_keeps_those_that_are_said_already() -> None:
    """Whoever does what two refusals say, one after the other, has said both."""

    def priced(x_edition_key: Annotated[str, Header()], x_session_kind: Annotated[str, Header()]) -> str:
        return x_edition_key + x_session_kind

    app = FastAPI(openapi_url=None)
    app.get("/", dependencies=[cached(ttl=60, vary=["x-edition-key"])])(priced)
    with pytest.raises(CallerDependentRoute) as refused:
        RouteTable(app, middleware_stack_of(app)).audit()
    assert "vary=['x-edition-key', 'x-session-kind']" in refused.value.advice
