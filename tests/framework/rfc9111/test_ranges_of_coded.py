"""RFC 9110 sections 8.8.3.3 and 14: a coded response is never cut, and what is forwarded for it is of the plain one.

`GZipMiddleware` leaves the file's strong `ETag` on what it compresses, and compresses no 206.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.grammar.dates import format_date
from fastapi_cacheinval.testing import FakeClock, assert_hit
from tests.helpers.http import Answer, ask, settle, until
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

DATA = "".join(f"line {number}\n" for number in range(500)).encode()
WRITTEN = 900_000_000
LIFETIMES = {
    "fresh": "max-age=600",
    "stale": "max-age=5",
    "stale-while-revalidate": "max-age=5, stale-while-revalidate=600",
    "no-cache": "no-cache",
}
# Seconds between one request and the next.
STEP = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file, which is longer than the least that is compressed."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "f.txt").write_bytes(DATA)
    os.utime(folder / "f.txt", (WRITTEN, WRITTEN))
    return folder


class Coder:
    """A layer that codes what is no part, and leaves its `ETag`, as those for Brotli do; `all_of_it` codes parts too."""

    def __init__(self, app: Any, *, coding: bytes = b"br", varies: bool = True, all_of_it: bool = False) -> None:
        self.app = app
        self.coding = coding
        self.varies = varies
        self.all_of_it = all_of_it

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or b"gzip" not in dict(scope["headers"]).get(b"accept-encoding", b""):
            await self.app(scope, receive, send)
            return
        started: list[Any] = []
        body = bytearray()

        async def code(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            start, coded = started[0], bytes(body)
            if start["status"] == 200 or (start["status"] == 206 and self.all_of_it):
                coded = zlib.compress(coded)
                kept = [line for line in start["headers"] if line[0] != b"content-length"]
                own = [(b"content-encoding", self.coding), (b"content-length", b"%d" % len(coded))]
                start["headers"] = [*kept, *own, *([(b"vary", b"accept-encoding")] if self.varies else [])]
            await send(start)
            await send({"type": "http.response.body", "body": coded})

        await self.app(scope, receive, code)


def twins(folder: Path, control: str, *layers: tuple[Any, dict[str, Any]]) -> tuple[Any, Any, FakeClock, HTTPCache]:
    """The same app with the cache and without it, and the cache with its clock."""

    def build() -> FastAPI:
        app = FastAPI()
        app.mount("/static", StaticFiles(directory=folder))

        @app.get("/file")
        async def file() -> FileResponse:
            return FileResponse(folder / "f.txt", headers={"cache-control": control})

        for layer, options in layers:
            app.add_middleware(layer, **options)
        return app

    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    ours = build()
    # Files have a guessed lifetime behind layers that refuse nobody.
    ours.add_middleware(CacheMiddleware, cache=cache, honour_headers=True, front=True)
    return ours, build(), clock, cache


def said(answer: Answer) -> tuple[Any, ...]:
    """What a client learns of the file by an answer."""
    body = answer.body
    coding = answer.headers.get("content-encoding")
    if answer.status_code == 416:
        return 416, answer.headers["content-range"]
    if coding == "gzip" and answer.status_code == 200:
        body = gzip.decompress(body)
    # An older Starlette says it in another field.
    kind = answer.headers.get("content-type", "") + answer.headers.get("content-range", "")
    if "boundary=" in kind:
        boundary = kind.partition("boundary=")[2]
        return answer.status_code, coding, body.replace(boundary.encode(), b"-").split(b"\r\n"), answer.headers["etag"]
    return answer.status_code, answer.headers.get("content-range"), coding, body, answer.headers["etag"]


GZIP = {"accept-encoding": "gzip"}
PLAIN = {"accept-encoding": "identity"}
MODIFIED = {"if-range": format_date(WRITTEN).decode()}


def requests(etag: str) -> list[dict[str, str]]:
    """What a client with that `ETag` may ask for, with the file in hand or some of it."""
    own = {"if-range": etag}
    return [
        GZIP,
        PLAIN,
        {**GZIP, "cache-control": "no-cache"},
        {**GZIP, "range": "bytes=0-1999"},
        {**GZIP, "range": "bytes=2000-3999", **own},
        {**GZIP, "range": "bytes=4000-", **MODIFIED},
        {**GZIP, "range": "bytes=-100", "cache-control": "no-cache"},
        {**GZIP, "range": "bytes=9999-"},
        {**GZIP, "range": "bytes=0-9,4000-4009"},
        {**GZIP, "range": "bytes=0-1999", "if-range": '"other"'},
        {**PLAIN, "range": "bytes=2000-3999", **own},
    ]


async def etag_of(app: Any, path: str) -> str:
    """The file's `ETag`."""
    return str((await ask(app, path)).headers["etag"])


class Compressing:
    """`GZipMiddleware` around what is no part: an older Starlette compresses parts, which then add up for nobody."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.gzip = GZipMiddleware(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status: list[int] = []

        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])

        if scope["type"] == "http" and b"range" in dict(scope["headers"]):
            await self.app({**scope}, receive, note)
        await (self.app if status == [206] else self.gzip)(scope, receive, send)


@pytest.mark.parametrize("kind", LIFETIMES)
async def test_the_cache_says_of_a_compressed_file_what_the_app_says(folder: Path, kind: str) -> None:
    """Whoever has asked for it before, in whichever form: every part is of the file, as without the cache."""
    layer: tuple[Any, dict[str, Any]] = (Compressing, {})
    _, plain, _, _ = twins(folder, LIFETIMES[kind], layer)
    asked = requests(await etag_of(plain, "/file"))
    theirs = [said(await ask(plain, "/file", headers=headers)) for headers in asked]
    for one, other in permutations(range(len(asked)), 2):
        ours, _, clock, cache = twins(folder, LIFETIMES[kind], layer)
        for number in (one, other, one, other):
            answer = await ask(ours, "/file", headers=asked[number])
            assert said(answer) == theirs[number], (asked[one], asked[other], answer)
            await until(lambda cache=cache: not cache.statistics().refreshing)  # type: ignore[misc]
            clock.tick(STEP)


@pytest.mark.parametrize("path", ["/static/f.txt", "/file"])
@pytest.mark.parametrize(
    "layer",
    [
        (Compressing, {}),
        (Coder, {}),
        (Coder, {"coding": b"zstd", "varies": False}),
        (Coder, {"coding": b"identity, x-gzip"}),
    ],
)
async def test_the_parts_of_a_download_add_up_beside_others_who_open_the_page(
    folder: Path, path: str, layer: tuple[Any, dict[str, Any]]
) -> None:
    """The first part comes before the compressed whole is stored, the others after it."""
    ours, _, _, _ = twins(folder, "max-age=600", layer)
    got, etag = b"", ""
    for first in range(0, len(DATA), 1000):
        condition = {"if-range": etag} if etag else {}
        asks = {**GZIP, "range": f"bytes={first}-{first + 999}", **condition}
        answer = await ask(ours, path, headers=asks)
        assert answer.status_code == 206
        assert answer.headers["content-range"].endswith(f"/{len(DATA)}")
        assert "content-encoding" not in answer.headers
        again = await ask(ours, path, headers=asks)
        assert_hit(again)
        assert again.body == answer.body
        opened = await ask(ours, path, headers=GZIP)
        assert opened.status_code == 200
        assert "content-encoding" in opened.headers
        got, etag = got + answer.body, answer.headers["etag"]
    assert got == DATA
    assert_hit(await ask(ours, path, headers=GZIP))


async def test_a_part_that_a_layer_has_coded_is_passed_on_and_never_cut(folder: Path) -> None:
    """Its `Content-Range` counts bytes that its body does not have."""
    ours, plain, _, _ = twins(folder, "max-age=600", (Coder, {"all_of_it": True}))
    for asked in ("bytes=0-1999", "bytes=100-199", "bytes=0-1999", "bytes=-1000"):
        headers = {**GZIP, "range": asked}
        assert said(await ask(ours, "/file", headers=headers)) == said(await ask(plain, "/file", headers=headers))


@pytest.mark.parametrize("options", [{}, {"shared": True}])
@pytest.mark.parametrize("front", [None, True, False])
@pytest.mark.parametrize("inside", [True, False])
async def test_under_a_policy_a_range_of_a_compressed_page_gets_all_of_it(
    folder: Path, options: dict[str, Any], front: bool | None, inside: bool
) -> None:
    """The route lookup inside of the layer, the front lookup outside of it, and the layer outside of the cache."""
    app = FastAPI()

    @app.get("/file", dependencies=[cached(ttl=60, **options)])
    async def file() -> FileResponse:
        return FileResponse(folder / "f.txt")

    def cache() -> None:
        app.add_middleware(CacheMiddleware, cache=HTTPCache(), front=front)

    if not inside:
        cache()
    app.add_middleware(GZipMiddleware)
    if inside:
        cache()
    etag = await etag_of(app, "/file")
    for headers in (GZIP, PLAIN, GZIP):
        for asked in ({}, {"range": "bytes=0-99"}, {"range": "bytes=99-", "if-range": etag}, {"range": "bytes=9999-"}):
            answer = await ask(app, "/file", headers={**headers, **asked})
            body = gzip.decompress(answer.body) if "content-encoding" in answer.headers else answer.body
            assert (answer.status_code, body) == (200, DATA)
            assert "content-range" not in answer.headers


# -- by the fields of an origin ---------------------------------------------------------------------

CODED = b"0123456789"
WHOLE = {"etag": '"1"', "content-length": "10", "cache-control": "max-age=60"}
PART = {"etag": '"1"', "content-range": "bytes 0-1/2000", "cache-control": "max-age=60"}
RANGE = {"range": "bytes=0-1"}


async def coded(control: str = "max-age=60", **headers: str) -> Origin:
    """An origin whose coded ten bytes are stored, and that answers with a part from then on."""
    origin = Origin()
    origin.says({**WHOLE, "content-encoding": "br", "cache-control": control, **headers}, CODED)
    await origin.get()
    origin.forget()
    origin.says({**PART, "cache-control": control}, b"ab", status=206)
    return origin


@pytest.mark.parametrize(
    ("lines", "cut"),
    [
        (["br"], False),
        (["gzip, br"], False),
        (["identity, zstd"], False),
        (["identity", "x-gzip"], False),
        (["unknown"], False),
        (["identity"], True),
        (["Identity"], True),
        (["identity ,\tIDENTITY"], True),
        ([""], True),
        ([], True),
    ],
)
async def test_8_4_what_is_coded_is_not_cut(lines: list[str], cut: bool) -> None:
    """Any coding but `identity`, which is none: the origin is asked for the part, under the client's own fields."""
    origin = Origin()
    origin.says([*WHOLE.items(), *(("content-encoding", line) for line in lines)], CODED)
    await origin.get()
    origin.forget()
    origin.says(PART, b"ab", status=206)
    answer = await origin.get(headers={**RANGE, "if-range": '"1"'})
    assert (answer.status_code, answer.body) == (206, b"01" if cut else b"ab")
    assert answer.fields("content-range") == [b"bytes 0-1/10" if cut else b"bytes 0-1/2000"]
    assert origin.forwards == (1 if cut else 2)
    if not cut:
        assert (origin.sent("range"), origin.sent("if-range")) == ([b"bytes=0-1"], [b'"1"'])
        assert answer.cache.fwd == "request"
    plain = await origin.get()
    assert (plain.status_code, plain.body, plain.cache.hit) == (200, CODED, True)


@pytest.mark.parametrize("asked", ["bytes=99-", "bytes=10-", "bytes=-0"])
async def test_15_5_17_its_length_makes_no_416(asked: str) -> None:
    """The origin knows how long the plain one is; that there is no such range leaves the whole in use."""
    origin = await coded()
    origin.forget()
    origin.says({"content-range": "bytes */20", "cache-control": "max-age=60"}, b"", status=416)
    answer = await origin.get(headers={"range": asked})
    assert (answer.status_code, answer.fields("content-range"), origin.forwards) == (416, [b"bytes */20"], 2)
    assert (await origin.get()).cache.hit


async def test_14_2_a_coded_response_of_another_status_has_no_ranges() -> None:
    """A stored 404 is one for a range as well."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "content-encoding": "br"}, CODED, status=404)
    await origin.get()
    assert (await origin.get(headers=RANGE)).cache.hit


async def test_14_2_an_origin_without_ranges_renews_the_whole() -> None:
    """Its 200 is what everybody gets from then on, and nobody's `Range` cuts it."""
    origin = await coded()
    origin.forget()
    origin.says({**WHOLE, "etag": '"2"', "content-encoding": "br"}, b"9876543210")
    for answer in (await origin.get(headers=RANGE), await origin.get()):
        assert (answer.status_code, answer.body, answer.fields("content-range")) == (200, b"9876543210", [])
    assert origin.forwards == 2


@pytest.mark.parametrize("asks", [{}, {"cache-control": "no-cache"}, {"cache-control": "max-age=0"}])
@pytest.mark.parametrize("control", ["max-age=60", "max-age=1", "max-age=1, stale-while-revalidate=60", "no-cache"])
async def test_4_3_1_a_range_never_validates_it(asks: dict[str, str], control: str) -> None:
    """A 304 to the validators of the coded whole would say nothing of the part: fresh, stale or softly purged."""
    origin = await coded(control)
    origin.clock.tick(5)
    answer = await origin.get(headers={**RANGE, **asks})
    assert (answer.status_code, answer.body, origin.forwards) == (206, b"ab", 2)
    assert (origin.sent("range"), origin.sent("if-none-match")) == ([b"bytes=0-1"], [])


@pytest.mark.parametrize("soft", [True, False])
async def test_4_4_after_a_purge_a_range_gets_its_part(soft: bool) -> None:
    """It leads no forward of the whole, from which nothing could be cut."""
    origin = await coded(**{"cache-tag": "t"})
    await origin.cache.invalidate("t", soft=soft)
    answer = await origin.get(headers=RANGE)
    assert (answer.status_code, answer.body, origin.sent("range")) == (206, b"ab", [b"bytes=0-1"])


@pytest.mark.parametrize("stale", [True, False])
async def test_rfc5861_4_the_whole_stands_in_for_a_part_that_fails(stale: bool) -> None:
    """A `Range` may be ignored: better all of the stored response than an error, and never a cut of it."""
    origin = await coded("max-age=60, stale-if-error=600")
    origin.forget()
    origin.says(status=503)
    if stale:
        origin.clock.tick(90)
    for _ in range(2):
        answer = await origin.get(headers=RANGE)
        assert (answer.status_code, answer.body, answer.fields("content-range")) == (200, CODED, [])
        assert answer.fields("content-encoding") == [b"br"]


async def test_5_2_1_7_who_wants_only_what_is_stored_gets_the_whole() -> None:
    """The stored response is consistent with the request, whose `Range` may be ignored; a 504 would not help."""
    origin = await coded()
    for asked in (RANGE, {"range": "bytes=99-"}, {**RANGE, "if-range": '"1"'}):
        answer = await origin.get(headers={**asked, "cache-control": "only-if-cached"})
        assert (answer.status_code, answer.body, origin.forwards) == (200, CODED, 1)


async def test_13_2_2_a_condition_goes_with_the_range() -> None:
    """The origin judges `If-None-Match`, and its 304 reaches the client; without a `Range` the cache does."""
    origin = await coded()
    condition = {"if-none-match": '"1"'}
    assert (await origin.get(headers=condition)).status_code == 304
    origin.forget()
    origin.says({"etag": '"1"'}, b"", status=304)
    answer = await origin.get(headers={**RANGE, **condition})
    assert (answer.status_code, origin.sent("if-none-match"), origin.forwards) == (304, [b'"1"'], 2)
    assert (await origin.get()).cache.hit


@pytest.mark.parametrize(
    ("of_whole", "of_part", "stays"),
    [
        ('"1"', '"1"', True),
        ('W/"1"', '"1"', True),
        ('"1"', 'W/"1"', True),
        ('"1"', '"2"', False),
        ('"1-gzip"', '"1"', False),
        ('"1"', "", False),
        ("", '"1"', False),
        ("", "", False),
    ],
)
async def test_3_4_a_part_and_a_coded_whole_stay_side_by_side_by_their_version(
    of_whole: str, of_part: str, stays: bool
) -> None:
    """None is taken for the other, so a weak `ETag` does; their lengths differ, and say nothing."""
    coded_whole = {**WHOLE, "content-encoding": "br", "etag": of_whole}
    part = {**PART, "etag": of_part}

    async def whole_first(origin: Origin) -> None:
        origin.says(coded_whole, CODED)
        origin.says(part, b"ab", status=206)
        await origin.get()
        assert (await origin.get(headers=RANGE)).cache.stored
        assert (await origin.get()).cache.hit is stays

    async def part_first(origin: Origin) -> None:
        origin.says(part, b"ab", status=206)
        origin.says(coded_whole, CODED)
        origin.says(part, b"ab", status=206)
        await origin.get(headers=RANGE)
        assert (await origin.get()).cache.stored
        found = await origin.get(headers=RANGE)
        assert (found.status_code, found.body, found.cache.hit) == (206, b"ab", stays)

    for come in (whole_first, part_first):
        await come(Origin())


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_3_a_coded_part_is_not_kept(coding: str) -> None:
    """It is passed on, and lets go of nothing that is of the same version."""
    origin = await coded()
    origin.forget()
    origin.says({**PART, "content-encoding": coding}, b"ab", status=206)
    for forwards in (2, 3):
        answer = await origin.get(headers=RANGE)
        assert (answer.status_code, answer.body, answer.cache.detail) == (206, b"ab", "partial")
        assert origin.forwards == forwards
    assert (await origin.get()).cache.hit


async def test_4_who_has_waited_for_a_whole_that_comes_coded_asks_for_its_part() -> None:
    """The plain whole before it is stale, and could be cut."""
    origin = Origin()
    origin.says({**WHOLE, "cache-control": "max-age=1"}, CODED)
    await origin.get()
    origin.clock.tick(5)
    origin.forget()
    origin.says({**WHOLE, "content-encoding": "br"}, b"9876543210")
    origin.says(PART, b"ab", status=206)
    origin.gate = asyncio.Event()
    leads = origin.call()
    await until(lambda: origin.forwards == 2)
    waits = origin.call(headers=RANGE)
    await settle()
    assert origin.forwards == 2
    origin.gate.set()
    assert (await leads.answer()).body == b"9876543210"
    answer = await waits.answer()
    assert (answer.status_code, answer.body, origin.forwards) == (206, b"ab", 3)


async def test_4_a_refresh_asks_for_the_whole() -> None:
    """What a plain request orders in the background has no `Range`, and what it brings is not cut."""
    origin = await coded("max-age=1, stale-while-revalidate=60")
    origin.clock.tick(5)
    origin.forget()
    origin.says({**WHOLE, "content-encoding": "br", "etag": '"2"'}, b"9876543210")
    await origin.get()
    await until(lambda: origin.forwards == 2)
    assert origin.sent("range") == []
    assert (await origin.get()).body == b"9876543210"
