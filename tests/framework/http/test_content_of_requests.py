"""A GET may have content, which is no part of its key: it is answered by the app alone, and fills nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, Request

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Answer, Shop, scope_of, settle

pytestmark = pytest.mark.anyio

WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "a length": ("1.1", {"content-length": "9"}),
    "chunks": ("1.1", {"transfer-encoding": "chunked"}),
    "HTTP/2": ("2", {}),
    "HTTP/2 and a length": ("2", {"content-length": "9"}),
    "HTTP/3": ("3", {}),
}
CONTENTS = [[b"something"], [b"some", b"thing"], [b"", b"something"]]

every_way = pytest.mark.parametrize("way", WAYS)


async def _read(request: Request) -> str:
    """As many libraries do: the query and the content."""
    return f"{request.query_params} {(await request.body()).decode()}"


async def _who(x_user: Annotated[str, Header()] = "") -> str:
    return x_user


async def _checked(request: Request) -> None:
    await request.body()


def _front(shop: Shop) -> None:
    @shop.app.get("/page", dependencies=[cached(ttl=60, request_is_shared=True)])
    async def page(request: Request) -> str:
        return await _read(request)


def _guarded(shop: Shop) -> None:
    @shop.app.get("/page", dependencies=[cached(ttl=60, guarded_by=_checked, request_is_shared=True)])
    async def page(request: Request) -> str:
        return await _read(request)


def _partitioned(shop: Shop) -> None:
    @shop.app.get("/page", dependencies=[cached(ttl=60, partition_by=_who, request_is_shared=True)])
    async def page(request: Request, who: Annotated[str, Depends(_who)]) -> str:
        return who + await _read(request)


def _negotiating(shop: Shop) -> None:
    @shop.app.get("/page", dependencies=[cached(ttl=60, vary=["accept"], request_is_shared=True)])
    async def page(request: Request) -> str:
        return await _read(request)


every_kind = pytest.mark.parametrize("make", [_front, _guarded, _partitioned, _negotiating])


async def _sent(shop: Shop, content: list[bytes], way: str) -> Answer:
    """One GET with this content, as a server hands it on."""
    version, fields = WAYS[way]
    scope = scope_of("/page?q=1", headers=fields, http_version=version)
    waiting: list[Any] = [{"type": "http.request", "body": part, "more_body": True} for part in content]
    waiting[-1]["more_body"] = False
    messages: list[Any] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        messages.append(message)

    await asyncio.wait_for(shop.app(scope, receive, send), 10)
    return Answer(messages)


@every_way
@every_kind
async def test_a_get_with_content_is_the_apps_to_answer(make: Callable[[Shop], None], way: str) -> None:
    """Before the page is stored and while it is a hit; nobody else is given what was made of it."""
    shop = Shop()
    make(shop)
    for content in CONTENTS:
        answer = await _sent(shop, content, way)
        assert b"q=1 something" in answer.body
        assert answer.cache is not None
        assert answer.cache.detail == "content"
    plain = await shop.ask("/page?q=1", http_version=WAYS[way][0])
    assert b"something" not in plain.body
    for content in CONTENTS:
        assert b"q=1 something" in (await _sent(shop, content, way)).body
        again = await shop.ask("/page?q=1", http_version=WAYS[way][0])
        assert_hit(again)
        assert again.body == plain.body


@every_kind
async def test_a_get_without_content_is_a_hit_in_every_version(make: Callable[[Shop], None]) -> None:
    """An empty length announces nothing, and in HTTP/2 an empty end of the request is the end."""
    shop = Shop()
    make(shop)
    first = await shop.ask("/page?q=1")
    for version, fields in [("1.1", {}), ("1.1", {"content-length": "0"}), ("2", {}), ("3", {"content-length": "0"})]:
        again = await shop.ask("/page?q=1", http_version=version, headers=fields)
        assert_hit(again)
        assert again.body == first.body


@every_way
async def test_a_route_that_cannot_see_content_is_asked_where_it_is_announced(way: str) -> None:
    """FastAPI may refuse it for its length; where nothing announces it, no client waits for its own end."""
    shop = Shop()

    @shop.app.get("/page", dependencies=[cached(ttl=60)])
    async def page(q: str) -> int:
        return shop.count()

    await shop.ask("/page?q=1")
    answer = await _sent(shop, [b"something"], way)
    assert answer.cache is not None
    assert answer.body == (b"2" if WAYS[way][1] else b"1")
    assert_hit(await shop.ask("/page?q=1"))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("by_headers", [False, True])
async def test_a_server_is_not_made_to_say_100_continue(by_headers: bool, version: str, method: str) -> None:
    """RFC 9110 section 10.1.1: asked for content, a server says it to a request with `Expect`; the app did not ask."""
    asked, gate, sent = 0, asyncio.Event(), []

    async def site(_scope: Any, _receive: Any, send: Any) -> None:
        await gate.wait()
        headers = [(b"cache-control", b"max-age=60"), (b"set-cookie", b"a=b")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"page"})

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = FastAPI()
    app.mount("/", site)
    outer = CacheMiddleware(app, cache=HTTPCache(), honour_headers=by_headers)

    async def client() -> None:
        scope = scope_of("/", method=method, headers={"expect": "100-continue"}, http_version=version)
        await outer(scope, receive, send)

    # The second one waits for the first, and is forwarded after it.
    clients = [asyncio.create_task(client()) for _ in range(2)]
    await settle()
    gate.set()
    await asyncio.gather(*clients)
    assert (asked, len(sent)) == (0, 4)
