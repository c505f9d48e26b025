"""A refresh is a request of its own: isolated from its caller, bounded in number and time, ended with the app."""

# No postponed annotations: a dependency of a test is its own.

import asyncio
import logging
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, Request, Response
from opentelemetry import context as contexts
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.routes import layer_kinds
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_stale
from tests.helpers.http import Call, Shop, ask, lifespan_of, scope_of, settle, until

pytestmark = pytest.mark.anyio

caller: ContextVar[str] = ContextVar("caller", default="nobody")
held: ContextVar[object] = ContextVar("held", default=None)


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The scopes of forwards as they were when the response began, as a harmless middleware inside ours sees them."""
    seen: list[Any] = []

    async def spy(self: Any, scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            if message["type"] == "http.response.start" and "route" in scope:
                seen.append({**scope, "headers": [*scope["headers"]], "state": dict(scope["state"])})
            await send(message)

        token = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if token is not None:
            scope["state"]["user"] = token
        scope["state"].setdefault("seen", []).append(1)
        await self.app(scope, receive, note)

    # A patched class is harmless no longer, unless the audit is told that this one is.
    monkeypatch.setattr(GZipMiddleware, "__call__", spy)
    monkeypatch.setattr(layer_kinds, "is_unpatched", lambda kind: True)
    return seen


def shop_with(policy: Any, vary: str | None = None, **middleware: Any) -> Shop:
    """An app with one cached route behind a harmless middleware."""
    shop = Shop(middleware=middleware)
    shop.inside(GZipMiddleware)

    @shop.app.get("/", dependencies=[policy])
    async def read(response: Response) -> int:
        if vary is not None:
            response.headers["vary"] = vary
        return shop.count()

    return shop


SWR: dict[str, Any] = {"ttl": 60, "stale_while_revalidate": 600}
CREDENTIALS = {"authorization": "Bearer a", "cookie": "session=a", "proxy-authorization": "Basic a"}


async def stale_then_refreshed(shop: Shop, headers: Any, *, first: Any = None) -> None:
    """Fill, let it go stale, and wait for the refresh that a request with these headers causes."""
    await shop.ask(headers=first)
    shop.clock.tick(61)
    assert_stale(await shop.ask(headers=headers))
    await shop.refreshed()


def names(scope: Any) -> set[bytes]:
    return {name for name, _ in scope["headers"]}


@pytest.mark.parametrize("first", [None, {"authorization": "Bearer b"}, {"cookie": "b"}])
async def test_a_refresh_of_what_is_proved_shared_is_nobodys(scopes: list[Any], first: Any) -> None:
    """No credentials of who happened to cause it, whoever filled it first; other fields stay."""
    shop = shop_with(cached(**SWR))
    await stale_then_refreshed(shop, {**CREDENTIALS, "x-other": "1", "range": "bytes=0-1"}, first=first)
    assert names(scopes[-1]) == {b"host", b"x-other"}


def who(x_user: str = Header(default="")) -> str:
    return x_user


@pytest.mark.parametrize("rule", [{"partition_by": who}, {"guarded_by": who}, {"shared": True}])
@pytest.mark.parametrize("front", [None, True])
async def test_a_refresh_of_what_is_not_carries_who_caused_it(scopes: list[Any], rule: Any, front: bool | None) -> None:
    """Guarded, partitioned and shared=True responses would be refused for ever without."""
    shop = shop_with(cached(**SWR, **rule), front=front)
    await stale_then_refreshed(shop, {**CREDENTIALS, "if-none-match": '"x"'})
    assert names(scopes[-1]) == {b"host", b"authorization", b"cookie", b"proxy-authorization"}


@pytest.mark.parametrize("front", [None, True, False])
async def test_a_refresh_behind_a_middleware_that_asks_who_it_is_carries_who_caused_it(front: bool | None) -> None:
    """An API-key middleware inside ours would refuse a refresh without credentials, for ever."""
    shop = Shop(middleware={"front": front})

    class ApiKey:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            allowed = (b"authorization", b"key") in scope["headers"]
            await (self.app if allowed else Response(status_code=401))(scope, receive, send)

    shop.inside(ApiKey)

    @shop.app.get("/", dependencies=[cached(**SWR)])
    async def read() -> int:
        return shop.count()

    wish = {"authorization": "key"}
    await stale_then_refreshed(shop, wish, first=wish)
    assert_hit(await shop.ask(headers=wish))
    assert shop.calls == 2
    if front is not True:
        assert (await shop.ask()).status_code == 401


async def test_a_cookie_that_vary_names_is_kept(scopes: list[Any]) -> None:
    """The variant that is refreshed is the one that the cookie selected."""
    shop = shop_with(cached(**SWR), vary="Cookie")
    headers = {"cookie": "theme=dark", "authorization": "Bearer a"}
    await stale_then_refreshed(shop, headers, first={"cookie": "theme=dark"})
    assert names(scopes[-1]) == {b"host", b"cookie"}
    assert_hit(await shop.ask(headers={"cookie": "theme=dark"}))


async def test_a_refresh_shares_no_state_with_its_caller(scopes: list[Any]) -> None:
    """It has a copy of the state as it came in: what the app hung on the caller's request is not there, nor back."""
    shop = shop_with(cached(**SWR))
    await shop.ask()
    shop.clock.tick(61)
    scope = scope_of("/", headers={"authorization": "Bearer alice"})
    scope["state"] = {"lifespan": "kept"}
    assert_stale(await Call(shop.app, scope).answer())
    await shop.refreshed()
    refreshing = scopes[-1]
    assert refreshing["state"]["lifespan"] == "kept"
    assert "user" not in refreshing["state"]
    assert refreshing["state"]["seen"] == [1]
    assert scope["state"] == {"lifespan": "kept", "user": b"Bearer alice", "seen": [1]}


@pytest.mark.parametrize("lifespan", [True, False])
async def test_a_refresh_knows_what_middleware_outside_has_set(lifespan: bool) -> None:
    """A tenant or a language in a context variable is the caller's, and not that of whoever came first."""
    shop = Shop()
    seen: list[str] = []

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read() -> int:
        seen.append(caller.get())
        return shop.count()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        caller.set(scope.get("who", "server"))
        await shop.app(scope, receive, send)

    async def story() -> None:
        await ask(outer, "/", who="first")
        shop.clock.tick(61)
        assert_stale(await ask(outer, "/", who="alice"))
        await shop.refreshed()

    if lifespan:
        async with lifespan_of(outer):
            await story()
    else:
        await story()
    assert seen == ["first", "alice"]


class Closed:
    """A session of a database, as far as a context variable shows it."""

    def close(self) -> None: ...


class User:
    """Who is calling; a refresh repeats their request."""


@pytest.mark.parametrize("made", [Closed, User, dict, contexts.Context])
async def test_a_refresh_is_handed_nothing_that_its_callers_middleware_closes(made: Any) -> None:
    """Nor the span of the request; anything else is handed on as it is."""
    shop = Shop()
    seen: list[object] = []
    value = made()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read() -> int:
        seen.append(held.get())
        return shop.count()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        token = held.set(value)
        try:
            await shop.app(scope, receive, send)
        finally:
            held.reset(token)

    async with lifespan_of(shop.app):
        await ask(outer, "/")
        shop.clock.tick(61)
        assert_stale(await ask(outer, "/"))
        await shop.refreshed()
    assert seen == [value, value if made in (User, dict) else None]


async def test_refreshes_are_bounded_in_number() -> None:
    """max_refreshes at once; the rest are served stale without one."""
    shop = Shop(max_refreshes=3)
    gate = asyncio.Event()

    @shop.app.get("/{number}", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read(number: int) -> int:
        if shop.count() > 10:
            await gate.wait()
        return number

    for number in range(10):
        await shop.ask(f"/{number}")
    shop.clock.tick(61)
    for number in range(10):
        assert_stale(await shop.ask(f"/{number}"))
    await settle()
    assert shop.calls == 13
    assert shop.cache.statistics().refreshing == 3
    gate.set()
    await shop.refreshed(3)
    assert_hit(await shop.ask("/0"))
    assert_stale(await shop.ask("/9"))
    await shop.refreshed(4)


async def test_refreshes_are_bounded_in_time() -> None:
    """After refresh_timeout it is cancelled, its handler hears so, and whoever waits for it goes on."""
    shop = Shop(refresh_timeout=30, collapse_timeout=1000)
    gate = asyncio.Event()
    cancelled = 0

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=10)])
    async def read() -> int:
        nonlocal cancelled
        number = shop.count()
        if number == 2:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return number

    await shop.ask()
    shop.clock.tick(61)
    assert_stale(await shop.ask())
    await until(lambda: shop.calls == 2)
    shop.clock.tick(20)
    waiting = shop.call()
    await settle()
    assert not waiting.task.done()
    shop.clock.tick(10)
    assert (await waiting.answer()).body == b"3"
    assert cancelled == 1
    await shop.refreshed()
    assert shop.cache.statistics().refreshes == {"timeout": 1}
    assert shop.cache.statistics().forwards_under_way == 0


async def test_refreshes_end_with_the_app(caplog: pytest.LogCaptureFixture) -> None:
    """At shutdown they are cancelled, before the app's own shutdown, and nothing is logged as an error."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    events: list[str] = []
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read() -> int:
        events.append("call")
        if len(events) > 1:
            try:
                await asyncio.Event().wait()
            finally:
                events.append("cancelled")
        return 1

    async with lifespan_of(app):
        await ask(app, "/")
        clock.tick(61)
        assert_stale(await ask(app, "/"))
        await until(lambda: len(events) == 2)
    assert events == ["call", "call", "cancelled"]
    assert cache.statistics().refreshing == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_refresh_ordered_in_the_last_moment_does_not_outlive_the_app() -> None:
    """Stopped before its task has begun, nothing of it is left and no handler runs."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read() -> int:
        return shop.count()

    await shop.ask()
    shop.clock.tick(61)
    scope = scope_of("/")

    async def send(message: Any) -> None: ...

    async def receive() -> Any: ...

    await shop.app(scope, receive, send)
    await shop.cache.stop()
    await settle()
    assert shop.calls == 1


async def test_after_a_stop_the_cache_can_be_used_again() -> None:
    """A second start on the same loop: what was stored is still served, stale ones are refreshed."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read() -> int:
        return shop.count()

    await shop.ask()
    await shop.cache.stop()
    assert_hit(await shop.ask())
    shop.clock.tick(61)
    answer = await shop.ask()
    assert answer.body in (b"1", b"2")
    await until(lambda: shop.calls == 2)


async def test_the_dependencies_of_a_refresh_are_its_own() -> None:
    """A yield dependency is entered and left for the refresh, and its session is not the caller's."""
    shop = Shop()
    sessions: list[list[str]] = []

    async def session() -> Any:
        mine = ["open"]
        sessions.append(mine)
        yield mine
        mine.append("closed")

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read(of: Annotated[Any, Depends(session)]) -> int:
        assert of == ["open"]
        return shop.count()

    await shop.ask()
    shop.clock.tick(61)
    assert_stale(await shop.ask())
    await shop.refreshed()
    assert shop.calls == 2
    assert sessions[-1] == ["open", "closed"]
    assert all(each == ["open", "closed"] for each in sessions)


async def test_a_refresh_is_seen_by_nobody() -> None:
    """Nothing that it sends reaches a client, and it hears no client: its receive gives one empty body and waits."""
    shop = Shop()
    heard: list[Any] = []

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600, shared=True)])
    async def read(request: Request) -> int:
        heard.append(await request.body())
        heard.append(await request.is_disconnected())
        return shop.count()

    await shop.ask()
    shop.clock.tick(61)
    call = shop.call()
    assert_stale(await call.answer())
    call.go_away()
    await shop.refreshed()
    assert heard == [b"", False, b"", False]
    assert len(call.messages) == 2
