"""The cost of writing a stored response into L2 and of reading it there: processor time and bytes, by body size."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from itertools import count
from math import inf
from statistics import median
from typing import NamedTuple

from bench.report import Options, Table, reached
from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.stores.codec import COMPRESS_FROM, Codec

__all__ = ["run"]

_SIZES = (100, 512, 1024, 2048, 4096, 16 * 1024, 64 * 1024, 256 * 1024, 1024 * 1024)
_MOST_DECODE_US = 20.0
_WORDS = ("brass", "classic", "garden", "green", "lamp", "oak", "reading", "steel", "studio", "table", "walnut")
_TERM = Term(1, "0123456789abcdef")
_LIFE_MS = 300_000
_NEVER = 1 << 40


class _Cost(NamedTuple):
    encode: float
    decode: float
    size: int


def _body(size: int) -> bytes:
    """A list of products as JSON, cut to size: names, prices and times, as an API has them."""
    draw = random.Random(size)
    text = "["
    for number in count(draw.randrange(10**6)):
        if len(text) >= size:
            return text[:size].encode()
        product = {
            "id": number,
            "name": " ".join(draw.choices(_WORDS, k=3)),
            "price": round(draw.uniform(1, 900), 2),
            "brand_id": draw.randrange(500),
            "in_stock": draw.random() < 0.8,
            "description": " ".join(draw.choices(_WORDS, k=12)),
            "updated_at": f"2026-0{draw.randrange(1, 9)}-1{draw.randrange(9)}T1{draw.randrange(9)}:22:07Z",
        }
        text += json.dumps(product) + ", "
    raise AssertionError


def _response(size: int) -> StoredResponse:
    etag = b'"0123456789abcdef0123456789abcdef"'
    lines = [
        (b"content-length", b"%d" % size),
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-cache"),
        (b"etag", etag),
        (b"x-request-id", b"f81d4fae7dec11d0a76500a0c91e6bf6"),
    ]
    return StoredResponse(
        key=b"k" * 32,
        status=200,
        headers=share(lines),
        body=_body(size),
        etag=etag,
        last_modified=None,
        tags=("products", "product:4711", "brand:12", "\x01path:/products/4711", ALL),
        vary=(),
        stamp=Stamp(0, 1234, 0, 99.0),
        created=100.0,
        fresh_until=390.0,
        early_refresh_from=389.0,
        fill_seconds=0.02,
        early_refresh=1.0,
        stale_while_revalidate=60.0,
        stale_if_error=600.0,
        must_revalidate=False,
        anonymous=True,
    )


def _microseconds(work: Callable[[], object], times: int) -> float:
    """The median batch's processor time of one call."""
    batches = []
    for _ in range(7):
        began = time.thread_time_ns()
        for _ in range(times):
            work()
        batches.append((time.thread_time_ns() - began) / times / 1000)
    return median(batches)


def _cost(stored: StoredResponse, codec: Codec, times: int) -> _Cost:
    def encode() -> bytes:
        return codec.encode(stored, key=stored.key, id=b"01234567", term=_TERM, life_ms=_LIFE_MS, now=101.0)

    def adopt(term: Term, as_of: int) -> Stamp:
        return Stamp(3, as_of, 0, -inf)

    def decode() -> object:
        return codec.decode(data, key=stored.key, pttl_ms=_LIFE_MS - 1000, asked=500.0, adopt=adopt)

    data = encode()
    if decode() is None:
        raise RuntimeError("what was written is not read")
    return _Cost(_microseconds(encode, times), _microseconds(decode, times), len(data))


def _name(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB" if size < 1024 * 1024 else "1 MiB"


def run(options: Options) -> list[Table]:
    """One row for each size, as it is and compressed."""
    rows = []
    for size in _SIZES:
        times = options.pick(max(5, min(2000, 4_000_000 // size)), 1)
        stored = _response(size)
        plain, small = (_cost(stored, Codec(b"a secret", compress_from=least), times) for least in (_NEVER, 0))
        target = size == 1024
        rows.append(
            (
                _name(size),
                f"{plain.encode:.1f}",
                f"{plain.decode:.1f}",
                f"{plain.size:,}",
                f"{small.encode:.1f}",
                f"{small.decode:.1f}",
                f"{small.size:,}",
                f"as it is under {_MOST_DECODE_US:g} µs to decode" if target else "",
                reached(plain.decode < _MOST_DECODE_US) if target else "",
            )
        )
    return [
        Table(
            "The second tier's bytes",
            "A stored response with five fields and five tags, sealed with a secret; its body a JSON list of products. "
            "Processor time of one call in µs, and bytes on the wire, as it is and compressed whatever its size; "
            f"by itself the cache compresses from {COMPRESS_FROM:,} bytes.",
            ("body", "encode", "decode", "bytes", "compressed: encode", "decode", "bytes", "target", "reached"),
            rows,
        )
    ]
