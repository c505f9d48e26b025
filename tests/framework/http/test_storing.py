"""What may never be stored, each with its reason in Cache-Status, and never shared by collapsing either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import Header, HTTPException, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop, settle, until

pytestmark = pytest.mark.anyio


def raw_line(name: bytes, value: bytes) -> Callable[[], Response]:
    """A response with one more line, its name spelled as it is."""

    def make() -> Response:
        response = Response(b"content")
        response.raw_headers.append((name, value))
        return response

    return make


def too_short() -> Response:
    """What is said of its length is not what comes."""
    response = Response(b"content")
    response.headers["content-length"] = "99"
    return response


def without_length(size: int) -> Response:
    """A body in one message whose length no field says."""
    response = Response(b"x" * size)
    del response.headers["content-length"]
    return response


REFUSED: list[tuple[str, Callable[[], Response]]] = [
    ("set-cookie", raw_line(b"set-cookie", b"session=alice")),
    ("set-cookie", raw_line(b"Set-Cookie", b"session=alice")),
    ("no-store", raw_line(b"cache-control", b"No-Store")),
    ("no-store", raw_line(b"Cache-Control", b"no-store")),
    ("no-store", raw_line(b"cache-control", b'max-age=60, x="a, b", no-store="why"')),
    ("private", raw_line(b"cache-control", b"private, max-age=60")),
    ("private", raw_line(b"Cache-Control", b"private")),
    ("private", raw_line(b"cache-control", b'private="set-cookie"')),
    ("vary", raw_line(b"vary", b"accept, *")),
    ("vary", raw_line(b"Vary", b"*")),
    ("vary", raw_line(b"vary", b"not a name")),
    ("content-range", raw_line(b"content-range", b"bytes 0-1/9")),
    ("event-stream", lambda: Response(b"data: 1\n\n", media_type="text/event-stream")),
    ("event-stream", lambda: Response(b"data: 1\n\n", headers={"content-type": "Text/Event-Stream; charset=x"})),
    ("status", lambda: Response(b"part", status_code=206)),
    ("status", lambda: Response(b"made", status_code=201)),
    ("status", lambda: RedirectResponse("/elsewhere")),
    ("status", lambda: Response(status_code=304)),
    ("status", lambda: Response(b"no", status_code=401)),
    ("status", lambda: Response(b"none", status_code=404)),
    ("status", lambda: Response(b"down", status_code=503)),
    ("too-large", lambda: Response(b"x" * 2000)),
    ("too-large", lambda: without_length(2000)),
    ("incomplete", too_short),
]


def shop_of(make: Callable[[], Response], policy: Any = None) -> Shop:
    """An app with one cached route that answers with what `make` gives."""
    shop = Shop(max_body_bytes=1000)

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=60) if policy is None else policy])
    async def read() -> Response:
        shop.count()
        return make()

    return shop


@pytest.mark.parametrize(("reason", "make"), REFUSED)
async def test_what_may_not_be_stored_is_forwarded_each_time(reason: str, make: Callable[[], Response]) -> None:
    """The handler answers every request with its own bytes and status, and the reason is in detail."""
    shop = shop_of(make)
    expected = make()
    for times in (1, 2):
        answer = await shop.ask()
        assert answer.status_code == expected.status_code
        assert answer.body == expected.body
        assert answer.cache is not None
        assert (answer.cache.hit, answer.cache.stored, answer.cache.detail) == (False, False, reason)
        assert shop.calls == times
    assert shop.cache.statistics().responses == 0


@pytest.mark.parametrize(("reason", "make"), [case for case in REFUSED if case[0] != "incomplete"])
async def test_what_may_not_be_stored_is_not_shared_by_collapsing(reason: str, make: Callable[[], Response]) -> None:
    """Ten at once: every one of them is answered by a handler call of its own."""
    shop = Shop(max_body_bytes=1000)
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        number = shop.count()
        await gate.wait()
        response = make()
        response.headers["x-call"] = str(number)
        return response

    calls = [shop.call() for _ in range(10)]
    await settle()
    assert shop.calls == 1
    gate.set()
    answers = [await call.answer() for call in calls]
    assert shop.calls == 10
    assert len({answer.headers["x-call"] for answer in answers}) == 10


async def test_private_is_stored_within_a_partition_only() -> None:
    """partition_by makes it that caller's own; a guard does not."""

    def who(x_user: str = Header()) -> str:
        return x_user

    def private() -> Response:
        return Response(b"mine", headers={"cache-control": "private"})

    mine = shop_of(private, cached(ttl=60, partition_by=who))
    await mine.ask(headers={"x-user": "a"})
    assert_hit(await mine.ask(headers={"x-user": "a"}))
    other = await mine.ask(headers={"x-user": "b"})
    assert other.cache is not None
    assert not other.cache.hit
    ours = shop_of(private, cached(ttl=60, guarded_by=who))
    for _ in range(2):
        answer = await ours.ask(headers={"x-user": "a"})
        assert answer.cache is not None
        assert answer.cache.detail == "private"


async def test_a_set_cookie_is_refused_in_a_partition_too() -> None:
    """Even one caller's own cookie must not be replayed."""

    def who(x_user: str = Header()) -> str:
        return x_user

    shop = shop_of(raw_line(b"set-cookie", b"a=1"), cached(ttl=60, partition_by=who))
    for times in (1, 2):
        await shop.ask(headers={"x-user": "a"})
        assert shop.calls == times


async def test_listed_statuses_are_stored_with_their_own_lifetime() -> None:
    """A 404 that the policy lists lives as long as it says, and comes back as a 404."""
    shop = shop_of(lambda: Response(b"none", status_code=404), cached(ttl=60, statuses={200: 60, 404: 5}))
    await shop.ask()
    hit = await shop.ask()
    assert_hit(hit)
    assert (hit.status_code, hit.body) == (404, b"none")
    shop.clock.tick(5)
    await shop.ask()
    assert shop.calls == 2


async def test_a_stored_503_comes_back_as_a_503() -> None:
    """A 5xx that the policy lists is stored as what it is."""
    shop = shop_of(lambda: Response(b"down", status_code=503), cached(ttl=60, statuses={200: 60, 503: 5}))
    for _ in range(3):
        assert (await shop.ask()).status_code == 503
    assert shop.calls == 1


async def test_a_204_is_stored_without_a_content_length() -> None:
    """RFC 9110 section 8.6: a 204 has none, on the miss and on the hit."""
    shop = shop_of(lambda: Response(status_code=204), cached(ttl=60, statuses={204}))
    for _ in range(2):
        answer = await shop.ask()
        assert (answer.status_code, answer.body) == (204, b"")
        assert answer.fields("content-length") == []
    assert shop.calls == 1


async def test_a_raised_error_is_not_stored() -> None:
    """HTTPException is a status like any other; an exception is no response at all."""
    shop = Shop()
    errors: list[Exception] = [HTTPException(418), HTTPException(401), RuntimeError("x")]

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        if errors:
            raise errors.pop()
        return shop.count()

    with pytest.raises(RuntimeError):
        await shop.ask()
    assert (await shop.ask()).status_code == 401
    assert (await shop.ask()).status_code == 418
    assert (await shop.ask()).body == b"1"
    assert_hit(await shop.ask())


@pytest.mark.parametrize("end", ["raises", "returns"])
async def test_a_body_that_ended_early_is_not_stored(end: str) -> None:
    """A stream that breaks after some chunks, by an error or by a length that it does not fill."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> StreamingResponse:
        shop.count()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"half"
            if end == "raises":
                raise ConnectionError("the source is gone")

        return StreamingResponse(chunks(), headers={"content-length": "9"} if end == "returns" else None)

    for times in (1, 2):
        call = shop.call()
        await until(call.task.done)
        assert call.body == b"half"
        assert (call.task.exception() is not None) == (end == "raises")
        assert shop.calls == times
    assert shop.cache.statistics().responses == 0
    assert shop.cache.statistics().forwards_under_way == 0


async def test_a_handler_that_never_ends_its_body_is_not_stored() -> None:
    """more_body=True and then nothing: what was kept of it is let go of, the next request runs the handler."""
    shop = Shop()

    class Broken(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        shop.count()
        return Broken()

    for times in (1, 2):
        call = shop.call()
        await until(call.task.done)
        assert shop.calls == times
    assert shop.cache.statistics().responses == 0


async def test_a_stream_past_the_bound_is_let_through_whole_and_not_stored() -> None:
    """max_body_bytes is passed mid-stream: the client gets every byte in order, nothing is kept."""
    shop = Shop(max_body_bytes=1000)
    sent = [bytes([65 + number]) * 300 for number in range(8)]

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> StreamingResponse:
        shop.count()

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in sent:
                yield chunk

        return StreamingResponse(chunks())

    for times in (1, 2):
        answer = await shop.ask()
        assert answer.body == b"".join(sent)
        assert [chunk for chunk in answer.chunks if chunk] == sent
        assert shop.calls == times
    assert shop.cache.statistics().responses == 0
    assert shop.cache.statistics().refused or shop.cache.statistics().fills["refused"] == 2


async def test_at_the_bound_is_stored_and_one_byte_more_is_not() -> None:
    """max_body_bytes is the largest body that is kept, streamed or not."""
    for streamed in (False, True):
        for size, kept in ((1000, True), (1001, False)):
            shop = Shop(max_body_bytes=1000)

            @shop.app.get("/", dependencies=[cached(ttl=60)])
            async def read(shop: Any = None, size: int = size, streamed: bool = streamed) -> Response:
                async def chunks() -> AsyncIterator[bytes]:
                    yield b"x" * (size - 1)
                    yield b"x"

                return StreamingResponse(chunks()) if streamed else Response(b"x" * size)

            await shop.ask()
            answer = await shop.ask()
            assert answer.cache is not None
            assert answer.cache.hit is kept
            assert len(answer.body) == size
