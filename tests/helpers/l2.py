"""Responses and records of every shape, the bytes of what is wrong with them, and reading either."""

from __future__ import annotations

from math import inf
from struct import pack
from typing import Any

import msgpack
import pytest
from hypothesis import strategies as st

from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share
from fastapi_cacheinval.grammar.ranges import ContentRange
from fastapi_cacheinval.stores.codec import Codec, Unreadable

KEY = b"k" * 32
ID = b"\x00\x01\x02\x03\xff\xfe\xfd\xfc"
TERM = Term(3, "5f0c")
SECRET = b"a secret of some length"
LIFE_MS = 60_000

# Everything that Python's text can hold: a path may have lone surrogates.
TEXT = st.text(st.characters(), max_size=40)
_NAMES = st.sampled_from([b"content-type", b"etag", b"x-own", b"vary", b"set"])
_VALUES = st.sampled_from([b"application/json", b"gzip", b'"a"'])
_SELECTED = st.lists(st.tuples(_NAMES | st.binary(max_size=12), _VALUES | st.binary(max_size=40)), max_size=8)
_LINES = st.lists(
    st.tuples(
        _NAMES | st.from_regex(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,12}", fullmatch=True),
        _VALUES | st.from_regex(rb"[\t\x20-\x7e\x80-\xff]{0,40}", fullmatch=True),
    ),
    max_size=8,
)
_SECONDS = st.floats(0, 1e8)
_PARTS = st.none() | st.tuples(st.integers(0, 99), st.integers(100, 199), st.none() | st.integers(200, 2**63)).map(
    lambda each: ContentRange(*each)
)
CLOCKS = st.floats(0, 1e9)
TERMS = st.builds(Term, st.integers(0, 2**53), TEXT)
TRACES = st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple)


@st.composite
def responses(draw: Any, now: float) -> StoredResponse:
    """A response of either kind whose times are about `now`."""
    headers = draw(_LINES)
    sent = [value for name, value in headers if name == b"etag"]
    fields: dict[str, Any] = {
        "key": KEY,
        "status": draw(st.integers(200, 599)),
        "headers": share(headers),
        "body": draw(st.binary(max_size=300) | st.integers(1, 3000).map(lambda size: b"abcdefgh " * size)),
        "etag": draw(st.sampled_from([None, *sent]) | st.binary(max_size=40)),
        "last_modified": draw(st.none() | st.floats(-1e9, 1e10)),
        "tags": tuple(draw(st.lists(TEXT, max_size=8))),
        "vary": tuple(draw(_SELECTED)),
        "stamp": Stamp(draw(st.integers(0, 9)), draw(st.integers(0, 2**53)), draw(st.integers(0, 9)), now - 1),
        "created": now - draw(_SECONDS),
        "fresh_until": now + draw(st.floats(-1e8, 1e8)),
        "early_refresh_from": draw(st.just(-inf) | st.floats(-1e8, 1e8).map(lambda seconds: now + seconds)),
        "fill_seconds": draw(_SECONDS),
        "early_refresh": draw(st.floats(0, 100)),
        "stale_while_revalidate": draw(_SECONDS),
        "stale_if_error": draw(_SECONDS),
        "must_revalidate": draw(st.booleans()),
        "anonymous": draw(st.booleans()),
        "downstream_ttl": draw(st.none() | st.floats(0, 1e9)),
    }
    if draw(st.booleans()):
        return StoredResponse(**fields)
    return SharedResponse(
        withheld=tuple(draw(_LINES)),
        for_all=draw(st.booleans()),
        guessed=draw(st.booleans()),
        ruled=draw(st.booleans()),
        only_fresh=draw(st.booleans()),
        part=draw(_PARTS),
        **fields,
    )


@st.composite
def records(draw: Any, now: float) -> VaryRecord:
    """A record of what selects, whose end is about `now`."""
    selector = st.tuples(st.binary(max_size=20), st.booleans())
    sets = draw(st.lists(st.lists(selector, max_size=4).map(tuple), max_size=4))
    variants = draw(st.lists(st.binary(min_size=32, max_size=32), max_size=6))
    return VaryRecord(KEY, tuple(sets), tuple(variants), now + draw(st.floats(-1e8, 1e8)))


def adopted(term: Term, as_of: int) -> Stamp | None:
    """A stamp for whatever comes."""
    return Stamp(7, as_of, 0, -inf)


def written(codec: Codec, value: StoredResponse | VaryRecord, **changed: Any) -> bytes:
    """A value's bytes, under the usual key, id, term and life."""
    options: dict[str, Any] = {"key": KEY, "id": ID, "term": TERM, "life_ms": LIFE_MS, "now": 0.0}
    return codec.encode(value, **(options | changed))


def read(codec: Codec, data: bytes, **changed: Any) -> Any:
    """What bytes say, under the usual key and with all of their life before them."""
    options: dict[str, Any] = {"key": KEY, "pttl_ms": LIFE_MS, "asked": 0.0, "adopt": adopted}
    return codec.decode(data, **(options | changed))


def refused(codec: Codec, data: bytes, **changed: Any) -> str:
    """Why bytes are unreadable."""
    with pytest.raises(Unreadable) as caught:
        read(codec, data, **changed)
    return caught.value.reason


def taken_apart(data: bytes) -> tuple[list[Any], bytes]:
    """The fields and the coded body inside of bytes."""
    length = int.from_bytes(data[9:13], "big")
    fields = msgpack.unpackb(data[13 : 13 + length], unicode_errors="surrogatepass")
    return fields, data[13 + length : -16]


def sealed(codec: Codec, fields: Any, body: bytes = b"") -> bytes:
    """Bytes with a good seal around fields that may be anything, packed already where they are bytes."""
    packed = fields if isinstance(fields, bytes) else msgpack.packb(fields, unicode_errors="surrogatepass")
    data = pack(">8sBI", ID, 1, len(packed)) + packed + body
    seal = codec._sealing(KEY)
    seal.update(data)
    return data + seal.digest()
