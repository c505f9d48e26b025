"""Layers between the cache and a route: what they write for one caller is that caller's, and what the route says is cached."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Router

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale
from tests.helpers.http import Answer, Call, Shop, ask, plain_of, scope_of, until

pytestmark = pytest.mark.anyio


def by(who: str | None, **more: str) -> dict[str, str]:
    return ({} if who is None else {"x-caller": who}) | more


def _caller(scope: Any) -> bytes | None:
    return dict(scope.get("headers", ())).get(b"x-caller")


class Asgi:
    """A plain ASGI middleware; `changes` makes of a message what is sent for a caller who says who they are."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        who = _caller(scope)

        async def written(message: Any) -> None:
            await send(message if who is None else self.changes(message, who))

        await self.app(scope, receive, written)

    def changes(self, message: Any, who: bytes) -> Any:
        raise NotImplementedError


class Names(Asgi):
    """Adds a field that names the caller, to the very list that it is given."""

    def changes(self, message: Any, who: bytes) -> Any:
        if message["type"] == "http.response.start":
            message["headers"].append((b"X-User", who))
        return message


class Signs(Asgi):
    """Writes the caller's name after each chunk of the body, and takes the length away."""

    def changes(self, message: Any, who: bytes) -> Any:
        if message["type"] == "http.response.start":
            return {**message, "headers": [pair for pair in message["headers"] if pair[0] != b"content-length"]}
        return {**message, "body": message.get("body", b"") + who}


class Overwrites(Asgi):
    """Replaces the body by one of its own of the same length, and no field."""

    def changes(self, message: Any, who: bytes) -> Any:
        if message["type"] == "http.response.body":
            return {**message, "body": who[:1] * len(message.get("body", b""))}
        return message


class Turns(Asgi):
    """Changes the status alone."""

    def changes(self, message: Any, who: bytes) -> Any:
        return {**message, "status": 203} if message["type"] == "http.response.start" else message


class NamesByDispatch(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        if who := request.headers.get("x-caller"):
            response.headers["x-user"] = who
        return response


class SignsByDispatch(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        who = request.headers.get("x-caller")
        body = b"".join([chunk async for chunk in response.body_iterator])
        fields = {name: value for name, value in response.headers.items() if name != "content-length"}
        return Response(body + (who or "").encode(), response.status_code, fields)


class RefusesAfterwards(BaseHTTPMiddleware):
    """Decides who may see a response once it has it."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        return response if request.headers.get("x-caller") != "bob" else PlainTextResponse("not you", 403)


class Passes(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


LAYERS = [
    Names,
    Signs,
    Overwrites,
    Turns,
    NamesByDispatch,
    SignsByDispatch,
    RefusesAfterwards,
]


def _in_app(page: APIRouter, layer: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(layer)
    app.include_router(page)
    return app


def _declared_on_the_app(page: APIRouter, layer: Any) -> FastAPI:
    app = FastAPI(middleware=[Middleware(layer)])
    for route in page.routes:
        app.router.routes.append(route)
    return app


def _in_mounted_app(page: APIRouter, layer: Any) -> FastAPI:
    app, inner = FastAPI(), FastAPI()
    inner.add_middleware(layer)
    inner.include_router(page)
    app.mount("/", inner)
    return app


def _at_mount(page: APIRouter, layer: Any) -> FastAPI:
    inner = FastAPI()
    inner.include_router(page)
    return FastAPI(routes=[Mount("/", app=inner, middleware=[Middleware(layer)])])


def _at_router(page: APIRouter, layer: Any) -> FastAPI:
    inner = FastAPI()
    inner.include_router(page)
    return FastAPI(routes=[Mount("/", app=Router([Mount("/", app=inner)], middleware=[Middleware(layer)]))])


def _at_host(page: APIRouter, layer: Any) -> FastAPI:
    inner = FastAPI()
    inner.include_router(page)
    return FastAPI(routes=[Host("test", app=layer(inner))])


def _in_router_class(page: APIRouter, layer: Any) -> FastAPI:
    class Own(APIRouter):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await layer(super().handle)(scope, receive, send)

    app, own = FastAPI(), Own()
    own.include_router(page)
    app.include_router(own)
    return app


def _around_the_stack(page: APIRouter, layer: Any) -> FastAPI:
    class Own(FastAPI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await layer(super().__call__)(scope, receive, send)

    app = Own()
    app.include_router(page)
    return app


PLACES = [
    _in_app,
    _declared_on_the_app,
    _in_mounted_app,
    _at_mount,
    _at_router,
    _at_host,
    _in_router_class,
    _around_the_stack,
]


class Twin:
    """An app with the cache and the same without it, asked the same."""

    def __init__(self, build: Callable[["Twin"], FastAPI], **options: Any) -> None:
        self.shop = Shop()
        self.calls = 0
        self.app = CacheMiddleware(build(self), cache=self.shop.cache, **options)
        self.plain = build(Twin.__new__(Twin)._uncounted())

    def _uncounted(self) -> "Twin":
        self.calls = 0
        return self

    def page(self) -> int:
        self.calls += 1
        return 7

    async def same(self, path: str = "/it", **more: Any) -> Answer:
        """The answer with the cache, which says what the one without it says."""
        theirs, ours = await ask(self.plain, path, **more), await ask(self.app, path, **more)
        assert (ours.status_code, plain_of(ours)) == (theirs.status_code, plain_of(theirs))
        assert ours.fields("x-user") + ours.fields("X-User") == theirs.fields("x-user") + theirs.fields("X-User")
        return ours


def twin(layer: Any, place: Any = _in_app, policy: Any = None, options: Any = None, **declared: Any) -> Twin:
    def build(it: Twin) -> FastAPI:
        router = APIRouter()
        router.get("/it", dependencies=[policy or cached(ttl=60)], **declared)(it.page)
        return place(router, layer)

    return Twin(build, **(options or {}))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("place", PLACES)
async def test_no_caller_is_given_what_a_layer_wrote_for_another(layer: Any, place: Any) -> None:
    """Whatever the layer and wherever it stands: each gets what they would without the cache, and the page is cached."""
    it = twin(layer, place)
    for who in ("alice", "bob", None, "bob", "alice", None):
        await it.same(headers=by(who))
    assert it.calls == 1


@pytest.mark.parametrize("layer", LAYERS)
async def test_who_waits_for_anothers_forward_gets_none_of_its_layers_either(layer: Any) -> None:
    """A crowd on a cold page: one call of the handler, and to each their own."""
    it = twin(layer)
    callers = ["alice", "bob", None, "carol"] * 3
    expected = {who: await ask(it.plain, "/it", headers=by(who)) for who in callers}
    calls = [Call(it.app, scope_of("/it", headers=by(who))) for who in callers]
    for who, call in zip(callers, calls, strict=True):
        answer = await call.answer()
        assert (answer.status_code, answer.body) == (expected[who].status_code, expected[who].body)
        assert answer.headers.get("x-user") == expected[who].headers.get("x-user")
    assert it.calls == 1


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_stream_is_kept_without_what_was_written_into_it(layer: Any) -> None:
    """The route's own chunks are stored; the layer writes into each caller's."""

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read() -> StreamingResponse:
            it.page()
            return StreamingResponse(chunks())

        return _in_app(router, layer)

    it = Twin(build)
    first = await ask(it.plain, "/it", headers=by("alice"))
    told = await ask(it.app, "/it", headers=by("alice"))
    assert (told.status_code, told.body) == (first.status_code, first.body)
    for who in ("bob", None):
        answer = await ask(it.app, "/it", headers=by(who))
        assert b"alice" not in answer.body
        assert answer.headers.get("x-user") in (who, None)
        if layer is not Overwrites:
            assert answer.body.startswith(b"onetwo") or answer.status_code == 403
    assert it.calls == 1


async def test_a_stream_reaches_its_client_through_the_layers_chunk_by_chunk() -> None:
    """Nothing is held back that the route has sent."""
    gate = asyncio.Event()

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            await gate.wait()
            yield b"two"

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read() -> StreamingResponse:
            return StreamingResponse(chunks())

        return _in_app(router, NamesByDispatch)

    it = Twin(build)
    call = Call(it.app, scope_of("/it", headers=by("alice")))
    await until(lambda: call.body == b"one")
    gate.set()
    answer = await call.answer()
    assert (answer.body, answer.headers["x-user"]) == (b"onetwo", "alice")
    assert answer.headers["cache-control"] == "private, no-cache"


async def test_an_uncached_start_is_not_held_behind_a_layer() -> None:
    """What is not asked of the cache, and what it may not keep, goes out as it comes: the start before the first chunk."""
    for fields in ({"etag": '"mine"', "cache-control": "no-store"}, {}):
        gate = asyncio.Event()

        def build(it: Twin, fields: Any = fields, gate: Any = gate) -> FastAPI:
            router = APIRouter()

            async def chunks() -> AsyncIterator[bytes]:
                await gate.wait()
                yield b"late"

            @router.get("/it", dependencies=[cached(ttl=60)] if fields else [])
            async def read() -> StreamingResponse:
                return StreamingResponse(chunks(), headers=fields)

            return _in_app(router, Names)

        it = Twin(build)
        call = Call(it.app, scope_of("/it", headers=by("alice")))
        await until(partial(getattr, call, "started"))
        assert call.body == b""
        gate.set()
        assert (await call.answer()).body == b"late"


async def test_a_layer_that_adds_nothing_leaves_all_that_the_cache_does() -> None:
    """Conditions are answered, fields are the cache's own, hits say so."""
    it = twin(Passes)
    first = await it.same()
    assert_miss(first)
    assert first.headers["cache-control"] == "no-cache"
    hit = await it.same(headers=by("bob"))
    assert_hit(hit)
    assert (hit.headers["etag"], hit.headers["age"]) == (first.headers["etag"], "0")
    again = await ask(it.app, "/it", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert_hit(again)
    head = await ask(it.app, "/it", method="HEAD")
    assert (head.status_code, head.body, head.headers["content-length"]) == (200, b"", "1")
    assert it.calls == 1


async def test_a_field_for_one_caller_leaves_the_body_and_its_validator_alone() -> None:
    """A caller's condition is answered with their own field; what downstream caches may do with it is private."""
    it = twin(Names)
    first = await it.same(headers=by("alice"))
    assert first.headers["cache-control"] == "private, no-cache"
    for who in ("alice", "bob"):
        again = await ask(it.app, "/it", headers=by(who, **{"if-none-match": first.headers["etag"]}))
        assert (again.status_code, again.headers["x-user"]) == (304, who)
        assert again.headers["cache-control"] == "private, no-cache"
    assert (await it.same()).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("layer", [Signs, Overwrites, SignsByDispatch])
async def test_a_body_for_one_caller_never_validates_anothers(layer: Any) -> None:
    """Alice's `ETag` gets bob his own page, not a 304 for hers."""
    it = twin(layer)
    tags = {who: (await it.same(headers=by(who))).headers["etag"] for who in ("alice", "bob")}
    assert tags["alice"] != tags["bob"]
    for who, other in (("alice", "bob"), ("bob", "alice"), (None, "alice")):
        full = await ask(it.app, "/it", headers=by(who, **{"if-none-match": tags[other]}))
        assert (full.status_code, full.body) == (200, (await it.same(headers=by(who))).body)
    for who in ("alice", "bob"):
        mine = await ask(it.app, "/it", headers=by(who, **{"if-none-match": tags[who]}))
        assert mine.status_code == 304
    assert it.calls == 1


async def test_a_handlers_own_validator_does_not_speak_for_a_body_that_was_changed() -> None:
    """As without the cache: a client that has the route's page is sent the one that the layer makes of it."""

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read(response: Response) -> int:
            response.headers["etag"] = '"of-the-route"'
            response.headers["last-modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
            return it.page()

        return _in_app(router, Overwrites)

    it = Twin(build)
    for condition in ({"if-none-match": '"of-the-route"'}, {"if-modified-since": "Tue, 02 Jan 2024 00:00:00 GMT"}):
        for _ in range(2):
            assert (await it.same(headers=by("alice", **condition))).status_code == 200
        untouched = await ask(it.app, "/it", headers=condition)
        assert untouched.status_code == 304


class ChangesTheBody(Asgi):
    """Writes for a caller into the body, and, asked by `W/`, a weak validator in the place of the strong one."""

    def changes(self, message: Any, who: bytes) -> Any:
        if message["type"] == "http.response.body":
            return {**message, "body": message.get("body", b"") + b" for " + who}
        fields = [(name, value) for name, value in message["headers"] if name != b"content-length"]
        if who == b"weak":
            fields = [(name, b"W/" + value if name == b"etag" else value) for name, value in fields]
        return {**message, "headers": fields}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("who", ["alice", "weak"])
async def test_a_changed_answer_has_no_validator_that_the_cache_answers_for_the_stored_one(
    who: str, streamed: bool
) -> None:
    """Who has one caller's page, and asks as another with all that it said, is sent that other's page."""

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"hel"
            yield b"lo"

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read() -> Response:
            said = {"etag": '"own"', "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
            return StreamingResponse(pieces(), headers=said) if streamed else PlainTextResponse("hello", headers=said)

        return _in_app(router, ChangesTheBody)

    it = Twin(build)
    for _ in range(2):
        own = await ask(it.app, "/it", headers=by(who))
        assert b" for " in own.body
        for asked, said in (("if-none-match", "etag"), ("if-modified-since", "last-modified")):
            value = own.headers.get(said)
            stranger = await ask(it.app, "/it", headers={asked: value} if value else {})
            assert (stranger.status_code, stranger.body) == (200, b"hello")
    tag = own.headers["etag"]
    assert (await ask(it.app, "/it", headers=by(who, **{"if-none-match": tag}))).status_code == 304


@pytest.mark.parametrize("outside", [False, True])
async def test_gzip_beside_a_layer_leaves_the_routes_own_validators(outside: bool) -> None:
    """They speak of the content, whatever its coding; not where a layer has changed it as well."""
    said = {"etag": '"own"', "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT"}

    def build(it: Twin) -> FastAPI:
        app = FastAPI()

        @app.get("/it", dependencies=[cached(ttl=60)])
        async def read() -> Response:
            return PlainTextResponse("hello " * 100, headers=said)

        for layer in (GZipMiddleware, ChangesTheBody) if outside else (ChangesTheBody, GZipMiddleware):
            app.add_middleware(layer)
        return app

    it = Twin(build)
    for who, kept in ((None, True), ("alice", False), (None, True)):
        answer = await ask(it.app, "/it", headers=by(who, **{"accept-encoding": "gzip"}))
        assert answer.headers["content-encoding"] == "gzip"
        assert [answer.headers.get(name) == value for name, value in said.items()] == [kept, kept]
        assert answer.headers.get("content-length") in (None, str(len(answer.body)))


@pytest.mark.parametrize("own", [False, True])
async def test_another_status_over_the_same_body_has_no_validator_either(own: bool) -> None:
    """Who keeps one caller's refusal, and asks again as another, is not told that it still holds."""

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read(response: Response) -> int:
            if own:
                response.headers["etag"] = '"own"'
                response.headers["last-modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
            return it.page()

        return _in_app(router, Turns)

    it = Twin(build)
    for _ in range(2):
        told = await it.same(headers=by("alice"))
        assert (told.status_code, told.headers["content-length"]) == (203, "1")
        assert told.headers.get("etag") is told.headers.get("last-modified") is None
        untouched = await it.same()
        assert ("last-modified" in untouched.headers, "etag" in untouched.headers) == (own, True)
    assert it.calls == 1


async def test_a_policys_word_for_downstream_does_not_hold_for_what_is_one_callers_own() -> None:
    """`public` is said of what the route answers, not of what a layer makes of it; the handler's own word stands."""
    it = twin(Names, policy=cached(ttl=60, cache_control="public, max-age=60"))
    for who, said in (("alice", "private, no-cache"), (None, "public, max-age=60"), ("bob", "private, no-cache")):
        assert (await it.same(headers=by(who))).headers["cache-control"] == said


@pytest.mark.parametrize("harmless", [GZipMiddleware, CORSMiddleware])
@pytest.mark.parametrize(("layer", "outside"), [(Names, True), (Names, False), (Passes, True), (Signs, False)])
async def test_beside_harmless_layers_too(harmless: Any, layer: Any, outside: bool) -> None:
    """GZip and CORS, on either side of the layer, do for each caller what they do without the cache."""
    options: Any = {"minimum_size": 1} if harmless is GZipMiddleware else {"allow_origins": ["*"]}

    def place(page: APIRouter, kind: Any) -> FastAPI:
        app = FastAPI()
        for each, some in [(harmless, options), (kind, {})] if outside else [(kind, {}), (harmless, options)]:
            app.add_middleware(each, **some)
        app.include_router(page)
        return app

    it = twin(layer, place)
    for asked in ({}, {"accept-encoding": "gzip"}, {"origin": "https://a.example"}):
        for who in ("alice", "bob", None, "alice"):
            ours = await it.same(headers=by(who, **asked))
            theirs = await ask(it.plain, "/it", headers=by(who, **asked))
            for name in ("content-encoding", "access-control-allow-origin"):
                assert ours.headers.get(name) == theirs.headers.get(name)
    assert it.calls <= 2, "a variant for requests with an Origin"


async def test_a_refresh_keeps_nothing_of_the_layers_of_who_caused_it() -> None:
    """Stale to bob, refreshed for alice: what is stored then is the route's."""
    policy = cached(ttl=60, stale_while_revalidate=600, early_refresh=0)
    for layer in LAYERS:
        it = twin(layer, policy=policy)
        await it.same(headers=by("alice"))
        it.shop.clock.tick(61)
        await it.same(headers=by("alice"))
        await it.shop.refreshed()
        assert it.calls == 2
        for who in ("bob", None, "alice"):
            await it.same(headers=by(who))
        assert it.calls == 2


@pytest.mark.parametrize("fails", ["raises", "503"])
@pytest.mark.parametrize("layer", [Names, NamesByDispatch, RefusesAfterwards])
async def test_what_stands_in_for_a_failure_passes_the_layers_too(layer: Any, fails: str) -> None:
    """Stale-if-error gives each caller the stored page with their own field, or their own refusal."""
    failing: list[bool] = []

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/it", dependencies=[cached(ttl=60, stale_if_error=600)])
        async def read() -> Any:
            if failing and fails == "raises":
                raise ValueError
            return Response("sorry", 503) if failing else it.page()

        return _in_app(router, layer)

    it = Twin(build)
    before = {who: await it.same(headers=by(who)) for who in ("alice", "bob")}
    failing.append(True)
    it.shop.clock.tick(61)
    for who, answer in before.items():
        now = await ask(it.app, "/it", headers=by(who))
        assert (now.status_code, now.body) == (answer.status_code, answer.body)
        assert now.headers.get("x-user") == answer.headers.get("x-user")
    assert_stale(await ask(it.app, "/it"))


async def test_a_failure_of_the_layers_own_is_not_covered_up() -> None:
    """A 503 that a layer answers is what it has to say, however warm the page."""

    class Closed(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            return PlainTextResponse("closed", 503) if request.headers.get("x-caller") == "bob" else response

    it = twin(Closed, policy=cached(ttl=60, stale_if_error=600))
    for who in ("alice", "bob", "alice"):
        await it.same(headers=by(who))
    it.shop.clock.tick(61)
    assert (await it.same(headers=by("bob"))).status_code == 503


async def test_a_404_that_the_policy_lists_is_kept_as_the_framework_says_it() -> None:
    """Raised in the handler, stored, and given to each caller through the layers."""

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/it", dependencies=[cached(ttl=60, statuses={200, 404})])
        async def read() -> None:
            it.page()
            raise HTTPException(404)

        return _in_app(router, NamesByDispatch)

    it = Twin(build)
    for who in ("alice", "bob", None):
        assert (await it.same(headers=by(who))).status_code == 404
    assert it.calls == 1


@pytest.mark.parametrize("cover", ["partition_by", "guarded_by"])
async def test_covers_cover_nothing_of_a_layer(cover: str) -> None:
    """A layer tells callers apart that share a partition, or a guard."""

    def team(x_team: Annotated[str, Header()]) -> str:
        if x_team == "none":
            raise HTTPException(403)
        return x_team

    covers: Any = {cover: team}
    it = twin(Names, policy=cached(CachePolicy(60, **covers)))
    for who in ("alice", "bob"):
        await it.same(headers=by(who, **{"x-team": "red"}))
    assert it.calls == 1
    refused = await it.same(headers=by("alice", **{"x-team": "none"}))
    assert (refused.status_code, refused.headers["x-user"]) == (403, "alice")


@pytest.mark.parametrize("kind", ["asgi", "dispatch"])
async def test_a_layer_that_only_refuses_is_asked_on_every_request(kind: str) -> None:
    """401 cold and warm without the key; with it a hit, and its condition a 304."""

    class ByDispatch(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            known = request.headers.get("x-key") == "right"
            return await call_next(request) if known else PlainTextResponse("no key", 401)

    class ByAsgi(Asgi):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            known = (b"x-key", b"right") in scope.get("headers", ())
            await (self.app if known else PlainTextResponse("no key", 401))(scope, receive, send)

    it = twin(ByAsgi if kind == "asgi" else ByDispatch)
    key = {"x-key": "right"}
    assert (await it.same()).status_code == 401
    first = await it.same(headers=key)
    assert_miss(first)
    assert_hit(await it.same(headers=key))
    assert (await it.same()).status_code == 401
    assert (await ask(it.app, "/it", headers=key | {"if-none-match": first.headers["etag"]})).status_code == 304
    assert it.shop.cache._core.counters.hits == 0


async def test_front_true_skips_a_layer_only_for_what_it_has_left_alone() -> None:
    """A page that the layer passed as it was leads to hits before it; one that it writes into does not."""
    it = twin(Passes, options={"front": True})
    await it.same()
    assert_hit(await it.same())
    assert it.shop.cache._core.counters.hits == 1

    class Always(Names):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__({**scope, "headers": [(b"x-caller", b"all")]}, receive, send)

    it = twin(Always, options={"front": True})
    for who in ("alice", "bob", None):
        assert (await it.same(headers=by(who))).headers["x-user"] == "all"
    assert (it.calls, it.shop.cache._core.counters.hits) == (1, 0)


async def test_shared_true_is_the_authors_word_for_the_layers_too() -> None:
    """What came out of them is stored as it is, as the docs say."""
    it = twin(Names, policy=cached(ttl=60, shared=True))
    assert (await ask(it.app, "/it", headers=by("alice"))).headers["x-user"] == "alice"
    hit = await ask(it.app, "/it", headers=by("bob"))
    assert_hit(hit)
    assert hit.headers["x-user"] == "alice"


async def test_what_may_not_be_kept_by_what_a_layer_says_concerns_its_caller_alone() -> None:
    """A cookie that a layer sets goes to whom it is for; a cookie of the route's keeps the page out of the cache."""

    class Cookies(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            if who := request.headers.get("x-caller"):
                response.set_cookie("who", who)
            return response

    it = twin(Cookies)
    for who in ("alice", "bob", None):
        answer = await it.same(headers=by(who))
        assert [line.split(b";")[0] for line in answer.fields("set-cookie")] == (
            [b"who=" + who.encode()] if who else []
        )
    assert it.calls == 1


async def test_a_layer_that_asks_the_route_twice_is_given_the_second_answer_uncached() -> None:
    """Only the first way through it is the cache's; what a layer asked under another path is stored under none."""

    class FallsBack(Asgi):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not scope["path"].startswith("/mine"):
                await self.app(scope, receive, send)
                return
            sent: list[Any] = []

            async def kept(message: Any) -> None:
                sent.append(message)

            await self.app({**scope, "path": "/of/" + (_caller(scope) or b"all").decode()}, receive, kept)
            await self.app({**scope, "path": "/of/all"}, receive, send)

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/of/{who}", dependencies=[cached(ttl=60)])
        async def read(who: str) -> str:
            it.page()
            return who

        return _in_app(router, FallsBack)

    it = Twin(build)
    for path in ("/mine", "/of/alice", "/of/all", "/mine", "/of/bob", "/mine"):
        for who in ("alice", "bob"):
            await it.same(path, headers=by(who))


async def test_a_layer_that_gives_the_route_a_scope_of_its_own_is_no_matter() -> None:
    """A copy of the scope, other headers in it: the variant is the one that the route sees."""

    class Translates(Asgi):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            who = _caller(scope) or b"nobody"
            fields = [*scope.get("headers", ()), (b"x-language", b"de" if who == b"bob" else b"en")]
            await self.app({**scope, "headers": fields}, receive, send)

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read(x_language: Annotated[str, Header()]) -> str:
            it.page()
            return x_language

        return _in_app(router, Translates)

    it = Twin(build)
    for who in ("alice", "bob", "alice", "bob", None):
        await it.same(headers=by(who))
    assert it.calls == 2


async def test_overridden_dependencies_behind_a_layer() -> None:
    """The overridden tree is analysed, and its responses keep nothing of the layer's."""
    provider: list[FastAPI] = []

    def word() -> str:
        return "plain"

    def build(it: Twin) -> FastAPI:
        router = APIRouter()

        @router.get("/it", dependencies=[cached(ttl=60)])
        async def read(said: Annotated[str, Depends(word)]) -> str:
            it.page()
            return said

        app = _in_app(router, Names)
        provider.append(app)
        return app

    it = Twin(build)
    await it.same(headers=by("alice"))
    for app in provider:
        app.dependency_overrides[word] = lambda: "other"
    for who in ("alice", "bob"):
        assert (await it.same(headers=by(who))).body == b'"other"'
    assert it.calls == 2


async def test_a_router_that_is_included_twice_and_grows_behind_a_layer() -> None:
    """Both of its routes, and those that are added when the app runs, keep nothing of the layer's."""
    routers: list[tuple[Twin, APIRouter]] = []

    def build(it: Twin) -> FastAPI:
        app, router = FastAPI(), APIRouter()
        app.add_middleware(Names)
        router.get("/it", dependencies=[cached(ttl=60)])(it.page)
        app.include_router(router, prefix="/a")
        app.include_router(router, prefix="/b")
        routers.append((it, router))
        return app

    it = Twin(build)
    for path in ("/a/it", "/b/it"):
        for who in ("alice", "bob"):
            await it.same(path, headers=by(who))
    assert it.calls == 2
    for each, router in routers:
        router.get("/more", dependencies=[cached(ttl=60)])(each.page)
    for path in ("/a/more", "/b/more", "/a/it"):
        for who in ("alice", "bob", "alice", "bob"):
            await it.same(path, headers=by(who))
    # What is built anew is tapped when it is first asked for.
    assert it.calls <= 2 + 2 * 3


async def test_two_caches_around_one_app_each_work_at_its_routes() -> None:
    """The routes are tapped once; each request is its own cache's."""
    router, calls = APIRouter(), []

    @router.get("/it", dependencies=[cached(ttl=60)])
    async def read() -> int:
        calls.append(1)
        return len(calls)

    inner = _in_app(router, Names)
    one, other = CacheMiddleware(inner, cache=HTTPCache()), CacheMiddleware(inner, cache=HTTPCache())
    for app, count in ((one, b"1"), (other, b"2")):
        for who in ("alice", "bob"):
            answer = await ask(app, "/it", headers=by(who))
            assert (answer.body, answer.headers["x-user"]) == (count, who)
    plain = await ask(inner, "/it", headers=by("alice"))
    assert (plain.body, plain.headers["x-user"]) == (b"3", "alice")


async def test_a_route_that_is_replaced_under_its_hook_keeps_to_what_stands_there_now() -> None:
    """Each answer passes it: the first request finds it and is forwarded, later ones are answered behind it."""

    def build(it: Twin) -> FastAPI:
        app = FastAPI()
        app.add_middleware(Passes)
        app.get("/it", dependencies=[cached(ttl=60)])(it.page)
        return app

    it = Twin(build)
    await it.same()
    route: Any = next(each for each in it.app.app.routes if getattr(each, "path", None) == "/it")  # type: ignore[attr-defined]
    tapped = route.handle
    route.handle = Names(route.app)
    for who in ("alice", "bob", "alice"):
        answer = await ask(it.app, "/it", headers=by(who))
        assert answer.headers["x-user"] == who
        assert answer.cache is not None
        assert answer.cache.detail == ("unseen-inside" if who == "alice" and not answer.cache.hit else None)
    assert_hit(answer)
    route.handle = tapped
    assert_hit(await it.same())


async def test_mutations_behind_layers_purge_as_ever() -> None:
    """A tapped route that also writes: the tap is for safe requests."""

    def build(it: Twin) -> FastAPI:
        app, stock = FastAPI(), [1]
        app.add_middleware(NamesByDispatch)

        @app.api_route("/it", methods=["GET", "POST"], dependencies=[cached(ttl=60)])
        async def both(request_method: Annotated[str, Header()] = "") -> int:
            it.page()
            stock[0] += request_method == "write"
            return stock[0]

        return app

    it = Twin(build)
    for who in ("alice", "bob"):
        assert (await it.same(headers=by(who))).body == b"1"
    assert (await it.same(method="POST", headers=by("bob", **{"request-method": "write"}))).body == b"2"
    for who in ("alice", "bob"):
        assert (await it.same(headers=by(who))).body == b"2"


async def test_the_log_names_the_layer_that_changes_a_route_once(caplog: pytest.LogCaptureFixture) -> None:
    """Level INFO, with the layer, the route and what to do."""
    caplog.set_level(logging.INFO, "fastapi_cacheinval")
    it = twin(Names)
    for who in ("alice", "bob", None):
        await it.same(headers=by(who))
    told = [record for record in caplog.records if "changes responses" in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.INFO
    for word in ("Names", "/it", "CacheMiddleware"):
        assert word in told[0].getMessage()


async def test_a_layer_that_answers_conditions_or_ranges_itself_is_believed() -> None:
    """Its 304 keeps the `ETag` it is about, its 206 has none of the whole body's."""

    class Parts(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            fields = {"etag": response.headers.get("etag", "")}
            if request.headers.get("x-caller") == "not-modified":
                return Response(None, 304, fields)
            if request.headers.get("x-caller") == "part":
                return Response(b"7"[:0], 206, fields | {"content-range": "bytes 0-0/1"})
            return response

    it = twin(Parts)
    etag = (await it.same()).headers["etag"]
    assert (await it.same(headers=by("not-modified"))).headers["etag"] == etag
    assert "etag" not in (await it.same(headers=by("part"))).headers
    assert it.calls == 1


async def test_the_length_that_the_cache_adds_to_a_stream_is_that_of_what_is_sent() -> None:
    """A layer that lengthens a stream, which has no length, need not know of one on a hit."""

    class Appends(Asgi):
        def changes(self, message: Any, who: bytes) -> Any:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                return {**message, "body": message.get("body", b"") + who}
            return message

    def build(it: Twin) -> FastAPI:
        router = APIRouter()
        router.get("/it", dependencies=[cached(ttl=60)])(lambda: StreamingResponse(iter([b"one", b"two"])))
        return _in_app(router, Appends)

    it = Twin(build)
    for who in ("alice", "bob", None):
        answer = await it.same(headers=by(who))
        length = answer.headers.get("content-length")
        assert length in (None, str(len(answer.body)))
    assert_hit(answer)


async def test_more_than_is_kept_out_of_a_layer_goes_out_as_it_comes() -> None:
    """A layer that makes an endless body of a short one is not waited for."""
    gate = asyncio.Event()

    class Endless(Asgi):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def more(message: Any) -> None:
                if message["type"] == "http.response.body":
                    for _ in range(3):
                        await send({**message, "body": b"x" * 600_000, "more_body": True})
                    await gate.wait()
                await send(message)

            await self.app(scope, receive, more)

    it = twin(Endless)
    for _ in range(2):
        gate.clear()
        call = Call(it.app, scope_of("/it"))
        await until(partial(_long, call))
        gate.set()
        answer = await call.answer()
        assert answer.body == b"x" * 1_800_000 + b"7"
        assert not {"etag", "content-length"} & {*answer.headers}
        assert answer.headers["cache-control"] == "private, no-cache"
    assert it.calls == 1


def _long(call: Call) -> bool:
    return len(call.body) == 1_800_000


async def test_what_a_layer_never_ends_is_sent_as_far_as_it_came() -> None:
    """It returns without a last message; the server's to deal with, as without the cache."""

    class Cuts(Asgi):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def cut(message: Any) -> None:
                await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

            await self.app(scope, receive, cut)

    it = twin(Cuts)
    for _ in range(2):
        answer = await it.same()
        assert answer.messages[-1].get("more_body") is True
    assert it.calls == 1
