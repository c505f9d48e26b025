"""How many tags a response or a purge may have, and that it costs no more to give more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.tag_limits import (
    MOST_TAG_BYTES,
    MOST_TAGS,
    BoundedTags,
    bounded_tags,
    for_one_purge,
    surrogate_tags,
    too_many_tags,
)
from fastapi_cacheinval.core.tags import ALL, normalise_tag, path_tag


def test_as_many_as_are_allowed_are_normalised_and_more_are_everything() -> None:
    """Duplicates and empty ones count for nothing."""
    most = [f"tag:{number}" for number in range(MOST_TAGS)]
    assert bounded_tags(["", *most, *most]) == tuple(most)
    assert bounded_tags([*most, "one more"]) == (ALL,)
    assert bounded_tags(["a b", "ü"]) == ("a%20b", "%C3%BC")


def test_the_bytes_are_bounded_too() -> None:
    """Long texts, and those that have to be encoded."""
    assert bounded_tags(["x" * MOST_TAG_BYTES]) == (normalise_tag("x" * MOST_TAG_BYTES),)
    assert bounded_tags(["x" * MOST_TAG_BYTES, "y"]) == (ALL,)
    assert bounded_tags(["ü" * MOST_TAG_BYTES]) == (ALL,)
    assert for_one_purge(tuple([path_tag("/" + "ü" * 300 + str(number)) for number in range(8_000)])) == (ALL,)
    assert for_one_purge(tuple([path_tag("/" + "ü" * 200 + str(number)) for number in range(8_000)])) != (ALL,)
    assert for_one_purge(tuple([path_tag("/\udcff" * 200 + str(number)) for number in range(8_000)])) == (ALL,)


@given(
    st.lists(st.sampled_from(["", "a", "b", "c d", "ü", "xxxxxxxx"]), max_size=9), st.integers(0, 4), st.integers(0, 30)
)
def test_what_is_added_at_once_comes_to_the_same(texts: list[str], most_tags: int, most_bytes: int) -> None:
    """As what is added one by one: the tags, and whether they were too many."""
    at_once, singly = BoundedTags(most_tags, most_bytes), BoundedTags(most_tags, most_bytes)
    at_once.add(tuple(texts))
    singly.add(iter(texts))
    assert at_once.tags() == singly.tags()


def test_it_stops_at_the_limit() -> None:
    """What comes after it is not even looked at."""

    def endless() -> object:
        number = 0
        while True:
            number += 1
            yield f"tag:{number}"

    assert bounded_tags(endless()) == (ALL,)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [b"surrogate-key", b"cache-tag", b"edge-cache-tag", b"cache-groups"])
@pytest.mark.parametrize("separator", [b" ", b","])
def test_a_response_that_names_too_many_is_known_without_parsing(name: bytes, separator: bytes) -> None:
    """By fields, by what was collected, and by both together."""
    half = separator.join(b"tag:%d" % number for number in range(MOST_TAGS // 2))
    collected = [f"own:{number}" for number in range(MOST_TAGS // 2)]
    assert not too_many_tags((), [(name, half)])
    assert not too_many_tags(collected, [(name, half)])
    assert too_many_tags([*collected, "more"], [(name, half)])
    assert too_many_tags((), [(name, half), (name, half), (name, b"more")])
    assert too_many_tags((ALL,), [])
    assert too_many_tags((), [(name, b"x" * (MOST_TAG_BYTES + 1))])


@pytest.mark.parametrize(
    "value",
    [
        b"\t".join(b"tag:%d" % number for number in range(MOST_TAGS + 1)),
        b" ".join(f"é{number}".encode() for number in range(MOST_TAGS // 2 + 1)),
        b"\xe9" * (MOST_TAG_BYTES // 8 + 1),
    ],
    ids=["between tabs", "in two readings", "that cost more"],
)
def test_what_is_no_longer_told_apart_is_too_many(value: bytes) -> None:
    """A response that became one of everything would be stored under none of its tags."""
    headers = [(b"surrogate-key", value)]
    assert surrogate_tags(headers) == (ALL,)
    assert too_many_tags((), headers)


def test_a_field_that_is_too_long_is_everything() -> None:
    """On an unsafe request it purges."""
    assert surrogate_tags([(b"surrogate-key", b"a b"), (b"surrogate-key", b"c")]) == ("a", "b", "c")
    assert surrogate_tags([(b"surrogate-key", b"a " * MOST_TAG_BYTES)]) == (ALL,)
