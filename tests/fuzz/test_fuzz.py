"""Random sequences of requests to an app with and without the cache: any difference is a failure.

CACHEINVAL_FUZZ_EXAMPLES sets how many sequences are run; with --hypothesis-profile=explore they are
other ones at each run.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from fastapi import Response
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval import cached
from tests.helpers.http import Shop, asked_by_scope, echoing, same, scope_of

EXAMPLES = int(os.environ.get("CACHEINVAL_FUZZ_EXAMPLES", "60"))
# A long run has no limit but its number.
pytestmark = pytest.mark.timeout(60 if EXAMPLES <= 60 else 0)

PIECES = [
    "a",
    "1",
    "42",
    "042",
    "%",
    "%2F",
    "%zz",
    "/",
    "//",
    ".",
    "..",
    "\x00",
    "é",
    "\ud800",
    "{",
    "+",
    " ",
    ";",
    "?",
]
HEADER_NAMES = [
    b"accept",
    b"accept-encoding",
    b"accept-language",
    b"authorization",
    b"cache-control",
    b"cookie",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"origin",
    b"pragma",
    b"range",
    b"vary",
    b"x-other",
]
VALUES = [
    b"",
    b'"',
    b"*",
    b",",
    b'W/"',
    b"gzip",
    b"gzip;q=0",
    b"GZIP , br",
    b"identity",
    b"en",
    b"en, de",
    b"no-cache",
    b"max-age=0",
    b"no-store",
    b"bytes=0-0",
    b"Mon, 01 Jan 2024 00:00:00 GMT",
    b"\xff\x00",
    b"~0",
    b"=1:a",
    b"x" * 300,
]
QUERY_PIECES = [
    b"q=",
    b"many=",
    b"other=",
    b"&",
    b"=",
    b"%",
    b"%26",
    b"%00",
    b"%ff",
    b"\xff",
    b"a",
    b"b",
    b"+",
    b";",
    b":",
]

paths = st.one_of(
    st.sampled_from(["/items/1", "/items/42", "/spoken", "/plain", "/text/a", "/text/"]),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["/items/", "/text/", "/", ""]), st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
        ),
    ),
)
queries = st.one_of(
    st.just(b""), st.lists(st.sampled_from(QUERY_PIECES), max_size=6).map(b"".join), st.binary(max_size=20)
)
fields = st.lists(
    st.tuples(st.sampled_from(HEADER_NAMES), st.one_of(st.sampled_from(VALUES), st.binary(max_size=20))), max_size=4
)
hosts = st.one_of(
    st.just([b"test"]), st.lists(st.sampled_from([b"test", b"TEST", b"other", b"", b"test:80", b"\xff"]), max_size=2)
)
methods = st.sampled_from(["GET"] * 8 + ["HEAD", "OPTIONS", "PUT", "FOO", ""])


@st.composite
def requests(draw: Any) -> Any:
    """One scope."""
    path = draw(paths)
    scope = scope_of("/", host=None, method=draw(methods))
    headers = [(b"host", host) for host in draw(hosts)] + draw(fields)
    return scope | {
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": draw(queries),
        "headers": headers,
        "scheme": draw(st.sampled_from(["http", "http", "https"])),
    }


async def _play(sequence: list[Any], steps: list[int]) -> None:
    shop, uncached = echoing(l1_max_bytes=128 * 1024, max_variants=3), echoing(enabled=False)
    for step in steps:
        scope = sequence[step % len(sequence)]
        if scope["method"] == "HEAD":
            # The framework answers 405 to it; ours answers what the GET would be answered.
            ours = await _unless_raised(shop, scope)
            theirs = await _unless_raised(uncached, scope | {"method": "GET"})
            if ours is not None and theirs is not None and ours.status_code not in (304, 405):
                assert ours.status_code == theirs.status_code
                assert ours.body == b"" or ours.cache is None
        else:
            await same(shop, uncached, scope)
    statistics = shop.cache.statistics()
    assert statistics.forwards_under_way == 0
    assert statistics.size_bytes <= 128 * 1024
    await shop.cache.stop()


async def _unless_raised(shop: Shop, scope: Any) -> Any:
    try:
        return await asked_by_scope(shop, scope)
    except Exception:  # noqa: BLE001  # the framework's own trouble with this input, which `same` compares
        return None


@given(
    sequence=st.lists(requests(), min_size=1, max_size=5),
    steps=st.lists(st.integers(0, 4), min_size=2, max_size=14),
)
@settings(max_examples=EXAMPLES)
def test_random_requests_are_answered_as_without_the_cache(sequence: list[Any], steps: list[int]) -> None:
    """Requests repeated in random order: each answer is that of the app itself, and nothing is left under way."""
    asyncio.run(_play(sequence, steps))


@given(
    status=st.sampled_from([200, 200, 200, 204, 206, 301, 304, 404, 500, 503]),
    lines=st.lists(
        st.tuples(
            st.sampled_from([b"cache-control", b"Vary", b"etag", b"age", b"last-modified", b"connection", b"Content-Length",
                             b"surrogate-key", b"x-any", b"X-Any", b"content-type", b"date", b"expires", b"cache-status"]),
            st.one_of(st.sampled_from([*VALUES, b"9", b"-1", b"9" * 30, b"private", b"must-revalidate", b'"e"', b"x-any",
                                       b"accept", b"text/event-stream"]), st.binary(max_size=12)),
        ),
        max_size=6,
    ),
    chunks=st.lists(st.binary(max_size=20), max_size=4),
    ending=st.booleans(),
)  # fmt: skip
@settings(max_examples=EXAMPLES)
def test_random_responses_reach_the_client_as_the_app_made_them(
    status: int, lines: list[tuple[bytes, bytes]], chunks: list[bytes], ending: bool
) -> None:
    """Whatever an app answers with, its status, content and own lines come through, cold and warm, in bounded steps."""

    class Odd(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": status, "headers": lines})
            for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if ending:
                await send({"type": "http.response.body"})

    async def play() -> None:
        shop = Shop()

        @shop.app.get("/", dependencies=[cached(ttl=60, statuses={200, 204, 301, 404})])
        async def read() -> Response:
            shop.count()
            return Odd()

        length = next((value for name, value in lines if name == b"Content-Length"), None)
        for _ in range(3):
            call = shop.call()
            await call.task
            answer = [message for message in call.messages if message["type"] == "http.response.start"]
            if not answer:
                # Nothing but a start that was never followed by anything.
                assert not chunks
                assert not ending
                continue
            assert answer[0]["status"] == status
            if length is None or not length.isdigit():
                assert call.body == b"".join(chunks)
            else:
                assert b"".join(chunks).startswith(call.body)
            own = {(name.lower(), value) for name, value in lines if name.lower() == b"x-any"}
            assert own <= set(answer[0]["headers"]) or any(name == b"connection" for name, _ in lines)
        assert shop.cache.statistics().forwards_under_way == 0
        await shop.cache.stop()

    asyncio.run(play())
