"""Validators and 304: made from the bytes, answered on a hit and on a miss (RFC 9110 sections 8.8 and 13)."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Answer, Shop, ask

pytestmark = pytest.mark.anyio

CONTENT = b"some content"


def shop_with(**fields: str) -> Shop:
    """An app with one cached route whose handler sets these fields."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=60)])
    async def read() -> Response:
        shop.count()
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return Response(CONTENT, media_type="text/plain", headers=headers)

    return shop


def is_not_modified(answer: Answer) -> bool:
    """Whether it is a right 304: no content, nothing that describes content, all that a client needs."""
    assert answer.body == b""
    assert not {b"content-length", b"content-type", b"content-encoding"} & {name for name, _ in answer.raw}
    assert answer.headers["etag"]
    assert answer.headers["cache-control"]
    return answer.status_code == 304


async def test_an_etag_is_made_from_the_bytes() -> None:
    """Quoted and strong, the same on the miss and the hit, another for other bytes."""
    shop = shop_with()
    miss, hit = await shop.ask(), await shop.ask()
    assert miss.fields("etag") == hit.fields("etag")
    assert re.fullmatch(rb'"[\x21\x23-\x7e]+"', miss.fields("etag")[0])
    other = Shop()

    @other.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        return Response(CONTENT + b".", media_type="text/plain")

    assert (await other.ask()).fields("etag") != miss.fields("etag")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"content-type": "text/plain"}, {"content-type": "text/html"}),
        ({"content-type": "text/plain; charset=utf-8"}, {"content-type": "text/plain; charset=latin-1"}),
        (
            {"content-type": "text/html", "content-language": "de"},
            {"content-type": "text/html", "content-language": "fr"},
        ),
        ({"content-type": "text/html"}, {"content-type": "text/html", "content-language": "fr"}),
    ],
)
@pytest.mark.parametrize("layer", [False, True])
async def test_the_same_bytes_as_something_else_have_another_etag(before: Any, after: Any, layer: bool) -> None:
    """A 304 leaves out what tells how to read them: after a write the client that has them gets them whole."""
    now = before
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, tags=["it"])])
    async def read() -> Response:
        return Response(CONTENT, headers=before if layer else now)

    @app.middleware("http")
    async def around(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        if layer:
            for name in ("content-type", "content-language"):
                if name in now:
                    answer.headers[name] = now[name]
        return answer

    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)
    etag = (await ask(app, "/it")).headers["etag"]
    assert is_not_modified(await ask(app, "/it", headers={"if-none-match": etag}))
    now = after
    await cache.invalidate("it")
    for _ in range(2):
        answer = await ask(app, "/it", headers={"if-none-match": etag})
        assert (answer.status_code, answer.body) == (200, CONTENT)
        assert answer.headers["content-type"] == after["content-type"]


async def test_an_etag_is_the_same_in_another_process() -> None:
    """No seed of this process's goes into it."""
    fields = [(b"content-type", b"text/plain; charset=utf-8")]
    code = f"from fastapi_cacheinval.grammar.entity_tags import make_etag; print(make_etag({CONTENT!r}, {fields}).decode())"
    there = (await anyio.run_process([sys.executable, "-c", code])).stdout.decode().strip()
    assert (await shop_with().ask()).headers["etag"] == there


async def test_a_handlers_own_etag_is_kept() -> None:
    """Weak as it is, on miss, hit and 304."""
    shop = shop_with(etag='W/"v7"')
    for _ in range(2):
        assert (await shop.ask()).fields("etag") == [b'W/"v7"']
    assert is_not_modified(await shop.ask(headers={"if-none-match": '"x", "v7"'}))


@pytest.mark.parametrize("warm", [False, True])
async def test_if_none_match_is_answered_304(warm: bool) -> None:
    """On a hit, and on a miss too, where the handler runs and its response is stored."""
    etag = (await shop_with().ask()).headers["etag"]
    shop = shop_with()
    if warm:
        await shop.ask()
    answer = await shop.ask(headers={"if-none-match": etag})
    assert is_not_modified(answer)
    (assert_hit if warm else assert_miss)(answer)
    full = await shop.ask()
    assert_hit(full)
    assert full.body == CONTENT
    assert shop.calls == 1


@pytest.mark.parametrize("warm", [False, True])
async def test_another_etag_gets_the_content(warm: bool) -> None:
    """What the client has is something else: 200 with all of it."""
    shop = shop_with()
    if warm:
        await shop.ask()
    answer = await shop.ask(headers={"if-none-match": '"other", W/"another"'})
    assert (answer.status_code, answer.body) == (200, CONTENT)


async def test_a_304_is_never_for_another_url() -> None:
    """The validator of one page never gets a 304 for another, cold or warm."""
    shop = Shop()

    @shop.app.get("/{name}", dependencies=[cached(ttl=60)])
    async def read(name: str) -> str:
        return name

    etag = (await shop.ask("/a")).headers["etag"]
    for _ in range(2):
        answer = await shop.ask("/b", headers={"if-none-match": etag})
        assert (answer.status_code, answer.body) == (200, b'"b"')


async def test_a_star_matches_whatever_there_is() -> None:
    """If-None-Match: * is false for every response that exists."""
    shop = shop_with()
    assert is_not_modified(await shop.ask(headers={"if-none-match": "*"}))
    assert is_not_modified(await shop.ask(headers={"if-none-match": "*"}))


@pytest.mark.parametrize(
    ("since", "status"),
    [
        ("Mon, 01 Jan 2024 00:00:00 GMT", 304),
        ("Tue, 02 Jan 2024 00:00:00 GMT", 304),
        ("Sun, 31 Dec 2023 23:59:59 GMT", 200),
        ("Monday, 01-Jan-24 00:00:00 GMT", 304),
        ("Mon Jan  1 00:00:00 2024", 304),
        ("yesterday", 200),
        ("Mon, 99 Jan 99999 00:00:00 GMT", 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
async def test_if_modified_since(since: str, status: int, warm: bool) -> None:
    """Compared with Last-Modified; what is no date is ignored."""
    shop = shop_with(last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    if warm:
        await shop.ask()
    answer = await shop.ask(headers={"if-modified-since": since})
    assert answer.status_code == status
    assert answer.body == (b"" if status == 304 else CONTENT)


async def test_if_modified_since_without_last_modified_gets_the_content() -> None:
    """Nothing is known of when it changed."""
    shop = shop_with()
    for _ in range(2):
        answer = await shop.ask(headers={"if-modified-since": "Mon, 01 Jan 2035 00:00:00 GMT"})
        assert answer.status_code == 200


async def test_if_none_match_goes_before_if_modified_since() -> None:
    """RFC 9110 section 13.1.3: a date is ignored where there are entity tags."""
    shop = shop_with(last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    wish = {"if-none-match": '"other"', "if-modified-since": "Tue, 02 Jan 2024 00:00:00 GMT"}
    for _ in range(2):
        assert (await shop.ask(headers=wish)).status_code == 200


async def test_a_stale_answer_can_be_a_304() -> None:
    """A client that has what would be served stale is told so."""
    shop = shop_with()
    etag = (await shop.ask()).headers["etag"]
    shop.clock.tick(61)
    answer = await shop.ask(headers={"if-none-match": etag})
    assert is_not_modified(answer)
    assert answer.cache is not None
    assert answer.cache.hit
    await shop.refreshed()


async def test_two_lines_of_if_none_match_are_one_list() -> None:
    """Duplicated lines count together (RFC 9110 section 5.3)."""
    shop = shop_with()
    etag = (await shop.ask()).headers["etag"]
    answer = await shop.ask(headers=[("if-none-match", '"x"'), ("if-none-match", etag)])
    assert is_not_modified(answer)


async def test_only_a_success_is_answered_304() -> None:
    """A stored 404 is a 404 to whoever has its entity tag (RFC 9110 section 13.2.1)."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, statuses={200, 404})])
    async def read() -> Response:
        shop.count()
        return Response(b"none", status_code=404)

    etag = (await shop.ask()).headers["etag"]
    for wish in (etag, "*"):
        answer = await shop.ask(headers={"if-none-match": wish})
        assert (answer.status_code, answer.body) == (404, b"none")
    assert shop.calls == 1


async def test_a_stream_has_no_etag_at_first_and_its_stored_copy_has() -> None:
    """The first answer went before its bytes were known."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return StreamingResponse(chunks())

    first = await shop.ask()
    assert first.fields("etag") == []
    hit = await shop.ask()
    assert hit.body == b"ab"
    assert is_not_modified(await shop.ask(headers={"if-none-match": hit.headers["etag"]}))


async def test_a_file_is_revalidated_by_its_own_validators(tmp_path: Any) -> None:
    """FileResponse's ETag and Last-Modified serve for 304 on cold and warm."""
    file = tmp_path / "file.txt"
    file.write_bytes(CONTENT)
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> FileResponse:
        shop.count()
        return FileResponse(file)

    first = await shop.ask()
    assert (await shop.ask(headers={"if-none-match": first.headers["etag"]})).status_code == 304
    assert (await shop.ask(headers={"if-modified-since": first.headers["last-modified"]})).status_code == 304
    await shop.cache.clear()
    assert (await shop.ask(headers={"if-none-match": first.headers["etag"]})).status_code == 304
    full = await shop.ask()
    assert_hit(full)
    assert full.body == CONTENT
    assert shop.calls == 2


async def test_the_handler_sees_a_plain_request() -> None:
    """A conditional or range request fills with the whole response: its If-* and Range never reach the handler."""
    shop = Shop(middleware={"front": True})
    seen: list[set[bytes]] = []

    class Spy:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def spy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    seen.append({name for name, _ in scope["headers"]})
                await send(message)

            await self.app(scope, receive, spy)

    shop.inside(Spy)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        return "it"

    conditions = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range")
    answer = await shop.ask(headers={**dict.fromkeys(conditions, '"x"'), "x-other": "stays"})
    assert answer.body == b'"it"'
    assert len(seen) == 1
    assert seen[0] == {b"host", b"x-other"}
