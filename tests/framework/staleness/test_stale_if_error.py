"""stale-if-error: what may stand in for a forward that failed, and for how long (RFC 5861 section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, cached
from fastapi_cacheinval.testing import assert_stale
from tests.helpers.http import Shop, ask, settle
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

FAILURES: list[Any] = [
    HTTPException(500),
    HTTPException(503, headers={"retry-after": "9"}),
    RuntimeError("down"),
    OSError("gone"),
    Response(b"down", status_code=502),
]


RULE: dict[str, Any] = {"ttl": 60, "stale_if_error": 100, "tags": ["it"]}


def shop_with(failure: Any, **policy: Any) -> Shop:
    """An app with one cached route that works once and then fails."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(**{**RULE, **policy})])
    async def read() -> Any:
        if shop.count() == 1:
            return "good"
        if isinstance(failure, Exception):
            raise failure
        return failure

    return shop


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_stale_response_stands_in_for_a_failure(failure: Any) -> None:
    """For an exception and for any 5xx, returned or raised: the old content, and what came back in Cache-Status."""
    shop = shop_with(failure)
    await shop.ask()
    shop.clock.tick(100)
    for _ in range(2):
        answer = await shop.ask()
        assert (answer.status_code, answer.body) == (200, b'"good"')
        assert_stale(answer)
        assert answer.cache is not None
        assert answer.cache.fwd_status is not None
        assert answer.cache.fwd_status >= 500
        assert "retry-after" not in answer.headers
        # Past the pause that the failure begins.
        shop.clock.tick(10)
    assert shop.calls == 3


@pytest.mark.parametrize("failure", FAILURES)
async def test_past_its_window_the_failure_is_the_answer(failure: Any) -> None:
    """160 s after the fill nothing may stand in."""
    shop = shop_with(failure)
    await shop.ask()
    shop.clock.tick(160)
    if isinstance(failure, Exception) and not isinstance(failure, HTTPException):
        with pytest.raises(type(failure)):
            await shop.ask()
    else:
        assert (await shop.ask()).status_code >= 500


async def test_without_the_rule_nothing_stands_in() -> None:
    """stale_if_error=0 is the default."""
    shop = shop_with(HTTPException(503), stale_if_error=0)
    await shop.ask()
    shop.clock.tick(61)
    assert (await shop.ask()).status_code == 503


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 302])
async def test_what_is_no_server_error_is_the_answer(status: int) -> None:
    """A 404 is the app's word and not a failure."""
    shop = shop_with(HTTPException(status))
    await shop.ask()
    shop.clock.tick(61)
    assert (await shop.ask()).status_code == status


async def test_once_the_app_said_that_it_is_gone_an_error_does_not_bring_it_back() -> None:
    """200, expired, 404, then 503: the old 200 is known to be wrong."""
    shop = Shop()
    statuses = [200, 404, 503]

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=1000)])
    async def read() -> Response:
        return Response(b"it", status_code=statuses[shop.count() - 1])

    await shop.ask()
    shop.clock.tick(61)
    assert (await shop.ask()).status_code == 404
    assert (await shop.ask()).status_code == 503


async def test_a_hard_purge_forbids_it() -> None:
    """What is known to be wrong is not served, not even in place of an error."""
    shop = shop_with(HTTPException(503))
    await shop.ask()
    await shop.cache.invalidate("it")
    assert (await shop.ask()).status_code == 503


async def test_a_hard_purge_while_the_forward_runs_forbids_it() -> None:
    """The stand-in is checked when it is handed over, not when the request came."""
    shop = Shop()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=100, tags=["it"])])
    async def read() -> str:
        if shop.count() > 1:
            await gate.wait()
            raise HTTPException(503)
        return "good"

    await shop.ask()
    shop.clock.tick(61)
    calls = [shop.call() for _ in range(4)]
    await settle()
    await shop.cache.invalidate("it")
    gate.set()
    for call in calls:
        assert (await call.answer()).status_code == 503


async def test_a_soft_purge_allows_it() -> None:
    """A soft purge asks for a refresh; where that fails the old one is still allowed to be old."""
    shop = shop_with(HTTPException(503))
    await shop.ask()
    await shop.cache.invalidate("it", soft=True)
    answer = await shop.ask()
    assert (answer.status_code, answer.body) == (200, b'"good"')
    assert_stale(answer)


@pytest.mark.parametrize("failure", FAILURES)
async def test_must_revalidate_forbids_it(failure: Any) -> None:
    """RFC 9111 section 5.2.2.2."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=100)])
    async def read() -> Any:
        if shop.count() == 1:
            return Response(b"good", headers={"cache-control": "must-revalidate"})
        if isinstance(failure, Exception):
            raise failure
        return failure

    await shop.ask()
    shop.clock.tick(61)
    if isinstance(failure, Exception) and not isinstance(failure, HTTPException):
        with pytest.raises(type(failure)):
            await shop.ask()
    else:
        assert (await shop.ask()).status_code >= 500


@pytest.mark.parametrize("failure", FAILURES)
async def test_waiters_behind_failing_leaders_get_the_stale_response_too(failure: Any) -> None:
    """Two handler calls, and everyone is answered with the old content."""
    shop = Shop()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=100)])
    async def read() -> Any:
        if shop.count() == 1:
            return "good"
        await gate.wait()
        if isinstance(failure, Exception):
            raise failure
        return failure

    await shop.ask()
    shop.clock.tick(61)
    calls = [shop.call() for _ in range(20)]
    await settle()
    gate.set()
    for call in calls:
        answer = await call.answer()
        assert (answer.status_code, answer.body) == (200, b'"good"')
        assert_stale(answer)
    assert shop.calls == 3


def shop_with_streams(*begin: bytes) -> Shop:
    """The same with streams: those after the first page fail after they have begun so."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=100)])
    async def read() -> Any:
        if shop.count() == 1:
            return Response(b"good")

        async def chunks() -> AsyncIterator[bytes]:
            # What it reads takes its time.
            await settle()
            for chunk in begin:
                yield chunk
            raise RuntimeError("down")

        return StreamingResponse(chunks())

    return shop


async def test_a_failure_after_the_first_chunk_cannot_be_hidden() -> None:
    """The client has part of the new answer: the error goes on, nothing of the old one is mixed in."""
    shop = shop_with_streams(b"new")
    await shop.ask()
    shop.clock.tick(61)
    call = shop.call()
    with pytest.raises(RuntimeError):
        await call.answer()
    assert call.body == b"new"


async def test_the_head_of_a_stream_waits_for_its_first_chunk() -> None:
    """A stream that fails before has said nothing to the client, and the stale response stands in for it."""
    shop = shop_with_streams()
    await shop.ask()
    shop.clock.tick(61)
    answer = await shop.ask()
    assert (answer.status_code, answer.body) == (200, b"good")
    assert_stale(answer)


async def test_it_works_around_the_whole_app_too() -> None:
    """CacheMiddleware(app) sees the 500 that the app's own error layer makes, and the error behind it is not lost."""
    shop = Shop()
    app = FastAPI()

    @app.get("/", dependencies=[cached(ttl=60, stale_if_error=100)])
    async def read() -> str:
        if shop.count() > 1:
            raise RuntimeError("down")
        return "good"

    wrapped = CacheMiddleware(app, cache=shop.cache)
    await ask(wrapped, "/")
    shop.clock.tick(61)
    answer = await ask(wrapped, "/")
    assert (answer.status_code, answer.body) == (200, b'"good"')
    assert_stale(answer)


@pytest.mark.parametrize("status", [500, 501, 505, 507, 511, 599])
async def test_every_5xx_is_an_error_by_headers_too(status: int) -> None:
    """As under a policy, also one that says for how long it may be kept."""
    origin = Origin()
    origin.says({"cache-control": "max-age=5, stale-if-error=600"}, b"good")
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    origin.says({"cache-control": "max-age=60"}, b"bad", status=status)
    answer = await origin.get()
    assert (answer.status_code, answer.body, answer.cache.fwd_status) == (200, b"good", status)
