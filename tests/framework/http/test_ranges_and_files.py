"""A Range gets a right answer, a full 200 or a right 206, never a wrong one; files are stored by their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import FileResponse

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Answer, Shop

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 4
RANGES = [
    "bytes=0-9",
    "bytes=-5",
    "bytes=1000-",
    "bytes=0-0,5-6",
    "bytes=99999-",
    "bytes=x",
    "lines=1-2",
    "",
    "bytes=9-1",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 1 KiB."""
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    return path


def file_shop(file: Path, **options: Any) -> Shop:
    """An app with one cached route that sends the file."""
    shop = Shop(**options)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> FileResponse:
        shop.count()
        return FileResponse(file)

    return shop


def is_right(answer: Answer) -> bool:
    """A 200 with everything, or a 206 with exactly the part that it says, or an honest refusal of the range."""
    if answer.status_code == 200:
        return answer.body == CONTENT and "content-range" not in answer.headers
    if answer.status_code == 206 and b"multipart/byteranges" in b"".join(value for _, value in answer.raw):
        return all(CONTENT[at : at + 1] in answer.body for at in (0, 5))
    if answer.status_code == 206:
        unit, _, span = answer.headers["content-range"].partition(" ")
        first, _, last = span.partition("/")[0].partition("-")
        return unit == "bytes" and answer.body == CONTENT[int(first) : int(last) + 1]
    return answer.status_code in (400, 416)


@pytest.mark.parametrize("wish", RANGES)
async def test_a_range_on_a_cold_page_gets_all_of_it_and_fills(file: Path, wish: str) -> None:
    """The handler is asked for the whole, so that a 206 can never be what is stored."""
    shop = file_shop(file)
    cold = await shop.ask(headers={"range": wish})
    assert (cold.status_code, cold.body) == (200, CONTENT)
    assert_miss(cold)
    plain = await shop.ask()
    assert_hit(plain)
    assert (plain.status_code, plain.body) == (200, CONTENT)
    assert shop.calls == 1


@pytest.mark.parametrize("wish", RANGES)
async def test_a_range_on_a_warm_page_is_right(file: Path, wish: str) -> None:
    """From what is stored: all of it."""
    shop = file_shop(file)
    await shop.ask()
    assert is_right(await shop.ask(headers={"range": wish}))
    assert is_right(await shop.ask(headers={"range": wish, "if-range": '"x"'}))
    assert (await shop.ask()).body == CONTENT
    assert shop.calls == 1


@pytest.mark.parametrize("wish", RANGES)
async def test_a_range_of_what_is_too_large_to_keep_reaches_the_app(file: Path, wish: str) -> None:
    """Once the page is known not to be kept, a range gets the 206 that the app itself gives, and it is not stored."""
    shop = file_shop(file, max_body_bytes=100)
    uncached = file_shop(file)
    uncached.cache.enabled = False
    assert (await shop.ask(headers={"range": wish})).body == CONTENT
    ours, theirs = await shop.ask(headers={"range": wish}), await uncached.ask(headers={"range": wish})
    assert ours.status_code == theirs.status_code
    if "," not in wish:
        # The boundary between several parts is drawn anew each time.
        assert ours.headers.get("content-range") == theirs.headers.get("content-range")
    assert is_right(ours)
    plain = await shop.ask()
    assert (plain.status_code, plain.body) == (200, CONTENT)
    assert shop.cache.statistics().responses == 0


async def test_a_handler_that_sends_a_206_of_its_own_is_not_stored() -> None:
    """Even with nothing asked for."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, statuses={200, 201})])
    async def read() -> Response:
        shop.count()
        return Response(b"part", status_code=206, headers={"content-range": "bytes 0-3/9"})

    for times in (1, 2):
        assert (await shop.ask()).status_code == 206
        assert shop.calls == times


async def test_a_file_comes_whole_from_the_store(file: Path) -> None:
    """The bytes, type, length, validators: as on the miss, after the file is gone too."""
    shop = file_shop(file)
    miss = await shop.ask()
    file.unlink()  # noqa: ASYNC240  # a temporary file
    hit = await shop.ask()
    assert_hit(hit)
    assert hit.body == miss.body == CONTENT
    for name in ("content-type", "content-length", "etag", "last-modified"):
        assert hit.headers[name] == miss.headers[name]


@pytest.mark.parametrize("extension", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_a_fill_is_not_offered_what_bypasses_it(file: Path, extension: str) -> None:
    """A server that can send files by path gets the bytes once, so that they can be kept."""
    shop = file_shop(file)
    for _ in range(2):
        answer = await shop.ask(extensions={extension: {}, "http.response.early_hint": {}})
        assert answer.body == CONTENT
        assert {message["type"] for message in answer.messages} == {"http.response.start", "http.response.body"}
    assert shop.calls == 1


async def test_an_uncached_route_keeps_path_send(file: Path) -> None:
    """Without a policy the server's extensions stay as they are, and a file that is sent by path is."""
    shop = Shop()
    offered: list[Any] = []

    class ByPath(FileResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            offered.append(scope["extensions"])
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.pathsend", "path": str(file)})

    @shop.app.get("/")
    async def read() -> FileResponse:
        return ByPath(file)

    extensions: dict[str, Any] = {"http.response.pathsend": {}}
    answer = await shop.ask(extensions=extensions)
    assert offered == [extensions]
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.pathsend"]


async def test_a_response_that_sends_by_path_all_the_same_goes_through(file: Path) -> None:
    """A response class that does not look at what is offered: its start comes first, nothing is stored."""
    shop = Shop()

    class ByPath(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
            await send({"type": "http.response.pathsend", "path": str(file)})

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> Response:
        shop.count()
        return ByPath()

    for times in (1, 2):
        answer = await shop.ask(extensions={"http.response.pathsend": {}})
        assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.pathsend"]
        assert answer.headers["x-own"] == "1"
        assert answer.cache is not None
        assert answer.cache.detail == "extension"
        assert shop.calls == times


async def test_trailers_pass_and_are_not_stored() -> None:
    """A response with trailers keeps its messages and their order, each time."""
    shop = Shop()
    sent: list[Any] = [
        {"type": "http.response.start", "status": 200, "headers": [(b"trailer", b"x-sum")], "trailers": True},
        {"type": "http.response.body", "body": b"it", "more_body": False},
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
    ]

    class WithTrailers(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            for message in sent:
                await send(message)

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> Response:
        shop.count()
        return WithTrailers()

    for times in (1, 2):
        answer = await shop.ask(extensions={"http.response.trailers": {}})
        assert answer.messages[1:] == sent[1:]
        assert answer.messages[0]["trailers"] is True
        assert answer.cache is not None
        assert answer.cache.detail == "trailers"
        assert shop.calls == times


async def test_early_hints_go_out_before_the_answer_and_are_not_replayed() -> None:
    """An interim message passes at once; the stored response is the final one alone."""
    shop = Shop()
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}

    class Hinting(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send(hint)
            await super().__call__(scope, receive, send)

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> Response:
        return Hinting(b"it")

    assert (await shop.ask(extensions={"http.response.early_hint": {}})).messages[0] == hint
    hit = await shop.ask(extensions={"http.response.early_hint": {}})
    assert_hit(hit)
    assert len(hit.messages) == 2
