"""Behind a route class the cache keeps what the handler said, and each answer passes the class of its own request."""

# No postponed annotations: the handlers name classes and callables of their own test.

import gzip
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale
from tests.helpers.http import Answer, ask, until
from tests.helpers.versions import SEES_INCLUDED

pytestmark = pytest.mark.anyio


def who(request: Request) -> str:
    return request.headers.get("x-user", "")


class Named(APIRoute):
    """Writes into each answer who has asked."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def named(request: Request) -> Response:
            response = await handler(request)
            response.headers["x-named"] = who(request)
            return response

        return named


class Checked(APIRoute):
    """Refuses a caller before, and another one after the handler has answered."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if who(request) == "mallory":
                raise HTTPException(401)
            response = await handler(request)
            if who(request) == "eve":
                return JSONResponse({"detail": "not you"}, 403)
            return response

        return checked


class Rewritten(APIRoute):
    """Makes another response of the one that it is given, for each caller."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def rewritten(request: Request) -> Response:
            response = await handler(request)
            return Response(bytes(response.body) + who(request).encode(), response.status_code)

        return rewritten


class Zipped(APIRoute):
    """As the framework's documentation has it: the request is another object."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        class Unzipped(Request):
            async def body(self) -> bytes:
                body = await super().body()
                return gzip.decompress(body) if "gzip" in self.headers.getlist("content-encoding") else body

        async def unzipped(request: Request) -> Response:
            return await handler(Unzipped(request.scope, request.receive))

        return unzipped


class Kept(APIRoute):
    """Keeps the handler in an attribute."""

    def get_route_handler(self) -> Any:
        self.inner = super().get_route_handler()
        return self.answer

    async def answer(self, request: Request) -> Response:
        response: Response = await self.inner(request)
        response.headers["x-named"] = who(request)
        return response


class Twice(Named):
    """A class above a class."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def twice(request: Request) -> Response:
            response: Response = await handler(request)
            response.headers["x-twice"] = who(request)
            return response

        return twice


class Handed(APIRoute):
    """Stands around it as an ASGI app."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        name = dict(scope["headers"]).get(b"x-user", b"")

        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-named", name))
            await send(message)

        await super().handle(scope, receive, named)


CLASSES: list[type[APIRoute]] = [Named, Checked, Rewritten, Zipped, Kept, Twice, Handed]


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def app_of(
    route_class: type[APIRoute],
    handler: Callable[..., Any],
    *,
    included: bool = False,
    cache: HTTPCache | None = None,
    plain: bool = False,
    **policy: Any,
) -> FastAPI:
    app = FastAPI()
    router = APIRouter(route_class=route_class)
    target = router if included else app.router
    target.route_class = route_class
    target.get("/it", dependencies=[] if plain else [cached(ttl=60, **policy)])(handler)
    target.put("/it", dependencies=[invalidates("it")])(lambda: "")
    if included:
        app.include_router(router)
    if not plain:
        app.add_middleware(CacheMiddleware, cache=HTTPCache() if cache is None else cache)
    return app


async def by(app: FastAPI, name: str = "", **more: Any) -> Answer:
    return await ask(app, "/it", headers={"X-User": name, **more.pop("headers", {})}, **more)


def told(answer: Answer) -> Any:
    """What a client gets, but for what the cache adds."""
    ours = {"age", "cache-status", "cache-control", "etag", "surrogate-key"}
    return answer.status_code, answer.body, sorted(pair for pair in answer.headers.items() if pair[0] not in ours)


@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize("route_class", CLASSES)
async def test_each_caller_gets_what_they_would_get_without_the_cache(route_class, included) -> None:
    """Callers in turn, twice: the handler runs once, and its class for each of them."""
    number = Counter()

    def handler() -> int:
        number()
        return 1

    with_it = app_of(route_class, handler, included=included)
    if included and not SEES_INCLUDED:
        assert (await ask(with_it, "/it")).status_code == 500
        return
    without = app_of(route_class, lambda: 1, included=included, plain=True)
    for _ in range(2):
        for name in ("alice", "bob", "mallory", "eve", "alice"):
            assert told(await by(with_it, name)) == told(await by(without, name)), name
    assert number.calls == 1


async def test_what_the_class_writes_is_its_callers_own() -> None:
    """The answer is private to them, and has no ETag of another body."""
    app = app_of(Named, lambda: "page")
    first, second = await by(app, "alice"), await by(app, "bob")
    assert_miss(first)
    assert_hit(second)
    for answer in (first, second):
        assert answer.headers["cache-control"] == "private, no-cache"
    other = app_of(Rewritten, lambda: "page")
    for name in ("alice", "bob"):
        answer = await by(other, name)
        assert answer.body == f'"page"{name}'.encode()
        assert "etag" not in answer.headers


async def test_what_it_leaves_alone_is_as_without_it() -> None:
    """Conditions are answered, and any cache downstream may keep it by the same rules."""
    app = app_of(Zipped, lambda: "page")
    etag = (await by(app)).headers["etag"]
    again = await by(app, headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert again.headers["cache-control"] == "no-cache"


async def test_a_partition_and_a_guard_count_behind_it() -> None:
    """Each user has their own, and one that the guard refuses gets no hit."""

    def user(x_user: Annotated[str, Header()] = "") -> str:
        if x_user == "nobody":
            raise HTTPException(401)
        return x_user

    def handler(of: Annotated[str, Depends(user)]) -> str:
        return of

    app = app_of(Named, handler, partition_by=user)
    for _ in range(2):
        for name in ("alice", "bob"):
            answer = await by(app, name)
            assert answer.body == f'"{name}"'.encode()
    assert_hit(answer)
    assert (await by(app, "nobody")).status_code == 401


async def test_a_mutation_purges_it() -> None:
    """By tag and by path, as without the class."""
    number = Counter()
    app = app_of(Named, number, tags=["it"])
    await by(app)
    assert (await by(app, method="PUT")).status_code == 200
    assert_miss(await by(app))
    assert number.calls == 2


@pytest.mark.parametrize("kind", ["streaming", "generator"])
async def test_a_stream_goes_to_its_class_as_it_is(kind) -> None:
    """It is not kept, and not buffered: `detail=route-class`."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def streaming() -> Any:
        return StreamingResponse(chunks())

    async def lines() -> Any:
        yield {"a": 1}

    number = Counter()
    app = app_of(Named, streaming if kind == "streaming" else lines)
    for _ in range(2):
        answer = await by(app, "alice")
        number()
        assert answer.cache is not None
        assert answer.cache.detail == "route-class"
        assert answer.headers["x-named"] == "alice"
        assert answer.body == (b"ab" if kind == "streaming" else b'{"a": 1}\n')


async def test_what_goes_past_the_cache_says_so() -> None:
    """A file, a part of it, and a request that is not valid: the app's own answers, counted once each."""

    def handler() -> Any:
        return FileResponse(__file__)

    def with_number(item: int) -> int:
        return item

    cache = HTTPCache()
    app = app_of(Named, handler, cache=cache)
    app.get("/items/{item}", dependencies=[cached(ttl=60)])(with_number)
    whole, part = await by(app), await by(app, headers={"Range": "bytes=0-2"})
    assert (whole.status_code, part.status_code, part.body) == (200, 206, b'"""')
    invalid = await ask(app, "/items/x")
    assert invalid.status_code == 422
    for answer in (whole, part, invalid):
        assert answer.cache is not None
        assert answer.cache.detail == "route-class"
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.bypassed) == (0, 2, 1)


async def test_a_404_that_is_raised_is_the_apps_own_answer() -> None:
    """It is not kept, and no stale response stands in for it."""
    clock, gone = FakeClock(), Counter()

    def handler() -> str:
        if gone() > 1:
            raise HTTPException(404, "gone")
        return "page"

    app = app_of(Named, handler, cache=HTTPCache(clock=clock), stale_if_error=600)
    await by(app)
    clock.tick(61)
    answer = await by(app)
    assert (answer.status_code, answer.body) == (404, b'{"detail":"gone"}')


async def test_a_stale_response_stands_in_for_an_error() -> None:
    """It passes the class, too."""
    clock, number = FakeClock(), Counter()

    def handler() -> str:
        if number() > 1:
            raise RuntimeError
        return "page"

    app = app_of(Named, handler, cache=HTTPCache(clock=clock), stale_if_error=600)
    await by(app, "alice")
    clock.tick(61)
    answer = await by(app, "bob")
    assert_stale(answer)
    assert answer.headers["x-named"] == "bob"


async def test_an_error_without_one_reaches_the_class() -> None:
    """As it was raised."""

    class Mending(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def mending(request: Request) -> Response:
                try:
                    return await handler(request)
                except RuntimeError as error:
                    return JSONResponse({"mended": str(error)}, 500)

            return mending

    def handler() -> str:
        raise RuntimeError("it broke")

    for _ in range(2):
        assert (await by(app_of(Mending, handler))).body == b'{"mended":"it broke"}'


async def test_the_class_sees_no_exception_on_a_hit() -> None:
    """One that catches everything is handed the stored response."""
    seen: list[Exception] = []

    class Catching(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def catching(request: Request) -> Response:
                try:
                    return await handler(request)
                except Exception as error:
                    seen.append(error)
                    raise

            return catching

    app = app_of(Catching, lambda: "page")
    await by(app)
    assert_hit(await by(app))
    assert seen == []


async def test_the_response_keeps_its_kind_and_its_background_tasks() -> None:
    """On a fill the class is handed what the handler made, and the tasks run once, after it."""
    kinds: list[type] = []
    ran: list[str] = []

    class Looking(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def looking(request: Request) -> Response:
                response = await handler(request)
                kinds.append(type(response))
                ran.append("class")
                return response

            return looking

    def handler(tasks: BackgroundTasks) -> Any:
        tasks.add_task(ran.append, "task")
        return HTMLResponse("<p>")

    app = app_of(Looking, handler)
    await by(app)
    await by(app)
    assert kinds == [HTMLResponse, Response]
    assert ran == ["class", "task", "class"]


async def test_one_response_object_for_all_is_not_written_into() -> None:
    """A handler may return the same object each time."""
    same = Response(b"page", headers={"x-own": "1"})
    clock = FakeClock()
    app = app_of(Zipped, lambda: same, cache=HTTPCache(clock=clock))
    before = list(same.raw_headers)
    for _ in range(3):
        answer = await by(app)
        assert len(answer.fields("etag")) == 1
        clock.tick(61)
    assert same.raw_headers == before


async def test_a_stale_response_is_refreshed_behind_its_class() -> None:
    """The refresh stores what the handler says then."""
    clock, number = FakeClock(), Counter()
    cache = HTTPCache(clock=clock)
    app = app_of(Named, number, cache=cache, stale_while_revalidate=600, jitter=0, early_refresh=0)
    await by(app, "alice")
    clock.tick(61)
    stale = await by(app, "bob")
    assert_stale(stale)
    assert stale.body == b"1"
    await until(lambda: number.calls == 2)
    await until(lambda: cache.statistics().refreshing == 0)
    fresh = await by(app, "carol")
    assert_hit(fresh)
    assert (fresh.body, fresh.headers["x-named"]) == (b"2", "carol")


async def test_a_class_that_asks_its_handler_twice_gets_it_uncached() -> None:
    """The second time nobody waits at the handler."""

    class Again(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def again(request: Request) -> Response:
                await handler(request)
                return await handler(request)

            return again

    app = app_of(Again, lambda: "page")
    for _ in range(3):
        assert (await by(app)).body == b'"page"'


class Renamed(APIRoute):
    """Gives the handler values of the caller under the names of its parameters, in one of the ways that there are."""

    way = "path"

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()
        way = self.way

        class Mine(Request):
            @property
            def query_params(self) -> Any:
                return QueryParams({"of": who(self)})

        async def renamed(request: Request) -> Response:
            if way == "path":
                request.scope["path_params"]["of"] = who(request)
            elif way == "query":
                request.scope["query_string"] = f"of={who(request)}".encode()
            elif way == "memo":
                request._query_params = QueryParams({"of": who(request)})
            elif way == "headers":
                request._headers = Headers({"x-of": who(request)})
            else:
                request = Mine(request.scope, request.receive)
            return await handler(request)

        return renamed


@pytest.mark.parametrize("way", ["path", "query", "memo", "subclass", "headers"])
async def test_what_a_class_writes_into_the_request_reaches_its_own_caller_alone(way) -> None:
    """By the path's parameters, the query, or a request that says another thing than its scope."""

    def by_path(of: str) -> str:
        return of

    def by_query(of: str = "") -> str:
        return of

    def by_header(x_of: Annotated[str, Header()] = "") -> str:
        return x_of

    app = FastAPI()
    app.router.route_class = type("Way", (Renamed,), {"way": way})
    handler: Any = {"path": by_path, "headers": by_header}.get(way, by_query)
    app.get("/{of}" if way == "path" else "/it", dependencies=[cached(ttl=60)])(handler)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for name in ("alice", "bob", "alice", "bob"):
        assert (await by(app, name)).body == f'"{name}"'.encode()


async def test_overridden_dependencies_keep_to_it() -> None:
    """What an override gives is kept apart, behind the same class."""

    def user(x_user: Annotated[str, Header()] = "") -> str:
        return x_user

    def handler(of: Annotated[str, Depends(user)]) -> str:
        return of

    app = app_of(Named, handler, partition_by=user)
    await by(app, "alice")
    app.dependency_overrides[user] = lambda: "test"
    for _ in range(2):
        answer = await by(app, "alice")
        assert (answer.body, answer.headers["x-named"]) == (b'"test"', "alice")
