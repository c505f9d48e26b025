"""What rows say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.contrib.outbox import UnreadableRow
from fastapi_cacheinval.contrib.outbox.reading import read
from fastapi_cacheinval.sources import Change


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
    assert isinstance(found, Change)
    assert (found.tags, found.causes) == (tags, ())
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
    assert isinstance(read((1, tags, flag, flag, tags)), Change | UnreadableRow)


def test_a_trace_context_is_the_cause() -> None:
    """The fields as they were written, but for what is no text."""
    found = read((1, '["a"]', 0, 0, json.dumps({"traceparent": "00-x", "tracestate": "a=b", "more": 5})))
    assert isinstance(found, Change)
    assert found.causes == ({"traceparent": "00-x", "tracestate": "a=b"},)
