"""Bytes that are damaged, moved, forged or of another release are a miss with a reason, and nothing else happens."""

from __future__ import annotations

import ast
import inspect
import pickle
import tracemalloc
import zlib
from math import inf, isfinite
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.grammar.ranges import ContentRange
from fastapi_cacheinval.stores import bodies, codec, rows
from fastapi_cacheinval.stores.codec import Codec, Unreadable
from tests.helpers.l2 import KEY, LIFE_MS, SECRET, read, refused, sealed, taken_apart, written

OPEN, CLOSED = Codec(None), Codec(SECRET)
BOTH = pytest.mark.parametrize("reader", [OPEN, CLOSED], ids=["checksum", "mac"])
RECORD = VaryRecord(KEY, (((b"accept-language", True),),), (b"v" * 32,), 30.0)


@pytest.fixture(params=["policy", "headers", "record"])
def value(request, make_response):
    """One of each kind of what is kept."""
    if request.param == "record":
        return RECORD
    stored = make_response(1, body=60, tags=1, variant=True)
    if request.param == "policy":
        return stored
    kept = {
        name: getattr(stored, name)
        for name in StoredResponse.__slots__
        if name not in ("counts", "joined", "private", "verified")
    }
    part = ContentRange(0, 59, 100)
    return SharedResponse(
        withheld=((b"x", b"1"),), for_all=True, guessed=False, ruled=False, only_fresh=True, part=part, **kept
    )


@BOTH
def test_every_flipped_bit_is_noticed(reader, value):
    """Whichever bit of the bytes is another, they are unreadable."""
    data = written(reader, value)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            assert refused(reader, bytes(flipped)) == ("version" if place == 8 else reader._mismatch)


@BOTH
def test_every_cut_is_noticed(reader, value):
    """Shorter at either end, or longer, they are unreadable."""
    data = written(reader, value)
    for length in range(len(data)):
        assert refused(reader, data[:length]) in {"broken", "version", reader._mismatch}
        assert refused(reader, data[len(data) - length :]) in {"broken", "version", reader._mismatch}
    assert refused(reader, data + b"\x00") == reader._mismatch


@BOTH
def test_what_was_stored_under_another_key_is_not_served(reader, value):
    """Bytes that somebody has moved from one key to another are unreadable, also where one key begins with the other."""
    data = written(reader, value)
    for other in (b"K" + KEY[1:], KEY[:-1], KEY + b"k", b""):
        assert refused(reader, data, key=other) == reader._mismatch


def test_another_secret_or_none_reads_nothing(value):
    """With a secret only bytes made with the same one are read; without one, only bytes made without."""
    for writer, other in ((CLOSED, OPEN), (OPEN, CLOSED), (CLOSED, Codec(b"another secret")), (OPEN, Codec(b""))):
        assert refused(other, written(writer, value)) == other._mismatch


@BOTH
def test_nothing_looks_into_bytes_with_a_wrong_seal(reader, value, monkeypatch):
    """The seal is compared first: damaged bytes do not reach msgpack or zlib."""
    data = bytearray(written(reader, value))
    data[20] ^= 1

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("bytes were looked into")

    monkeypatch.setattr(msgpack, "unpackb", reached)
    monkeypatch.setattr(zlib, "decompressobj", reached)
    assert refused(reader, bytes(data)) == reader._mismatch


@BOTH
def test_another_format_is_a_miss(reader, value):
    """Whatever follows it, an unknown format, kind or coding has the reason `version`."""
    data = written(reader, value)
    assert refused(reader, data[:8] + b"\x02" + data[9:]) == "version"
    assert refused(reader, data[:8] + b"\x02" + b"anything at all, of some length") == "version"
    fields, body = taken_apart(data)
    assert refused(reader, sealed(reader, [9, *fields[1:]], body)) == "version"
    if value is not RECORD:
        assert refused(reader, sealed(reader, [*fields[:6], 9, *fields[7:]], body)) == "version"


@BOTH
def test_what_a_later_release_adds_is_ignored(reader, value):
    """More fields at the end of any row change nothing."""
    data = written(reader, value)
    fields, body = taken_apart(data)
    fields[8] += ["later", [1]]
    if isinstance(value, SharedResponse):
        fields[8][15] += ["later"]
    more = read(reader, sealed(reader, [*fields, "later", 7], body))
    plain = read(reader, data)
    assert more is not None
    assert plain is not None
    kept = [name for name in type(value).__slots__ if name != "stamp"]
    assert [getattr(more, name) for name in kept] == [getattr(plain, name) for name in kept]


@pytest.mark.parametrize(
    "line",
    [
        [b"etag", b'"a"\r\nX-Evil: 1'],
        [b"x-a", b"b\nc"],
        [b"x-a", b"b\x00c"],
        [b"x-a", b"\x7f"],
        [b"\xff", b"b"],
        [b"", b"b"],
        [b"x-a: b\r\nx-c", b"d"],
        [b"x a", b"b"],
    ],
)
@pytest.mark.parametrize("value", ["policy", "headers"], indirect=True)
def test_a_line_that_no_server_can_send_is_refused(value, line):
    """A name that is no token, or a control character in a value: the page would fail for as long as it lives."""
    for withheld in (False, True) if isinstance(value, SharedResponse) else (False,):
        fields, body = taken_apart(written(OPEN, value))
        lines = fields[8][15][0] if withheld else fields[8][1]
        lines += [b"x-tab", b"a\tb \xe9"]
        assert read(OPEN, sealed(OPEN, fields, body)) is not None
        lines += line
        assert refused(OPEN, sealed(OPEN, fields, body)) == "broken"


@pytest.mark.parametrize("value", ["policy", "headers"], indirect=True)
@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_an_interim_response_is_refused(value, status):
    """No server sends a 1xx as the answer."""
    fields, body = taken_apart(written(OPEN, value))
    fields[8][0] = status
    assert refused(OPEN, sealed(OPEN, fields, body)) == "broken"


@pytest.mark.parametrize("left", [-1, -2, LIFE_MS + 1])
def test_a_life_that_cannot_be_is_refused(value, left):
    """No remaining life, no key, or more life than was given."""
    assert refused(OPEN, written(OPEN, value), pttl_ms=left) == "ttl"


@pytest.mark.parametrize(
    "packed",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 2000,
        # A list no longer than all of the bytes, which msgpack alone would take.
        b"\xdd\x00\x01\x00\x00" * 40_000,
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x80",
        b"\xc1",
        b"",
        b"\x00\x00",
    ],
)
def test_forged_fields_take_no_memory(packed):
    """Lists, maps and texts that say that they are huge, or nested without end, are refused before any is allocated."""
    data = sealed(OPEN, packed)
    tracemalloc.start()
    try:
        assert refused(OPEN, data) == "broken"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_lists_within_the_bound_in_one_another_take_bounded_memory():
    """As many lists of the longest kind as msgpack lets stand in one another take less than 100 MiB, and are refused."""
    data = sealed(OPEN, b"\xdc\x20\x00" * 50_000)
    tracemalloc.start()
    try:
        assert refused(OPEN, data) == "broken"
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


def _well_typed(found: Any) -> None:
    assert all(type(part) is bytes for line in (*found.headers, *found.vary, *found.aside) for part in line)
    assert all(len(line) == 2 for line in (*found.headers, *found.vary, *found.aside))
    assert all(type(tag) is str for tag in found.tags)
    assert found.etag is None or type(found.etag) is bytes
    assert found.last_modified is None or isfinite(found.last_modified)
    assert found.downstream_ttl is None or 0 <= found.downstream_ttl < inf
    assert type(found.status) is int
    assert type(found.must_revalidate) is type(found.anonymous) is bool
    for name in ("created", "fresh_until", "fill_seconds", "early_refresh", "stale_while_revalidate", "stale_if_error"):
        assert type(getattr(found, name)) is float, name
        assert isfinite(getattr(found, name)), name
    assert found.early_refresh_from < float("inf")
    if isinstance(found, SharedResponse):
        assert type(found.for_all) is type(found.only_fresh) is type(found.guessed) is type(found.ruled) is bool
        assert found.part is None or type(found.part.first) is type(found.part.last) is int


def _swap(fields: list[Any], place: int, new: Any) -> None:
    """Put something else in one place of the fields, of the row or of what steers."""
    if place < 9:
        fields[place] = new
    elif place - 9 < len(fields[8]):
        fields[8][place - 9] = new
    elif len(fields[8]) > 15 and isinstance(fields[8][15], list):
        fields[8][15][(place - 9) % len(fields[8][15])] = new


@pytest.mark.parametrize("place", range(9 + 18 + 4))
def test_no_field_is_trusted(value, place):
    """Anything in any place, under a good seal, is refused, or it is of the right type."""

    @settings(max_examples=50)
    @given(new=ANYTHING)
    def tried(new):
        fields, body = taken_apart(written(OPEN, value))
        _swap(fields, place, new)
        try:
            l2 = read(OPEN, sealed(OPEN, fields, body))
        except Unreadable:
            return
        assert l2 is not None
        if isinstance(l2, VaryRecord):
            assert all(type(name) is bytes and type(raw) is bool for each in l2.sets for name, raw in each)
            assert all(type(each) is bytes for each in l2.variants)
            assert isfinite(l2.until)
        else:
            _well_typed(l2)

    tried()


@pytest.mark.parametrize("place", [0, 1, 2, 4, 6, 7])
def test_a_number_below_nothing_is_refused(make_response, place):
    """Kind, life, term, line, coding and size count from 0."""
    fields, body = taken_apart(written(OPEN, make_response(1, body=60)))
    fields[place] = -1
    assert refused(OPEN, sealed(OPEN, fields, body), pttl_ms=0) == "broken"


@pytest.mark.parametrize("part", [[5, 4, 100], [0, 100, 100], [-1, 5, 100], [0, 5], [0, 5, 100, 1], [0, None, 100]])
def test_a_range_that_is_none_is_refused(make_response, part):
    """Its ends are in order and inside of the whole."""
    fields, body = taken_apart(written(OPEN, make_response(1, body=60)))
    fields[8][15] = [[], True, True, [0, 59, 100]]
    assert read(OPEN, sealed(OPEN, fields, body)).part == (0, 59, 100)
    fields[8][15] = [[], True, True, part]
    assert refused(OPEN, sealed(OPEN, fields, body)) == "broken"


@given(data=st.binary(max_size=200))
def test_random_bytes_are_a_miss(data):
    """Never anything but `Unreadable`, with a seal or without."""
    for reader in (OPEN, CLOSED):
        refused(reader, data)
        refused(reader, data[:8] + b"\x01" + data)
        refused(reader, sealed(reader, data))


class _Boom:
    ran = False

    def __reduce__(self):
        return exec, ("import tests.helpers.l2 as far; far.RAN = True",)


def test_a_pickle_is_only_bytes():
    """One with a good seal is unreadable and does not run; the modules import nothing that could run it."""
    from tests.helpers import l2

    for data in (pickle.dumps(_Boom()), sealed(OPEN, pickle.dumps(_Boom()))):
        assert refused(OPEN, data)
    assert not hasattr(l2, "RAN")
    for module in (codec, rows, bodies):
        tree = ast.parse(inspect.getsource(module))
        imported = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        }
        assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "importlib"}


@BOTH
@pytest.mark.parametrize("again_ms", [LIFE_MS, LIFE_MS // 2, 1])
def test_a_value_that_is_set_again_after_its_end_is_refused(reader, value, again_ms):
    """Whatever life it is given, the sealed time of the log says how old it is."""
    data = written(reader, value, server_time=1_000.0)
    assert read(reader, data, pttl_ms=again_ms, server_time=1_000.0 + LIFE_MS / 1000 - 1) is not None
    assert refused(reader, data, pttl_ms=again_ms, server_time=1_000.0 + LIFE_MS / 1000 + 1) == "replayed"


@BOTH
def test_a_value_that_is_set_again_before_its_end_is_as_old_as_it_is(reader, value):
    """A new life makes nothing younger; a shorter one makes it older, as ever."""
    data = written(reader, value, server_time=1_000.0)

    def begins(pttl_ms: int, server_time: float | None) -> float:
        found = read(reader, data, pttl_ms=pttl_ms, server_time=server_time, asked=500.0)
        return float(found.until if value is RECORD else found.created)

    honest = begins(LIFE_MS - 20_000, None)
    assert begins(LIFE_MS - 20_000, 1_020.0) == pytest.approx(honest)
    assert begins(LIFE_MS, 1_020.0) == pytest.approx(honest)
    assert begins(LIFE_MS - 30_000, 1_020.0) == pytest.approx(honest - 10)
    # Two replicas may know the server's clock a little differently, and it may step back.
    assert begins(LIFE_MS - 20_000, 1_020.05) == pytest.approx(honest)
    assert begins(LIFE_MS - 20_000, 900.0) == pytest.approx(honest)


@BOTH
def test_a_value_that_does_not_say_when_it_was_written_is_too_old(reader, value):
    """Where the log's time is known nothing is taken that could have been written at any time."""
    assert refused(reader, written(reader, value), server_time=1_000_000.0) == "replayed"
    fields, body = taken_apart(written(reader, value, server_time=1_000.0))
    assert refused(reader, sealed(reader, fields[:9], body), server_time=1_000_000.0) == "replayed"
    assert refused(reader, sealed(reader, [*fields[:9], -1], body), server_time=1_000.0) == "broken"
