"""The cache works behind what a route itself puts around its handler, or refuses the route where it cannot."""

# No postponed annotations: the handlers name classes and callables of their own test.

from functools import partial
from itertools import product
from types import MethodType
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Header
from fastapi.routing import APIRoute
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse

from fastapi_cacheinval import CachePolicy, CallerDependentRoute, cached
from fastapi_cacheinval.routes.plan import Sharing
from tests.helpers.versions import SEES_INCLUDED


class Handling(APIRoute):
    """As the framework's documentation shows it."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def greeting(request: Any) -> Any:
            response = await handler(request)
            response.headers["x-user"] = request.headers.get("authorization", "")
            return response

        return greeting


class Handle(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


class Below(Handling):
    """What it inherits counts too."""


class Wrapped(APIRoute):
    """Takes effect where the route is declared on the app."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = BaseHTTPMiddleware(self.app, dispatch=self.passes)

    async def passes(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


class Compressed(APIRoute):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = GZipMiddleware(self.app)


class Quiet(APIRoute):
    """Changes what the framework makes of the declaration, and sees no request."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["response_model_exclude_none"] = True
        super().__init__(*args, **options)


def page() -> str:
    return "page"


def user(x_user: Annotated[str, Header()]) -> str:
    return x_user


def app_of(route_class: Any, dependency: Any, *, included: bool = False) -> FastAPI:
    app = FastAPI()
    router = APIRouter(route_class=route_class) if included else app.router
    router.route_class = route_class
    router.add_api_route("/it", page, dependencies=[dependency])
    if included:
        app.include_router(router)
    return app


COVERS: list[Any] = [{}, {"partition_by": user}, {"guarded_by": user}]


@pytest.mark.parametrize(
    ("route_class", "included"),
    # An include makes the app anew, so `Wrapped` is around none there.
    [*product([Handling, Handle, Below], [True, False]), (Wrapped, False)],
)
@pytest.mark.parametrize("covers", COVERS, ids=["bare", "partition", "guard"])
def test_the_cache_works_behind_one_that_sees_the_request(table, plan, route_class, included, covers) -> None:
    """As behind a middleware that is not known: the plan names it, and the front lookup is off."""
    app = app_of(route_class, cached(CachePolicy(60, **covers)), included=included)
    if included and not SEES_INCLUDED:
        with pytest.raises(CallerDependentRoute):
            table(app).audit()
        return
    table(app).audit()
    found = plan(app)
    (name,) = found.around
    assert ("BaseHTTPMiddleware" if route_class is Wrapped else route_class.__name__) in name
    assert found.layered
    assert not found.front


class Hidden(APIRoute):
    """Keeps the framework's handler where nothing can be put in its place."""

    def get_route_handler(self) -> Any:
        return partial(self.answer, super().get_route_handler())

    async def answer(self, handler: Any, request: Any) -> Any:
        return await handler(request)


class Replacing(APIRoute):
    """Answers without the framework's handler."""

    def get_route_handler(self) -> Any:
        async def answer(request: Any) -> Any:
            return PlainTextResponse(request.headers.get("authorization", ""))

        return answer


@pytest.mark.parametrize("route_class", [Hidden, Replacing])
@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize("covers", COVERS, ids=["bare", "partition", "guard"])
def test_one_that_hides_the_handler_does_not_start(table, route_class, included, covers) -> None:
    """No cache can work behind it; the error names the class, the method and the way out."""
    made = table(app_of(route_class, cached(CachePolicy(60, **covers)), included=included))
    with pytest.raises(CallerDependentRoute) as refused:
        made.audit()
    (evidence,) = refused.value.parameters
    assert route_class.__name__ in evidence
    assert "get_route_handler()" in evidence
    assert "Use a plain route" in str(refused.value)


@pytest.mark.parametrize("route_class", [Handling, Handle, Wrapped])
@pytest.mark.parametrize("included", [True, False])
def test_its_authors_word_lets_it_start(table, plan, route_class, included) -> None:
    """`shared=True`; the front lookup stays off, since a hit there would skip it."""
    app = app_of(route_class, cached(ttl=60, shared=True), included=included)
    table(app).audit()
    found = plan(app)
    assert found.sharing is Sharing.DECLARED
    assert not found.front


@pytest.mark.parametrize("policy", [cached(ttl=0), None])
def test_without_a_policy_it_is_nobodys_business(table, policy) -> None:
    """Uncached routes have what class they like."""
    app = FastAPI()
    app.router.route_class = Handling
    app.get("/it", dependencies=[policy] if policy else [])(page)
    app.post("/it", dependencies=[cached(ttl=60)])(page)
    table(app).audit()


def test_what_is_wrapped_around_a_routes_app_is_named(table) -> None:
    """By a class or by hand; what is known to be harmless may be there."""
    for patch in (False, True):
        app = app_of(APIRoute if patch else Wrapped, cached(ttl=60))
        if patch:
            route: Any = app.routes[-1]
            inner = route.app

            async def around(scope: Any, receive: Any, send: Any, inner: Any = inner) -> None:
                await inner(scope, receive, send)

            route.app = around
        if patch:
            with pytest.raises(CallerDependentRoute, match="around its app"):
                table(app).audit()
        else:
            (found,) = [each for each in table(app).plans if each.path == "/it"]
            assert "BaseHTTPMiddleware" in found.around[0]
    table(app_of(Compressed, cached(ttl=60))).audit()


@pytest.mark.parametrize("name", ["handle", "get_route_handler"])
def test_a_method_that_is_replaced_on_the_route_itself_counts(table, name) -> None:
    """However it came there: the cache works behind it."""
    app = app_of(APIRoute, cached(ttl=60))
    route: Any = app.routes[-1]
    setattr(route, name, MethodType(getattr(Handle if name == "handle" else Handling, name), route))
    (found,) = [each for each in table(app).plans if each.path == "/it"]
    assert found.around == (f"its {name}() is replaced",)


@pytest.mark.parametrize("included", [True, False])
def test_one_that_sees_none_is_as_good_as_the_frameworks(table, plan, included) -> None:
    """Its own `__init__` alone keeps only the front lookup off, as before."""
    app = app_of(Quiet, cached(ttl=60), included=included)
    table(app).audit()
    assert plan(app).sharing is Sharing.PROVED


def test_one_that_matches_in_its_own_way_has_all_that_it_gives_in_the_key(plan) -> None:
    """The values of `Path()` parameters are those that it says, not those in the path."""

    class Mine(APIRoute):
        def matches(self, scope: Any) -> Any:
            match, child = super().matches(scope)
            child.setdefault("path_params", {})["item"] = dict(scope["headers"]).get(b"x-user", b"").decode()
            return match, child

    def read(item: str) -> str:
        return item

    app = FastAPI()
    app.router.route_class = Mine
    app.get("/it/{item}", dependencies=[cached(ttl=60)])(read)
    assert plan(app, "/it/{item}").elsewhere == ("item",)
