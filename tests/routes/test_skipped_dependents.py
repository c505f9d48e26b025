"""A dependency that depends on the caller runs on every request, or the app does not start."""

# No postponed annotations: the handlers name classes and callables of their own test.

import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer, SecurityScopes

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, PartitionBy, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop, ask

pytestmark = pytest.mark.anyio

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")
api_key = APIKeyHeader(name="x-key")
REVOKED: set[str] = set()


@pytest.fixture(autouse=True)
def nobody_is_revoked() -> None:
    REVOKED.clear()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def check(token: str) -> str:
    if token in REVOKED:
        raise HTTPException(401)
    return token


def current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> str:
    return check(token)


def active_user(user: Annotated[str, Depends(current_user)]) -> str:
    return check(user)


def bare_token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def by_raw_token(token: Annotated[str, Depends(bare_token)]) -> str:
    return check(token)


async def yielding(token: Annotated[str, Depends(oauth2_scheme)]) -> AsyncIterator[str]:
    yield check(token)


class User:
    def __init__(self, token: Annotated[str, Depends(oauth2_scheme)]) -> None:
        self.name = check(token)


class Checks:
    def __call__(self, token: Annotated[str, Depends(oauth2_scheme)]) -> str:
        return check(token)

    def method(self, token: Annotated[str, Depends(oauth2_scheme)]) -> str:
        return check(token)


checks = Checks()


def parameterless(token: Annotated[str, Depends(oauth2_scheme)]) -> None:
    check(token)


def with_more(more: str, token: Annotated[str, Depends(oauth2_scheme)]) -> str:
    return check(token)


def scoped(scopes: SecurityScopes, token: Annotated[str, Depends(oauth2_scheme)]) -> str:
    return check(token)


EMPTY: dict[str, Any] = {}
# What depends on the scheme, and how the message spells it.
DEPENDENTS: dict[str, tuple[Any, str]] = {
    "function": (Depends(current_user), "current_user"),
    "not-reused": (Depends(current_user, use_cache=False), "current_user"),
    "nested": (Depends(active_user), "active_user"),
    "yield": (Depends(yielding), "yielding"),
    "class": (Depends(User), "User"),
    "instance": (Depends(checks), "Checks"),
    "method": (Depends(checks.method), "Checks.method"),
    "partial": (Depends(partial(with_more, more="x")), "with_more"),
    "security": (Security(current_user, scopes=["read"]), "current_user"),
    "security-scopes": (Security(scoped, scopes=["admin"]), "scoped"),
    "of-function": (Depends(current_user, scope="function"), "current_user"),
}


def place_app(policy: Any, dependent: Any) -> FastAPI:
    app = FastAPI(dependencies=[dependent])

    @app.get("/it", dependencies=[policy])
    async def it() -> str:
        return "page"

    return app


def place_router(policy: Any, dependent: Any) -> FastAPI:
    app, router = FastAPI(), APIRouter(dependencies=[dependent])

    @router.get("/it", dependencies=[policy])
    async def it() -> str:
        return "page"

    app.include_router(router)
    return app


def place_include(policy: Any, dependent: Any) -> FastAPI:
    app, router = FastAPI(), APIRouter()

    @router.get("/it", dependencies=[policy])
    async def it() -> str:
        return "page"

    app.include_router(router, dependencies=[dependent])
    return app


def place_before(policy: Any, dependent: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[dependent, policy])
    async def it() -> str:
        return "page"

    return app


def place_after(policy: Any, dependent: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[policy, dependent])
    async def it() -> str:
        return "page"

    return app


def place_parameter(policy: Any, dependent: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/it", dependencies=[policy])
    async def it(user: Any = dependent) -> str:
        return "page"

    return app


def _service(dependent: Any) -> Any:
    def service(user: Any = dependent) -> str:
        return f"service of {type(user).__name__}"

    return service


SERVICES: dict[int, Any] = {}


def place_below(policy: Any, dependent: Any) -> FastAPI:
    """The dependent feeds something else that the handler takes."""
    app = FastAPI()
    service = SERVICES.setdefault(id(dependent), _service(dependent))

    @app.get("/it", dependencies=[policy])
    async def it(of: Annotated[str, Depends(service)]) -> str:
        return of

    return app


PLACES: dict[str, Callable[[Any, Any], FastAPI]] = {
    "app": place_app,
    "router": place_router,
    "include": place_include,
    "before": place_before,
    "after": place_after,
    "parameter": place_parameter,
}


@pytest.mark.parametrize("place", [*PLACES, "below"])
@pytest.mark.parametrize("kind", DEPENDENTS)
async def test_what_depends_on_a_partition_is_named_by_a_start_up_error(kind: str, place: str) -> None:
    """Wherever it stands and whatever it is: no request with a revoked token can get a hit, because nothing starts."""
    dependent, spelled = DEPENDENTS[kind]
    build = place_below if place == "below" else PLACES[place]
    app = build(cached(ttl=60, partition_by=oauth2_scheme), dependent)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        answer = await ask(app, "/it", headers=bearer("alice"))
        assert answer.status_code == 500
        text = answer.body.decode()
        named = "service" if place == "below" else spelled
        assert f"dependency {named}: depends on OAuth2PasswordBearer" in text
        assert "oauth2_scheme" in text
        assert "falls short" in text


async def test_the_message_says_the_line_that_works() -> None:
    """Taken word for word it starts: the token is the partition, the user the guard, and a revoked token gets its 401."""
    policy = cached(ttl=60, partition_by=oauth2_scheme)
    with pytest.raises(CallerDependentRoute) as refused:
        await start(place_parameter(policy, Depends(current_user)))
    message = str(refused.value)
    assert "partition_by=oauth2_scheme, guarded_by=current_user" in message
    assert "PartitionBy(current_user, key=" in message
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, partition_by=oauth2_scheme, guarded_by=current_user)])
    async def it(user: Annotated[str, Depends(current_user)]) -> str:
        shop.count()
        return user

    for token in ("alice", "bob", "alice", "bob"):
        answer = await shop.ask("/it", headers=bearer(token))
        assert answer.body == f'"{token}"'.encode()
    assert_hit(answer)
    REVOKED.add("alice")
    assert (await shop.ask("/it", headers=bearer("alice"))).status_code == 401
    assert_hit(await shop.ask("/it", headers=bearer("bob")))
    assert shop.calls == 2


@pytest.mark.parametrize("place", [*PLACES, "below"])
@pytest.mark.parametrize("kind", sorted(DEPENDENTS.keys() - {"partial", "not-reused"}))
@pytest.mark.parametrize("given", ["", "partition_by=oauth2_scheme", "guarded_by=api_key"])
async def test_the_line_works_when_it_is_written(kind: str, place: str, given: str) -> None:
    """Whatever is given and whatever falls short: the app with the line that the message says does start."""
    dependent, _ = DEPENDENTS[kind]
    build = place_below if place == "below" else PLACES[place]
    with pytest.raises(CallerDependentRoute) as refused:
        await start(build(eval(f"cached(ttl=60, {given})"), dependent))
    advice = refused.value.advice
    assert bool(given) is ("falls short" in advice)
    lines = re.findall(r"cached\(\.\.\., (.*?)\)(?=, or|\.$)", advice)
    assert lines
    for line in lines:
        names = {**globals(), "service": SERVICES[id(dependent)]} if place == "below" else globals()
        await start(build(eval(f"cached(ttl=60, {line.replace('key=...', 'key=str')})", names), dependent))


@pytest.mark.parametrize("place", ["parameter"])
async def test_one_that_is_solved_anew_is_told_to_be_solved_once(place: str) -> None:
    """No cover has the value of a node with `use_cache=False`: the message says so, and promises no line."""
    app = PLACES[place](cached(ttl=60), Depends(current_user, use_cache=False))
    with pytest.raises(CallerDependentRoute, match="without use_cache=False") as refused:
        await start(app)
    assert "line works" not in str(refused.value)


async def test_a_cover_that_is_solved_anew_is_said_to_be_one() -> None:
    """The line that is offered is another than the one that falls short, and it works."""
    app = PLACES["parameter"](
        cached(ttl=60, partition_by=Depends(current_user, use_cache=False)), Depends(current_user)
    )
    with pytest.raises(CallerDependentRoute) as refused:
        await start(app)
    told = str(refused.value)
    assert "partition_by=Depends(current_user, use_cache=False) falls short" in told
    assert "this line works: cached(..., partition_by=current_user)." in told
    await start(PLACES["parameter"](cached(ttl=60, partition_by=current_user), Depends(current_user)))


async def test_the_message_says_that_what_is_solved_anew_may_differ() -> None:
    """The cover names the same function, so its name alone explains nothing."""
    app = PLACES["parameter"](cached(ttl=60, partition_by=current_user), Depends(current_user, use_cache=False))
    with pytest.raises(CallerDependentRoute, match="is solved once more, and may give another value"):
        await start(app)


async def start(app: FastAPI) -> None:
    """Raise what the audit of an app's routes raises."""
    from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
    from fastapi_cacheinval.routes.table import RouteTable

    inside = middleware_stack_of(app)
    RouteTable(inside.app, inside).audit()


WAYS: dict[str, dict[str, Any]] = {
    "guard": {"partition_by": oauth2_scheme, "guarded_by": current_user},
    "both": {"partition_by": (oauth2_scheme, current_user)},
    "top": {"partition_by": current_user},
    "key": {"partition_by": PartitionBy(current_user, key=str.upper)},
    "key-in-tuple": {"partition_by": (oauth2_scheme, PartitionBy(current_user, key=len))},
    "below-a-cover": {"partition_by": (oauth2_scheme, active_user)},
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_out_runs_the_dependent_on_every_request(way: str) -> None:
    """By name, by key, or as a part of what another cover needs: the revoked token is refused, others hit."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, **WAYS[way])])
    async def it(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    for token in ("alice", "bobby", "alice", "bobby"):
        assert (await shop.ask("/it", headers=bearer(token))).body == f'"{token}"'.encode()
    REVOKED.add("alice")
    assert (await shop.ask("/it", headers=bearer("alice"))).status_code == 401
    assert_hit(await shop.ask("/it", headers=bearer("bobby")))


@pytest.mark.parametrize("place", ["app", "router", "include", "before", "after"])
async def test_a_check_whose_value_goes_nowhere_is_a_guard(place: str) -> None:
    """`guarded_by` names it, wherever it stands, and it is asked on every request."""
    app = PLACES[place](cached(ttl=60, partition_by=oauth2_scheme, guarded_by=parameterless), Depends(parameterless))
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        answer = await ask(app, "/it", headers=bearer("alice"))
        assert answer.status_code == 200
    assert_hit(answer)
    REVOKED.add("alice")
    assert (await ask(app, "/it", headers=bearer("alice"))).status_code == 401


async def test_the_raw_request_in_a_dependency_feeds_as_a_scheme_does() -> None:
    """A token read from the request is a partition like any other, and what checks it must run."""
    with pytest.raises(CallerDependentRoute, match="guarded_by=by_raw_token"):
        await start(place_parameter(cached(ttl=60, partition_by=bare_token), Depends(by_raw_token)))


async def test_a_dependency_that_no_caller_feeds_is_free() -> None:
    """A session, settings, and what is made of them need no cover beside a partition."""

    def settings() -> str:
        return "settings"

    def session(of: Annotated[str, Depends(settings)]) -> str:
        return of

    def repository(db: Annotated[str, Depends(session)], page: int = 1) -> str:
        return db

    app = FastAPI(dependencies=[Depends(session)])

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=oauth2_scheme)])
    async def it(of: Annotated[str, Depends(repository)], token: Annotated[str, Depends(oauth2_scheme)]) -> str:
        return of

    await start(app)


async def test_shared_true_is_still_the_authors_word() -> None:
    """It says that the checks need not run on a hit."""
    for build in PLACES.values():
        await start(build(cached(ttl=60, shared=True), Depends(current_user)))


async def test_a_bare_policy_is_told_of_the_dependent_and_not_of_the_scheme() -> None:
    """The first message leads to a line that works: it names what the handler is handed."""
    with pytest.raises(CallerDependentRoute) as refused:
        await start(place_parameter(cached(ttl=60), Depends(active_user)))
    (evidence,) = refused.value.parameters
    assert evidence.startswith("dependency active_user: ")
    assert "OAuth2PasswordBearer" in evidence
    assert "partition_by=active_user" in str(refused.value)


async def test_a_check_beside_an_outer_cached_is_no_less_a_check() -> None:
    """The guard of an inert `cached()` would not run on a hit either; one that the inner names too is covered."""

    def admin(token: Annotated[str, Depends(oauth2_scheme)]) -> str:
        return check(token)

    def build(**covers: Any) -> FastAPI:
        app = FastAPI(dependencies=[cached(ttl=5, guarded_by=admin)])

        @app.get("/it", dependencies=[cached(ttl=60, **covers)])
        async def it() -> str:
            return "page"

        return app

    with pytest.raises(CallerDependentRoute, match="guarded_by=admin"):
        await start(build(partition_by=oauth2_scheme))
    await start(build(guarded_by=admin))


async def test_more_scopes_are_another_check() -> None:
    """The line says the scopes that the route asks for."""
    policy = cached(ttl=60, partition_by=oauth2_scheme, guarded_by=Security(scoped, scopes=["read"]))
    with pytest.raises(CallerDependentRoute, match=r"Security\(scoped, scopes=\['admin'\]\)"):
        await start(place_parameter(policy, Security(scoped, scopes=["admin"])))


async def test_two_headers_two_checks() -> None:
    """Each check that would be skipped is named, and the line names all."""

    def tenant(key: Annotated[str, Depends(api_key)]) -> str:
        return key

    def locale(x_locale: Annotated[str, Header()] = "") -> str:
        return x_locale

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=(oauth2_scheme, api_key))])
    async def it(
        user: Annotated[str, Depends(current_user)],
        of: Annotated[str, Depends(tenant)],
        speaks: Annotated[str, Depends(locale)],
    ) -> str:
        return user

    with pytest.raises(CallerDependentRoute) as refused:
        await start(app)
    assert [each.partition(":")[0] for each in refused.value.parameters] == [
        "dependency current_user",
        "dependency tenant",
        "dependency locale",
    ]
    line = "partition_by=(oauth2_scheme, api_key, locale), guarded_by=(current_user, tenant)"
    assert line in str(refused.value)
