"""Streams of cached routes: each chunk goes out at once, slow and vanished clients hold nothing up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from fastapi_cacheinval import CachePolicy, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Call, Shop, scope_of, settle, until

pytestmark = pytest.mark.anyio


def stream_shop(chunks: Any, *, media_type: str = "text/plain", **options: Any) -> Shop:
    """An app with one cached route that streams what the function yields."""
    shop = Shop(**options)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> StreamingResponse:
        shop.count()
        return StreamingResponse(chunks(), media_type=media_type)

    return shop


async def test_each_chunk_reaches_the_client_before_the_next_is_made() -> None:
    """The first byte is not delayed, nor any other, while the handler waits."""
    gates = [asyncio.Event() for _ in range(3)]

    async def chunks() -> AsyncIterator[bytes]:
        for number, gate in enumerate(gates):
            yield b"%d" % number
            await gate.wait()

    shop = stream_shop(chunks)
    call = shop.call()
    for number, gate in enumerate(gates):
        await until(lambda number=number: call.body == b"012"[: number + 1])  # type: ignore[misc]
        gate.set()
    await call.answer()
    assert_hit(await shop.ask())


async def test_a_handler_that_never_waits_does_not_hold_back_its_first_byte() -> None:
    """Chunks that are made one after the other, without a pause, still go out one by one."""
    reached: list[bytes] = []
    calls: list[Call] = []

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d" % number
            reached.append(calls[0].body)

    shop = stream_shop(chunks)
    calls.append(shop.call())
    await calls[0].answer()
    assert reached == [b"0", b"01", b"012", b"0123", b"01234"]


async def test_a_slow_client_does_not_hold_up_the_fill() -> None:
    """The response is stored and served to others while the first client still has not taken a byte."""
    shop = stream_shop(_three)
    gate = asyncio.Event()

    async def slowly(message: Any) -> None:
        await gate.wait()

    slow = Call(shop.app, scope_of("/"), before_send=slowly)
    await until(lambda: shop.cache.statistics().responses)
    hit = await shop.ask()
    assert_hit(hit)
    assert hit.body == b"onetwothree"
    assert slow.messages == []
    gate.set()
    assert (await slow.answer()).body == b"onetwothree"
    assert shop.calls == 1


async def _three() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"
    yield b"three"


async def test_a_slow_client_of_a_whole_answer_does_not_hold_up_waiters() -> None:
    """What waiters wait for is the result, not the leader's client."""
    shop = Shop()
    handler, client = asyncio.Event(), asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        shop.count()
        await handler.wait()
        return "it"

    async def slowly(message: Any) -> None:
        await client.wait()

    slow = Call(shop.app, scope_of("/"), before_send=slowly)
    await until(lambda: shop.calls)
    waiter = shop.call()
    await settle()
    handler.set()
    assert (await waiter.answer()).body == b'"it"'
    assert slow.messages == []
    client.set()
    assert (await slow.answer()).body == b'"it"'


async def test_a_client_that_goes_away_does_not_end_the_fill() -> None:
    """The disconnect is not heard by a fill: its response is stored for others."""
    gate = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await gate.wait()
        yield b"two"

    shop = stream_shop(chunks)
    call = shop.call()
    await until(lambda: call.body == b"one")
    call.go_away()
    await settle()
    gate.set()
    await until(call.task.done)
    hit = await shop.ask()
    assert_hit(hit)
    assert hit.body == b"onetwo"


async def test_a_client_that_can_no_longer_be_written_to_does_not_end_the_fill() -> None:
    """An OSError of the server's send is the client's end, not the response's."""
    shop = stream_shop(_three)

    async def broken(message: Any) -> None:
        if message.get("body") == b"two":
            raise OSError("gone")

    call = Call(shop.app, scope_of("/"), before_send=broken)
    await until(call.task.done)
    assert call.body == b"one"
    hit = await shop.ask()
    assert_hit(hit)
    assert hit.body == b"onetwothree"


async def test_an_error_of_a_layer_outside_ends_what_its_client_gets() -> None:
    """After a chunk that could not be sent no later one is, and the error is heard."""
    shop = stream_shop(_three)

    async def faulty(message: Any) -> None:
        if message.get("body") == b"two":
            raise ValueError("a bug outside")

    call = Call(shop.app, scope_of("/"), before_send=faulty)
    with pytest.raises(ValueError, match="a bug outside"):
        await call.answer()
    assert call.body == b"one"


async def test_an_endless_stream_that_is_not_kept_ends_with_its_client() -> None:
    """Server-sent events under an inherited policy: the client's end reaches the app, as without the cache."""
    for media_type, size in (("text/event-stream", 1), ("text/plain", 600)):
        ended = asyncio.Event()

        async def chunks(size: int = size, ended: asyncio.Event = ended) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * size
                    await asyncio.sleep(0)
            finally:
                ended.set()

        shop = stream_shop(chunks, media_type=media_type, max_body_bytes=1000)
        call = shop.call()
        await until(lambda call=call: len(call.body) > 2000)  # type: ignore[misc]
        assert not ended.is_set()
        call.go_away()
        await until(ended.is_set, "the end of the stream")
        await until(call.task.done)


async def test_past_the_bound_the_client_sets_the_pace() -> None:
    """No more than max_body_bytes is ever held for a client that does not read."""
    made = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        while made < 100:
            made += 1
            yield b"x" * 300

    shop = stream_shop(chunks, max_body_bytes=1000)
    gate = asyncio.Event()

    async def slowly(message: Any) -> None:
        await gate.wait()

    call = Call(shop.app, scope_of("/"), before_send=slowly)
    await settle()
    assert made <= 5
    gate.set()
    assert len((await call.answer()).body) == 30_000


async def test_a_request_that_is_cancelled_stores_nothing_of_its_half() -> None:
    """Cancelled mid-stream: no half response, no flight left behind, nothing sent afterwards."""
    gate = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await gate.wait()
        yield b"two"

    shop = stream_shop(chunks)
    call = shop.call()
    await until(lambda: call.body == b"one")
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    statistics = shop.cache.statistics()
    assert (statistics.responses, statistics.forwards_under_way) == (0, 0)
    gate.set()
    assert (await shop.ask()).body == b"onetwo"
    assert shop.calls == 2


async def test_a_background_task_delays_neither_the_client_nor_the_store() -> None:
    """It runs once, after the answer has gone and others may have it; a hit does not run it again."""
    shop = Shop()
    gate = asyncio.Event()
    runs: list[int] = []

    async def later() -> None:
        runs.append(shop.calls)
        await gate.wait()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        shop.count()
        return Response(b"it", background=BackgroundTask(later))

    call = shop.call()
    await until(lambda: call.body == b"it")
    await until(lambda: runs)
    assert not call.task.done()
    assert_hit(await shop.ask())
    gate.set()
    await call.answer()
    assert runs == [1]


async def test_a_stream_behind_a_middleware_that_rewraps_it_is_stored() -> None:
    """BaseHTTPMiddleware inside: its chunks, its own end and its task do not break the fill."""
    from starlette.middleware.base import BaseHTTPMiddleware

    async def tag(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-inside"] = "1"
        return response

    shop = stream_shop(_three)
    shop.inside(BaseHTTPMiddleware, dispatch=tag)
    assert (await shop.ask()).body == b"onetwothree"
    hit = await shop.ask()
    assert_hit(hit)
    assert (hit.body, hit.headers["x-inside"]) == (b"onetwothree", "1")
    assert len(hit.fields("x-inside")) == 1


@pytest.mark.parametrize(
    ("options", "policy", "why"),
    [
        ({"max_body_bytes": 5}, {}, "too-large"),
        ({"max_in_flight_bytes": 8}, {}, "in-flight"),
        ({}, {"should_store": lambda response: False}, "should-store"),
        ({}, {}, "incomplete"),
        ({}, {}, "superseded"),
    ],
)
async def test_why_a_stream_is_not_kept_is_counted_although_its_head_has_gone(
    options: dict[str, Any], policy: dict[str, Any], why: str
) -> None:
    """Once for each stream: the head can say it of none, and says it of all else."""
    shop = Shop(**options)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        if why == "superseded":
            await shop.cache.invalidate("it")
        yield b"two"
        if why == "incomplete":
            raise ConnectionError

    @shop.app.get("/", dependencies=[cached(CachePolicy(ttl=60, tags=["it"], **policy))])
    async def read() -> StreamingResponse:
        shop.count()
        return StreamingResponse(chunks())

    call = shop.call()
    await until(call.task.done)
    assert call.body == b"onetwo"
    call.task.exception()
    assert dict(shop.cache.statistics().refused) == {why: 1}
    assert "detail" not in str(call.messages[0])
