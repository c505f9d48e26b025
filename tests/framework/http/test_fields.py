"""Stored and served fields keep their order, duplicates and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.http import Call, Shop, ask, scope_of, settle

pytestmark = pytest.mark.anyio

LINES = [
    (b"x-b", b"2"),
    (b"link", b"</a>; rel=preload"),
    (b"x-a", b"1"),
    (b"link", b"</b>; rel=preload"),
    (b"x-bytes", b"\xff\xfe caf\xe9 \x80"),
    (b"x-empty", b""),
    (b"warning", b'199 - "a, b"'),
    (b"link", b"</a>; rel=preload"),
    (b"x-spaces", b"a  b\tc"),
]


def shop_with(lines: list[tuple[bytes, bytes]]) -> Shop:
    """An app with one cached route whose answer has these lines."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        shop.count()
        response = Response(b"\x00\xff it")
        response.raw_headers.extend(lines)
        return response

    return shop


async def test_order_duplicates_and_bytes_survive() -> None:
    """Line for line, on the miss and on hits, the body too."""
    shop = shop_with(LINES)
    names = {name for name, _ in LINES}
    for _ in range(3):
        answer = await shop.ask()
        assert [pair for pair in answer.raw if pair[0] in names] == LINES
        assert answer.body == b"\x00\xff it"
    assert shop.calls == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("by_headers", [False, True])
async def test_fields_of_one_connection_stay_on_the_apps_own_answer(
    by_headers: bool, layered: bool, streamed: bool
) -> None:
    """A handler that drains closes its own connection, and nobody else's: those who wait, and hits, keep theirs."""
    app = FastAPI()
    gate = asyncio.Event()
    calls = 0
    said = {"connection": "close, x-hop", "x-hop": "1", "keep-alive": "timeout=1", "trailer": "x-sum", "x-end": "1"}

    async def pieces() -> AsyncIterator[bytes]:
        yield b"pa"
        yield b"ge"

    @app.get("/", dependencies=[] if by_headers else [cached(ttl=60)])
    async def read() -> Response:
        nonlocal calls
        calls += 1
        await gate.wait()
        headers = said | ({"cache-control": "max-age=60"} if by_headers else {})
        return StreamingResponse(pieces(), headers=headers) if streamed else Response("page", headers=headers)

    async def passes(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    if layered:
        app.middleware("http")(passes)
    outer = CacheMiddleware(app, cache=HTTPCache(), honour_headers=by_headers)
    own, waiting = Call(outer, scope_of("/")), Call(outer, scope_of("/"))
    await settle()
    gate.set()
    first, second = await own.answer(), await waiting.answer()
    assert {name: first.headers.get(name) for name in said} == said
    for answer in (second, await ask(outer, "/")):
        assert {name: answer.headers.get(name) for name in said} == said | dict.fromkeys(
            ("connection", "x-hop", "keep-alive", "trailer")
        )
    assert calls == 1
    assert all(len(answer.fields("content-length")) <= 1 for answer in (first, second))


async def test_fields_of_one_connection_are_not_stored() -> None:
    """RFC 9111 section 3.1: hop-by-hop fields, and those that Connection names, belong to their message."""
    shop = shop_with(
        [(b"connection", b"x-hop"), (b"x-hop", b"1"), (b"keep-alive", b"1"), (b"te", b"x"), (b"x-end", b"1")]
    )
    await shop.ask()
    hit = await shop.ask()
    names = {name for name, _ in hit.raw}
    assert not names & {b"connection", b"x-hop", b"keep-alive", b"te"}
    assert b"x-end" in names


async def test_names_are_served_in_lower_case() -> None:
    """As ASGI has them, however a layer inside spelled them."""
    shop = shop_with([(b"X-Spelled", b"Value")])
    for _ in range(2):
        assert (await shop.ask()).fields("x-spelled") == [b"Value"]


async def test_two_set_cookie_lines_survive() -> None:
    """Both reach the client, neither is stored."""
    shop = shop_with([(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2; Path=/")])
    for times in (1, 2):
        assert (await shop.ask()).fields("set-cookie") == [b"a=1; Path=/", b"b=2; Path=/"]
        assert shop.calls == times


async def test_a_hit_adds_nothing_but_what_it_says() -> None:
    """A hit has what the miss had, and Age; Cache-Status alone differs."""
    shop = shop_with(LINES)
    miss, hit = await shop.ask(), await shop.ask()
    ours = {b"cache-status", b"age"}
    assert [pair for pair in hit.raw if pair[0] not in ours] == [pair for pair in miss.raw if pair[0] not in ours]
    assert len(hit.raw) == len(miss.raw) + 1


async def test_what_a_server_changes_in_one_answer_is_not_in_the_next() -> None:
    """Layers outside ours may append to the fields that they are given."""
    shop = shop_with([])

    async def outer(scope: object, receive: object, send: object) -> None:
        async def spoil(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                assert isinstance(headers, list)
                headers.append((b"set-cookie", b"of=one"))
            await send(message)  # type: ignore[operator]

        await shop.app(scope, receive, spoil)  # type: ignore[arg-type]

    for _ in range(4):
        assert len((await ask(outer, "/")).fields("set-cookie")) == 1
        assert (await shop.ask()).fields("set-cookie") == []
        assert len((await ask(outer, "/", headers={"if-none-match": "*"})).fields("set-cookie")) == 1
    assert shop.calls == 1
