"""Covers that run before the app has the request: once each, and with nothing different from the ordinary way."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi import routing as fastapi_routing
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached
from fastapi_cacheinval.framework.ahead import ReadAhead
from fastapi_cacheinval.framework.route_hits import RouteHits
from fastapi_cacheinval.routes.fastapi_solver import solver_is_known
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Call, ask, scope_of, until

pytestmark = pytest.mark.anyio

BOB = {"authorization": "Bearer bob"}
TOKEN = OAuth2PasswordBearer("token")


@pytest.fixture
def anyio_backend() -> str:
    """Its calls are asyncio's."""
    return "asyncio"


class Hits:
    """The requests that were answered ahead of the app, by path."""

    def __init__(self) -> None:
        self.paths: list[str] = []


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Hits:
    """Notes what is answered ahead of the app."""
    hits, answer = Hits(), RouteHits.answer

    async def noted(self: RouteHits, scope: Any, *given: Any) -> bool:
        answered = await answer(self, scope, *given)
        hits.paths += [scope["path"]] * answered
        return answered

    monkeypatch.setattr(RouteHits, "answer", noted)
    return hits


def app_with(user: Any, **options: Any) -> FastAPI:
    """A page for each user, in an app behind the cache."""
    app = FastAPI(**options)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.state.calls = 0

    @app.get("/pages/{page}", dependencies=[cached(ttl=60, partition_by=user)])
    async def read(page: int, who: Annotated[str, Depends(user)]) -> dict[str, Any]:
        app.state.calls += 1
        return {"page": page, "who": who}

    return app


async def bearer(token: Annotated[str, Depends(TOKEN)]) -> str:
    if token == "thief":
        raise HTTPException(403, "thief")
    return token


class Gate:
    """Has a cover, `user`, that waits while it is closed."""

    def __init__(self) -> None:
        self._open, self._entered = asyncio.Event(), asyncio.Event()
        self._open.set()

        async def user(token: Annotated[str, Depends(TOKEN)]) -> str:
            self._entered.set()
            await self._open.wait()
            return token

        self.user = user

    async def held(self, app: FastAPI, scope: Any) -> Call:
        """A request whose covers run, and do not come to an end."""
        self._open.clear()
        self._entered.clear()
        call = Call(app, scope)
        await self._entered.wait()
        return call

    def open(self) -> None:
        """Let it go on."""
        self._open.set()


async def warm(app: FastAPI, path: str = "/pages/1", headers: dict[str, str] = BOB) -> None:
    assert_miss(await ask(app, path, headers=headers))
    assert_hit(await ask(app, path, headers=headers))


def test_the_solver_of_this_fastapi_is_known() -> None:
    """It takes, gives and does what is known of it; were it not, every hit would take the ordinary way."""
    assert solver_is_known()


async def test_a_hit_is_answered_ahead_and_runs_its_covers(ahead: Hits) -> None:
    """The handler and the router are not asked; a token that is refused is refused although the page is stored."""
    calls: list[str] = []

    def user(token: Annotated[str, Depends(TOKEN)]) -> str:
        calls.append(token)
        return token

    app = app_with(user)
    await warm(app)
    assert ahead.paths == ["/pages/1"]
    assert calls == ["bob", "bob"]
    assert app.state.calls == 1
    answer = await ask(app, "/pages/1")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert calls == ["bob", "bob"]


async def test_the_covers_of_a_miss_run_once(ahead: Hits) -> None:
    """What they gave is what the handler is handed, and what it raises goes through the app's own handlers."""
    calls: list[str] = []

    async def user(token: Annotated[str, Depends(TOKEN)]) -> str:
        calls.append(token)
        if token == "thief":
            raise LookupError(token)
        return token

    app = app_with(user)

    @app.exception_handler(LookupError)
    async def lost(request: Request, error: LookupError) -> JSONResponse:
        return JSONResponse({"lost": str(error), "route": request.scope["route"].path}, 418)

    await warm(app)
    calls.clear()
    answer = await ask(app, "/pages/1", headers={"authorization": "Bearer alice"})
    assert answer.body == b'{"page":1,"who":"alice"}'
    assert_miss(answer)
    answer = await ask(app, "/pages/1", headers={"authorization": "Bearer thief"})
    assert (answer.status_code, answer.body) == (418, b'{"lost":"thief","route":"/pages/{page}"}')
    assert calls == ["alice", "thief"]


async def test_parameters_that_are_not_valid_are_answered_as_ever() -> None:
    """All that is not valid is said in one 422, of covers and handler alike, whichever way was taken."""

    async def user(x_user: Annotated[int, Header()]) -> str:
        return str(x_user)

    app = app_with(user)
    before = await ask(app, "/pages/x", headers={"x-user": "bob"})
    await warm(app, headers={"x-user": "1"})
    await warm(app, "/pages/2", {"x-user": "1"})
    ahead = await ask(app, "/pages/2", headers={"x-user": "bob"})
    assert ahead.status_code == before.status_code == 422
    assert b'"x-user"' in ahead.body
    assert ahead.body.count(b'"loc"') == before.body.count(b'"loc"') - 1


async def test_layers_outside_see_the_route_of_a_hit(ahead: Hits) -> None:
    """The scope says the same after both ways: the route, its endpoint, its parameters."""
    app = FastAPI()
    router = APIRouter()

    @router.get("/it/{page}", dependencies=[cached(ttl=60, guarded_by=bearer)])
    async def it(page: int) -> int:
        return page

    app.include_router(router, prefix="/r")
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    seen: list[dict[str, Any]] = []
    for _ in range(3):
        scope = scope_of("/r/it/7", headers=BOB)
        await Call(app, scope).answer()
        seen.append({name: scope[name] for name in ("route", "endpoint", "path_params", "router", "fastapi")})
    # The oldest FastAPI has one handler for all includes of a route, which none of them is known by.
    assert ahead.paths in ([], ["/r/it/7"] * 2)
    assert seen[0] == seen[1] == seen[2]
    assert seen[2]["path_params"] == {"page": "7"}


async def test_what_else_the_route_depends_on_runs_when_it_did(ahead: Hits) -> None:
    """Exits, background tasks and fields of a route's other dependencies belong to its misses, as ever."""
    events: list[str] = []

    async def session() -> AsyncIterator[str]:
        events.append("enter")
        yield "session"
        events.append("exit")

    def decorate(response: Response, tasks: BackgroundTasks) -> None:
        response.headers["x-made"] = "once"
        tasks.add_task(events.append, "task")

    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/it", dependencies=[cached(ttl=60, guarded_by=bearer), Depends(decorate)])
    async def it(found: Annotated[str, Depends(session)], tags: CacheTags, q: str = "") -> str:
        tags.add("it")
        events.append(found)
        return q

    for query, hit in (("", False), ("", True), ("q=1", False), ("q=1", True)):
        answer = await ask(app, f"/it?{query}", headers=BOB)
        (assert_hit if hit else assert_miss)(answer)
        assert answer.headers["x-made"] == "once"
        assert answer.headers["surrogate-key"] == "it"
    assert events == ["enter", "session", "task", "exit"] * 2
    assert ahead.paths == ["/it", "/it"]


async def test_a_context_variable_that_a_cover_sets_is_the_handlers(ahead: Hits) -> None:
    """The covers run in the request's own task."""
    who: ContextVar[str] = ContextVar("who", default="nobody")

    async def user(token: Annotated[str, Depends(TOKEN)]) -> str:
        who.set(token)
        return token

    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=user)])
    async def it() -> str:
        return who.get()

    await warm(app, "/it")
    answer = await ask(app, "/it", headers={"authorization": "Bearer alice"})
    assert answer.body == b'"alice"'


@pytest.mark.parametrize("cover", ["partition_by", "guarded_by", None])
@pytest.mark.parametrize("spelled", ["annotated", "default", "keyword", "method"])
async def test_a_parameter_may_declare_the_policy(spelled: str, cover: str | None, ahead: Hits) -> None:
    """It stands before the parameters that the covers feed, and the handler is handed None for it each time."""
    covers: dict[str, Any] = {} if cover is None else {cover: bearer}
    declared = cached(ttl=60, **covers)
    given: list[object] = []

    def annotated(policy: Annotated[object, declared], q: str = "") -> str:
        given.append(policy)
        return q

    def default(policy: object = declared, q: str = "") -> str:
        given.append(policy)
        return q

    def keyword(*, policy: Annotated[object, declared], q: str = "") -> str:
        given.append(policy)
        return q

    class Pages:
        def read(self, policy: Annotated[object, declared], q: str = "") -> str:
            given.append(policy)
            return q

    handlers: dict[str, Any] = {
        "annotated": annotated,
        "default": default,
        "keyword": keyword,
        "method": Pages().read,
    }
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.get("/it")(handlers[spelled])
    for q in "abc":
        answer = await ask(app, f"/it?q={q}", headers=BOB)
        assert answer.body == f'"{q}"'.encode()
        assert_miss(answer)
        assert_hit(await ask(app, f"/it?q={q}", headers=BOB))
    assert given == [None] * 3
    assert ahead.paths == ([] if cover is None else ["/it"] * 3)


@pytest.mark.parametrize("kept", ["scope", "request"])
async def test_a_cover_that_finds_the_request_by_itself_sees_its_route(kept: str, ahead: Hits) -> None:
    """A layer outside may keep the request for everybody: a check that goes by the route refuses on each hit too."""
    at_hand: ContextVar[Any] = ContextVar("at_hand")

    class Keeping:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            at_hand.set(scope if kept == "scope" else Request(scope))
            await self.app(scope, receive, send)

    seen: list[Any] = []

    async def user(token: Annotated[str, Depends(TOKEN)]) -> str:
        scope = at_hand.get() if kept == "scope" else at_hand.get().scope
        seen.append({name: scope.get(name) for name in ("route", "endpoint", "path_params", "router")})
        if "admin" in getattr(scope.get("route"), "tags", ()) and token != "bob":
            raise HTTPException(403, "admin")
        return token

    app = FastAPI()
    app.get("/it/{page}", tags=["admin"], dependencies=[cached(ttl=60, guarded_by=user)])(lambda: "secret")
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.add_middleware(Keeping)
    await warm(app, "/it/1")
    assert (await ask(app, "/it/1", headers={"authorization": "Bearer eve"})).status_code == 403
    assert (await ask(app, "/it/1?q=1", headers={"authorization": "Bearer eve"})).status_code == 403
    assert ahead.paths == ["/it/1"]
    assert seen == [seen[0]] * 4
    assert seen[0]["path_params"] == {"page": "1"}


@pytest.mark.parametrize("place", ["its own", "one before it"])
async def test_convertors_of_the_authors_are_asked_on_each_hit(place: str) -> None:
    """What they make of a path may change, and they may refuse it: their routes have no hits ahead of the app."""
    blocked: list[str] = []

    class Slug(Convertor[str]):
        regex = "[a-z]+"

        def convert(self, value: str) -> str:
            if value in blocked:
                raise HTTPException(410, value)
            return value

        def to_string(self, value: str) -> str:
            return value

    app = FastAPI()
    CONVERTOR_TYPES["slug"] = Slug()
    try:
        app.post("/it/{name:slug}")(lambda name: name)
        path = "/it/{name:slug}" if place == "its own" else "/it/{name}"
        app.get(path, dependencies=[cached(ttl=60, guarded_by=bearer)])(lambda: "it")
    finally:
        del CONVERTOR_TYPES["slug"]
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    await warm(app, "/it/a")
    blocked.append("a")
    assert (await ask(app, "/it/a", headers=BOB)).status_code == 410


async def test_scopes_are_those_of_the_route() -> None:
    """A cover is told the scopes that its use asks for, and refuses by them on every hit."""

    async def user(scopes: SecurityScopes, token: Annotated[str, Depends(TOKEN)]) -> str:
        if scopes.scopes != ["read"] or token != "bob":
            raise HTTPException(403, scopes.scope_str)
        return token

    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/it", dependencies=[cached(ttl=60, guarded_by=Security(user, scopes=["read"]))])
    async def it() -> str:
        return "it"

    await warm(app, "/it")
    answer = await ask(app, "/it", headers={"authorization": "Bearer alice"})
    assert (answer.status_code, answer.body) == (403, b'{"detail":"read"}')


async def test_conditions_and_head_are_answered_as_ever(ahead: Hits) -> None:
    """A conditional hit is a 304, HEAD has no content."""
    app = app_with(bearer)
    await warm(app)
    full = await ask(app, "/pages/1", headers=BOB)
    fresh = await ask(app, "/pages/1", headers={**BOB, "if-none-match": full.headers["etag"]})
    assert (fresh.status_code, fresh.body) == (304, b"")
    head = await ask(app, "/pages/1", method="HEAD", headers=BOB)
    assert (head.status_code, head.body, head.headers["etag"]) == (200, b"", full.headers["etag"])
    assert len(ahead.paths) == 3


async def test_a_purge_while_the_covers_run_counts() -> None:
    """What is stored is looked at after them: a page that was purged meanwhile is not handed out."""
    gate = Gate()
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.state.calls = 0

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=gate.user, tags=["it"])])
    async def it() -> int:
        app.state.calls += 1
        return int(app.state.calls)

    await warm(app, "/it")
    call = await gate.held(app, scope_of("/it", headers=BOB))
    await cache.invalidate("it")
    gate.open()
    answer = await call.answer()
    assert_miss(answer)
    assert answer.body == b"2"


async def test_a_request_that_is_cancelled_while_its_covers_run_is_counted() -> None:
    """Each request for a cached route is counted once, also where it ends before the app has it."""
    gate = Gate()
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.get("/it", dependencies=[cached(ttl=60, guarded_by=gate.user)])(lambda: "it")
    await warm(app, "/it")
    call = await gate.held(app, scope_of("/it", headers=BOB))
    call.task.cancel()
    await asyncio.wait([call.task])
    counted = cache.statistics()
    assert (counted.bypassed, counted.refused) == (1, {"cancelled": 1})
    assert counted.routes["GET /it"].bypassed == 1


async def test_a_route_that_is_replaced_while_the_covers_run_answers_for_itself() -> None:
    """The app routes by what is there when it has the request, and none of that is stored as the other route's."""
    gate = Gate()
    app = app_with(gate.user)
    await warm(app)
    call = await gate.held(app, scope_of("/pages/1?q=1", headers={"authorization": "Bearer alice"}))

    @app.get("/pages/{page}")
    async def other(page: int) -> str:
        return f"other {page}"

    app.router.routes.insert(0, app.router.routes.pop())
    gate.open()
    assert (await call.answer()).body == b'"other 1"'
    assert (await ask(app, "/pages/1", headers=BOB)).body == b'"other 1"'


@pytest.mark.parametrize("change", ["override", "content", "solver", "off"])
async def test_whatever_is_not_certain_takes_the_ordinary_way(
    change: str, ahead: Hits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An override, content, a solver of somebody else's, the kill switch: the app is asked."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.get("/it", dependencies=[cached(ttl=60, guarded_by=bearer)])(lambda: "it")
    await warm(app, "/it")
    assert ahead.paths == ["/it"]
    headers, solve, solved = dict(BOB), fastapi_routing.solve_dependencies, []  # type: ignore[attr-defined]

    async def counted(**given: Any) -> Any:
        solved.append(given)
        return await solve(**given)

    if change == "override":

        async def anybody() -> str:
            return "anybody"

        app.dependency_overrides[bearer] = anybody
    elif change == "content":
        headers["content-length"] = "0"
    elif change == "solver":
        monkeypatch.setattr(fastapi_routing, "solve_dependencies", counted)
    else:
        cache.enabled = False
    answer = await ask(app, "/it", headers=headers)
    assert answer.status_code == 200
    assert ahead.paths == ["/it"]
    assert bool(solved) is (change == "solver")


@pytest.mark.parametrize(
    ("layer", "options", "counts"),
    [(GZipMiddleware, {}, True), (TrustedHostMiddleware, {"allowed_hosts": ["test"]}, False)],
)
async def test_layers_inside_that_may_refuse_are_asked(
    layer: Any, options: dict[str, Any], counts: bool, ahead: Hits
) -> None:
    """Behind GZip a hit is answered ahead; behind what decides who is let in each request goes there."""
    app = FastAPI()
    app.add_middleware(layer, **options)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.get("/it", dependencies=[cached(ttl=60, guarded_by=bearer)])(lambda: "it")
    await warm(app, "/it")
    assert bool(ahead.paths) is counts
    assert (await ask(app, "/it", headers=BOB, host="evil")).status_code == (200 if counts else 400)


@pytest.mark.parametrize("kind", ["request", "scheme", "exit", "anew", "second"])
async def test_covers_that_could_see_the_difference_take_the_ordinary_way(kind: str, ahead: Hits) -> None:
    """One that is handed the request, has an exit or is solved anew, and a policy that is not the first dependency."""

    class Own(HTTPBearer):
        async def __call__(self, request: Request) -> Any:  # type: ignore[override]
            request.state.seen = True
            return "own"

    async def handed(request: Request) -> str:
        return request.headers["authorization"]

    async def leaving(token: Annotated[str, Depends(TOKEN)]) -> AsyncIterator[str]:
        yield token

    async def before() -> None:
        pass

    guard: Any = {"request": handed, "scheme": Own(), "exit": leaving, "anew": Depends(bearer, use_cache=False)}.get(
        kind, bearer
    )
    listed = [cached(ttl=60, guarded_by=guard)]
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.get("/it", dependencies=[Depends(before), *listed] if kind == "second" else listed)(lambda: "it")
    await warm(app, "/it")
    await ask(app, "/it", headers=BOB)
    assert ahead.paths == []


async def test_a_crowd_is_one_forward(ahead: Hits) -> None:
    """Requests whose covers have run wait for one forward, as those that come to their route do."""
    gate = asyncio.Event()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.state.calls = 0

    @app.get("/it", dependencies=[cached(ttl=60, guarded_by=bearer)])
    async def it(q: int = 0) -> int:
        app.state.calls += 1
        if q:
            await gate.wait()
        return q

    await warm(app, "/it")
    calls = [Call(app, scope_of("/it?q=1", headers=BOB)) for _ in range(10)]
    await until(lambda: app.state.calls == 2, "the forward")
    gate.set()
    assert {(await call.answer()).body for call in calls} == {b"1"}
    assert app.state.calls == 2


async def test_only_if_cached_is_answered_ahead_of_the_handler() -> None:
    """A client that would rather have a 504 has it, and the handler is not asked."""
    app = app_with(bearer)
    await warm(app)
    answer = await ask(app, "/pages/1", headers={"authorization": "Bearer alice", "cache-control": "only-if-cached"})
    assert answer.status_code == 504
    assert app.state.calls == 1


async def test_what_the_front_lookup_lacks_is_looked_up_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a stored response has answered a path at its route, the app is not asked for the next one of that path.

    A miss of the path goes to the app all the same, and what is answered ahead the front lookup finds from then on.
    """
    asked, run = list[tuple[str, bool]](), ReadAhead.run

    async def noted(self: ReadAhead, scope: Any, receive: Any, send: Any) -> None:
        await run(self, scope, receive, send)
        asked.append((scope["path"], self._ahead))

    monkeypatch.setattr(ReadAhead, "run", noted)
    app = FastAPI()
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/items/{item}", dependencies=[cached(ttl=60, tags=["item:{item}"])])
    async def read(item: int) -> dict[str, Any]:
        return {"item": item}

    for item in ("1", "2"):
        assert_miss(await ask(app, f"/items/{item}"))
    assert_hit(await ask(app, "/items/1?from=a"))
    assert asked == []
    answer = await ask(app, "/items/1?from=b")
    assert_hit(answer)
    assert json.loads(answer.body) == {"item": 1}
    assert asked == [("/items/1", True)]
    assert_hit(await ask(app, "/items/1?from=b"))
    assert_hit(await ask(app, "/items/2"))
    assert asked == [("/items/1", True)]
    await cache.invalidate("item:1")
    answer = await ask(app, "/items/1")
    assert_miss(answer)
    assert json.loads(answer.body) == {"item": 1}
    assert asked == [("/items/1", True), ("/items/1", False)]
    assert (await ask(app, "/items/none")).status_code == 422
    assert_hit(await ask(app, "/items/1"))
