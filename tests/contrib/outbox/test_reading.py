"""What rows say, and which go into one purge."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.contrib.outbox import UnreadableRow
from fastapi_cacheinval.contrib.outbox.reading import MOST_TAGS, Purge, in_few, read


@pytest.mark.parametrize(
    ("row", "tags"),
    [
        ((1, '["a", "b"]', 0, 0, None), ("a", "b")),
        ((1, b'["a", null]', False, False, None), ("a",)),
        ((1, "[]", True, 0, None), ()),
        ((1, "no list, and not asked for", 0, 1, None), ()),
        ((1, '["a"]', 0, 0, "no trace"), ("a",)),
        ((1, '["a"]', 0, 0, "[1]"), ("a",)),
    ],
)
def test_a_row_says_what_to_purge(row: Any, tags: tuple[str, ...]) -> None:
    """Null stands for nothing; with `everything` the tags are not looked at; a trace that is none is left out."""
    found = read(row)
    assert isinstance(found, Purge)
    assert (found.ids, found.tags, found.causes) == ((1,), tags, ())
    assert (found.soft, found.everything) == (bool(row[2]), bool(row[3]))


@pytest.mark.parametrize(
    "row",
    [
        (1, "product:1", 0, 0, None),
        (1, '{"a": 1}', 0, 0, None),
        (1, '"a"', 0, 0, None),
        (1, "null", 0, 0, None),
        (1, None, 0, 0, None),
        (1, 5, 0, 0, None),
        (1, '["a", 5]', 0, 0, None),
        (1, '["a", ["b"]]', 0, 0, None),
        (1, '["a", false]', 0, 0, None),
        (1, b"\xff", 0, 0, None),
        (1, "[" * 100_000, 0, 0, None),
        (1, '["a"]', "x", 0, None),
        (1, '["a"]', 0, None, None),
        (1, '["a"]', 0, 7, None),
    ],
)
def test_a_row_that_says_nothing_that_could_be_purged(row: Any) -> None:
    """It is told apart, with its column as it is, which its repr does not show."""
    found = read(row)
    assert isinstance(found, UnreadableRow)
    assert found.tags is row[1]
    assert str(row[1]) not in repr(found) or row[1] in (None, 5)


@given(st.one_of(st.text(), st.binary(), st.none(), st.integers()), st.one_of(st.integers(), st.none(), st.text()))
def test_nothing_in_a_row_ends_the_reading(tags: Any, flag: Any) -> None:
    """Whatever stands in it."""
    assert isinstance(read((1, tags, flag, flag, tags)), Purge | UnreadableRow)


purges = st.lists(
    st.builds(
        lambda count, soft, everything: (count, soft, everything),
        st.one_of(st.integers(0, 600), st.integers(0, 3 * MOST_TAGS)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@given(purges)
def test_neighbours_become_one_and_nothing_is_lost_or_moved(rows: list[Any]) -> None:
    """Numbers and tags keep their order, no purge is too large, and none names a row before the last of its tags."""
    made = [
        Purge(
            (number,),
            tuple(f"{number}:{each}" for each in range(tags)),
            soft,
            everything,
            ({"traceparent": str(number)},),
        )
        for number, (tags, soft, everything) in enumerate(rows)
    ]
    few = in_few(made)
    assert [number for purge in few for number in purge.ids] == list(range(len(made)))
    assert [tag for purge in few for tag in purge.tags] == [tag for purge in made for tag in purge.tags]
    told: set[str] = set()
    for purge in few:
        assert len(purge.tags) <= MOST_TAGS
        told.update(purge.tags)
        of = {int(cause["traceparent"]) for cause in purge.causes}
        assert of >= {*purge.ids, *(int(tag.partition(":")[0]) for tag in purge.tags)}
        assert {(made[number].soft, made[number].everything) for number in of} == {(purge.soft, purge.everything)}
        for number in purge.ids:
            assert told >= set(made[number].tags)


@pytest.mark.parametrize("count", [0, 1, 50, 100])
def test_small_neighbours_are_one_purge(count: int) -> None:
    """A hundred rows of the same kind cost one script in Redis."""
    made = [Purge((number,), (f"{number}",), False, False, ()) for number in range(count)]
    assert len(in_few(made)) == min(count, 1)


def test_a_trace_context_is_the_cause() -> None:
    """The fields as they were written, but for what is no text."""
    found = read((1, '["a"]', 0, 0, json.dumps({"traceparent": "00-x", "tracestate": "a=b", "more": 5})))
    assert isinstance(found, Purge)
    assert found.causes == ({"traceparent": "00-x", "tracestate": "a=b"},)
