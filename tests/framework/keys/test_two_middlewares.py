"""Two middlewares of one cache around one app: each hands out only what its own layers and options would have made."""

# No postponed annotations: the handlers name classes of their own test.

from contextlib import nullcontext
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

KEY = {"x-key": "k"}


class NeedsKey:
    """Answers 401 to a request without a key."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-key") != b"k":
            await PlainTextResponse("no key", 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Signs:
    """Writes a field into every answer."""

    def __init__(self, app: Any, text: str) -> None:
        self.app = app
        self.text = text

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def signed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-signed", self.text.encode())]}
            await send(message)

        await self.app(scope, receive, signed)


def api(**policy: Any) -> FastAPI:
    """An app with a page for everybody, and one that says by headers that it may be kept."""
    app = FastAPI()

    @app.get("/page", dependencies=[cached(ttl=60, tags=["secret-tag"], early_refresh=0, **policy)])
    async def page() -> str:
        return "page" * 200

    @app.get("/told")
    async def told(response: Response) -> str:
        response.headers["cache-control"] = "public, max-age=60"
        response.headers["surrogate-key"] = "secret-tag"
        return "told" * 200

    return app


async def warmed(app: Any, path: str, **more: Any) -> None:
    """Ask until what can be in the front lookup is."""
    for _ in range(3):
        assert (await ask(app, path, **more)).status_code == 200


PATHS: dict[str, dict[str, Any]] = {"page": {}, "told": {"honour_headers": True}}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("front", [None, False])
@pytest.mark.parametrize("opened_first", [True, False])
@pytest.mark.parametrize("met", [True, False])
async def test_a_check_of_one_is_not_skipped_by_what_the_other_stored(
    path: str, front: bool | None, opened_first: bool, met: bool
) -> None:
    """One listener with a key check, and one without: each asks its own layers, whichever was filled first."""
    app, options = api(), PATHS[path]
    async with HTTPCache() as cache:
        closed = CacheMiddleware(NeedsKey(app), cache, front=front, **options)
        opened = CacheMiddleware(app, cache, **options)
        if met:
            await ask(closed, "/nothing")
        if not opened_first and path == "page":
            await warmed(closed, f"/{path}", headers=KEY)
        for _ in range(2):
            await warmed(opened, f"/{path}")
            assert (await ask(closed, f"/{path}")).status_code == 401


async def test_what_stands_in_the_app_and_a_wrapping_are_two() -> None:
    """The app has the cache in its own stack, and is served once more behind a check and the same cache."""
    app = api()
    async with HTTPCache() as cache:
        app.add_middleware(CacheMiddleware, cache=cache)
        closed = CacheMiddleware(NeedsKey(app), cache)
        await warmed(app, "/page")
        assert_hit(await ask(app, "/page"))
        for path in ("/page", "/nothing", "/page"):
            assert (await ask(closed, path)).status_code == 401
        await warmed(closed, "/page", headers=KEY)
        assert (await ask(closed, "/page")).status_code == 401


def _mounts(closed: Any, opened: Any) -> tuple[Any, tuple[str, str], tuple[str, str]]:
    outer = Starlette(routes=[Mount("/closed", closed), Mount("/opened", opened)])
    return outer, ("/closed/page", "test"), ("/opened/page", "test")


def _hosts(closed: Any, opened: Any) -> tuple[Any, tuple[str, str], tuple[str, str]]:
    outer = Starlette(routes=[Host("closed", closed), Host("opened", opened)])
    return outer, ("/page", "closed"), ("/page", "opened")


@pytest.mark.parametrize("placed", [_mounts, _hosts])
async def test_mounts_and_hosts_of_the_two_are_kept_apart(placed: Any) -> None:
    """An outer app without a cache leads to either."""
    app = api()
    async with HTTPCache() as cache:
        outer, (path, host), (open_path, open_host) = placed(
            CacheMiddleware(NeedsKey(app), cache), CacheMiddleware(app, cache)
        )
        await warmed(outer, open_path, host=open_host)
        assert (await ask(outer, path, host=host)).status_code == 401
        await warmed(outer, path, host=host, headers=KEY)
        assert (await ask(outer, path, host=host)).status_code == 401


@pytest.mark.parametrize("front", [None, True, False])
async def test_an_option_of_one_is_not_the_others(front: bool | None) -> None:
    """`front=True` on one middleware says nothing about the layers of another."""
    app = api()
    async with HTTPCache() as cache:
        trusting = CacheMiddleware(NeedsKey(app), cache, front=True)
        other = CacheMiddleware(NeedsKey(app), cache, front=front)
        await warmed(trusting, "/page", headers=KEY)
        assert (await ask(trusting, "/page")).status_code == 200
        await warmed(other, "/page", headers=KEY)
        assert (await ask(other, "/page")).status_code == (200 if front else 401)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("told_first", [True, False])
async def test_tags_are_told_by_the_middleware_that_tells_them(path: str, told_first: bool) -> None:
    """`emit_surrogate_key=False` hides the tags of what the other middleware has stored, and hides none of its own."""
    app, options = api(), PATHS[path]
    async with HTTPCache() as cache:
        telling = CacheMiddleware(app, cache, **options)
        silent = CacheMiddleware(app, cache, emit_surrogate_key=False, **options)
        for middleware in (telling, silent) if told_first else (silent, telling):
            for _ in range(3):
                answer = await ask(middleware, f"/{path}")
                assert ("surrogate-key" in answer.headers) is (middleware is telling)
            assert_hit(answer)


LAYERS: dict[str, tuple[Any, Any]] = {
    "signed and not": (lambda app: Signs(app, "one"), lambda app: app),
    "signed twice": (lambda app: Signs(app, "one"), lambda app: Signs(app, "two")),
    "within the app": (lambda app: Starlette(middleware=[Middleware(Signs, text="one")], routes=[Mount("/", app)]),
                       lambda app: app),
    "zipped and not": (GZipMiddleware, lambda app: app),
    "zipped by size": (GZipMiddleware, lambda app: GZipMiddleware(app, minimum_size=100_000)),
    "one origin": (
        lambda app: CORSMiddleware(app, allow_origins=["https://shop.example"]),
        lambda app: CORSMiddleware(app, allow_origins=["https://other.example"]),
    ),
    "by a pattern": (
        lambda app: CORSMiddleware(app, allow_origin_regex="https://shop.*"),
        lambda app: CORSMiddleware(app, allow_origin_regex="https://other.*"),
    ),
    "any origin": (lambda app: CORSMiddleware(app, allow_origins=["*"]), lambda app: app),
}  # fmt: skip
ASKED = {"accept-encoding": "gzip", "origin": "https://shop.example"}
WRITTEN = ("x-signed", "content-encoding", "access-control-allow-origin")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("options", [{}, {"shared": True}, {"honour_headers": True}])
async def test_what_the_layers_of_one_write_is_not_handed_out_by_the_other(
    layers: tuple[Any, Any], options: dict[str, Any], turned: bool
) -> None:
    """With policies, with `shared=True` and by headers, a caller gets what the layers on their own way write."""
    by_headers = "honour_headers" in options
    app, path = api(**({} if by_headers else options)), "/told" if by_headers else "/page"
    ways = layers[::-1] if turned else layers
    async with HTTPCache() as cache:
        made = [CacheMiddleware(way(app), cache, honour_headers=by_headers) for way in ways]
        for middleware, way in zip(made, ways, strict=True):
            bare = await ask(way(app), path, headers=ASKED)
            for _ in range(3):
                answer = await ask(middleware, path, headers=ASKED)
                for name in WRITTEN:
                    assert answer.headers.get(name) == bare.headers.get(name)


async def test_what_one_may_store_by_its_options_is_not_handed_out_by_the_other() -> None:
    """One keeps a page without a lifetime for as long as a heuristic says, the other never."""
    app = FastAPI()

    @app.get("/old")
    async def old(response: Response) -> str:
        response.headers["last-modified"] = "Sun, 06 Nov 1994 08:49:37 GMT"
        return "old"

    async with HTTPCache() as cache:
        await warmed(CacheMiddleware(app, cache, honour_headers=True), "/old")
        strict = CacheMiddleware(app, cache, honour_headers=HeaderOptions(heuristic=0))
        answer = await ask(strict, "/old")
        assert answer.cache is not None
        assert not answer.cache.hit


async def test_alike_middlewares_share_what_is_stored() -> None:
    """Around the same app with the same options the second finds what the first has stored, and asks no handler."""
    app, calls = FastAPI(), []

    @app.get("/page", dependencies=[cached(ttl=60)])
    async def page(x_shade: Annotated[str, Header()] = "") -> str:
        calls.append(x_shade)
        return "page"

    async with HTTPCache() as cache:
        for middleware in [CacheMiddleware(GZipMiddleware(app), cache) for _ in range(3)]:
            await warmed(middleware, "/page")
            assert_hit(await ask(middleware, "/page"))
    assert len(calls) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_another_app_that_is_set_on_a_warm_middleware_is_the_one_that_answers(path: str) -> None:
    """The layer that is put around the app is asked at once; what is put back hands out what it had stored."""
    app = api()
    async with HTTPCache() as cache:
        middleware = CacheMiddleware(app, cache, **PATHS[path])
        await warmed(middleware, f"/{path}")
        middleware.app = NeedsKey(app)
        assert (await ask(middleware, f"/{path}")).status_code == 401
        await warmed(middleware, f"/{path}", headers=KEY)
        if path == "page":
            # By headers the answer itself says that everybody may have it.
            assert (await ask(middleware, f"/{path}")).status_code == 401
        middleware.app = app
        await warmed(middleware, f"/{path}")


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("rebuilt", [FastAPI.build_middleware_stack, lambda app: None])
async def test_a_stack_that_is_made_anew_while_pages_are_warm_is_looked_at(rebuilt: Any, asked: bool) -> None:
    """The middleware that is made with it answers no front hit before it knows its layers, and none over new ones."""
    app = api()
    async with HTTPCache() as cache:
        app.add_middleware(CacheMiddleware, cache=cache)
        await warmed(app, "/page")
        app.middleware_stack = rebuilt(app)
        await warmed(app, "/page")
        assert_hit(await ask(app, "/page"))
        # Behind the cache, where `add_middleware` puts nothing any more.
        app.user_middleware.append(Middleware(NeedsKey))
        app.middleware_stack = rebuilt(app)
        if asked:
            await ask(app, "/nothing", headers=KEY)
        for _ in range(3):
            assert (await ask(app, "/page")).status_code == 401
            assert (await ask(app, "/page", headers=KEY)).status_code == 200


@pytest.mark.parametrize("running", [True, False])
async def test_the_first_request_of_a_second_middleware_may_be_for_a_warm_page(running: bool) -> None:
    """It looks at the app before it answers, whether the cache was started by it or not."""
    app, cache = api(), HTTPCache()
    async with cache if running else nullcontext():
        await warmed(CacheMiddleware(app, cache), "/page")
        second = CacheMiddleware(app, cache)
        for method in ("GET", "HEAD", "GET"):
            answer = await ask(second, "/page", method=method)
            assert answer.status_code == 200
        assert_hit(answer)
