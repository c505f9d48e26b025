"""What a cached handler may return, and that a hit is the same response as the first, byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from pydantic import BaseModel

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss
from tests.helpers.life import Counted, client_of

pytestmark = pytest.mark.anyio


class Product(BaseModel):
    id: int
    name: str


async def _chunks() -> AsyncIterator[bytes]:
    for number in range(5):
        yield b"%d" % number * 100


def _plain_chunks() -> Iterator[str]:
    yield "é"
    yield "世界"


FILE = Path(__file__)

ANSWERS: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"a": [1, None, "é"]},
    "list": lambda: [1, 2],
    "str": lambda: "text",
    "int": lambda: 0,
    "None": lambda: None,
    "model": lambda: Product(id=1, name="Ünit"),
    "Response": lambda: Response(b"\x00\xff raw", media_type="application/x-raw", headers={"x-own": "1"}),
    "JSONResponse": lambda: JSONResponse({"b": 1}),
    "HTMLResponse": lambda: HTMLResponse("<p>é</p>"),
    "PlainTextResponse": lambda: PlainTextResponse("plain"),
    "empty Response": Response,
    "async stream": lambda: StreamingResponse(_chunks(), media_type="text/plain"),
    "plain stream": lambda: StreamingResponse(_plain_chunks(), media_type="text/plain"),
    "file": lambda: FileResponse(FILE),
}


def _site(cache: HTTPCache | None = None) -> tuple[FastAPI, Counted]:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    return app, Counted()


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_a_hit_is_the_first_response_again(name: str, kind: str) -> None:
    """Status, body and fields of the hit are those of the miss, and of the same app without a cache."""
    make = ANSWERS[name]
    app, counted = _site()
    bare = FastAPI()

    async def in_loop() -> Any:
        counted()
        return make()

    def in_thread() -> Any:
        counted()
        return make()

    handler: Any = in_loop if kind == "async def" else in_thread
    app.get("/it", response_model=None, dependencies=[cached(ttl=60)])(handler)
    bare.get("/it", response_model=None)(handler)
    async with client_of(bare) as client:
        plain = await client.get("/it")
    async with client_of(app) as client:
        miss, hit = await client.get("/it"), await client.get("/it")
    assert_miss(miss)
    assert_hit(hit)
    assert counted.calls == 2
    assert miss.content == hit.content == plain.content
    assert miss.status_code == hit.status_code == plain.status_code == 200
    for answer in (miss, hit):
        kept = {field: answer.headers[field] for field in plain.headers if field in answer.headers}
        assert kept == dict(plain.headers)
    ours = {"age", "cache-status", "etag", "content-length"}
    assert _without(hit, ours) == _without(miss, ours)


def _without(answer: httpx.Response, names: set[str]) -> list[tuple[str, str]]:
    return [pair for pair in answer.headers.multi_items() if pair[0] not in names]


async def test_a_response_model_is_applied_once_and_kept() -> None:
    """What the model leaves out of the response is not in the stored one either."""
    app, counted = _site()

    class Public(BaseModel):
        id: int

    @app.get("/it", response_model=Public, dependencies=[cached(ttl=60)])
    async def read() -> Any:
        counted()
        return {"id": 1, "password": "secret"}

    async with client_of(app) as client:
        for _ in range(2):
            assert (await client.get("/it")).json() == {"id": 1}
    assert counted.calls == 1


async def test_redirects_are_stored_only_where_the_policy_lists_them() -> None:
    """A 307 runs each time by default; listed, its Location is answered from the cache, and is not followed by it."""
    app, counted = _site()

    async def move() -> Any:
        return RedirectResponse(f"/new/{counted()}")

    app.get("/not", dependencies=[cached(ttl=60)])(move)
    app.get("/listed", dependencies=[cached(ttl=60, statuses={307})])(move)
    async with client_of(app) as client:
        assert [(await client.get("/not")).headers["location"] for _ in range(2)] == ["/new/1", "/new/2"]
        first, second = await client.get("/listed"), await client.get("/listed")
    assert (first.status_code, second.status_code) == (307, 307)
    assert first.headers["location"] == second.headers["location"] == "/new/3"
    assert_hit(second)


async def test_each_status_has_its_own_lifetime() -> None:
    """`statuses={200: 60, 404: 5}`: both are hits, the 404 for five seconds, and a 410 never."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app, counted = _site(cache)

    @app.get("/{status}", dependencies=[cached(ttl=60, statuses={200: 60, 404: 5}, jitter=0, early_refresh=0)])
    async def read(status: int) -> Any:
        if status != 200:
            raise HTTPException(status, f"{counted()}")
        return counted()

    async with client_of(app) as client:
        for path in ("/200", "/404", "/410"):
            await client.get(path)
        assert_hit(await client.get("/200"))
        missing = await client.get("/404")
        assert_hit(missing)
        assert (missing.status_code, missing.json()) == (404, {"detail": "2"})
        gone = await client.get("/410")
        assert_miss(gone)
        assert "detail=status" in gone.headers["cache-status"]
        clock.tick(6)
        assert_hit(await client.get("/200"))
        assert_miss(await client.get("/404"))
    assert counted.calls == 5


async def test_a_stored_error_never_comes_back_as_success() -> None:
    """A listed 503 is a 503 on every hit."""
    app, counted = _site()

    @app.get("/it", dependencies=[cached(ttl=60, statuses={200, 503})])
    async def read() -> Any:
        return JSONResponse({"call": counted()}, status_code=503)

    async with client_of(app) as client:
        answers = [await client.get("/it") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert_hit(answers[2])


async def test_a_large_file_and_a_large_stream_are_whole_and_not_kept() -> None:
    """Over `max_body_bytes`, with and without a declared length: every byte arrives, nothing is stored, and the reason is said."""
    cache = HTTPCache(max_body_bytes=10_000)
    app, _ = _site(cache)
    body = bytes(range(256)) * 400

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    @app.get("/declared", dependencies=[cached(ttl=60)])
    async def declared() -> Any:
        return Response(body)

    @app.get("/streamed", dependencies=[cached(ttl=60)])
    async def streamed() -> Any:
        return StreamingResponse(parts())

    async with client_of(app) as client:
        for path in ("/declared", "/streamed"):
            for _ in range(2):
                answer = await client.get(path)
                assert hashlib.sha256(answer.content).digest() == hashlib.sha256(body).digest()
                assert_miss(answer)
        assert "detail=too-large" in (await client.get("/declared")).headers["cache-status"]
    assert cache.statistics().responses == 0
    assert cache.statistics().refused["too-large"] >= 2
