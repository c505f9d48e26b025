"""The normal form of Accept-Encoding: RFC 9110 §12.5.3."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.accept_encoding import (
    MAX_LENGTH,
    MAX_MEMBERS,
    normalise_accept_encoding,
)

OPAQUE = re.compile(rb"~[0-9a-f]{32}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b""),
        (b"", b","),
        (b" , ", b","),
        (b"gzip", b"gzip"),
        (b" GZip\t", b"gzip"),
        (b"gzip, br", b"br,gzip"),
        (b"br,gzip", b"br,gzip"),
        (b"gzip, gzip;q=1, gzip;q=1.000, gzip ; q=1.", b"gzip"),
        (b"gzip;Q=0.50", b"gzip;q=0.5"),
        (b"br;q=0.1, gzip;q=0.125, zstd", b"zstd,gzip;q=0.125,br;q=0.1"),
        (b"gzip;q=0", b"gzip;q=0"),
        (b"gzip;q=0.000, *", b"*,gzip;q=0"),
        (b"*;q=0, identity", b"identity,*;q=0"),
        (b"gzip;q=0.001", b"gzip;q=0.001"),
        (b"x-gzip", b"x-gzip"),
        (b"x-gzip, gzip", b"gzip,x-gzip"),
    ],
)
def test_values_that_say_the_same_have_one_form(value: bytes | None, expected: bytes) -> None:
    """White space, case, order, duplicates and the spelling of weights leave no trace."""
    assert normalise_accept_encoding(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"gzip;q=x",
        b"gzip;q=",
        b"gzip;q",
        b"gzip;",
        b"gzip;q=1.001",
        b"gzip;q=2",
        b"gzip;q=0.1234",
        b"gzip;q=-0",
        b"gzip;q = 1",
        b"gzip;level=1",
        b"gzip;q=1;x=y",
        b"gzip br",
        b'"gzip"',
        b"gz\xfcp",
        b"gzip\x00",
        b";q=1",
        b"gzip, gzip;q=0",
        b"gzip;q=0, gzip",
        b"~" + b"0" * 32,
        b"gzip," * (MAX_MEMBERS + 1),
        b"a" * (MAX_LENGTH + 1),
    ],
)
def test_what_cannot_be_read_is_compared_by_its_bytes(value: bytes) -> None:
    """Malformed, contradictory or huge values get a bounded form that only their like share."""
    form = normalise_accept_encoding(value)
    assert OPAQUE.fullmatch(form)
    assert form == normalise_accept_encoding(bytes(bytearray(value)))
    assert form != normalise_accept_encoding(value + b" ")


def test_the_bounds_themselves_are_still_read() -> None:
    """64 members and 1,024 bytes are within the bounds, empty members not counted."""
    members = [b"c%d" % number for number in range(MAX_MEMBERS)]
    assert normalise_accept_encoding(b",,".join(members)) == b",".join(sorted(members))
    assert normalise_accept_encoding(b"a" * MAX_LENGTH) == b"a" * MAX_LENGTH


def test_values_that_differ_for_a_handler_stay_apart() -> None:
    """No line, an empty one, a refused coding and an accepted one are four variants."""
    values = [None, b"", b"gzip", b"gzip;q=0", b"x-gzip", b"identity", b"*", b"gzip;q=0.5"]
    assert len({normalise_accept_encoding(value) for value in values}) == len(values)


codings = st.sampled_from([b"gzip", b"br", b"zstd", b"deflate", b"*", b"identity", b"x-gzip"])
weights = st.integers(0, 1000)


def spell(coding: bytes, weight: int, style: int) -> bytes:
    """One of several spellings of a member; the style is any number."""
    number = b"1.000" if weight == 1000 else b"0.%03d" % weight
    if style & 1:
        number = number.rstrip(b"0") if number != b"0.000" else b"0"
    name = coding.upper() if style & 2 else coding
    return name + (b" ;\tQ=" if style & 4 else b";q=") + number


@given(
    st.dictionaries(codings, weights, min_size=1),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 7), min_size=7, max_size=7),
)
@settings(max_examples=200)
def test_every_spelling_of_a_preference_has_the_same_form(
    preference: dict[bytes, int], random: Random, styles: list[int]
) -> None:
    """Shuffled, respelt and doubled, a preference keeps its form; and the form is its own form."""
    plain = b",".join(spell(coding, weight, 0) for coding, weight in preference.items())
    members = [
        spell(coding, weight, style) for (coding, weight), style in zip(preference.items(), styles, strict=False)
    ] * 2
    random.shuffle(members)
    form = normalise_accept_encoding(plain)
    assert normalise_accept_encoding(b" , ".join(members)) == form
    assert normalise_accept_encoding(form) == form


@given(st.dictionaries(codings, weights), st.dictionaries(codings, weights))
@settings(max_examples=200)
def test_two_preferences_have_two_forms(one: dict[bytes, int], other: dict[bytes, int]) -> None:
    """The form loses nothing of what is accepted with which weight."""
    forms = [
        normalise_accept_encoding(b",".join(spell(*member, 1) for member in preference.items()))
        for preference in (one, other)
    ]
    assert (forms[0] == forms[1]) is (one == other)
