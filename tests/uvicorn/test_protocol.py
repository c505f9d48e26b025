"""Hits that are answered in uvicorn's protocol: what it answers, what it leaves, and what it keeps of uvicorn's."""

# No postponed annotations: the handlers name classes of their own test.

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import trustme
from fastapi import Depends, FastAPI, Header, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fastapi_cacheinval import CacheMiddleware, Decision, Event, HTTPCache, cached, invalidates
from tests.helpers.http import until
from tests.uvicorn.serving import Connection, Site, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


def make_app(cache: HTTPCache | None = None, *, size: int = 10, **options: Any) -> FastAPI:
    """A page that can be written, one by language, and one that is not cached."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache or HTTPCache(), **options)
    values: dict[int, int] = {}
    app.state.calls = 0

    @app.get("/items/{item}", dependencies=[cached(ttl=60, jitter=0, tags=["item:{item}"])])
    async def read(item: int) -> dict[str, Any]:
        app.state.calls += 1
        return {"item": item, "value": values.get(item, 0), "more": "x" * size}

    @app.put("/items/{item}", dependencies=[invalidates("item:{item}")])
    async def write(item: int) -> dict[str, Any]:
        values[item] = values.get(item, 0) + 1
        return {"item": item}

    @app.get("/greeting", dependencies=[cached(ttl=60, jitter=0)])
    async def greeting(accept_language: Annotated[str, Header()] = "en") -> str:
        return accept_language

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    return app


async def warm(site: Site, connection: Connection, *lines: str) -> bytes:
    """An answer that the front lookup gives, and none of them counted."""
    for _ in range(3):
        answer = await connection.ask(*lines)
    assert b"cache-status: cacheinval; hit" in answer
    site.own()
    return answer


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


async def test_a_warm_page_is_answered_without_the_app() -> None:
    """No task is made, and the answer is the one that the app's way gives."""
    app = make_app()
    async with serving(app) as site:
        connection = await site.connect()
        before = await warm(site, connection, "/items/1")
        made: list[object] = []
        asyncio.get_running_loop().set_task_factory(
            lambda loop, work, **options: made.append(work) or asyncio.Task(work, loop=loop, **options)  # type: ignore[func-returns-value]
        )
        again = await connection.ask("/items/1")
        asyncio.get_running_loop().set_task_factory(None)
        assert site.own() == 1
        assert not [work for work in made if "run_asgi" in repr(work)]
        assert body_of(again) == body_of(before)
        assert app.state.calls == 1


async def test_who_subscribes_is_told_of_every_hit() -> None:
    """While somebody listens, hits take the way that tells of them; afterwards the server answers them itself again."""
    cache = HTTPCache()
    async with serving(make_app(cache)) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        events: list[Event] = []
        unsubscribe = cache.subscribe(events.append)
        for _ in range(3):
            assert b"cache-status: cacheinval; hit" in await connection.ask("/items/1")
        assert site.own() == 0
        assert [each.result for each in events if isinstance(each, Decision)] == ["hit"] * 3
        unsubscribe()
        await connection.ask("/items/1")
        assert (site.own(), len(events)) == (1, 3)


async def test_a_write_is_seen_by_the_next_request() -> None:
    """On the same connection and on another one (G2)."""
    async with serving(make_app()) as site:
        one, other = await site.connect(), await site.connect()
        for round_ in range(5):
            await warm(site, one, "/items/1")
            assert b"Cacheinval-Purge: done".lower() in (await one.ask("/items/1", method="PUT")).lower()
            assert b'"value":%d' % (round_ + 1) in await other.ask("/items/1")
            assert b'"value":%d' % (round_ + 1) in await one.ask("/items/1")


async def test_a_conditional_request_is_answered_304() -> None:
    """With the fields of the stored response that a 304 has, and none that describe content."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        full = await warm(site, connection, "/items/1")
        etag = next(line for line in full.decode().split("\r\n") if line.startswith("etag"))[6:]
        answer = await connection.ask("/items/1", f"If-None-Match: {etag}")
        assert site.own() == 1
        assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
        assert b"content-" not in answer
        assert etag.encode() in answer
        assert (await connection.ask("/items/1", 'If-None-Match: "other"')).startswith(b"HTTP/1.1 200")
        assert site.own() == 1


async def test_a_head_request_has_the_fields_of_its_get() -> None:
    """Where no route has a HEAD of its own; there the route answers."""
    app = make_app()

    @app.head("/items/2")
    async def own() -> Response:
        return Response(headers={"x-own": "yes"})

    async with serving(app) as site:
        connection = await site.connect()
        full = await warm(site, connection, "/items/1")
        head = await connection.ask("/items/1", method="HEAD")
        assert site.own() == 1
        assert head.endswith(b"\r\n\r\n")
        assert head.split(b"\r\n")[3:6] == full.split(b"\r\n")[3:6]
        await warm(site, connection, "/items/2")
        assert b"x-own: yes" in await connection.ask("/items/2", method="HEAD")
        assert site.own() == 0


async def test_a_page_with_variants_is_answered_by_the_requests_own_fields() -> None:
    """Each language its own, however the field is spelled."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        await warm(site, connection, "/greeting", "Accept-Language: de")
        await warm(site, connection, "/greeting", "Accept-Language: fr")
        for language in ("de", "fr"):
            answer = await connection.ask("/greeting", f"ACCEPT-language:   {language}")
            assert body_of(answer) == b'"%b"' % language.encode()
        assert site.own() == 2
        # The server's parser hands on white space at the end, so that this is another language to the app.
        assert body_of(await connection.ask("/greeting", "Accept-Language: de ")) == b'"de "'
        assert site.own() == 0
        assert body_of(await connection.ask("/greeting", "Accept-Language: it")) == b'"it"'
        assert site.own() == 0


LEFT: dict[str, list[str]] = {
    "credentials": ["/items/1", "Authorization: Basic eDp5"],
    "a connection that ends": ["/items/1", "Connection: close"],
    "another page": ["/plain"],
    "an escape": ["/items/%31"],
    "no host": ["/items/1", "Host:"],
    "two hosts": ["/items/1", "Host: test", "Host: test"],
    "an expectation": ["/items/1", "Expect: 100-continue"],
    "an upgrade": ["/items/1", "Connection: upgrade", "Upgrade: h2c"],
    "a length": ["/items/1", "Content-Length: 0"],
    "a whole URL": ["http://test/items/1"],
    "two slashes": ["//items/1"],
}


@pytest.mark.parametrize("lines", LEFT.values(), ids=LEFT)
async def test_what_is_unusual_takes_the_ordinary_way(lines: list[str]) -> None:
    """It is uvicorn that answers, or refuses."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        assert (await connection.ask(*lines)).startswith(b"HTTP/1.1 ")
        assert site.own() == 0


async def test_a_body_that_follows_is_no_request() -> None:
    """What stands in a body is not answered, in whatever packets it comes."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        inner = b"GET /items/1 HTTP/1.1\r\nHost: test\r\n\r\n"
        connection.writer.write(b"PUT /items/7 HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(inner))
        await connection.writer.drain()
        await asyncio.sleep(0)
        connection.writer.write(inner)
        assert b'"item":7' in await connection.answer()
        assert site.own() == 0
        assert b'"item":1' in await connection.ask("/items/1")
        assert site.own() == 1


@pytest.mark.parametrize("cut", [1, 5, 18, 37, 38, 39])
async def test_a_head_that_comes_in_pieces_goes_to_the_servers_parser(cut: int) -> None:
    """Its next request is answered at once again."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        head = b"GET /items/1 HTTP/1.1\r\nHost: test\r\n\r\n" * 2
        for part in (head[:cut], head[cut:]):
            connection.writer.write(part)
            await connection.writer.drain()
            await asyncio.sleep(0.01)
        for _ in range(2):
            assert b'"item":1' in await connection.answer()
        await connection.ask("/items/1")
        assert site.own() >= 1


async def test_requests_behind_each_other_are_answered_in_order() -> None:
    """Hits, misses and writes in one packet."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        await warm(site, connection, "/items/2")
        asked = [("GET", 1), ("GET", 2), ("GET", 3), ("GET", 1), ("PUT", 2), ("GET", 2), ("GET", 1)]
        connection.writer.write(
            b"".join(b"%b /items/%d HTTP/1.1\r\nHost: test\r\n\r\n" % (method.encode(), item) for method, item in asked)
        )
        answers = [body_of(await connection.answer()) for _ in asked]
        assert [b'"item":%d' % item in answer for (_, item), answer in zip(asked, answers, strict=True)] == [True] * 7
        assert b'"value":1' in answers[5]
        assert site.own() == 2


async def test_a_client_that_does_not_read_is_not_written_to_without_end() -> None:
    """Past the transport's high-water mark requests wait as uvicorn has them wait; all are answered in the end."""
    async with serving(make_app(size=50_000)) as site:
        connection = await site.connect(limit=2**16)
        await warm(site, connection, "/items/1")
        transport: Any = next(iter(site.server.server_state.connections)).transport  # type: ignore[union-attr]
        count = 400
        connection.writer.write(b"GET /items/1 HTTP/1.1\r\nHost: test\r\n\r\n" * count)
        await until(lambda: transport.get_write_buffer_size() > 0, "the server's buffer")
        for _ in range(20):
            await asyncio.sleep(0)
            assert transport.get_write_buffer_size() < 1_000_000
        for _ in range(count):
            assert (await connection.answer()).startswith(b"HTTP/1.1 200")


async def test_the_switch_and_overrides_turn_it_off() -> None:
    """As they do in the app."""
    cache = HTTPCache()
    app = make_app(cache)
    async with serving(app) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        cache.enabled = False
        assert b"detail=disabled" in await connection.ask("/items/1")
        cache.enabled = True
        await connection.ask("/items/1")
        assert site.own() == 1
        app.dependency_overrides[len] = lambda: 1
        await connection.ask("/items/1")
        assert site.own() == 0


async def test_a_purge_from_elsewhere_ends_it() -> None:
    """`cache.invalidate` and `clear`."""
    cache = HTTPCache()
    async with serving(make_app(cache)) as site:
        connection = await site.connect()
        for purge in (lambda: cache.invalidate("item:1"), cache.clear):
            await warm(site, connection, "/items/1")
            await purge()
            assert b"fwd=" in await connection.ask("/items/1")
            assert site.own() == 0


class Refusing:
    """Refuses whoever has no key."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and b"x-key" not in dict(scope["headers"]):
            await Response("no", 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def in_a_function(app: Any) -> Any:
    """A layer that is no class."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return layer


OUTSIDE: dict[str, Callable[[Any], Any]] = {
    "a class of the app's": Refusing,
    "compression": GZipMiddleware,
    "hosts": lambda app: TrustedHostMiddleware(app, allowed_hosts=["test"]),
    "a function": in_a_function,
}


@pytest.mark.parametrize("layer", OUTSIDE.values(), ids=OUTSIDE)
async def test_a_layer_outside_turns_it_off(layer: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    """What is not known to hand everything on may not be skipped (G9); the log names it once."""
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval.uvicorn"):
        async with serving(layer(make_app()), interface="asgi3") as site:
            connection = await site.connect()
            await warm(site, connection, "/items/1", "X-Key: k")
            await connection.ask("/items/1", "X-Key: k")
            assert site.own() == 0
            if layer is Refusing:
                assert (await connection.ask("/items/1")).startswith(b"HTTP/1.1 401")
    said = [record.getMessage() for record in caplog.records if "CacheProtocol" in record.getMessage()]
    assert len(said) == 1


async def test_a_layer_inside_the_app_but_outside_of_the_cache_turns_it_off() -> None:
    """Added after `CacheMiddleware`, it stands before it."""
    app = make_app()
    app.add_middleware(Refusing)
    async with serving(app) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1", "X-Key: k")
        assert (await connection.ask("/items/1")).startswith(b"HTTP/1.1 401")
        assert site.own() == 0


async def test_the_author_can_say_that_hits_may_skip_what_is_outside() -> None:
    """`front=True`."""
    app = make_app(front=True)
    app.add_middleware(Refusing)
    async with serving(app) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1", "X-Key: k")
        await connection.ask("/items/1", "X-Key: k")
        assert site.own() == 1


async def test_a_layer_that_is_put_outside_later_is_asked() -> None:
    """The app's stack is another one than was looked at."""
    app = make_app()
    async with serving(app) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        app.middleware_stack = Refusing(app.middleware_stack)
        async with asyncio.timeout(20):
            while not (await connection.ask("/items/1")).startswith(b"HTTP/1.1 401"):
                pass
        site.own()
        assert (await connection.ask("/items/1")).startswith(b"HTTP/1.1 401")
        assert site.own() == 0


async def test_cors_outside_is_asked_by_requests_with_an_origin() -> None:
    """Any other is answered here."""
    app = make_app()
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    async with serving(app) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        await connection.ask("/items/1")
        assert site.own() == 1
        answer = await connection.ask("/items/1", "Origin: https://a.example")
        assert b"access-control-allow-origin: https://a.example" in answer
        assert site.own() == 0


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("path", ["/items/1", "/greeting"])
@pytest.mark.parametrize("condition", [False, True])
async def test_cors_outside_writes_into_vary_what_it_writes_in_the_app(
    layers: int, path: str, *, condition: bool
) -> None:
    """The field lines of a hit, and of a 304, are those of the app's way, whether there was a `Vary` or not."""
    app = make_app()
    for _ in range(layers):
        app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])

    def compared(answer: bytes) -> list[bytes]:
        varying = (b"date:", b"age:", b"cache-status:")
        return [line for line in answer.split(b"\r\n") if not line.startswith(varying)]

    async with serving(app) as site:
        connection = await site.connect()
        first = await warm(site, connection, path)
        lines = [path]
        if condition:
            (etag,) = [line[6:].decode() for line in first.split(b"\r\n") if line.startswith(b"etag: ")]
            lines.append(f"If-None-Match: {etag}")
        own = await connection.ask(*lines)
        assert site.own() == 1
        # A request with a body to come is none of the protocol's.
        ordinary = await connection.ask(*lines, "Content-Length: 0")
        assert site.own() == 0
        assert compared(own) == compared(ordinary)


async def test_an_app_without_the_middleware_is_uvicorns_own(caplog: pytest.LogCaptureFixture) -> None:
    """It says so once."""
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval.uvicorn"):
        async with serving(FastAPI()) as site:
            connection = await site.connect()
            for _ in range(3):
                assert (await connection.ask("/nothing")).startswith(b"HTTP/1.1 404")
                await asyncio.sleep(0.06)
    assert ["no CacheMiddleware" in record.getMessage() for record in caplog.records] == [True]


async def test_what_a_proxy_says_counts_where_the_server_trusts_it() -> None:
    """The scheme is another key, as in the app; the client of the access log is the one that it names."""
    app = make_app()
    async with serving(app, proxy_headers=True, forwarded_allow_ips="127.0.0.1") as site:
        connection = await site.connect()
        forwarded = ["/items/1", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1"]
        await warm(site, connection, *forwarded)
        assert b"hit" in await connection.ask(*forwarded)
        assert site.own() == 1
        calls = app.state.calls
        assert b"fwd=uri-miss" in await connection.ask("/items/1")
        assert app.state.calls == calls + 1


async def test_what_an_untrusted_client_says_of_a_proxy_counts_for_nothing() -> None:
    """It gets the page of its own scheme."""
    async with serving(make_app(), proxy_headers=True, forwarded_allow_ips="192.0.2.9") as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        assert b"; hit" in await connection.ask("/items/1", "X-Forwarded-Proto: https")
        assert site.own() == 1


async def test_the_access_log_has_the_same_line(caplog: pytest.LogCaptureFixture) -> None:
    """Client, method, path with its query, version and status."""
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        async with serving(make_app(), access_log=True, proxy_headers=True) as site:
            connection = await site.connect()
            for _ in range(4):
                await connection.ask("/items/1?a=1", "X-Forwarded-For: 192.0.2.1")
            assert site.own() >= 1
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(lines) == 4
    assert set(lines) == {'192.0.2.1:0 - "GET /items/1?a=1 HTTP/1.1" 200'}


@pytest.mark.parametrize("options", [{"root_path": "/api"}, {}])
async def test_a_root_path_is_that_of_the_app_or_of_the_server(options: dict[str, Any]) -> None:
    """Hits are found under both."""
    app = make_app()
    app.root_path = "" if options else "/api"
    async with serving(app, **options) as site:
        connection = await site.connect()
        target = "/items/1" if options else "/api/items/1"
        await warm(site, connection, target)
        await connection.ask(target)
        assert site.own() == 1


async def test_a_connection_that_is_idle_is_closed() -> None:
    """After the server's own time, counted from the last answer."""
    async with serving(make_app(), timeout_keep_alive=1) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.3
        while loop.time() < end:
            await connection.ask("/items/1")
            await asyncio.sleep(0.05)
        assert site.own() > 10
        last = loop.time()
        assert await connection.ended()
        assert 0.8 < loop.time() - last < 5


async def test_the_servers_limit_of_requests_counts_them() -> None:
    """`limit_max_requests` ends the process after so many."""
    async with serving(make_app(), limit_max_requests=50) as site:
        connection = await site.connect()
        for _ in range(60):
            await connection.ask("/items/1")
        assert site.own() > 40
        await until(lambda: site.server.server_state.total_requests >= 50, "the count")
        assert await connection.ended()


async def test_past_the_servers_limit_of_connections_it_refuses() -> None:
    """`limit_concurrency` is uvicorn's to enforce."""
    async with serving(make_app(), limit_concurrency=2) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        await site.connect()
        await until(lambda: len(site.server.server_state.connections) == 2, "the connection")
        assert (await connection.ask("/items/1")).startswith(b"HTTP/1.1 503")
        assert site.own() == 0


async def test_a_server_that_stops_closes_its_connections() -> None:
    """At once where nothing is under way."""
    async with serving(make_app()) as site:
        connection = await site.connect()
        await warm(site, connection, "/items/1")
        site.server.should_exit = True
        assert await connection.ended()


async def test_over_tls_the_scheme_is_https(tmp_path: Any) -> None:
    """Another key than without."""
    authority = trustme.CA()
    issued = authority.issue_cert("test")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    issued.private_key_pem.write_to_path(key)
    for part in issued.cert_chain_pems:
        part.write_to_path(chain, append=True)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(make_app(), ssl_keyfile=str(key), ssl_certfile=str(chain)) as site:
        connection = await site.connect(ssl=trusting, server_hostname="test")
        await warm(site, connection, "/items/1")
        await connection.ask("/items/1")
        assert site.own() == 1


async def test_guarded_pages_are_never_answered_here() -> None:
    """The guard runs for every request (G9)."""
    app = make_app()
    seen: list[str] = []

    def guard(x_key: Annotated[str, Header()] = "") -> None:
        seen.append(x_key)

    @app.get("/guarded", dependencies=[cached(ttl=60, guarded_by=guard), Depends(guard)])
    async def guarded() -> str:
        return "secret"

    async with serving(app) as site:
        connection = await site.connect()
        for _ in range(4):
            await connection.ask("/guarded", "X-Key: a")
        assert site.own() == 0
        assert len(seen) >= 4


async def test_joined_fields_count_in_the_size_of_l1() -> None:
    """What a hit here needs beside the response is not outside of the bound."""
    sizes: list[int] = []
    for http in ("httptools", None):
        cache = HTTPCache()
        async with serving(make_app(cache), **({"http": http} if http else {})) as site:
            connection = await site.connect()
            # Another page first: the first connection tells the cache that fields are wanted joined.
            await connection.ask("/plain")
            await connection.ask("/items/1")
            sizes.append(cache.statistics().size_bytes)
    assert sizes[1] > sizes[0] + 100
