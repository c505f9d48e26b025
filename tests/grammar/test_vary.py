"""Vary: RFC 9110 §12.5.5 and RFC 9111 §4.1."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.vary import (
    ANY_FIELD,
    AnyField,
    add_vary,
    parse_vary,
    serialise_vary,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([b""], ()),
        ([b" , "], ()),
        ([b"Accept"], (b"accept",)),
        ([b"B, a,b , A"], (b"a", b"b")),
        ([b"b", b"a, B"], (b"a", b"b")),
        ([b"*"], ANY_FIELD),
        ([b"Accept, *"], ANY_FIELD),
        ([b"*, Accept"], ANY_FIELD),
        ([b"*, *"], ANY_FIELD),
        ([b", *"], ANY_FIELD),
        ([b"Accept", b" * "], ANY_FIELD),
        ([b"a b"], ANY_FIELD),
        ([b'"a", b'], ANY_FIELD),
        ([b"\xfc"], ANY_FIELD),
    ],
)
def test_vary_is_a_set_of_names_or_anything(values: list[bytes], expected: tuple[bytes, ...] | AnyField) -> None:
    """Names are compared without case or order; `*`, or what is no name, matches no request."""
    assert parse_vary(values) == expected


@pytest.mark.parametrize(
    ("headers", "names", "expected"),
    [
        ([], [b"Accept"], [(b"vary", b"Accept")]),
        ([], [], []),
        ([], [b"Accept", b"accept"], [(b"vary", b"accept")]),
        ([(b"vary", b"Accept")], [b"accept"], [(b"vary", b"Accept")]),
        ([(b"vary", b"a")], [b"B", b"c"], [(b"vary", b"a, B, c")]),
        ([(b"vary", b"")], [b"a"], [(b"vary", b"a")]),
        ([(b"vary", b"*")], [b"a"], [(b"vary", b"*")]),
        (
            [(b"vary", b"a"), (b"x", b"1"), (b"vary", b"b"), (b"x", b"2")],
            [b"b", b"c"],
            [(b"vary", b"a"), (b"x", b"1"), (b"vary", b"b, c"), (b"x", b"2")],
        ),
    ],
)
def test_adding_names_adds_only_what_is_missing(
    headers: list[tuple[bytes, bytes]], names: list[bytes], expected: list[tuple[bytes, bytes]]
) -> None:
    """Lines keep their order and bytes, and the given list is not changed."""
    before = list(headers)
    assert add_vary(headers, names) == expected
    assert headers == before


lines = st.lists(st.text("aB,* \t;", max_size=12).map(str.encode), max_size=4)


@given(lines)
@settings(max_examples=200)
def test_what_was_parsed_survives_serialising(values: list[bytes]) -> None:
    """parse∘serialise∘parse is parse."""
    names = parse_vary(values)
    assert parse_vary([serialise_vary(names)]) == names


@given(lines, st.lists(st.sampled_from([b"a", b"B", b"ab", b"Accept"]), max_size=4))
@settings(max_examples=200)
def test_added_names_are_there_once_and_nothing_is_lost(values: list[bytes], added: list[bytes]) -> None:
    """The field afterwards names the union, and adding again changes nothing."""
    headers = [(b"vary", value) for value in values]
    after = add_vary(headers, added)
    before, names = parse_vary(values), parse_vary([value for _, value in after])
    if before is ANY_FIELD:
        assert names is ANY_FIELD
    else:
        assert names == tuple(sorted({*before, *(name.lower() for name in added)}))
    assert add_vary(after, added) == after
