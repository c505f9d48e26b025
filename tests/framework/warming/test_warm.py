"""`warm` and `refresh_url` have the app answer pages without a client, and what they store is what clients get."""

# No postponed annotations: a dependency of a test is its own.

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import (
    CacheMiddleware,
    CacheNotRunning,
    ConfigurationError,
    HTTPCache,
    UnknownRoute,
    WarmReport,
    WarmResult,
    cached,
)
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop, ask, lifespan_of, settle, until

pytestmark = pytest.mark.anyio

BASE = "http://test"
whose: ContextVar[str] = ContextVar("whose", default="start-up")


async def _stream(*chunks: str) -> AsyncIterator[str]:
    for chunk in chunks:
        yield chunk


def _key(x_key: Annotated[str, Header()] = "") -> str:
    if not x_key:
        raise HTTPException(401)
    return x_key


def _shop(**options: Any) -> Shop:
    shop = Shop(**options)
    policy: dict[str, Any] = {"ttl": 60, "stale_if_error": 600}

    @shop.app.get("/products/{product_id}", dependencies=[cached(**policy, tags=["product:{product_id}"])])
    async def read_product(product_id: int, lang: str = "en") -> list[Any]:
        return [product_id, lang, shop.count()]

    @shop.app.get("/stream", dependencies=[cached(ttl=60)])
    async def stream() -> StreamingResponse:
        return StreamingResponse(_stream("a", "b", str(shop.count())))

    @shop.app.get("/private", dependencies=[cached(ttl=60)])
    async def private(response: Response) -> int:
        response.headers["cache-control"] = "private"
        return shop.count()

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=_key)])
    async def mine() -> int:
        return shop.count()

    @shop.app.get("/broken", dependencies=[cached(**policy)])
    async def broken() -> int:
        if shop.count() > 0:
            raise RuntimeError("no")
        return 0

    @shop.app.get("/uncached")
    async def uncached() -> int:
        return shop.count()

    return shop


async def _started(shop: Shop) -> Shop:
    """The app has been asked once, for what is stored nowhere."""
    await shop.ask("/uncached")
    shop.calls = 0
    return shop


@pytest.mark.parametrize(
    "targets",
    [
        ["/products/1", "/products/2?lang=de"],
        [f"{BASE}/products/1", f"{BASE}/products/2?lang=de#top"],
        [("read_product", {"product_id": 1}), ("read_product", {"product_id": 2, "lang": "de"})],
        [f"{BASE}:80/products/1", "HTTP://TEST/products/2?lang=de"],
    ],
)
async def test_what_is_warmed_is_a_hit_of_the_first_client(targets: list[Any]) -> None:
    """By path, by URL and by the name of a route; the front lookup finds it as well."""
    shop = await _started(_shop())
    report = await shop.cache.warm(targets, base_url=BASE)
    assert [result.outcome for result in report.results] == ["stored", "stored"]
    assert [result.url for result in report.results] == [f"{BASE}/products/1", f"{BASE}/products/2?lang=de"]
    assert (report.ready, report.missing, shop.calls) == (2, (), 2)
    for path in ("/products/1", "/products/2?lang=de"):
        assert_hit(await shop.ask(path))
    assert shop.calls == 2


async def test_what_is_fresh_is_left_as_it_is() -> None:
    """A second call, and each page that is named twice, forwards nothing."""
    shop = await _started(_shop())
    await shop.cache.warm(["/products/1", f"{BASE}/products/1", ("read_product", {"product_id": 1})], base_url=BASE)
    assert shop.calls == 1
    report = await shop.cache.warm(["/products/1"], base_url=BASE)
    assert report == WarmReport((WarmResult(f"{BASE}/products/1", "found", 200),))
    assert shop.calls == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/stream", ("stored", 200, None)),
        ("/private", ("refused", 200, "private")),
        ("/uncached", ("uncached", 200, None)),
        ("/mine", ("refused", 401, None)),
        ("/broken", ("failed", None, "RuntimeError")),
        ("/nowhere", ("refused", 404, None)),
        ("/products/x", ("uncached", 422, "invalid")),
    ],
)
async def test_the_report_says_what_came_of_each(path: str, said: tuple[str, int | None, str | None]) -> None:
    """An error, a refusal and a route without a policy end nothing: the others are warmed."""
    shop = await _started(_shop())
    report = await shop.cache.warm(["/products/1", path, "/products/2"], base_url=BASE)
    assert [result.outcome for result in report.results][::2] == ["stored", "stored"]
    one = report.results[1]
    assert (one.outcome, one.status, one.detail) == said
    assert report.missing == (() if one.ready else (one,))


async def test_a_warmed_request_is_nobodys() -> None:
    """It carries no credential and no context of who calls, has no client, and has the state of the lifespan."""
    shop, seen = Shop(), []

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read(request: Request) -> str:
        seen.append((sorted(request.headers), request.client, request.state.pool, request.app, whose.get()))
        return str(request.url)

    async with lifespan_of(shop.app) as state:
        state["pool"] = "pool"
        whose.set("alice")
        report = await shop.cache.warm([f"{BASE}/"], headers={"Accept-Language": "de"})
        assert report.ready == 1
        assert seen == [(["accept-language", "host"], None, "pool", shop.app, "start-up")]
        assert (await shop.ask("/")).body == b'"http://test/"'


@pytest.mark.parametrize("name", ["authorization", "Cookie", "Proxy-Authorization", "Host", "Range", "If-None-Match"])
async def test_credentials_and_fields_of_the_cache_are_refused(name: str) -> None:
    """What is stored for all must not be fetched as somebody."""
    shop = await _started(_shop())
    with pytest.raises(ConfigurationError, match=name):
        await shop.cache.warm(["/products/1"], base_url=BASE, headers={name: "x"})
    with pytest.raises(ConfigurationError, match=name):
        await shop.cache.refresh_url("/products/1", base_url=BASE, headers={name: "x"})
    assert not shop.calls


async def test_headers_choose_the_variant() -> None:
    """Each variant is warmed by a call with its fields."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(accept_language: Annotated[str, Header()] = "en") -> str:
        shop.count()
        return accept_language

    async with lifespan_of(shop.app):
        await shop.cache.warm(["/"], base_url=BASE, headers={"Accept-Language": "de"})
        assert_hit(await shop.ask(headers={"accept-language": "de"}))
        assert_miss(await shop.ask(headers={"accept-language": "fr"}))


@pytest.mark.parametrize(
    ("targets", "more", "said"),
    [
        ("/products/1", {"base_url": BASE}, "not one str: write \\['/products/1'\\]"),
        (["/products/1"], {}, 'base_url="https://'),
        ([("read_product", {"product_id": 1})], {}, 'base_url="https://'),
        ([1], {"base_url": BASE}, "not 1"),
        ([("read_product",)], {"base_url": BASE}, "read_product"),
        ([("read_product", 1)], {"base_url": BASE}, "read_product"),
        (["ftp://test/"], {}, "http://"),
        (["//test/"], {"base_url": BASE}, "http://"),
        (["http://"], {}, "a host"),
        (["http://[::1/"], {}, "no URL"),
        (["/products/\ud800"], {"base_url": BASE}, "no URL"),
        (["/products/1?a=\udfff"], {"base_url": BASE}, "no URL"),
        ([f"{BASE}/products/\ud800"], {}, "no URL"),
        (["/products/1"], {"base_url": f"{BASE}/\ud800"}, "no URL"),
        (["http://alice:secret@test/"], {}, "credentials: 'test'"),
        (["/"], {"base_url": "test"}, "base_url begins with http://"),
        (["/products/1"], {"base_url": BASE, "concurrency": 0}, "from 1 to 1000"),
        (["/products/1"], {"base_url": BASE, "concurrency": True}, "from 1 to 1000"),
        (["/products/1"], {"base_url": BASE, "headers": {"x y": "1"}}, "x y"),
        (["/products/1"], {"base_url": BASE, "headers": {"x": "1\r\ny: 2"}}, "'x'"),
        (["/products/1", ("read_producd", {})], {"base_url": BASE}, "Near: 'read_product'"),
        (["/products/1", "read_product"], {"base_url": BASE}, "needs the parameter 'product_id'"),
    ],
)
async def test_a_target_that_is_none_is_an_error_before_the_first_request(targets: Any, more: Any, said: str) -> None:
    """The message says what to write; nothing was fetched."""
    shop = await _started(_shop())
    with pytest.raises((ConfigurationError, UnknownRoute), match=said):
        await shop.cache.warm(targets, **more)
    assert not shop.calls


async def test_no_page_is_refreshed_at_what_is_no_url() -> None:
    """The message is that of `warm`."""
    shop = await _started(_shop())
    with pytest.raises(ConfigurationError, match="no URL"):
        await shop.cache.refresh_url(f"{BASE}/products/\ud800")
    assert not shop.calls


async def test_no_target_at_all_is_an_empty_report() -> None:
    """As a list from a database may be empty."""
    shop = await _started(_shop())
    assert await shop.cache.warm([]) == WarmReport(())


async def test_without_an_app_nothing_can_be_warmed() -> None:
    """The app has to have started in this process."""
    cache = HTTPCache()
    async with cache:
        with pytest.raises(CacheNotRunning, match="No app"):
            await cache.warm(["/"], base_url=BASE)
        with pytest.raises(CacheNotRunning, match="No app"):
            await cache.refresh_url("/", base_url=BASE)


async def test_no_more_run_at_once_than_asked_for() -> None:
    """Twenty pages at three at a time."""
    shop, under_way, gate = Shop(), [0, 0], asyncio.Event()

    @shop.app.get("/{page}", dependencies=[cached(ttl=60)])
    async def read(page: int) -> int:
        under_way[0] += 1
        under_way[1] = max(under_way)
        await gate.wait()
        under_way[0] -= 1
        return page

    async with lifespan_of(shop.app):
        warming = asyncio.ensure_future(
            shop.cache.warm([f"/{page}" for page in range(20)], base_url=BASE, concurrency=3)
        )
        await until(lambda: under_way[0] == 3)
        await settle()
        gate.set()
        assert (await warming).ready == 20
        assert under_way[1] == 3


async def test_a_page_that_takes_too_long_is_given_up() -> None:
    """`refresh_timeout` bounds each page; the others are warmed."""
    shop = Shop(refresh_timeout=10)
    begun = asyncio.Event()

    @shop.app.get("/slow", dependencies=[cached(ttl=60)])
    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    @shop.app.get("/quick", dependencies=[cached(ttl=60)])
    async def quick() -> None: ...

    async with lifespan_of(shop.app):
        warming = asyncio.ensure_future(shop.cache.warm(["/slow", "/quick"], base_url=BASE))
        await begun.wait()
        await settle()
        shop.clock.tick(11)
        assert [result.outcome for result in (await warming).results] == ["timeout", "stored"]


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_warming_ends_with_its_caller_and_with_the_cache(how: str) -> None:
    """No page is fetched any more; a cache that stops says so in the report."""
    shop, ended = Shop(), asyncio.Event()
    begun = asyncio.Event()

    @shop.app.get("/{page}", dependencies=[cached(ttl=60)])
    async def slow(page: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with lifespan_of(shop.app):
        warming = asyncio.ensure_future(shop.cache.warm(["/1", "/2"], base_url=BASE, concurrency=1))
        await begun.wait()
        if how == "cancelled":
            warming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await warming
            await ended.wait()
            await until(lambda: not shop.cache.statistics().refreshing)
    if how == "stopped":
        assert [result.outcome for result in (await warming).results] == ["cancelled", "cancelled"]
    assert ended.is_set()


async def test_warming_and_clients_share_one_forward() -> None:
    """A client that comes meanwhile waits for the warming's forward."""
    shop, gate, begun = Shop(), asyncio.Event(), asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        begun.set()
        await gate.wait()
        return shop.count()

    async with lifespan_of(shop.app):
        warming = asyncio.ensure_future(shop.cache.warm(["/"], base_url=BASE))
        await begun.wait()
        call = shop.call("/")
        await until(lambda: shop.cache.statistics().waiting)
        gate.set()
        assert (await warming).ready == 1
        assert (await call.answer()).body == b"1"
    assert shop.calls == 1


async def test_a_purge_meanwhile_is_not_undone() -> None:
    """What was fetched before a purge is not stored after it."""
    shop, gate, begun = Shop(), asyncio.Event(), asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60, tags=["page"])])
    async def read() -> int:
        begun.set()
        await gate.wait()
        return shop.count()

    async with lifespan_of(shop.app):
        for fetch in (shop.cache.warm(["/"], base_url=BASE), shop.cache.refresh_url("/", base_url=BASE)):
            gate.clear()
            begun.clear()
            fetching: asyncio.Future[Any] = asyncio.ensure_future(fetch)
            await begun.wait()
            await shop.cache.invalidate("page")
            gate.set()
            got = await fetching
            result = got.results[0] if isinstance(got, WarmReport) else got
            assert result.outcome == "superseded"
        assert_miss(await shop.ask("/"))


async def test_a_page_is_refreshed_in_place() -> None:
    """The old response is served until the new one is stored; then that is, with a lifetime of its own."""
    shop = await _started(_shop())
    await shop.ask("/products/1")
    shop.clock.tick(30)
    result = await shop.cache.refresh_url("/products/1", base_url=BASE)
    assert result == WarmResult(f"{BASE}/products/1", "stored", 200)
    assert_hit(await shop.ask("/products/1"))
    assert shop.calls == 2
    shop.clock.tick(45)
    assert_hit(await shop.ask("/products/1"))
    assert shop.calls == 2


async def test_a_refresh_that_fails_leaves_what_is_stored() -> None:
    """An error of the app is in the result, and the stored response stays."""
    shop, broken = Shop(), [False]

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        if broken[0]:
            raise HTTPException(503)
        return shop.count()

    async with lifespan_of(shop.app):
        await shop.ask()
        broken[0] = True
        result = await shop.cache.refresh_url("/", base_url=BASE)
        assert (result.outcome, result.status) == ("failed", 503)
        assert (await shop.ask()).body == b"1"


async def test_nothing_is_stored_while_the_cache_is_off() -> None:
    """Each page is answered by the app, and reported as uncached."""
    shop = await _started(_shop())
    shop.cache.enabled = False
    result = (await shop.cache.warm(["/products/1"], base_url=BASE)).results[0]
    assert (result.outcome, result.detail) == ("uncached", "disabled")
    shop.cache.enabled = True
    assert_miss(await shop.ask("/products/1"))


@pytest.mark.parametrize("how", ["server", "server that strips", "app"])
async def test_below_a_root_path_clients_hit_what_was_warmed(how: str) -> None:
    """The path of `base_url` is the root path; one of the app's own is known."""
    shop = _shop()
    shop.app.root_path = "/api" if how == "app" else ""
    root = "" if how == "app" else "/api"
    prefix = "/api" if how == "server" else ""
    base = BASE if how == "app" else BASE + "/api/"
    await shop.ask(prefix + "/uncached", root_path=root)
    report = await shop.cache.warm(["/products/1", ("read_product", {"product_id": 2})], base_url=base)
    assert report.ready == 2
    for path in ("/products/1", "/products/2"):
        assert_hit(await shop.ask(prefix + path, root_path=root))


async def test_a_whole_url_below_a_root_path_is_what_clients_ask() -> None:
    """What requests have come by is known: a URL of `url_for()` is the page that they hit, to each of the tools."""
    shop = _shop()
    await shop.ask("/api/products/1", root_path="/api")
    assert_hit(await shop.ask("/api/products/1", root_path="/api"))
    calls = shop.calls
    for asked in ({"url": f"{BASE}/api/products/1"}, {"url": "/api/products/1", "base_url": BASE}):
        url, base = asked["url"], asked.get("base_url")
        assert (await shop.cache.explain(url, base_url=base)).result == "hit"
        assert [each.outcome for each in (await shop.cache.warm([url], base_url=base)).results] == ["found"]
    assert shop.calls == calls
    assert (await shop.cache.refresh_url(f"{BASE}/api/products/1")).outcome == "stored"
    assert shop.calls == calls + 1
    assert_hit(await shop.ask("/api/products/1", root_path="/api"))


async def test_other_hosts_and_schemes_have_pages_of_their_own() -> None:
    """Who asks another host is answered by a forward."""
    shop = await _started(_shop())
    await shop.cache.warm(["https://shop.example/products/1"])
    assert_hit(await shop.ask("/products/1", host="shop.example", scheme="https"))
    assert_miss(await shop.ask("/products/1", host="shop.example"))
    assert_miss(await shop.ask("/products/1", scheme="https"))


@pytest.mark.parametrize("path", ["/text/a%20b", "/text/ü", "/text/a%2Fb", "/text/100%25"])
async def test_a_path_is_warmed_as_a_client_sends_it(path: str) -> None:
    """Encoded or as it is read."""
    shop = Shop()

    @shop.app.get("/text/{text:path}", dependencies=[cached(ttl=60)], name="text")
    async def read(text: str) -> str:
        shop.count()
        return text

    async with lifespan_of(shop.app):
        assert (await shop.cache.warm([path], base_url=BASE)).ready == 1
        decoded = path.replace("%20", " ").replace("%2F", "/").replace("%25", "%")
        assert_hit(await shop.ask(decoded))
        assert (await shop.cache.warm([("text", {"text": decoded.removeprefix("/text/")})], base_url=BASE)).ready == 1
    assert shop.calls == 1


async def test_by_headers_pages_are_warmed_and_refreshed() -> None:
    """Whatever route stores by its response's fields; one with a policy of its own keeps that."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/plain")
    async def plain(response: Response) -> int:
        response.headers["cache-control"] = "max-age=60"
        return shop.count()

    @shop.app.get("/policy", dependencies=[cached(ttl=60)])
    async def policy() -> int:
        return shop.count()

    @shop.app.get("/nothing")
    async def nothing(response: Response) -> int:
        response.headers["cache-control"] = "no-store"
        return shop.count()

    paths = ["/plain", "/policy", "/nothing"]
    async with lifespan_of(shop.app):
        for outcomes in (["stored", "stored", "refused"], ["found", "found", "refused"]):
            report = await shop.cache.warm(paths, base_url=BASE)
            assert [result.outcome for result in report.results] == outcomes
        for path in paths[:2]:
            calls = shop.calls
            assert (await shop.cache.refresh_url(BASE + path)).outcome == "stored"
            assert shop.calls == calls + 1
            assert_hit(await shop.ask(path))


async def test_a_304_to_a_refresh_by_headers_freshens_what_is_stored() -> None:
    """The app is sent the validators, and the stored response is fresh again."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/")
    async def read(request: Request) -> Response:
        shop.count()
        fields = {"cache-control": "max-age=60", "etag": '"1"'}
        return Response(status_code=304 if "if-none-match" in request.headers else 200, headers=fields)

    async with lifespan_of(shop.app):
        await shop.ask()
        shop.clock.tick(50)
        assert (await shop.cache.refresh_url(BASE + "/")).outcome == "stored"
        shop.clock.tick(50)
        assert_hit(await shop.ask())
    assert shop.calls == 2


async def test_behind_an_unknown_middleware_the_route_is_warmed() -> None:
    """Each client's answer still passes the middleware."""
    shop = _shop()

    class Stamp:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    shop.inside(Stamp)
    shop.inside(GZipMiddleware)
    await _started(shop)
    assert (await shop.cache.warm(["/products/1"], base_url=BASE)).ready == 1
    await shop.ask("/products/1")
    assert shop.calls == 1


async def test_a_page_goes_to_the_app_that_has_its_route() -> None:
    """Of several apps of one cache."""
    first, second = _shop(), FastAPI()
    calls: list[int] = []

    @second.get("/other/{number}", dependencies=[cached(ttl=60)])
    async def other(number: int) -> int:
        calls.append(number)
        return number

    second.add_middleware(CacheMiddleware, cache=first.cache)
    async with lifespan_of(first.app), lifespan_of(second):
        report = await first.cache.warm(["/other/1", ("other", {"number": 2}), "/products/1"], base_url=BASE)
        assert report.ready == 3
        assert calls == [1, 2]
        assert_hit(await ask(second, "/other/1"))


async def test_statistics_count_no_client_for_it() -> None:
    """A warmed page is no hit and no miss."""
    shop = await _started(_shop())
    before = shop.cache.statistics()
    await shop.cache.warm(["/products/1", "/products/2"], base_url=BASE)
    await shop.cache.warm(["/products/1", "/products/2"], base_url=BASE)
    after = shop.cache.statistics()
    assert (after.hits, after.misses, after.responses) == (before.hits, before.misses, 2)


async def test_the_routers_name_of_an_include_is_the_routes_own() -> None:
    """A name may stand alone where the route needs no parameter."""
    shop, router = Shop(), APIRouter(dependencies=[Depends(lambda: None)])

    @router.get("/front-page", dependencies=[cached(ttl=60)])
    async def front_page() -> int:
        return shop.count()

    shop.app.include_router(router, prefix="/v1")
    async with lifespan_of(shop.app):
        assert (await shop.cache.warm(["front_page"], base_url=BASE)).results[0].url == f"{BASE}/v1/front-page"
        assert_hit(await shop.ask("/v1/front-page"))
