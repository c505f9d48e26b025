"""An unsafe request whose handler did not run purges at most its exact target, so that nobody can keep pages cold."""

# No postponed annotations: handlers name classes and callables of their own test.

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, field_validator
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates, purge_with_request
from fastapi_cacheinval.testing import capture_invalidations
from tests.helpers.mutations import Shop, ask, begin, get

pytestmark = pytest.mark.anyio

PAGES = ("/", "/pages", "/pages/", "/pages/7", "/pages/7/")


def _shop(inside: Callable[[FastAPI], object] = id) -> Shop:
    """An app without redirects of its own and with a cached page at each of the paths."""
    app = FastAPI(redirect_slashes=False)
    inside(app)
    shop = Shop(app=app)
    for path in PAGES:
        shop.app.add_api_route(path, shop.read, dependencies=[cached(ttl=60, tags=["pages"])])
    return shop


async def _gone(shop: Shop, *paths: str) -> set[str]:
    """Which of the pages are not answered from the cache now."""
    return {path for path in paths or PAGES if not await shop.kept(path)}


def _login(request: Request) -> None:
    if "authorization" not in request.headers:
        raise HTTPException(303, headers={"location": "/login"})


async def test_a_router_that_redirects_to_the_other_slash_purges_nothing() -> None:
    """A hundred POSTs of anybody to /page/ cost the page at /page no handler call."""
    shop = Shop()
    shop.app.add_api_route("/page", shop.read, dependencies=[cached(ttl=60)])
    shop.app.add_api_route("/", shop.read, dependencies=[cached(ttl=60)])

    @shop.app.post("/page", dependencies=[invalidates("page")])
    async def write() -> None: ...

    await _gone(shop, "/page", "/")
    made = shop.reads
    for _ in range(100):
        answer = await ask(shop.app, "POST", "/page/")
        assert (answer.status_code, answer.purge) == (307, None)
        assert await shop.kept("/page")
    assert shop.reads == made
    assert shop.cache.statistics().purges == {}


async def test_many_distinct_redirects_leave_the_floor_where_it_is() -> None:
    """Nothing is purged, so that nothing is remembered of them, however many there are."""
    shop = _shop()

    @shop.app.put("/pages/{number}", dependencies=[invalidates("pages"), Depends(_login)])
    async def write(number: int) -> None: ...

    await _gone(shop)
    for number in range(1000):
        await shop.put(f"/pages/{number}")
    replica = shop.cache._core.engine.replica
    assert (replica.floor, replica.applied, len(replica.cells)) == (0, 0, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("how", ["stock", "function", "class", "pure"])
async def test_a_middleware_that_redirects_purges_nothing(how: str, status: int) -> None:
    """A redirect to HTTPS or to the login, by whatever middleware stands inside the cache."""

    async def dispatch(request: Request, call_next: Any) -> Response:
        return RedirectResponse("/login", status) if request.method == "PUT" else await call_next(request)

    class Login(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            return await dispatch(request, call_next)

    class Wall:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            stopped = scope["type"] == "http" and scope["method"] == "PUT"
            await (RedirectResponse("/login", status) if stopped else self.app)(scope, receive, send)

    def inside(app: FastAPI) -> None:
        if how == "function":
            app.middleware("http")(dispatch)
        else:
            kinds: dict[str, Any] = {"stock": HTTPSRedirectMiddleware, "class": Login, "pure": Wall}
            app.add_middleware(kinds[how])

    shop = _shop(inside)

    @shop.app.put("/pages/7", dependencies=[invalidates("x")])
    async def write() -> None: ...

    scheme = "https" if how == "stock" else "http"
    for path in PAGES:
        await shop.get(path, scheme=scheme)
    answer = await shop.put("/pages/7")
    assert 300 <= answer.status_code < 400
    assert all([await shop.kept(path, scheme=scheme) for path in PAGES])
    assert shop.cache.statistics().purges == {}


async def test_a_middleware_that_answers_by_itself_purges_the_exact_target() -> None:
    """It may have changed something: RFC 9111 section 4.4 has the target invalidated, and no page beside it."""

    async def answers(request: Request, call_next: Any) -> Response:
        return Response(status_code=204) if request.method == "PUT" else await call_next(request)

    shop = _shop(lambda app: app.middleware("http")(answers))
    await _gone(shop)
    await shop.put("/pages/7")
    assert await _gone(shop) == {"/pages/7"}
    await ask(shop.app, "PUT", "/no-page")
    assert shop.cache.statistics().purges.get("hard", 1) == 1


@pytest.mark.parametrize("place", ["route", "router", "include", "app", "parameter", "above our own"])
@pytest.mark.parametrize("status", [200, 204, 302, 303, 307])
async def test_a_dependency_that_answers_in_the_handlers_place_purges_nothing(place: str, status: int) -> None:
    """An anonymous client that is sent to the login has changed nothing, wherever the dependency is declared."""
    shop = _shop()
    ran = 0

    async def wall(request: Request) -> None:
        if "authorization" not in request.headers:
            raise HTTPException(status, headers={"location": "/pages/7", "surrogate-key": "pages"})

    depends = [Depends(wall)]
    router = APIRouter(dependencies=depends if place == "router" else [])
    own = [invalidates("pages")]
    own = [*own, *depends] if place == "route" else [*depends, *own] if place == "above our own" else own

    @router.put("/pages/7", dependencies=own)
    async def write(tags: CacheTags) -> None:
        nonlocal ran
        ran += 1

    @router.put("/pages/8", dependencies=[invalidates("pages")])
    async def other(_: Annotated[None, Depends(wall)]) -> None: ...

    if place == "app":
        shop.app.router.dependencies += depends
    shop.app.include_router(router, dependencies=depends if place == "include" else [])
    target = "/pages/8" if place == "parameter" else "/pages/7"
    for path in PAGES:
        await shop.get(path, headers=[("authorization", "x")])
    answer = await shop.put(target)
    assert (answer.status_code, answer.purge, ran) == (status, None, 0)
    assert shop.cache.statistics().purges == {}
    answer = await shop.put(target, headers=[("authorization", "x")])
    assert answer.purge == "done"


async def test_a_validation_error_that_is_answered_with_a_redirect_or_200_purges_nothing() -> None:
    """Some apps answer every error with 200 and a code in the body."""
    shop = _shop()

    @shop.app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        return JSONResponse({"code": 422})

    @shop.app.exception_handler(PermissionError)
    async def forbidden(request: Request, error: Exception) -> Response:
        return JSONResponse({"code": 401})

    @shop.app.put("/pages/{number}", dependencies=[invalidates("pages")])
    async def write(number: int) -> None: ...

    async def refuses() -> None:
        raise PermissionError

    @shop.app.delete("/pages/{number}", dependencies=[invalidates("pages"), Depends(refuses)])
    async def delete(number: int) -> None: ...

    await _gone(shop)
    assert (await shop.put("/pages/x")).json() == {"code": 422}
    assert (await ask(shop.app, "DELETE", "/pages/7")).json() == {"code": 401}
    assert await _gone(shop) == set()


async def test_a_security_scheme_and_a_dependency_with_an_exit_stop_the_handler_too() -> None:
    """A `yield` dependency that answers on its way in, and a scheme that refuses through the app's own handler."""
    shop = _shop()

    @shop.app.exception_handler(AnyHTTPException)
    async def to_login(request: Request, error: AnyHTTPException) -> Response:
        return RedirectResponse("/login", 302)

    async def session() -> Any:
        raise HTTPException(401)
        yield

    @shop.app.put("/pages/7", dependencies=[Depends(session)])
    async def write() -> None: ...

    @shop.app.delete("/pages/7")
    async def delete(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> None: ...

    await _gone(shop)
    assert (await shop.put("/pages/7")).status_code == 302
    assert (await ask(shop.app, "DELETE", "/pages/7")).status_code == 302
    # Answered 405 by the router and 302 by the app's own handler.
    assert (await ask(shop.app, "PATCH", "/pages/7")).status_code == 302
    assert await _gone(shop) == set()


@pytest.mark.parametrize("status", [200, 204, 303])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "FOO"])
@pytest.mark.parametrize("honour_headers", [False, True])
async def test_a_method_that_a_page_does_not_have_purges_no_collection_whatever_a_layer_makes_of_the_405(
    honour_headers: bool, method: str, status: int
) -> None:
    """An error page in place of the framework's 405 is no handler's answer. By headers RFC 9111 takes the target."""
    app = FastAPI()

    @app.get("/pages", dependencies=[cached(ttl=60)])
    async def pages() -> None: ...

    @app.get("/pages/{number}", dependencies=[cached(ttl=60)])
    async def page(number: int) -> None: ...

    @app.middleware("http")
    async def error_page(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        return Response(status_code=status, headers={"location": "/error"}) if answer.status_code >= 400 else answer

    asgi = CacheMiddleware(app, honour_headers=honour_headers)
    with capture_invalidations(asgi.cache) as receipts:
        for path in ("/pages/7", "/pages", "/pages/no-number"):
            assert (await ask(asgi, method, path)).status_code == status
    purged = {path for receipt in receipts for path in receipt.paths}
    assert purged <= ({"/pages/7", "/pages", "/pages/no-number", "/error"} if honour_headers else set())
    assert all(receipt.tags == () for receipt in receipts)
    assert [len(receipt.paths) <= 2 for receipt in receipts] == [True] * len(receipts)


class _Delegating(APIRoute):
    def get_route_handler(self) -> Callable[..., Any]:
        handler = super().get_route_handler()

        async def timed(request: Request) -> Response:
            return await handler(request)

        return timed


class _Handing(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


class _OfItsOwn(APIRoute):
    def get_route_handler(self) -> Callable[..., Any]:
        endpoint = self.endpoint

        async def alone(request: Request) -> Response:
            await endpoint()
            return Response()

        return alone


@pytest.mark.parametrize("kind", [APIRoute, _Delegating, _Handing])
async def test_route_classes_that_hand_on_to_the_frameworks_own_are_seen_through(kind: type[APIRoute]) -> None:
    """A route class of the author's that calls what it overrides changes nothing of the rule."""
    shop = _shop()
    router = APIRouter(route_class=kind)

    @router.put("/pages/7", dependencies=[invalidates("pages"), Depends(_login)])
    async def write() -> None: ...

    shop.app.include_router(router)
    await _gone(shop)
    await shop.put("/pages/7")
    assert await _gone(shop) == set()
    await shop.put("/pages/7", headers=[("authorization", "x")])
    assert await _gone(shop) == set(PAGES)


async def test_a_route_class_that_calls_the_endpoint_by_itself_counts_as_one_that_ran() -> None:
    """It cannot be seen whether the handler ran, so it is taken to have."""
    shop = _shop()
    router = APIRouter(route_class=_OfItsOwn)

    @router.put("/pages/7")
    async def write() -> None:
        shop.value = 2

    shop.app.include_router(router)
    await _gone(shop)
    assert (await shop.put("/pages/7")).purge == "done"
    assert await _gone(shop) == {"/pages", "/pages/", "/pages/7", "/pages/7/"}


class _Callable:
    async def __call__(self) -> Response:
        return RedirectResponse("/pages/7", 307)


class _Method:
    def write(self) -> Response:
        return RedirectResponse("/pages/7", 303)


def _write(status: int) -> Response:
    return RedirectResponse("/pages/7", status)


async def _raising() -> None:
    raise HTTPException(303, headers={"location": "/pages/7"})


async def _in_background(tasks: BackgroundTasks) -> Response:
    tasks.add_task(lambda: None)
    return RedirectResponse("/pages/7", 303)


async def _streamed() -> Any:
    yield {"a": 1}


def _streamed_by_a_thread() -> Any:
    yield {"a": 1}


@pytest.mark.parametrize(
    "endpoint",
    [
        _Callable(),
        _Method().write,
        partial(_write, 308),
        _raising,
        _in_background,
        _streamed,
        _streamed_by_a_thread,
        lambda: RedirectResponse("/pages/7", 307),
    ],
    ids=["callable", "method", "partial", "raising", "background", "async generator", "generator", "def"],
)
async def test_a_handler_that_ran_purges_all_whatever_kind_it_is_and_however_it_ends(endpoint: Any) -> None:
    """Also where it redirects by itself, with any status, or raises the redirect."""
    shop = _shop()
    shop.app.add_api_route("/pages/7", endpoint, methods=["PUT"], dependencies=[invalidates("pages")])
    await _gone(shop)
    answer = await shop.put("/pages/7")
    assert answer.status_code in (200, 303, 307, 308)
    assert await _gone(shop) == set(PAGES)


async def test_code_that_cannot_be_seen_into_counts_as_a_handler() -> None:
    """A plain Starlette route, a mounted Starlette app and a mounted app of another kind were given the request."""
    shop = _shop()

    async def plain(request: Request) -> Response:
        return RedirectResponse("/login", 307)

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await RedirectResponse("/login", 307)(scope, receive, send)

    shop.app.router.routes.append(Route("/pages/7", plain, methods=["PUT"]))
    shop.app.router.routes.insert(0, Mount("/pages/8", app=Starlette(routes=[Route("/", plain, methods=["PUT"])])))
    shop.app.router.routes.insert(0, Mount("/pages/9", app=other))
    for target in ("/pages/7", "/pages/8/", "/pages/9/"):
        await _gone(shop)
        assert (await shop.put(target)).status_code == 307
        assert "/pages" in await _gone(shop)


async def test_a_mounted_apps_own_dependencies_and_redirects_purge_nothing() -> None:
    """The rule holds below mounts, in included routers and for routes that are added after the start."""
    inner = FastAPI()

    @inner.put("/7", dependencies=[Depends(_login)])
    async def write() -> None: ...

    shop = _shop()
    shop.app.mount("/pages", inner)
    await _gone(shop)
    assert (await shop.put("/pages/7")).status_code == 303
    assert (await shop.put("/pages/7/")).status_code == 307

    @inner.put("/8", dependencies=[Depends(_login)])
    async def later() -> None: ...

    assert (await shop.put("/pages/8")).status_code == 303
    assert await _gone(shop, "/", "/pages", "/pages/7") == set()
    assert (await shop.put("/pages/7", headers=[("authorization", "x")])).status_code == 200
    assert await _gone(shop, "/", "/pages", "/pages/7") == {"/pages", "/pages/7"}


async def test_an_app_behind_a_dispatcher_that_is_not_looked_at_counts_as_one_that_ran() -> None:
    """A middleware may hand requests to another application than the one whose routes are known."""
    shop = _shop()
    second = FastAPI()

    @second.put("/pages/7")
    async def write() -> Response:
        return RedirectResponse("/a/login", 303)

    class Dispatcher:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            to = second if scope["type"] == "http" and scope["method"] == "PUT" else self.app
            await to(scope, receive, send)

    app = CacheMiddleware(Dispatcher(shop.app), cache=shop.cache)
    for path in PAGES:
        await get(app, path)
    await ask(app, "PUT", "/pages/7")
    for path, hit in (("/", True), ("/pages", False), ("/pages/7", False)):
        assert ("; hit" in (await get(app, path)).headers["cache-status"]) is hit


async def test_what_was_committed_is_purged_although_the_handler_did_not_run() -> None:
    """A dependency that commits and then answers has told what it changed."""
    shop = _shop()

    async def commits() -> None:
        assert purge_with_request("pages")
        raise HTTPException(303)

    @shop.app.put("/pages/7", dependencies=[Depends(commits)])
    async def write() -> None: ...

    await _gone(shop)
    assert (await shop.put("/pages/7")).purge == "done"
    assert await _gone(shop) == set(PAGES)


def _broken(raised: BaseException) -> Callable[[], Any]:
    async def fails() -> None:
        raise raised

    return fails


@pytest.mark.parametrize("place", ["before our own", "after our own", "router", "sub-dependency", "entering"])
@pytest.mark.parametrize("raised", [RuntimeError, OSError, ClientDisconnect, asyncio.CancelledError])
@pytest.mark.parametrize("by_headers", [False, True])
async def test_a_dependency_that_fails_purges_nothing(
    place: str, raised: type[BaseException], by_headers: bool
) -> None:
    """Junk credentials that break the parser, or a client that leaves in the middle of its body, empty no cache."""
    shop = Shop(app=FastAPI(redirect_slashes=False), honour_headers=by_headers)
    for path in PAGES:
        shop.app.add_api_route(path, shop.read, dependencies=[cached(ttl=60, tags=["pages"])])
    fails: Callable[..., Any] = _broken(raised())

    if place == "sub-dependency":

        def outer(_: Annotated[None, Depends(_broken(raised()))]) -> None: ...

        fails = outer
    elif place == "entering":

        async def entering() -> Any:
            raise raised
            yield

        fails = entering
    wall = [Depends(fails)]
    own = {"before our own": [*wall, invalidates("pages")], "router": [invalidates("pages")]}
    router = APIRouter(dependencies=wall if place == "router" else [])

    @router.put("/pages/7", dependencies=own.get(place, [invalidates("pages"), *wall]))
    async def write() -> None: ...

    shop.app.include_router(router)
    await _gone(shop)
    with pytest.raises(raised):
        await begin(shop.app, "PUT", "/pages/7").task
    assert await _gone(shop) == set()
    assert shop.cache.statistics().purges == {}


@pytest.mark.parametrize("caught", [False, True])
async def test_a_validator_that_fails_purges_nothing(caught: bool) -> None:
    """A bug in an author's validator comes before the handler, whether or not a middleware answers it."""

    class Catches:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self.app(scope, receive, send)
            except ZeroDivisionError:
                await Response(status_code=500)(scope, receive, send)

    class Order(BaseModel):
        amount: int

        @field_validator("amount")
        @classmethod
        def share(cls, amount: int) -> int:
            return 10 // amount

    shop = _shop((lambda app: app.add_middleware(Catches)) if caught else id)

    @shop.app.put("/pages/7", dependencies=[invalidates("pages")])
    async def write(order: Order) -> None: ...

    await _gone(shop)
    call = begin(shop.app, "PUT", "/pages/7", b'{"amount": 0}', headers=[("content-type", "application/json")])
    await asyncio.wait([call.task])
    assert (call.task.exception() is None) is caught
    assert await _gone(shop) == set()


@pytest.mark.parametrize("how", ["function", "pure"])
async def test_a_middleware_that_fails_before_the_app_purges_nothing(how: str) -> None:
    """No route was given the request."""

    async def fails(request: Request, call_next: Any) -> Response:
        if request.method == "PUT":
            raise KeyError("kid")
        return await call_next(request)

    class Fails:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["method"] == "PUT":
                raise KeyError("kid")
            await self.app(scope, receive, send)

    shop = _shop(lambda app: app.middleware("http")(fails) if how == "function" else app.add_middleware(Fails))

    @shop.app.put("/pages/7", dependencies=[invalidates("pages")])
    async def write() -> None: ...

    await _gone(shop)
    with pytest.raises(KeyError):
        await begin(shop.app, "PUT", "/pages/7").task
    assert await _gone(shop) == set()


async def test_a_404_or_405_whose_own_handler_fails_purges_nothing() -> None:
    """The router found nobody to give the request to."""
    shop = _shop()

    async def fails(request: Request, error: Exception) -> Response:
        raise RuntimeError("no template")

    shop.app.add_exception_handler(404, fails)
    shop.app.add_exception_handler(405, fails)
    await _gone(shop)
    for target in ("/pages/7", "/pages", "/nowhere/7"):
        with pytest.raises(RuntimeError):
            await begin(shop.app, "PUT", target).task
    assert await _gone(shop) == set()


async def test_an_exit_that_fails_after_a_dependency_has_refused_purges_nothing() -> None:
    """The handler never ran, so a session that cannot be rolled back has nothing of it to commit."""
    shop = _shop()

    async def session() -> Any:
        try:
            yield
        except HTTPException:
            raise RuntimeError("no rollback") from None

    def user(_: Annotated[None, Depends(session)]) -> None:
        raise HTTPException(401)

    @shop.app.put("/pages/7", dependencies=[invalidates("pages"), Depends(user)])
    async def write() -> None: ...

    await _gone(shop)
    with pytest.raises(RuntimeError):
        await begin(shop.app, "PUT", "/pages/7").task
    assert await _gone(shop) == set()


async def test_what_was_committed_is_purged_although_a_dependency_failed_after_it() -> None:
    """A dependency that commits and then fails has told what it changed."""
    shop = _shop()

    async def commits() -> None:
        assert purge_with_request("pages")
        raise RuntimeError("after the commit")

    @shop.app.put("/pages/7", dependencies=[Depends(commits)])
    async def write() -> None: ...

    await _gone(shop)
    with pytest.raises(RuntimeError):
        await begin(shop.app, "PUT", "/pages/7").task
    assert await _gone(shop) == set(PAGES)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_by_headers_a_redirect_without_a_handler_invalidates_the_target_alone(status: int) -> None:
    """RFC 9111 section 4.4 names 2xx and 3xx; 307 and 308 say that nothing was done."""
    app = FastAPI(redirect_slashes=False)
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)

    async def page() -> Response:
        return Response(b"page", headers={"cache-control": "max-age=60"})

    async def wall() -> None:
        raise HTTPException(status, headers={"location": "/pages"})

    for path in PAGES:
        app.add_api_route(path, page)
    app.add_api_route("/pages/7", page, methods=["PUT"], dependencies=[Depends(wall)])
    for path in PAGES:
        await get(app, path)
    assert (await ask(app, "PUT", "/pages/7")).status_code == status
    gone = {path for path in PAGES if "; hit" not in (await get(app, path)).headers["cache-status"]}
    assert gone == (set() if status in (307, 308) else {"/pages/7"})


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "QUERY", "HEAD", "GET"])
async def test_safe_methods_purge_nothing_whatever_they_are_answered(method: str) -> None:
    """Whether a handler ran or not."""
    shop = _shop()
    shop.app.add_api_route("/pages/7", lambda: Response(status_code=204), methods=["OPTIONS", "TRACE", "QUERY", "HEAD"])
    await _gone(shop)
    await ask(shop.app, method, "/pages/7", headers=[("x-http-method-override", "PUT")])
    assert await _gone(shop) == set()


async def test_the_frameworks_errors_name_the_place_of_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """That its call is noted changes neither what the handler is taken for nor what is said of it."""
    # FastAPI remembers by `id()`, and another test's endpoint may have had that of this one.
    monkeypatch.setattr("fastapi.routing._endpoint_context_cache", {}, raising=False)
    seen: list[Exception] = []
    shop = Shop()

    @shop.app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        seen.append(error)
        return Response(status_code=422)

    @shop.app.put("/pages/{number}")
    def write(number: int) -> None: ...

    await shop.put("/pages/x")
    (error,) = seen
    assert isinstance(error, RequestValidationError)
    assert error.endpoint_file == __file__
    assert error.endpoint_function == "write"
    assert "noted" not in str(error)
