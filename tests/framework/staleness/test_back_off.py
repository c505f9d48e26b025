"""After a refresh that could not renew there is a pause, whatever the reason, in both modes (RFC 5861, RFC 9110 §10.2.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.core.back_off import LONGEST_PAUSE, LONGEST_RETRY_AFTER
from fastapi_cacheinval.grammar.dates import format_date
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import Answer, ask, until
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

LONG = 10**7


class Page:
    """One cached page on a clock of its own, by policy or by its headers, and what it answers from now on."""

    def __init__(self, mode: str, *, ttl: float = 10, middleware: bool = False) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock)
        self.cache._core.engine.draw = lambda: 0.0
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=self.cache, honour_headers=mode == "headers")
        self.forwards = 0
        self.then: Callable[[], Any] | None = None
        fresh = {"cache-control": f"public, max-age={ttl:.0f}, stale-while-revalidate={LONG}", "cache-tag": "page"}
        policy = cached(ttl=ttl, stale_while_revalidate=LONG, tags=["page"], shared=True)

        @self.app.get("/", dependencies=[policy] if mode == "policy" else [])
        async def read(request: Request) -> Any:
            self.forwards += 1
            if self.then is not None:
                made = self.then()
                return await made if asyncio.iscoroutine(made) else made
            return Response(b"edition %d" % self.forwards, headers=fresh if mode == "headers" else {})

    async def get(self, **more: Any) -> Answer:
        """One GET, and the refresh that it has ordered."""
        answer = await ask(self.app, "/", **more)
        await until(lambda: not self.cache.statistics().refreshing, "the refresh")
        return answer

    async def gone_stale(self) -> None:
        """Fill it, and let its lifetime end."""
        await self.get()
        self.clock.tick(11)

    async def forwards_of(self, requests: int) -> int:
        """How many forwards so many stale hits cause."""
        before = self.forwards
        for _ in range(requests):
            answer = await self.get()
            assert (answer.status_code, answer.body) == (200, b"edition 1")
        return self.forwards - before


def answer(status: int, **headers: str) -> Callable[[], Response]:
    """A handler that answers so."""
    return lambda: Response(
        b"no", status_code=status, headers={name.replace("_", "-"): it for name, it in headers.items()}
    )


def raising(error: Exception) -> Callable[[], Response]:
    """A handler that raises."""

    def then() -> Response:
        raise error

    return then


MODES = pytest.mark.parametrize("mode", ["policy", "headers"])
FAILURES = pytest.mark.parametrize(
    "then",
    [
        pytest.param(answer(500), id="500"),
        pytest.param(answer(503), id="503"),
        pytest.param(answer(401), id="401"),
        pytest.param(answer(403), id="403"),
        pytest.param(answer(429), id="429"),
        pytest.param(answer(451), id="451"),
        pytest.param(raising(HTTPException(403)), id="raised 403"),
        pytest.param(raising(RequestValidationError([])), id="422"),
        pytest.param(raising(RuntimeError("down")), id="raised"),
    ],
)


@MODES
@FAILURES
async def test_fifty_stale_hits_cause_one_forward_whatever_the_refresh_was_answered(
    mode: str, then: Callable[[], Any]
) -> None:
    """No reason for which nothing was renewed has a forward for each hit."""
    page = Page(mode)
    await page.gone_stale()
    page.then = then
    assert await page.forwards_of(50) == 1


@MODES
@FAILURES
async def test_the_pause_doubles_up_to_its_bound(mode: str, then: Callable[[], Any]) -> None:
    """1, 2, 4 … seconds, and never more than a minute."""
    page = Page(mode)
    await page.gone_stale()
    page.then = then
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        assert await page.forwards_of(2) == 1
        page.clock.tick(pause - 0.1)
        assert await page.forwards_of(2) == 0
        page.clock.tick(0.2)
    assert pause == LONGEST_PAUSE


@MODES
@pytest.mark.parametrize("status", [503, 429, 403])
@pytest.mark.parametrize("dated", [False, True])
async def test_retry_after_is_obeyed(mode: str, status: int, dated: bool) -> None:
    """As seconds and as a date."""
    page = Page(mode)
    await page.gone_stale()
    when = format_date(page.clock.wall() + 120).decode() if dated else "120"
    page.then = answer(status, retry_after=when)
    assert await page.forwards_of(3) == 1
    page.clock.tick(118)
    assert await page.forwards_of(3) == 0
    page.clock.tick(3)
    assert await page.forwards_of(3) == 1


@MODES
@pytest.mark.parametrize("value", ["9" * 40, "Fri, 31 Dec 9999 23:59:59 GMT", str(10**9)])
async def test_retry_after_is_bounded(mode: str, value: str) -> None:
    """No answer can switch refreshes off."""
    page = Page(mode)
    await page.gone_stale()
    page.then = answer(503, retry_after=value)
    assert await page.forwards_of(3) == 1
    page.clock.tick(LONGEST_RETRY_AFTER + 1)
    assert await page.forwards_of(3) == 1


@MODES
@pytest.mark.parametrize("value", ["soon", "-5", "1.5", "", "0", "Sun, 06 Nov 1994 08:49:37 GMT"])
async def test_a_retry_after_that_says_nothing_leaves_the_pause_as_it_is(mode: str, value: str) -> None:
    """What cannot be read, and what is past."""
    page = Page(mode)
    await page.gone_stale()
    page.then = answer(503, retry_after=value)
    assert await page.forwards_of(3) == 1
    page.clock.tick(1.1)
    assert await page.forwards_of(3) == 1


@MODES
async def test_a_hard_purge_ends_the_pause(mode: str) -> None:
    """What is filled anew is refreshed when its own time comes, and its pauses begin with one second."""
    page = Page(mode)
    await page.gone_stale()
    page.then = answer(503, retry_after="3000")
    assert await page.forwards_of(5) == 1
    await page.cache.invalidate("page")
    page.then = None
    assert (await page.get()).body == b"edition 3"
    page.clock.tick(11)
    await page.get()
    assert page.forwards == 4


@MODES
async def test_a_soft_purge_does_not_end_the_pause(mode: str) -> None:
    """It asks for a refresh, and there has just been one."""
    page = Page(mode)
    await page.get()
    page.then = answer(429)
    await page.cache.invalidate("page", soft=True)
    assert await page.forwards_of(5) == 1
    await page.cache.invalidate("page", soft=True)
    assert await page.forwards_of(5) == 0


async def test_a_forward_in_the_foreground_that_succeeds_ends_the_pause() -> None:
    """The client's own `no-cache` renews what is stored."""
    page = Page("headers")
    await page.gone_stale()
    page.then = answer(503, retry_after="3000")
    assert await page.forwards_of(5) == 1
    page.then = None
    await page.get(headers={"cache-control": "no-cache"})
    page.clock.tick(11)
    assert (await page.get()).body == b"edition 3"
    assert (await page.get()).body == b"edition 4"


async def test_an_early_refresh_backs_off_too() -> None:
    """While the response is fresh, nobody is in a hurry."""
    page = Page("policy", ttl=100)

    def slow() -> Response:
        # A fill that takes a second.
        page.clock.tick(1)
        return Response(b"edition 1")

    page.then = slow
    await page.get()
    page.then = answer(403)
    page.cache._core.engine.draw = lambda: 1 - 2**-53
    page.clock.tick(80)
    assert await page.forwards_of(5) == 1


@pytest.mark.parametrize("window", ["stale-while-revalidate=60, stale-if-error=600", "stale-while-revalidate=60"])
@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 505, 507, 511, 520, 599])
async def test_a_background_refresh_stores_no_error_in_place_of_what_is_of_use(window: str, status: int) -> None:
    """Though the error says for how long it may be kept: the foreground would have covered it."""
    origin = Origin()
    origin.says({"cache-control": f"max-age=5, {window}"}, b"good")
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    origin.says({"cache-control": "max-age=60"}, b"bad", status=status)
    for _ in range(5):
        assert (await origin.get()).body == b"good"
        await until(lambda: not origin.cache.statistics().refreshing)
    assert origin.forwards == 2
    assert origin.cache.statistics().refreshes == {"failed": 1}


async def test_a_refresh_that_is_answered_gone_replaces_what_is_stored() -> None:
    """A 404 with a lifetime of its own is the resource's newer word."""
    origin = Origin()
    origin.says({"cache-control": "max-age=5, stale-while-revalidate=60"}, b"good")
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    origin.says({"cache-control": "max-age=60"}, b"gone", status=404)
    await origin.get()
    await until(lambda: not origin.cache.statistics().refreshing)
    assert (await origin.get()).status_code == 404


async def test_what_stands_before_the_route_is_heard_too() -> None:
    """A middleware inside that turns the refresh away with a `Retry-After`."""
    page = Page("headers")
    turned_away = 0

    @page.app.middleware("http")
    async def limit(request: Request, call_next: Any) -> Any:
        nonlocal turned_away
        if page.then is not None:
            turned_away += 1
            return Response(status_code=429, headers={"Retry-After": "300"})
        return await call_next(request)

    page.app.user_middleware.reverse()
    await page.gone_stale()
    page.then = answer(429)
    assert await page.forwards_of(10) == 0
    page.clock.tick(290)
    await page.get()
    assert turned_away == 1
    page.clock.tick(20)
    await page.get()
    assert turned_away == 2


@MODES
async def test_a_retry_after_of_an_exception_is_heard(mode: str) -> None:
    """The framework's answer to an `HTTPException` has its headers."""
    page = Page(mode)
    await page.gone_stale()
    page.then = raising(HTTPException(429, headers={"Retry-After": "300"}))
    assert await page.forwards_of(3) == 1
    page.clock.tick(290)
    assert await page.forwards_of(3) == 0
    page.clock.tick(20)
    assert await page.forwards_of(3) == 1


@pytest.mark.parametrize("apart", [{"headers": {"x-forwarded-for": "evil"}}, {"client": ("192.0.2.7", 1234)}])
@pytest.mark.parametrize("status", [429, 503, 403])
@MODES
async def test_what_one_caller_is_told_does_not_bind_the_others(mode: str, status: int, apart: Any) -> None:
    """A caller over its own limit keeps nobody from a newer page, however often it asks; it stays away itself."""
    page = Page(mode)
    await page.gone_stale()
    page.then = answer(status, retry_after="3600")
    before = page.forwards
    await page.get(**apart)
    page.clock.tick(1.1)
    for _ in range(20):
        await page.get(**apart)
    assert page.forwards == before + 1
    page.then = None
    await page.get()
    assert (await page.get()).body == b"edition %d" % page.forwards
    assert page.forwards == before + 2


@MODES
async def test_several_callers_that_are_told_to_stay_away_do(mode: str) -> None:
    """Each for as long as it was told, and after the pause that counts for all."""
    page = Page(mode)
    await page.gone_stale()
    page.then = answer(429, retry_after="3000")
    for number, pause in enumerate((1, 2, 4)):
        before = page.forwards
        await page.get(headers={"x-forwarded-for": str(number)})
        assert page.forwards == before + 1
        page.clock.tick(pause + 0.1)
        for other in range(number + 1):
            await page.get(headers={"x-forwarded-for": str(other)})
        assert page.forwards == before + 1
    page.clock.tick(3000)
    await page.get(headers={"x-forwarded-for": "0"})
    assert page.forwards == before + 2


async def test_a_retry_after_to_nobody_binds_all() -> None:
    """A response that is proved to be the same for all is fetched without its callers' credentials: the app is busy."""
    clock, down, calls = FakeClock(), False, 0
    cache = HTTPCache(clock=clock)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=LONG, early_refresh=0)])
    async def read() -> Response:
        nonlocal calls
        calls += 1
        return Response(status_code=503, headers={"retry-after": "600"}) if down else Response(b"good")

    await ask(app, "/")
    clock.tick(11)
    down = True
    for second in range(4):
        await ask(app, "/", headers={"authorization": f"Bearer {second}"})
        await until(lambda: not cache.statistics().refreshing)
        clock.tick(100)
    assert calls == 2
