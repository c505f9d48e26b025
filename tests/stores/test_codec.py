"""What L2 keeps comes back as it went in, on the reader's clock."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.log_types import Current, Term
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share, weigh
from fastapi_cacheinval.grammar.ranges import ContentRange
from fastapi_cacheinval.stores.codec import Codec
from fastapi_cacheinval.stores.rows import response_of, response_row
from tests.helpers.l2 import (
    CLOCKS,
    ID,
    KEY,
    LIFE_MS,
    SECRET,
    TERM,
    TERMS,
    TRACES,
    adopted,
    read,
    records,
    responses,
    written,
)

TIMES = ("created", "fresh_until", "early_refresh_from")
LIVES = st.integers(1, 2**40).flatmap(lambda life: st.tuples(st.just(life), st.integers(0, life)))
CODECS = st.sampled_from([Codec(secret, compress_from=least) for secret in (None, SECRET) for least in (0, 2048)])


def _fields(stored: StoredResponse) -> dict[str, object]:
    own = SharedResponse.__slots__ if isinstance(stored, SharedResponse) else ()
    kept = set(StoredResponse.__slots__).union(own) - {*TIMES, "counts", "joined", "private", "stamp", "verified"}
    return {name: getattr(stored, name) for name in kept}


@given(data=st.data(), codec=CODECS, now=CLOCKS, asked=CLOCKS, lives=LIVES, term=TERMS, trace=TRACES)
def test_a_response_comes_back(data, codec, now, asked, lives, term, trace):
    """Every field is equal, and each time lies as far from the reader's now as from the writer's, less what has passed."""
    life, left = lives
    stored = data.draw(responses(now))
    encoded = codec.encode(stored, key=KEY, id=ID, term=term, life_ms=life, now=now, trace=trace)
    filled: list[tuple[Term, int]] = []

    def adopt(term: Term, as_of: int) -> Stamp | None:
        filled.append((term, as_of))
        return adopted(term, as_of)

    value = read(codec, encoded, pttl_ms=left, asked=asked, adopt=adopt)
    assert type(value) is type(stored)
    assert _fields(value) == _fields(stored)
    assert value.verified == -1
    assert value.stamp == Stamp(7, stored.stamp.as_of, 0, -inf)
    assert filled == [(term, stored.stamp.as_of)]
    assert encoded[:8] == ID
    passed = (life - left) / 1000
    for name in TIMES:
        shifted = getattr(stored, name) - now + asked - passed
        assert getattr(value, name) == pytest.approx(shifted, abs=1e-3)
        # Never longer, but for what a float of that size cannot say.
        assert getattr(value, name) <= shifted + 1e-6


@given(data=st.data(), codec=CODECS, now=CLOCKS, asked=CLOCKS, lives=LIVES)
def test_a_record_comes_back(data, codec, now, asked, lives):
    """What selects among variants, their keys and its end come back, without a stamp being asked for."""
    life, left = lives
    record = data.draw(records(now))
    encoded = codec.encode(record, key=KEY, id=ID, term=TERM, life_ms=life, now=now)
    value = read(codec, encoded, pttl_ms=left, asked=asked, adopt=None)
    assert isinstance(value, VaryRecord)
    assert (value.key, value.sets, value.variants) == (KEY, record.sets, record.variants)
    assert value.until == pytest.approx(record.until - now + asked - (life - left) / 1000, abs=1e-3)


def _shared(stored: StoredResponse) -> SharedResponse:
    kept = {
        name: getattr(stored, name)
        for name in StoredResponse.__slots__
        if name not in ("counts", "joined", "private", "verified")
    }
    withheld = ((bytes(bytearray(b"surrogate-control")), bytes(bytearray(b"max-age=60"))),)
    return SharedResponse(
        withheld=withheld,
        for_all=True,
        guessed=True,
        ruled=True,
        only_fresh=False,
        part=ContentRange(0, 9, None),
        **kept,
    )


@pytest.mark.parametrize("variant", [False, True], ids=["plain", "variant"])
@pytest.mark.parametrize("shape", [lambda stored: stored, _shared], ids=["policy", "headers"])
@pytest.mark.parametrize("tags", [0, 3])
def test_a_response_weighs_what_it_weighed(make_response, variant, shape, tags):
    """To the byte: common names, lines, the tag of everything and a validator that is also sent are one object again."""
    stored = shape(make_response(1, tags=tags, variant=variant, now=100.0))
    l2 = read(Codec(None), written(Codec(None), stored, now=100.0), asked=200.0)
    assert l2 is not None
    assert weigh(l2) == weigh(stored)


@pytest.mark.parametrize(
    ("said", "kept", "guessed", "ruled"),
    [((True, True), 4, True, False), ((True, True), 5, True, False), ((False, False), 5, False, True)],
)
def test_of_what_an_earlier_release_did_not_say_the_stricter_is_taken(make_response, said, kept, guessed, ruled):
    """A guess is no rule's then, which would hold for more; and what is no guess may be a rule's."""
    stored = _shared(make_response(1))
    stored.guessed, stored.ruled = said
    row = response_row(stored, 0.0)
    older = (*row[:15], row[15][:kept], *row[16:])
    found = response_of(older, stored.body, key=KEY, stamp=stored.stamp, base=0.0)
    assert isinstance(found, SharedResponse)
    assert (found.guessed, found.ruled) == (guessed, ruled)


def test_numbers_of_policies_are_one_object(make_response):
    """What `weigh` counts as nothing because many responses share it is shared by what is read too."""
    codec = Codec(None)
    stored = [make_response(number) for number in (1, 2)]
    for each in stored:
        each.status, each.stale_if_error = 404, 86_400.5
    first, second = (read(codec, written(codec, each)) for each in stored)
    for name in ("status", "early_refresh", "stale_while_revalidate", "stale_if_error"):
        assert getattr(first, name) is getattr(second, name), name
    assert first.headers[1] is share([(b"content-type", b"application/json")])[0]


def test_more_numbers_than_policies_have_take_no_more_memory(make_response):
    """Numbers that clients or origins choose do not pile up."""
    from fastapi_cacheinval.stores import rows

    codec = Codec(None)
    for number in range(3000):
        stored = make_response(number, body=1)
        stored.stale_if_error = float(number)
        l2 = read(codec, written(codec, stored))
        assert l2.stale_if_error == number
    assert len(rows._floats) <= 1024
    assert len(rows._integers) <= 1024


def test_a_replica_says_whether_it_is_taken(make_response):
    """The stamp is the reader's own, for the writer's term and line; without a lease there is none, and no response."""
    codec = Codec(SECRET)
    replica = Replica(staleness_bound=2.0)
    replica.apply_reply(Current(replica.term), 0.0, 0.0)
    stored = make_response(1)
    stored.stamp = Stamp(4, 17, 2, 0.0)
    encoded = written(codec, stored, term=replica.term)
    l2 = read(codec, encoded, adopt=lambda term, as_of: replica.adopt(term, as_of, 1.0))
    assert l2 is not None
    assert l2.stamp == replica.adopt(replica.term, 17, 1.0)
    assert read(codec, encoded, adopt=lambda term, as_of: replica.adopt(term, as_of, 2.5)) is None


def test_a_response_ages_while_the_server_keeps_it(make_response):
    """Half a minute in the server is half a minute of age, and half a minute less of life."""
    codec = Codec(None)
    stored = make_response(0, now=1000.0)
    l2 = read(codec, written(codec, stored, now=1001.0), pttl_ms=LIFE_MS - 30_000, asked=5.0)
    assert l2 is not None
    age, left = 5.0 - l2.created, l2.fresh_until - 5.0
    assert age == pytest.approx(1001.0 - stored.created + 30, abs=1e-6)
    assert left == pytest.approx(stored.fresh_until - 1001.0 - 30, abs=1e-6)


def test_large_trace_context_is_left_out(make_response):
    """Over 4 KiB of it comes back as none."""
    codec = Codec(None)
    l2 = read(
        codec,
        written(codec, make_response(1), trace=(("traceparent", f"00-{1:032x}-{1:016x}-01"), ("baggage", "x" * 5000))),
    )
    assert l2.trace == ""


@pytest.mark.parametrize(
    "change",
    [
        {"fresh_until": inf},
        {"created": float("nan")},
        {"early_refresh_from": inf},
        {"fill_seconds": -1.0},
        {"status": 1000},
        {"downstream_ttl": inf},
        {"tags": tuple(map(str, range(8193)))},
        {"headers": ((b"x-many", b"1"),) * 4097},
    ],
)
def test_what_no_reader_would_take_is_not_written(make_response, change):
    """A value out of range, or a list over the bound, raises before there are any bytes."""
    stored = make_response(1)
    for name, value in change.items():
        setattr(stored, name, value)
    with pytest.raises(ValueError, match=r"out of range|no reader"):
        written(Codec(None), stored)


@pytest.mark.parametrize("change", [{"id": b"short"}, {"life_ms": 0}])
def test_an_id_has_eight_bytes_and_a_life_is_positive(make_response, change):
    """Anything else is the caller's mistake and raises."""
    with pytest.raises(ValueError, match="8 bytes"):
        written(Codec(None), make_response(1), **change)
