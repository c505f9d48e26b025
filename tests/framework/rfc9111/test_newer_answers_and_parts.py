"""A stored part is let go of as the whole is; only the same bytes, by a strong `ETag`, stay beside a newer answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from tests.helpers.http import ask
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

OLD = {"cache-control": "max-age=600", "etag": '"old"'}
NEW = {**OLD, "etag": '"new"'}
OF_MANY = {"content-range": "bytes 0-3/2000", "content-length": "4"}
RANGE = {"range": "bytes=0-3"}
RELOAD = {"cache-control": "no-cache"}
PRIVATE = {**NEW, **OF_MANY, "cache-control": "private"}
MULTIPART = {"content-type": "multipart/byteranges; boundary=x"}
SEVERAL = {"range": "bytes=0-1,8-9"}
LARGE = 2000


async def part(headers: dict[str, str], path: str = "/") -> Origin:
    """An origin of which the first four bytes are stored."""
    origin = Origin(max_body_bytes=1000)
    origin.says({**OF_MANY, **headers}, b"old!", status=206)
    assert (await origin.get(path, RANGE)).cache.stored
    assert (await origin.get(path, RANGE)).cache.hit
    return origin


@pytest.mark.parametrize(
    ("method", "asks", "status", "headers", "size"),
    [
        ("HEAD", {}, 404, {}, 0),
        ("HEAD", {}, 410, {}, 0),
        ("HEAD", {}, 301, {"location": "/elsewhere"}, 0),
        ("HEAD", {}, 200, NEW, 0),
        ("HEAD", {}, 200, {**OLD, "cache-control": "no-store"}, 0),
        ("HEAD", {}, 200, {"cache-control": "max-age=600"}, 0),
        ("HEAD", {}, 200, {**OLD, "content-length": "1999"}, 0),
        ("GET", {**RANGE, **RELOAD}, 404, {}, 4),
        ("GET", {**RANGE, **RELOAD}, 410, {}, 4),
        ("GET", {**RANGE, **RELOAD}, 200, {"cache-control": "no-store"}, 10),
        ("GET", {**RANGE, **RELOAD}, 206, PRIVATE, 4),
        ("GET", {**RANGE, **RELOAD}, 416, {"content-range": "bytes */2"}, 0),
        ("GET", {**SEVERAL, **RELOAD}, 206, {**NEW, **MULTIPART}, 4),
        ("GET", {}, 404, {}, 4),
        ("GET", {}, 200, {"cache-control": "no-store"}, 10),
        ("GET", {}, 200, {**NEW, "content-length": str(LARGE)}, LARGE),
        ("GET", {}, 200, NEW, LARGE),
        ("GET", {}, 200, {**OLD, "cache-control": "no-store", "content-length": str(LARGE)}, LARGE),
    ],
)
async def test_a_part_is_let_go_of_by_what_speaks_against_it(
    method: str, asks: dict[str, str], status: int, headers: dict[str, str], size: int
) -> None:
    """Whether the newer answer is of the whole or of a part, and whether it is kept or not."""
    origin = await part(OLD)
    origin.forget()
    origin.says(headers, b"n" * size, status=status)
    origin.says({**NEW, **OF_MANY}, b"new!", status=206)
    await origin.get("/", asks, method=method)
    answer = await origin.get("/", RANGE)
    assert (answer.status_code, answer.body, answer.cache.hit) == (206, b"new!", False)


@pytest.mark.parametrize("etag", ['W/"old"', "", "old"])
async def test_without_a_strong_validator_no_part_stays_beside_a_newer_answer(etag: str) -> None:
    """Nobody can tell then whether both are of the same bytes."""
    origin = await part({**OLD, "etag": etag})
    origin.forget()
    origin.says({**OLD, "etag": etag}, b"", status=200)
    origin.says({**NEW, **OF_MANY}, b"new!", status=206)
    await origin.get(method="HEAD")
    assert (await origin.get("/", RANGE)).body == b"new!"


@pytest.mark.parametrize(
    ("method", "asks", "status", "headers", "size"),
    [
        ("HEAD", {}, 200, OLD, 0),
        ("HEAD", {}, 200, {**OLD, "content-length": str(LARGE)}, 0),
        ("HEAD", {}, 304, OLD, 0),
        ("HEAD", {}, 500, {}, 0),
        ("HEAD", {}, 403, {}, 0),
        ("GET", {}, 200, {**OLD, "content-length": str(LARGE)}, LARGE),
        ("GET", {}, 200, OLD, LARGE),
        ("GET", {**SEVERAL, **RELOAD}, 206, {**OLD, **MULTIPART}, 4),
        ("GET", {**RANGE, **RELOAD}, 503, {}, 0),
        ("GET", {"authorization": "me"}, 404, {}, 0),
    ],
)
async def test_a_part_stays_where_a_newer_answer_does_not_speak_against_it(
    method: str, asks: dict[str, str], status: int, headers: dict[str, str], size: int
) -> None:
    """A large file is never kept whole: each download of it would cost the part that is."""
    origin = await part(OLD)
    origin.forget()
    origin.says(headers, b"n" * size, status=status)
    await origin.get("/", asks, method=method)
    answer = await origin.get("/", RANGE)
    assert (answer.status_code, answer.body, answer.cache.hit) == (206, b"old!", True)


async def test_what_one_caller_is_told_leaves_the_part_that_strangers_share() -> None:
    """A part that was kept by a guess is for requests without credentials."""
    origin = await part({"etag": '"old"', "last-modified": Origin().date(-86_400)})
    origin.forget()
    origin.says({"cache-control": "no-store"}, b"of one's own")
    await origin.get("/", {"cookie": "who=me"})
    await origin.get("/", {"cookie": "who=me"}, method="HEAD")
    assert (await origin.get("/", RANGE)).cache.hit


async def test_a_part_does_not_come_back_when_a_newer_whole_has_gone_stale() -> None:
    """The whole is stored for a shorter time, and answers the range until then."""
    origin = await part(OLD)
    origin.forget()
    origin.says({**NEW, "cache-control": "max-age=10"}, b"new!567890")
    origin.says(NEW, b"", status=304)
    await origin.get()
    assert (await origin.get("/", RANGE)).body == b"new!"
    origin.clock.tick(20)
    assert (await origin.get("/", RANGE)).body == b"new!"


async def test_a_part_is_kept_and_let_go_of_by_the_rule_for_queries() -> None:
    """As a whole is: for all equivalent queries."""
    rule = {"no-vary-search": 'params=("utm")'}
    origin = await part({**OLD, **rule}, "/?utm=1")
    assert (await origin.get("/?utm=2", RANGE)).cache.hit
    origin.forget()
    origin.says({}, b"", status=404)
    await origin.get("/?utm=3", method="HEAD")
    assert (await origin.get("/?utm=1", RANGE)).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_large_file_that_is_replaced_is_given_in_no_old_pieces(tmp_path: Path, method: str) -> None:
    """Files above `max_body_bytes` are stored in parts alone, with a guessed lifetime: `StaticFiles` as they come."""
    file = tmp_path / "large.bin"

    def write(letter: bytes, age: int) -> None:
        file.write_bytes(letter * 5000)
        os.utime(file, (1_700_000_000 - age, 1_700_000_000 - age))

    app = FastAPI()
    app.mount("/files", StaticFiles(directory=tmp_path))
    app.add_middleware(CacheMiddleware, cache=HTTPCache(max_body_bytes=1000), honour_headers=True)
    write(b"o", 2)
    for _ in range(2):
        assert (await ask(app, "/files/large.bin", headers=RANGE)).body == b"oooo"
    write(b"n", 1)
    await ask(app, "/files/large.bin", method=method)
    assert (await ask(app, "/files/large.bin", headers=RANGE)).body == b"nnnn"
