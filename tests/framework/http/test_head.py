"""HEAD is answered as GET would be, without its content (RFC 9110 section 9.3.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.routing import Route

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop, ask

pytestmark = pytest.mark.anyio


def shop_with_page(**policy: Any) -> Shop:
    """An app with one cached GET route."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, **policy)])
    async def read() -> str:
        shop.count()
        return "content"

    return shop


async def test_a_warm_head_is_answered_from_the_stored_get() -> None:
    """The same status and fields as the GET, no content, no call of the handler."""
    shop = shop_with_page()
    await shop.ask()
    get, head = await shop.ask(), await shop.ask(method="HEAD")
    assert_hit(head)
    assert head.body == b""
    assert head.status_code == 200
    assert head.raw == get.raw
    assert head.headers["content-length"] == "9"
    assert shop.calls == 1


async def test_a_cold_head_fills_for_the_get() -> None:
    """It is forwarded as GET; its empty answer is never served to a GET."""
    shop = shop_with_page()
    head = await shop.ask(method="HEAD")
    assert_miss(head)
    assert (head.status_code, head.body, head.headers["content-length"]) == (200, b"", "9")
    get = await shop.ask()
    assert_hit(get)
    assert get.body == b'"content"'
    assert shop.calls == 1


@pytest.mark.parametrize("turn", ["on", "off"])
async def test_the_status_of_a_head_does_not_depend_on_the_cache(turn: str) -> None:
    """FastAPI answers 405 to a HEAD on a GET route; a cached route answers 200, switched off too."""
    shop = shop_with_page()
    shop.cache.enabled = turn == "on"
    for _ in range(2):
        head = await shop.ask(method="HEAD")
        assert (head.status_code, head.body) == (200, b"")


async def test_a_head_on_an_uncached_route_is_the_frameworks() -> None:
    """Without a policy nothing changes: 405 on a GET route."""
    shop = Shop()

    @shop.app.get("/")
    async def read() -> str:
        return "content"

    assert (await shop.ask(method="HEAD")).status_code == 405


async def test_a_conditional_head_is_a_304() -> None:
    """HEAD with the entity tag of the GET, cold and warm."""
    shop = shop_with_page()
    etag = (await shop_with_page().ask()).headers["etag"]
    for _ in range(2):
        head = await shop.ask(method="HEAD", headers={"if-none-match": etag})
        assert (head.status_code, head.body) == (304, b"")


async def test_an_explicit_head_route_keeps_its_own_answer() -> None:
    """And neither fills nor is filled by the GET beside it."""
    shop = Shop()

    @shop.app.head("/", dependencies=[cached(ttl=60)])
    async def head(response: Response) -> None:
        shop.count()
        response.headers["x-own"] = "yes"

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        return "content"

    for _ in range(2):
        answer = await shop.ask(method="HEAD")
        assert answer.headers["x-own"] == "yes"
        assert answer.fields("cache-status") == []
    get = await shop.ask()
    assert_miss(get)
    assert get.body == b'"content"'
    assert "x-own" not in get.headers
    assert shop.calls == 2


async def test_one_route_with_both_methods_keeps_them_apart() -> None:
    """api_route(methods=[GET, HEAD]): the HEAD runs the handler, the GET is cached."""
    shop = Shop()

    @shop.app.api_route("/", methods=["GET", "HEAD"], dependencies=[cached(ttl=60)])
    async def read() -> int:
        return shop.count()

    assert (await shop.ask(method="HEAD")).fields("cache-status") == []
    assert (await shop.ask()).body == b"2"
    assert (await shop.ask()).body == b"2"
    assert (await shop.ask(method="HEAD")).fields("cache-status") == []
    assert shop.calls == 3


async def test_a_head_of_a_stream_has_no_content() -> None:
    """Chunks of the forwarded GET are dropped one by one, and stored."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        return StreamingResponse(chunks())

    head = await shop.ask(method="HEAD")
    assert head.body == b""
    assert (await shop.ask()).body == b"onetwo"


@pytest.mark.parametrize("turn", ["on", "off"])
async def test_a_head_of_a_file_never_sends_the_file(tmp_path: Any, turn: str) -> None:
    """Also where the server could be told to send it by path, and whether the cache is on or off."""
    file = tmp_path / "file.txt"
    file.write_bytes(b"content")
    shop = Shop()
    shop.cache.enabled = turn == "on"

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> FileResponse:
        return FileResponse(file)

    extensions: dict[str, Any] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
    for _ in range(2):
        head = await shop.ask(method="HEAD", extensions=extensions)
        assert head.body == b""
        assert head.headers["content-length"] == "7"
        assert {message["type"] for message in head.messages} == {"http.response.start", "http.response.body"}


async def test_layers_outside_learn_the_route_of_a_head() -> None:
    """What routing writes into the scope reaches the scope that came in."""
    shop = shop_with_page()
    scopes: list[Any] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await shop.app(scope, receive, send)
        scopes.append(scope)

    await ask(outer, "/", method="HEAD")
    assert scopes[0]["route"].path == "/"
    assert scopes[0]["method"] == "HEAD"


async def test_a_starlette_head_route_beside_a_cached_get_keeps_its_answer() -> None:
    """An explicit HEAD route counts whoever made it."""
    shop = Shop()

    async def head(request: Any) -> Response:
        return Response(status_code=204)

    shop.app.router.routes.append(Route("/", head, methods=["HEAD"]))

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        return "content"

    assert (await shop.ask()).status_code == 200
    assert (await shop.ask(method="HEAD")).status_code == 204
