"""Two paths are two keys: what a layer outside rewrites, and spellings that the handler can tell apart."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


class Rewrites:
    """Stands outside the cache and sends a request to another path, as the usual idiom does: `raw_path` stays."""

    def __init__(self, app: Any, *, raw: bool = True) -> None:
        self.app = app
        self.raw = raw

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        scope = dict(scope)
        if b"x-original-url" in headers:
            scope["path"] = headers[b"x-original-url"].decode()
        if b"x-tenant" in headers:
            scope["path"] = f"/{headers[b'x-tenant'].decode()}{scope['path']}"
        if b"x-root" in headers:
            scope["root_path"] = headers[b"x-root"].decode()
        if not self.raw:
            scope.pop("raw_path")
        await self.app(scope, receive, send)


async def says_where(scope: Any, receive: Any, send: Any) -> None:
    """An app that routes by the decoded path and says which it was."""
    answer = PlainTextResponse(
        f"{scope.get('root_path')} {scope['path']}", headers={"cache-control": "public, max-age=60"}
    )
    await answer(scope, receive, send)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("header", ["x-original-url", "x-tenant", "x-root"])
async def test_by_headers_tenants_that_a_layer_outside_tells_apart_never_meet(header: str, raw: bool) -> None:
    """One path as it was sent, two as the app routes: each tenant has its own answer, and a hit of it."""
    cache = HTTPCache()
    app = Rewrites(CacheMiddleware(says_where, cache, honour_headers=True), raw=raw)
    plain = Rewrites(says_where)
    for _ in range(2):
        for tenant in ("/acme", "/bolt", "/"):
            given = {header: tenant}
            assert (await ask(app, "/invoices", headers=given)).body == (
                await ask(plain, "/invoices", headers=given)
            ).body
        assert (await ask(app, "/invoices")).body == b" /invoices"
    assert_hit(await ask(app, "/invoices", headers={header: "/acme"}))
    await cache.stop()


async def test_by_headers_spellings_of_one_path_stay_apart() -> None:
    """`%2F` is no slash to a proxy, and the app may look at the path as it was sent."""

    async def says_how(scope: Any, receive: Any, send: Any) -> None:
        answer = PlainTextResponse(scope["raw_path"], headers={"cache-control": "public, max-age=60"})
        await answer(scope, receive, send)

    cache = HTTPCache()
    app = CacheMiddleware(says_how, cache, honour_headers=True)
    for _ in range(2):
        for sent in (b"/a-b", b"/a%2Db", b"/a%2db"):
            assert (await ask(app, "/a-b", raw_path=sent)).body == sent
    await cache.stop()


async def test_by_headers_a_path_with_and_without_the_root_path_are_two() -> None:
    """An app of another kind may answer by the whole path."""
    cache = HTTPCache()
    app = CacheMiddleware(says_where, cache, honour_headers=True)
    for _ in range(2):
        for path in ("/api/it", "/it"):
            assert (await ask(app, path, root_path="/api")).body == f"/api {path}".encode()
    await cache.stop()


def raw_app(cache: HTTPCache, **options: Any) -> FastAPI:
    """An app whose shared handlers say how their path was sent."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache, **options)
    word = [cached(ttl=60, shared=True)]

    @app.get("/request/{name}", dependencies=word)
    def by_request(name: str, request: Request) -> str:
        return f"{name} {request.scope['raw_path']!r} {request.url.path} {request.url.query}"

    @app.get("/connection/{name}", dependencies=word)
    def by_connection(name: str, connection: HTTPConnection) -> str:
        return f"{name} {connection.scope['raw_path']!r} {connection.url.path} {connection.url.query}"

    class Own(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def wrapped(request: Request) -> Any:
                answer = await handle(request)
                answer.headers["x-sent"] = f"{request.scope['raw_path']!r} {request.url.path} {request.url.query}"
                return answer

            return wrapped

    def by_route(name: str) -> str:
        return name

    app.router.add_api_route("/route/{name}", by_route, dependencies=word, route_class_override=Own)

    @app.get("/plain/{name}", dependencies=word)
    def plain(name: str) -> str:
        return name

    return app


SPELLINGS = [
    ("a-b", b"a-b", ""),
    ("a-b", b"a%2Db", ""),
    ("a-b", b"a%2db", ""),
    ("a-b", b"%61-b", ""),
    ("a-b", b"a-b", "?q=1"),
    ("a-b", b"a%2Db", "?q=1"),
]


@pytest.mark.parametrize("options", [{}, {"front": False}, {"front": True}, {"honour_headers": True}])
@pytest.mark.parametrize("kind", ["request", "connection", "route"])
async def test_a_shared_handler_that_is_handed_the_request_never_gets_anothers_spelling(
    kind: str, options: dict[str, Any]
) -> None:
    """`/a%2Db` and `/a-b` are one path to the router, and two to a handler that looks: also at the front, also twice."""
    cache = HTTPCache()
    app = raw_app(cache, **options)
    answers: dict[Any, Any] = {}
    for turn in range(3):
        for name, sent, query in SPELLINGS:
            raw = f"/{kind}/".encode() + sent
            answer = await ask(app, f"/{kind}/{name}{query}", raw_path=raw)
            said = answer.headers.get("x-sent") or answer.body.decode()
            assert repr(raw) in said
            assert said.strip('"').endswith(query.lstrip("?"))
            assert answers.setdefault((sent, query), said) == said
            (assert_hit if turn else assert_miss)(answer)
    await cache.stop()


async def test_spellings_are_one_to_a_handler_that_cannot_tell() -> None:
    """Without the request in its signature all spellings share one stored response."""
    cache = HTTPCache()
    app = raw_app(cache)
    assert_miss(await ask(app, "/plain/a-b", raw_path=b"/plain/a-b"))
    assert_hit(await ask(app, "/plain/a-b", raw_path=b"/plain/a%2Db"))
    await cache.stop()


async def test_a_handler_that_is_handed_the_request_is_answered_from_the_front() -> None:
    """The front lookup tells the spellings apart, and is on: no dependency runs on the second hit."""
    cache = HTTPCache()
    app = raw_app(cache)
    for _ in range(3):
        await ask(app, "/request/a-b", raw_path=b"/request/a%2Db")
    assert cache._core.counters.hits == 2
    answer = await ask(app, "/request/a-b", raw_path=b"/request/a-b")
    assert_miss(answer)
    await cache.stop()


@pytest.mark.parametrize("options", [{}, {"front": True}])
async def test_by_policy_tenants_that_a_layer_outside_tells_apart_never_meet(options: dict[str, Any]) -> None:
    """The path that the router sees is in the key, whatever was sent; a handler with the request sees both."""
    cache = HTTPCache()
    inner = FastAPI()
    inner.add_middleware(CacheMiddleware, cache=cache, **options)

    @inner.get("/{tenant}/invoices", dependencies=[cached(ttl=60)])
    def invoices(tenant: str) -> str:
        return tenant

    @inner.get("/{tenant}/raw", dependencies=[cached(ttl=60, shared=True)])
    def raw(tenant: str, request: Request) -> str:
        return f"{tenant} {request.url.path}"

    app = Rewrites(inner)
    for _ in range(3):
        for tenant in ("acme", "bolt"):
            for page in ("invoices", "raw"):
                answer = await ask(app, f"/{page}", headers={"x-tenant": tenant})
                assert answer.body.decode().strip('"').startswith(tenant)
    await cache.stop()
