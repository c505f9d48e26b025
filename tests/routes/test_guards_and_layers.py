"""What must run on every request does, and a hit disturbs nothing on its way: guards, layers, handlers, spans."""

# No postponed annotations: the handlers name classes and callables of their own test.

import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop, ask

pytestmark = pytest.mark.anyio

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("cover", ["partition_by", "guarded_by"])
async def test_a_revoked_token_gets_its_401_however_warm_the_page(cover: str) -> None:
    """What is covered is asked on every request, also by the token that filled the page; others still hit."""
    shop, valid = Shop(), {"alice", "bob"}

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        if token not in valid:
            raise HTTPException(401)
        return token

    covers: Any = {cover: user}

    @shop.app.get("/it", dependencies=[cached(CachePolicy(60, **covers))])
    async def it() -> int:
        return shop.count()

    for token in ("alice", "bob", "alice", "bob"):
        assert (await shop.ask("/it", headers=bearer(token))).status_code == 200
    valid.remove("alice")
    for _ in range(2):
        assert (await shop.ask("/it", headers=bearer("alice"))).status_code == 401
    assert (await shop.ask("/it")).status_code == 401
    assert_hit(await shop.ask("/it", headers=bearer("bob")))


async def test_a_token_that_is_revoked_while_it_waits_is_no_matter_for_others() -> None:
    """Guards run before collapsing: who is refused never waits, and who passed gets what another's forward made."""
    shop = Shop()

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        if token == "mallory":
            raise HTTPException(403)
        return token

    @shop.app.get("/it", dependencies=[cached(ttl=60, guarded_by=user)])
    async def it() -> int:
        return shop.count()

    calls = [shop.call("/it", headers=bearer(token)) for token in ("alice", "mallory", "bob", "mallory")]
    answers = [await call.answer() for call in calls]
    assert [answer.status_code for answer in answers] == [200, 403, 200, 403]
    assert shop.calls == 1


@pytest.mark.parametrize("shape", ["value", "sibling", "scopes", "earlier"])
async def test_covers_that_miss_something_never_start(shape: str) -> None:
    """Alice's name in bob's page, an admin's page for all, fewer scopes than the route's: each fails the start."""
    shop = Shop()

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        return token

    def tenant(who: Annotated[str, Depends(user)]) -> str:
        return who[:0]

    def admin(scopes: SecurityScopes, who: Annotated[str, Depends(user)]) -> None:
        if "admin" in scopes.scopes and who != "alice":
            raise HTTPException(403)

    def named(who: Annotated[str, Depends(user)]) -> str:
        return who

    def nameless() -> str:
        return ""

    lists: dict[str, list[Any]] = {
        "value": [cached(ttl=60, partition_by=tenant)],
        "sibling": [cached(ttl=60, partition_by=tenant), Depends(admin)],
        "scopes": [cached(ttl=60, guarded_by=Security(admin, scopes=["read"])), Security(admin, scopes=["admin"])],
        "earlier": [Depends(admin), cached(ttl=60, partition_by=tenant)],
    }
    shop.app.get("/it", dependencies=lists[shape])(named if shape == "value" else nameless)
    for token in ("alice", "bob"):
        refused = await shop.ask("/it", headers=bearer(token))
        assert refused.status_code == 500
        assert b"partition_by" in refused.body
        assert token.encode() not in refused.body
    assert shop.cache.statistics().responses == 0


async def test_a_guard_that_cleans_up_sees_an_ordinary_refusal_on_a_hit() -> None:
    """A `yield` guard commits on a forward and rolls back on a hit, because an `HTTPException` ends that."""
    shop = Shop()
    seen: list[Any] = []

    async def guard(authorization: Annotated[str, Header()]) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise
        seen.append(None)

    @shop.app.get("/it", dependencies=[cached(ttl=60, guarded_by=guard)])
    async def it() -> int:
        return shop.count()

    for _ in range(2):
        answer = await shop.ask("/it", headers=bearer("alice"))
        assert answer.body == b"1"
    assert_hit(answer)
    assert seen[0] is None
    assert isinstance(seen[1], HTTPException | StarletteHTTPException)


@pytest.mark.parametrize("does", ["swallows", "replaces", "raises"])
async def test_a_guard_that_mistreats_what_ends_a_hit_does_not_change_it(
    does: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Swallowed, turned into another refusal or into an error: the client has its response, and the log the error."""
    shop = Shop()

    async def guard(authorization: Annotated[str, Header()]) -> AsyncIterator[None]:
        try:
            yield
        except HTTPException as error:
            if does == "replaces":
                raise HTTPException(418, detail="mine") from error
            if does == "raises":
                raise RuntimeError("mine") from error
        except StarletteHTTPException as error:
            if does == "replaces":
                raise HTTPException(418, detail="mine") from error
            if does == "raises":
                raise RuntimeError("mine") from error

    @shop.app.get("/it", dependencies=[cached(ttl=60, guarded_by=guard)])
    async def it() -> int:
        return shop.count()

    assert_miss(await shop.ask("/it", headers=bearer("alice")))
    call = shop.call("/it", headers=bearer("bob"))
    assert_hit(await call.answer())
    starts = [message for message in call.messages if message["type"] == "http.response.start"]
    assert [message["status"] for message in starts] == [200]
    assert call.body == b"1"
    assert len([record for record in caplog.records if record.exc_info]) == (does != "replaces")


async def test_exception_handlers_never_hear_of_a_hit() -> None:
    """Handlers of `HTTPException`, `Exception`, 500 and all the app's statuses run for what they are for alone."""
    shop, heard = Shop(), []

    def hears(name: str) -> Any:
        async def handler(request: Request, error: Exception) -> JSONResponse:
            heard.append(name)
            return JSONResponse({"by": name}, getattr(error, "status_code", 500))

        return handler

    for kind in (StarletteHTTPException, HTTPException, Exception, 500, 200, 404):
        shop.app.add_exception_handler(kind, hears(str(kind)))

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        return token

    @shop.app.get("/it", dependencies=[cached(ttl=60, guarded_by=user)])
    async def it() -> int:
        return shop.count()

    for token in ("alice", "bob", "alice"):
        answer = await shop.ask("/it", headers=bearer(token))
        assert (answer.status_code, answer.body) == (200, b"1")
    assert_hit(answer)
    assert heard == []
    refused = await shop.ask("/it")
    assert refused.status_code == 401
    assert heard == [str(HTTPException)] or heard == [str(StarletteHTTPException)]


def greeting_errors(app: FastAPI) -> None:
    """Handlers of the app's own that say in every answer to an error who it is for."""

    async def greet(request: Request, error: Exception) -> JSONResponse:
        code = getattr(error, "status_code", 200)
        return JSONResponse({"sorry": request.headers.get("authorization")}, code)

    for kind in (StarletteHTTPException, ValueError):
        app.add_exception_handler(kind, greet)


@pytest.mark.parametrize("error", [HTTPException(404), ValueError()])
@pytest.mark.parametrize("covered", [True, False])
async def test_what_an_exception_handler_of_the_apps_own_answers_is_not_shared(error: Exception, covered: bool) -> None:
    """It is handed the request, whatever the route declares: a page for alice does not go to bob, not in a crowd."""
    shop = Shop()
    greeting_errors(shop.app)

    def guard(authorization: Annotated[str, Header()]) -> None:
        shop.count()

    policy = CachePolicy(60, statuses={200, 404}, guarded_by=guard if covered else None)

    @shop.app.get("/it", dependencies=[cached(policy)])
    async def it() -> None:
        raise error

    for _ in range(2):
        calls = [shop.call("/it", headers=bearer(who)) for who in ("alice", "bob", "alice")]
        answers = [await call.answer() for call in calls]
        assert [json.loads(each.body)["sorry"] for each in answers] == ["Bearer alice", "Bearer bob", "Bearer alice"]
        assert {each.cache.detail for each in answers if each.cache} == {"exception-handler"}
    assert shop.cache.statistics().responses == 0


async def test_what_replaces_a_stored_answer_by_an_exception_handler_ends_it() -> None:
    """A page that has gone, as the app's own handler says it, is not brought back by what was stored before."""
    shop = Shop()
    gone: list[bool] = []
    greeting_errors(shop.app)

    @shop.app.get("/it", dependencies=[cached(ttl=60, stale_while_revalidate=600, early_refresh=0)])
    async def it() -> int:
        if gone:
            raise HTTPException(404)
        return shop.count()

    assert_miss(await shop.ask("/it"))
    gone.append(True)
    shop.clock.tick(61)
    await shop.ask("/it")
    await shop.refreshed()
    for who in ("alice", "bob"):
        answer = await shop.ask("/it", headers=bearer(who))
        assert (answer.status_code, json.loads(answer.body)) == (404, {"sorry": f"Bearer {who}"})


async def test_what_the_frameworks_own_handlers_answer_is_stored_where_the_policy_says_so() -> None:
    """They look at the error alone, also beside the app's handlers of other errors; `shared=True` is for the rest."""
    shop = Shop()
    shop.app.add_exception_handler(ValueError, lambda request, error: JSONResponse("value", 404))
    statuses = {200, 404, 422}

    @shop.app.get("/default", dependencies=[cached(ttl=60, statuses=statuses)])
    async def default(number: int) -> None:
        raise HTTPException(404, detail=shop.count())

    @shop.app.get("/told", dependencies=[cached(ttl=60, statuses=statuses, shared=True)])
    async def told() -> None:
        shop.count()
        raise ValueError

    for path, status in (("/default?number=1", 404), ("/default?number=x", 422), ("/told", 404)):
        assert_miss(await shop.ask(path))
        answer = await shop.ask(path)
        assert_hit(answer)
        assert answer.status_code == status
    assert shop.calls == 2


class Greeting(JSONResponse):
    """Sent by a method of its own, which is given the request's scope."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers["x-user"] = dict(scope["headers"]).get(b"authorization", b"").decode()
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("shared", [True, None])
async def test_a_response_object_that_sees_the_request_is_its_callers_own(declared: bool, shared: bool | None) -> None:
    """As the response class of the route or returned by its handler, it is not kept, unless `shared=True` says so."""
    shop = Shop()
    options: Any = {"response_class": Greeting} if declared else {}

    @shop.app.get("/it", dependencies=[cached(ttl=60, shared=shared)], **options)
    async def it() -> Any:
        shop.count()
        return "it" if declared else Greeting("it")

    for who in ("alice", "bob"):
        answer = await shop.ask("/it", headers=bearer(who))
        assert answer.headers["x-user"] == ("Bearer alice" if shared else f"Bearer {who}")
        assert answer.cache is not None
        assert answer.cache.detail == (None if shared else "own-response")
    assert shop.calls == (1 if shared else 2)


async def test_response_objects_that_render_in_their_own_way_are_kept() -> None:
    """What makes the content is not given the request; files and streams are the framework's to send."""
    shop = Shop()

    class Shouting(JSONResponse):
        def render(self, content: Any) -> bytes:
            return super().render(content).upper()

    shop.app.get("/shouted", dependencies=[cached(ttl=60)], response_class=Shouting)(lambda: "it")
    shop.app.get("/file", dependencies=[cached(ttl=60)])(lambda: FileResponse(__file__))
    shop.app.get("/stream", dependencies=[cached(ttl=60)])(lambda: StreamingResponse(iter(["it"])))
    for path in ("/shouted", "/file", "/stream"):
        assert_miss(await shop.ask(path))
        assert_hit(await shop.ask(path))


async def test_a_route_class_of_the_apps_own_sees_a_hit_pass() -> None:
    """One that times its handler, logs what is raised and turns errors of its own into answers is not disturbed.

    It is handed the request, so `shared=True` is its author's word that it does nothing else with it.
    """
    shop = Shop()
    seen: list[Any] = []

    class Timed(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def timed(request: Request) -> Any:
                try:
                    response = await handler(request)
                except ValueError as error:
                    return JSONResponse({"error": str(error)}, 400)
                except Exception as error:
                    seen.append(type(error))
                    raise
                seen.append(response.status_code)
                return response

            return timed

    router = APIRouter(route_class=Timed)

    @router.get("/it", dependencies=[cached(ttl=60, shared=True)])
    async def it(fail: bool = False) -> int:
        if fail:
            raise ValueError("mine")
        return shop.count()

    shop.app.include_router(router)
    assert_miss(await shop.ask("/it"))
    hit = await shop.ask("/it")
    assert_hit(hit)
    assert hit.body == b"1"
    assert seen[0] == 200
    assert issubclass(seen[1], StarletteHTTPException)
    assert shop.cache._core.counters.hits == 0, "it is asked on every request"
    for _ in range(2):
        failed = await shop.ask("/it?fail=1")
        assert (failed.status_code, json.loads(failed.body)) == (400, {"error": "mine"})


@pytest.mark.parametrize("place", ["inside", "outside"])
async def test_a_dispatching_middleware_sees_the_stored_status_and_no_error(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette's `BaseHTTPMiddleware`, either side: same bodies, same statuses, nothing raised or logged."""
    seen: list[Any] = []

    class Notes(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            try:
                response = await call_next(request)
            except Exception as error:
                seen.append(type(error).__name__)
                raise
            seen.append(response.status_code)
            return response

    app = FastAPI()
    layers: list[Any] = [(CacheMiddleware, {"cache": HTTPCache()}), (Notes, {})]
    for kind, options in layers if place == "outside" else reversed(layers):
        app.add_middleware(kind, **options)

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        return token

    @app.get("/it", status_code=201, dependencies=[cached(ttl=60, guarded_by=user, statuses={201})])
    async def it() -> str:
        return "it"

    for token in ("alice", "bob", "alice"):
        answer = await ask(app, "/it", headers=bearer(token))
        assert (answer.status_code, answer.body) == (201, b'"it"')
    assert_hit(answer)
    assert (await ask(app, "/it")).status_code == 401
    assert seen == [201, 201, 201, 401]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_layer_inside_that_signs_callers_out_is_asked_on_every_request() -> None:
    """A dispatching middleware that answers 401 itself does so warm, for pages shared, guarded and partitioned."""
    shop = Shop()

    class Sessions(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            if request.headers.get("x-session") != "live":
                return JSONResponse({"detail": "signed out"}, 401)
            return await call_next(request)

    app = FastAPI()
    app.add_middleware(Sessions)
    app.add_middleware(CacheMiddleware, cache=shop.cache)

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        return token

    covers: dict[str, Any] = {"/a": {}, "/b": {"guarded_by": user}, "/c": {"partition_by": user}}
    for path, some in covers.items():
        app.get(path, dependencies=[cached(CachePolicy(60, **some))])(shop.count)
    live = {"x-session": "live", **bearer("alice")}
    for path in ("/a", "/b", "/c"):
        assert (await ask(app, path, headers=bearer("alice"))).status_code == 401
        assert_miss(await ask(app, path, headers=live))
        assert_hit(await ask(app, path, headers=live))
        for left in (bearer("alice"), {}):
            out = await ask(app, path, headers=left)
            assert (out.status_code, out.body) == (401, b'{"detail":"signed out"}')


async def test_a_layer_inside_that_rewrites_the_host_poisons_nobody() -> None:
    """A forwarded host that a proxy's layer trusts leads to another host's page, which the plain host never gets."""
    shop = Shop()

    class Forwarded:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            for name, value in scope.get("headers", ()):
                if name == b"x-forwarded-host":
                    # In place, as a careless layer would.
                    scope["headers"][:] = [pair for pair in scope["headers"] if pair[0] != b"host"] + [(b"host", value)]
            await self._app(scope, receive, send)

    app = FastAPI()
    app.add_middleware(Forwarded)
    app.add_middleware(CacheMiddleware, cache=shop.cache, front=True)

    @app.get("/it", dependencies=[cached(ttl=60, shared=True)])
    async def it(request: Request) -> str:
        return request.headers["host"]

    for _ in range(2):
        evil = await ask(app, "/it", host="shop.example", headers={"x-forwarded-host": "evil.example"})
        assert evil.body == b'"evil.example"'
    for _ in range(2):
        assert (await ask(app, "/it", host="shop.example")).body == b'"shop.example"'


async def test_a_hit_is_no_error_in_the_apps_own_spans() -> None:
    """FastAPI's request, dependency and endpoint spans of a hit carry no error and no exception."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced = hasattr(fastapi, "telemetry")
    options: Any = {"telemetry": {"tracer_provider": provider, "metrics": False}} if traced else {}
    app = FastAPI(**options)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        return token

    @app.get("/it", dependencies=[cached(ttl=60, guarded_by=user)])
    async def it() -> str:
        return "it"

    for token in ("alice", "bob"):
        exporter.clear()
        answer = await ask(app, "/it", headers=bearer(token))
    assert_hit(answer)
    spans = exporter.get_finished_spans()
    # Releases before its own telemetry make none.
    assert bool(spans) is traced
    for span in spans:
        assert span.status.status_code is not StatusCode.ERROR, span.to_json()
        assert not [event for event in span.events if event.name == "exception"], span.to_json()
        assert "error.type" not in (span.attributes or {}), span.to_json()
    if traced:
        exporter.clear()
        await ask(app, "/it")
        assert exporter.get_finished_spans()
