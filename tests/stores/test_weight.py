"""What a stored response is said to weigh, part by part."""

from __future__ import annotations

from sys import getsizeof

from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.stored import StoredResponse, share, weigh

FIELD = st.tuples(
    st.sampled_from([b"content-type", b"etag", b"x-own", b"vary"]),
    st.sampled_from([b"application/json", b"accept-encoding", b"gzip", b"", b'"a"']),
)


def _changed(stored: StoredResponse, **fields: object) -> StoredResponse:
    values = {
        name: getattr(stored, name)
        for name in StoredResponse.__slots__
        if name not in ("counts", "joined", "private", "verified")
    }
    return StoredResponse(**(values | fields))  # type: ignore[arg-type]


def test_a_body_counts_by_its_bytes(make_response):
    """A byte more of body is a byte more of weight."""
    stored = make_response(1)
    longer = _changed(stored, body=stored.body + b"x" * 1000)
    assert weigh(longer) == weigh(stored) + 1000


def test_a_tag_counts_in_full_and_the_reserved_one_as_nothing(make_response):
    """A tag counts its text's object and its slot; the tag that every response carries only its slot."""
    stored = make_response(1)
    assert weigh(_changed(stored, tags=("brand:7", *stored.tags))) == weigh(stored) + getsizeof("brand:7") + 8
    assert weigh(_changed(stored, tags=stored.tags[:-1])) == weigh(stored) - 8


def test_a_validator_that_is_also_a_field_counts_once(make_response):
    """The same object in two places counts once, another object with the same bytes twice."""
    stored = make_response(1)
    copy = bytes(bytearray(stored.etag))
    assert weigh(_changed(stored, etag=None)) == weigh(stored)
    assert weigh(_changed(stored, etag=copy)) == weigh(stored) + getsizeof(copy)


def test_a_field_counts_its_line_name_and_value(make_response):
    """A field of its own counts a pair, a name and a value; one made common by sharing only its slot."""
    stored = make_response(1)
    own = (b"x-own-field", b"some value")
    more = _changed(stored, headers=(*stored.headers, own))
    assert weigh(more) == weigh(stored) + getsizeof(own) + getsizeof(own[0]) + getsizeof(own[1]) + 8
    common = _changed(stored, headers=(*stored.headers, *share([(b"content-type", b"text/plain; charset=utf-8")])))
    assert weigh(common) == weigh(stored) + 8


def test_times_that_are_one_object_count_once(make_response):
    """Without early refresh the time before it and the lifetime end together."""
    stored = make_response(1)
    assert weigh(_changed(stored, early_refresh_from=stored.fresh_until)) == weigh(stored) - getsizeof(0.0)


@given(lines=st.lists(FIELD, max_size=8))
def test_sharing_changes_no_field(lines):
    """Shared lines are equal to what was given: order, duplicates and bytes."""
    assert list(share(lines)) == lines


def test_sharing_makes_one_object_of_common_names_and_lines():
    """Two responses' common names, and whole common lines, are the same objects afterwards."""
    lines = [(b"content-type", b"application/json"), (b"content-length", b"12"), (b"x-own", b"1")]
    first, second = (share([(bytes(bytearray(n)), bytes(bytearray(v))) for n, v in lines]) for _ in range(2))
    assert first[0] is second[0]
    assert first[1][0] is second[1][0]
    assert first[2][0] is not second[2][0]
