"""Bodies in L2: compressed where it pays, and never trusted to be as large as they say."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest

from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.stores import bodies
from fastapi_cacheinval.stores.codec import Codec
from tests.helpers.l2 import read, refused, sealed, taken_apart, written

OPEN = Codec(None)


def _small(stored: StoredResponse) -> bytes:
    return written(Codec(None, compress_from=0), stored)


def test_a_body_that_grows_past_its_bound_is_refused(make_response):
    """A compressed body that says less than it holds, or more than may be read, costs no more memory than it may."""
    reader = Codec(None, most_bytes=1 << 20)
    fields, _ = taken_apart(_small(make_response(1, body=5000)))
    bomb = zlib.compress(bytes(64 << 20), 9, -15)
    tracemalloc.start()
    try:
        for size, reason in ((10, "broken"), (1 << 20, "broken"), (64 << 20, "size")):
            fields[6], fields[7] = 1, size
            assert refused(reader, sealed(reader, fields, bomb)) == reason
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "coded",
    [
        b"",
        b"\x00",
        b"no deflate",
        zlib.compress(bytes(100), 1, -15)[:-1],
        zlib.compress(bytes(100), 1, -15) + b"\x00",
        zlib.compress(bytes(99), 1, -15),
        zlib.compress(bytes(101), 1, -15),
    ],
)
def test_a_body_has_the_size_that_it_says(make_response, coded):
    """Ended early, too short, too long, followed by more, or no compressed data: unreadable."""
    fields, _ = taken_apart(_small(make_response(1)))
    fields[6], fields[7] = 1, 100
    assert refused(OPEN, sealed(OPEN, fields, coded)) == "broken"
    fields[6] = 0
    assert refused(OPEN, sealed(OPEN, fields, b"x" * 99)) == "broken"


@pytest.mark.parametrize(
    ("headers", "body", "smaller"),
    [
        ([(b"content-type", b"application/json")], b'{"name": "lamp"}' * 200, True),
        ([], b"plain text " * 300, True),
        ([(b"content-type", b"image/svg+xml")], b"<path/>" * 500, True),
        ([(b"content-type", b"application/json")], b'{"name": "lamp"}' * 4, False),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], b"a" * 5000, False),
        ([(b"content-type", b"image/png")], b"a" * 5000, False),
        ([(b"content-type", b"Application/ZIP; x=1")], b"a" * 5000, False),
        ([(b"content-type", b"video/mp4")], b"a" * 5000, False),
    ],
)
def test_a_body_is_compressed_where_it_pays(make_response, headers, body, smaller):
    """From the size on, and not what is compressed already, by its coding or by its type; either way it comes back."""
    stored = make_response(1)
    stored.headers, stored.body = tuple(headers), body
    data = written(OPEN, stored)
    assert (len(data) < len(body)) is smaller
    assert smaller or body in data
    assert read(OPEN, data).body == body


@pytest.mark.parametrize("size", [5_000, 500_000])
def test_a_body_that_shrinks_by_less_than_a_tenth_is_kept_as_it_is(make_response, size):
    """Bytes with nothing to find in them are stored as they are."""
    body = random.Random(1).randbytes(size)
    assert bodies.squeezed((), body, 0) == (0, body)
    assert bodies.squeezed((), body[: size // 2] + bytes(size // 2), 0)[0] == (1 if size == 5_000 else 0)
    assert bodies.squeezed((), bytes(size), 0)[0] == 1
